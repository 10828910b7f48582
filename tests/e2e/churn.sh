#!/usr/bin/env bash
# Cgroups that come and go beside real containers: the agent's memory stays
# where it was. A minute by default; E2E_CHURN_SECONDS=600 is the full run, in
# which 2,000 cgroups are created and removed. Needs root and Docker.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
trap cleanup EXIT

need dockerd docker.io
need iptables iptables
need curl curl
[ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || need busybox busybox-static
agent=$(binary)
seconds=${E2E_CHURN_SECONDS:-60}
count=$((seconds * 10 / 3))

export DOCKER_HOST="unix://$work/docker.sock"
background "$work/dockerd.log" dockerd --host "$DOCKER_HOST" --data-root "$work/docker" --exec-root "$work/exec" \
  --pidfile "$work/docker.pid" --iptables=false --bridge=none --cgroup-parent "/nodegauge-churn-$$"
wait_for 60 docker info || { tail -5 "$work/dockerd.log"; fail "dockerd does not start"; finish; exit 1; }
stop() {
  docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1 || true
  local cgroup point
  for point in $(grep -o " $work[^ ]*" /proc/self/mountinfo | sort -ru); do umount "$point" 2>/dev/null || true; done
  cleanup
  for cgroup in /sys/fs/cgroup/nodegauge-churn-$$ /sys/fs/cgroup/*/nodegauge-churn-$$; do
    [ ! -d "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
trap stop EXIT
"$here/image.sh" "$work/busybox.tar" nodegauge.test/busybox:1 /bin/sleep 3600
docker load -qi "$work/busybox.tar" >/dev/null
for _ in 1 2 3; do docker run -d --net=none nodegauge.test/busybox:1 >/dev/null; done

free_port port
background "$work/agent.log" "$agent" agent --listen "127.0.0.1:$port" --interval 500ms --max-age 100ms
pid=$!
wait_for 20 curl -fs "http://127.0.0.1:$port/readyz"

# One directory in every hierarchy, as runtimes make them.
hierarchies=()
for directory in /sys/fs/cgroup /sys/fs/cgroup/*; do
  [ -f "$directory/cgroup.procs" ] && [ ! -L "$directory" ] && hierarchies+=("$directory")
done
resident() { awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"; }
own() { curl -fs "http://127.0.0.1:$port/metrics/self" | awk -v name="$1" '$1 == name { printf "%d", $2 }'; }

half=()
for i in $(seq "$count"); do
  id=$(printf '%064x' $((i * 7919 + $$)))
  for directory in "${hierarchies[@]}"; do mkdir -p "$directory/nodegauge-churn-$$/docker/$id" 2>/dev/null || true; done
  half+=("$id")
  sleep 0.25
  # Each lives for about ten others.
  if [ ${#half[@]} -gt 10 ]; then
    for directory in "${hierarchies[@]}"; do rmdir "$directory/nodegauge-churn-$$/docker/${half[0]}" 2>/dev/null || true; done
    half=("${half[@]:1}")
  fi
  if [ $((i % 10)) = 0 ]; then curl -fs "http://127.0.0.1:$port/metrics" >/dev/null; fi
  if [ $((i % (count / 10))) = 0 ]; then
    rss=$(resident)
    [ "$i" -gt $((count * 3 / 10)) ] && [ -z "${settled:-}" ] && settled=$rss
    say "after $i cgroups: $rss KiB resident"
  fi
done
end=$(resident)
check "$(own nodegauge_cgroups_appeared_total) cgroups were seen to come, $(own nodegauge_cgroups_vanished_total) to go" \
  [ "$(own nodegauge_cgroups_vanished_total)" -ge $((count * 8 / 10)) ]
check "memory is flat: $settled KiB after four tenths, $end KiB at the end" [ $((end - settled)) -le 1024 ]
missed=$(own nodegauge_ticks_missed_total)
ticks=$(own 'nodegauge_ticks_total{origin="grid"}')
# A busy machine may take a tick; what comes and goes may not.
check "$missed of $ticks ticks were missed" [ $((missed * 50)) -le "$ticks" ]
finish
