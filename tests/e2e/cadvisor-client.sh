#!/usr/bin/env bash
# cAdvisor's own Go clients (client and client/v2) against the agent: they must
# decode its answers, and find in them what they look for. The agent is started
# with cAdvisor's command line.
#
# Needs a Go toolchain, root and a writable cgroup filesystem.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
trap stop EXIT

need curl curl
if ! command -v go >/dev/null; then
  say "no Go toolchain: not run"
  finish
  exit 0
fi
groups=("nodegauge-client-$$" "nodegauge-client-$$/inner")

stop() {
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  started=()
  # What was started in them may still be ending.
  wait_for 10 gone || say "left behind: ${groups[0]}"
  cleanup
}
gone() {
  local i controller
  for ((i = ${#groups[@]} - 1; i >= 0; i--)); do
    for controller in "" /cpu /cpuacct /memory; do rmdir "/sys/fs/cgroup$controller/${groups[i]}" 2>/dev/null || true; done
  done
  # `ls` of several names fails as soon as one of them is not there.
  ! compgen -G "/sys/fs/cgroup/${groups[0]}" && ! compgen -G "/sys/fs/cgroup/*/${groups[0]}"
}

agent=$(binary)
(cd "$here/cadvisor-client" && CGO_ENABLED=0 go build -trimpath -o "$work/client" .)

# Two cgroups in which something runs.
for group in "${groups[@]}"; do
  for controller in cpu cpuacct memory; do
    [ -d "/sys/fs/cgroup/$controller" ] && mkdir -p "/sys/fs/cgroup/$controller/$group"
  done
  [ -d /sys/fs/cgroup/memory ] || mkdir -p "/sys/fs/cgroup/$group"
done
# On v2 only leaves may have processes, and controllers have to be handed down.
if [ ! -d /sys/fs/cgroup/memory ]; then
  echo "+memory +cpu" >"/sys/fs/cgroup/cgroup.subtree_control" 2>/dev/null || true
  echo "+memory +cpu" >"/sys/fs/cgroup/${groups[0]}/cgroup.subtree_control" 2>/dev/null || true
fi
background "$work/busy.log" bash -c 'while :; do x=$(head -c 4000000 /dev/zero | base64 -w0); sleep 0.2; done'
busy=$!
for group in "${groups[@]}"; do
  for controller in "" /cpu /cpuacct /memory; do
    file="/sys/fs/cgroup$controller/$group/cgroup.procs"
    [ ! -f "$file" ] || echo "$busy" >"$file" 2>/dev/null || true
  done
done

free_port port
background "$work/agent.log" "$agent" -logtostderr -port="$port" -listen_ip=127.0.0.1 -housekeeping_interval=500ms \
  -storage_duration=1m -max_housekeeping_interval=15s -docker_only=false \
  -enable_metrics=cpu,memory,disk,diskIO,network,process,oom_event,pressure,sched,tcp,udp,advtcp,memory_numa,cpuset
wait_for 20 curl -fs "http://127.0.0.1:$port/readyz" || { cat "$work/agent.log"; fail "the agent does not start"; finish; exit 1; }
check "a flag without effect is told" grep -q max_housekeeping_interval "$work/agent.log"
# Three samples of a cgroup that is there.
samples() { [ "$(curl -fs "http://127.0.0.1:$port/api/v2.1/stats/${groups[1]}" | grep -o '"timestamp"' | wc -l)" -ge 3 ]; }
wait_for 30 samples || true
"$work/client" "http://127.0.0.1:$port/" "/${groups[0]}" >"$work/told" && ok=yes || ok=no
grep -v '^ok' "$work/told" || true
check "cAdvisor's clients: $(grep -c '^ok' "$work/told") checks" [ "$ok" = yes ]
finish
