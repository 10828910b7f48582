#!/usr/bin/env bash
# Of containers that live for 200 ms to 2 s at least 95 % are a series of their own in
# some scrape and in some pushed step, and at least 80 % of their CPU time is on those:
# at an interval of 1 s that is scraped every 5 s, and of 10 s every 10 s. 80 containers;
# E2E_FULL=1 makes 1,000, in about four minutes. E2E_UNIFIED=0 hides a v2 hierarchy that
# is beside v1 from the agents, so that no kernel tells them of an end. CADVISOR=/path
# is run beside, for its figure. E2E_RATE containers begin each second, and each cgroup
# is removed E2E_REMOVAL_MS after its end: 20, since a container manager hears of the end,
# then starts a program that removes it. `runc run` alone takes 1. E2E_DOCKER=1 takes
# containers of a real Docker instead, 200 in the full form, one begun each second. Needs root.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
trap cleanup EXIT

need python3 python3
need curl curl
agent=$(binary)
count=80
[ "${E2E_FULL:-0}" != 1 ] || count=1000
rate=${E2E_RATE:-5}
if [ "${E2E_DOCKER:-0}" = 1 ]; then
  rate=${E2E_RATE:-1}
  [ "$count" = 80 ] || count=200
fi
parent=nodegauge-short-$$
removal=${E2E_REMOVAL_MS:-20}

stop() {
  local directory point
  for point in $(grep -o " $work[^ ]*" /proc/self/mountinfo | sort -ru); do umount "$point" 2>/dev/null || true; done
  cleanup
  # Left over only after a failure.
  for directory in /sys/fs/cgroup/$parent /sys/fs/cgroup/*/$parent; do
    [ ! -d "$directory" ] || find "$directory" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
trap stop EXIT

if [ "${E2E_DOCKER:-0}" = 1 ]; then
  need dockerd docker.io
  need iptables iptables
  [ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || need busybox busybox-static
  export DOCKER_HOST="unix://$work/docker.sock" DOCKER_IMAGE=nodegauge.test/busybox:1
  background "$work/dockerd.log" dockerd --host "$DOCKER_HOST" --data-root "$work/docker" --exec-root "$work/exec" \
    --pidfile "$work/docker.pid" --iptables=false --bridge=none
  wait_for 60 docker info || { tail -5 "$work/dockerd.log"; fail "dockerd does not start"; finish; exit 1; }
  "$(dirname "$0")/image.sh" "$work/busybox.tar" "$DOCKER_IMAGE" /bin/sh
  docker load -qi "$work/busybox.tar" >/dev/null
fi

hide=()
if [ "${E2E_UNIFIED:-1}" = 0 ]; then
  unified=$(awk '$3 == "cgroup2" { print $2 }' /proc/self/mounts)
  if [ -z "$unified" ] || ! grep -q ' cgroup rw' /proc/self/mounts; then
    say "no v2 hierarchy beside v1 here: nothing to hide"
    exit 0
  fi
  hide=(unshare --mount sh -c "umount $unified && exec \"\$@\"" sh)
fi

free_port receiver
watchers=("push:10s,pushed=$receiver")
for interval in 1 10; do
  free_port port
  push=()
  [ "$interval" = 1 ] || push=(--push "influxdb:http://127.0.0.1:$receiver?resolution=10s")
  background "$work/agent-$interval.log" "${hide[@]}" "$agent" agent --listen "127.0.0.1:$port" \
    --runtime none --kubelet none --interval "${interval}s" "${push[@]}"
  wait_for 20 curl -fs "http://127.0.0.1:$port/readyz" || fail "the agent is not ready: $(tail -3 "$work/agent-$interval.log")"
  every=$((interval < 5 ? 5 : interval))
  watchers+=("${interval}s,scraped=http://127.0.0.1:$port/metrics@$every")
  printf -v "port_$interval" %s "$port"
  printf -v "pid_$interval" %s "$!"
done
if [ -n "${CADVISOR:-}" ]; then
  free_port port
  background "$work/cadvisor.log" "$CADVISOR" --listen_ip=127.0.0.1 --port="$port"
  wait_for 60 curl -fs "http://127.0.0.1:$port/metrics" || fail "cAdvisor does not start: $(tail -3 "$work/cadvisor.log")"
  watchers+=("cadvisor=http://127.0.0.1:$port/metrics@5")
fi

# User and system time of a process, hundredths of a second.
ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }
before_1=$(ticks "$pid_1") before_10=$(ticks "$pid_10") began=$SECONDS
python3 "$(dirname "$0")/shortlived.py" "$count" "$rate" "$removal" "$parent" "${watchers[@]}" >"$work/table"
took=$((SECONDS - began))

while read -r name containers asked failures seen cpu over; do
  say "$name: $seen % of $containers containers, $cpu % of their CPU, in $asked answers ($failures failed)"
  [ "$name" != cadvisor ] || continue
  check "$name: $seen % of the containers were seen, at least 95 %" awk "BEGIN { exit !($seen >= 95) }"
  check "$name: $cpu % of their CPU was seen, at least 80 %" awk "BEGIN { exit !($cpu >= 80) }"
  check "$name: no series says more than the kernel ($over)" [ "$over" = 0 ]
done < <(python3 -c '
import json, sys
for row in json.load(sys.stdin):
    print(*(row[key] for key in ("name", "containers", "asked", "failed", "seen", "cpu", "over")))' <"$work/table")

for interval in 1 10; do
  own=port_$interval pid=pid_$interval before=before_$interval
  curl -fs "http://127.0.0.1:${!own}/metrics/self" >"$work/self"
  say "interval ${interval}s: $(($(ticks "${!pid}") - ${!before})) hundredths of a second of CPU in $took s, scrapes included"
  grep -E '^nodegauge_(container_|ticks_|cgroups_(appeared|vanished)|inotify_over)' "$work/self" | sed 's/^/  /'
  missed=$(awk '$1 == "nodegauge_ticks_missed_total" { printf "%d", $2 }' "$work/self")
  check "interval ${interval}s: $missed ticks were missed" [ "$missed" -le $((took / interval / 50)) ]
done
[ "$failed" = 0 ] || tail -n 5 "$work"/agent-*.log
finish
