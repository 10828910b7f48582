#!/usr/bin/env bash
# What fifty connections of `wrk` cost an agent that ticks once a second over 500 cgroups:
# answers, their time and size, and the agent's CPU for each, ticks included. What is answered
# from one tick is made once for all who ask, so CPU for each falls with their number.
#
#   tests/bench/wrk.sh                  NODEGAUGE=BINARY, WRK_SECONDS=8, CGROUPS=500
#
# Needs root and a writable cgroup filesystem. Figures are printed; what fails is an answer
# that is missing and a tick that was missed more often than without any load.
set -euo pipefail
. "$(dirname "$0")/../e2e/lib.sh"
need wrk wrk
need curl curl
agent=$(binary)
cgroups=${CGROUPS:-500} seconds=${WRK_SECONDS:-8}

name=nodegauge-wrk-$$
roots=()
for root in /sys/fs/cgroup/{cpu,cpuacct,memory,blkio,pids}; do [ -d "$root" ] && roots+=("$root"); done
[ ${#roots[@]} -gt 0 ] || roots=(/sys/fs/cgroup)
stop() {
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  started=()
  for root in "${roots[@]}"; do
    [ -d "$root/$name" ] && find "$root/$name" -depth -type d -exec rmdir {} \;
  done
  cleanup
}
trap stop EXIT
for root in "${roots[@]}"; do
  mkdir -p "$root/$name"
  # On v2 controllers have to be handed down.
  [ "$root" != /sys/fs/cgroup ] || sed 's/[a-z]*/+&/g' "$root/$name/cgroup.controllers" >"$root/$name/cgroup.subtree_control" || true
  (cd "$root/$name" && seq -f 'container-%03g' "$cgroups" | xargs mkdir)
done

free_port port
background "$work/agent.log" "$agent" agent --listen "127.0.0.1:$port" --interval 1s --node-name wrk --runtime none --kubelet none
agent_pid=$!
url=http://127.0.0.1:$port
wait_for 30 curl -fs "$url/readyz" || { cat "$work/agent.log"; fail "the agent does not start"; finish; exit 1; }
# From another address than wrk's, which is held to a rate.
own() { curl -fs --interface 127.0.0.2 "$url/metrics/self" | awk -v name="$1" '$1 == name { printf "%d", $2 }'; }
# Ticks, misses and CPU in hundredths of a second, so far.
so_far() { echo "$(own 'nodegauge_ticks_total{origin="grid"}') $(own nodegauge_ticks_missed_total) $(sed 's/.*) //' "/proc/$agent_pid/stat" | awk '{ print $12 + $13 }')"; }
load=$(cut -d ' ' -f 1 /proc/loadavg)
# idle HUNDREDTHS: of a second without anybody who asks.
read -r t0 m0 c0 <<<"$(so_far)"
sleep "$seconds"
read -r t1 m1 c1 <<<"$(so_far)"
idle=$((c1 - c0)) missed=$((m1 - m0))
say "$cgroups cgroups on a machine with a load of $load: a tick takes $((10 * idle / (t1 > t0 ? t1 - t0 : 1))) ms of CPU; $missed of $((t1 - t0 + missed)) missed"

for load in /metrics/cadvisor:identity /metrics/cadvisor:gzip /metrics:identity /metrics:gzip /stats/summary:identity; do
  path=${load%:*} encoding=${load##*:}
  size=$(curl -fs --interface 127.0.0.2 -H "accept-encoding: $encoding" "$url$path" | wc -c)
  lines=$(curl -fs --interface 127.0.0.2 "$url$path" | grep -vc '^#' || true)
  read -r t0 m0 c0 <<<"$(so_far)"
  wrk -t 1 -c 50 -d "${seconds}s" --latency -H "accept-encoding: $encoding" "$url$path" >"$work/wrk"
  read -r t1 m1 c1 <<<"$(so_far)"
  read -r answers refused middle worst <<<"$(awk '/requests in/ { r = $1 } /Non-2xx/ { n = $NF } /50%/ { m = $2 } /99%/ { w = $2 } END { print r - n, n + 0, m, w }' "$work/wrk")"
  say "$path ($encoding): $lines lines, $size bytes; $answers answers, $refused refused; half within $middle, 99 % within $worst; $(awk -v c=$((c1 - c0 - idle)) -v n="$answers" 'BEGIN { printf "%.2f", c * 10 / (n ? n : 1) }') ms of CPU for each; $((t1 - t0)) ticks, $((m1 - m0)) missed"
  check "$path ($encoding) is answered" [ "$answers" -gt 0 ]
  check "ticks go on" [ $((m1 - m0)) -le $((2 * missed + 1)) ]
done
finish
