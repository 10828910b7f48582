#!/usr/bin/env bash
# A real kubelet beside the agent: standalone, with static pods, on a real
# containerd. Each source of names alone and all together must give every row
# its right names; /metrics/cadvisor, /stats/summary and /metrics/resource must have
# the rows, fields and figures of the kubelet's own.
#
# Needs root and a Go toolchain, with which it builds the kubelet once (four
# minutes on two cores; kept in target/e2e). That is why `run.sh` runs it only
# where the kubelet was built before, or where E2E_KUBELET=1 asks for it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
trap cleanup EXIT

. "$here/kubelet/machine.sh"

# agent LOG FLAGS...: starts one on a free port, which is in $port.
agent() {
  local log=$1
  shift
  free_port port
  background "$work/$log" "$agent" agent --listen "127.0.0.1:$port" --interval 500ms --timestamps on --node-name node-e2e "$@"
  wait_for 20 curl -fs "http://127.0.0.1:$port/readyz"
}
# names: the (pod, container) pairs with CPU figures.
names() {
  curl -fs "http://127.0.0.1:$port/metrics/cadvisor" >"$work/metrics"
  sed -n 's/^container_cpu_user_seconds_total{container="\([^"]*\)".*namespace="e2e",pod="\([^"]*\)".*/\2 \1/p' "$work/metrics" | sort -u
}
expected() {
  local name
  for name in onhost plain withinit; do
    printf '%s\n' "$name-node-e2e " "$name-node-e2e idle" "$name-node-e2e work"
  done
}
# Of the pods that stay; the crashing one and those of starts.py come and go.
named() { [ "$(names | grep -v '^crashing\|^start-')" = "$(expected | sort -u)" ]; }

for source in all cri logs; do
  case $source in
  all) flags=(--max-age 200ms --kubelet http://127.0.0.1:10255) ;;
  cri) flags=(--max-age 200ms --kubelet none) ;;
  # Only what the log directories tell: no pause container, no image.
  logs) flags=(--max-age 200ms --kubelet none --runtime none) ;;
  esac
  agent "agent-$source.log" "${flags[@]}"
  check "names from $source" wait_for 15 named
  if [ "$source" = all ]; then
    check "a host-network pod has no network figures" \
      [ "$(grep -c '^container_network_receive_bytes_total{.*pod="onhost' "$work/metrics")" = 0 ]
    check "a pod's network is on its pause container's row" \
      [ "$(grep -c '^container_network_receive_bytes_total{container="",.*image="nodegauge.test/pause:1",.*interface="eth0".*pod="plain\|^container_network_receive_bytes_total{container="",.*image="nodegauge.test/pause:1".*pod="plain-node-e2e".*interface="eth0"' "$work/metrics")" = 1 ]
    side_by_side=$port
  else
    kill "${started[-1]}" && wait "${started[-1]}" 2>/dev/null || true
    unset 'started[-1]'
  fi
done

python3 "$here/kubelet/compare.py" "http://127.0.0.1:10255/metrics/cadvisor" "http://127.0.0.1:$side_by_side/metrics/cadvisor" \
  >"$work/compare" && ok=yes || ok=no
cat "$work/compare"
check "the kubelet's own /metrics/cadvisor has the same rows, and figures within tolerance" [ "$ok" = yes ]

# The writable layers are measured in the background: until then they are missing.
stored() {
  curl -fs "http://127.0.0.1:$side_by_side/stats/summary" |
    jq -e '[.pods[] | select(.podRef.name | startswith("plain")) | .["ephemeral-storage"], .volume[0], .containers[].rootfs] | all'
}
wait_for 120 stored || true
python3 "$here/kubelet/summary.py" http://127.0.0.1:10255 "http://127.0.0.1:$side_by_side" >"$work/summary" && ok=yes || ok=no
cat "$work/summary"
check "the kubelet's own /stats/summary and /metrics/resource have no field that ours lack, and agree" [ "$ok" = yes ]

# What a container wrote, and what its pod keeps: found by the walker in its time.
disk_usage() {
  curl -fs "http://127.0.0.1:$side_by_side/metrics" >"$work/metrics"
  sed -n "s/^nodegauge_disk_usage_bytes{container=\"$1\".*namespace=\"e2e\",pod=\"plain-node-e2e\".*$2.*} \([0-9]*\).*/\1/p" "$work/metrics"
}
measured() { [ -n "$(disk_usage work 'part="layer"')" ] && [ -n "$(disk_usage '' 'volume="data"')" ]; }
wait_for 120 measured || true
id=$(sed -n 's/^container_cpu_user_seconds_total{container="work",id="\([^"]*\)".*pod="plain-node-e2e".*/\1/p' "$work/metrics")
work_pid=$(head -1 /sys/fs/cgroup"$id"/cgroup.procs 2>/dev/null || head -1 /sys/fs/cgroup/memory"$id"/cgroup.procs)
upper=$(sed -n 's|^[^ ]* [^ ]* [^ ]* [^ ]* / .*,upperdir=\([^,]*\),workdir=.*|\1|p' "/proc/$work_pid/mountinfo")
check "the layer of a container is what du finds: $(disk_usage work 'part="layer"')" \
  [ "$(disk_usage work 'part="layer"')" = "$(du -sx --block-size=1 "$upper" | cut -f 1)" ]
check "its pod's volume is what du finds: $(disk_usage '' 'volume="data"')" \
  [ "$(disk_usage '' 'volume="data"')" = "$(du -sx --block-size=1 /var/lib/kubelet/pods/*/volumes/kubernetes.io~empty-dir/data | cut -f 1)" ]

# By an agent that scrapes do not cause to tick.
agent agent-starts.log --kubelet http://127.0.0.1:10255 --max-age 1m
check "pods are named at once" python3 "$here/kubelet/starts.py" "http://127.0.0.1:$port/metrics/cadvisor" \
  "$work/manifests" "$work/root/io.containerd.grpc.v1.cri" 0.5 "${E2E_STARTS:-40}"

# The runtime hangs, then dies: ticks stay on time, names stay and new ones come. What
# a busy machine costs in ticks is told by an agent that knows of no runtime.
own() { curl -fs "http://127.0.0.1:$1/metrics/self" | awk -v name="$2" '$1 == name { printf "%d", $2 }'; }
missed() { own "$1" nodegauge_ticks_missed_total; }
ticks() { own "$1" 'nodegauge_ticks_total{origin="grid"}'; }
agent agent-alone.log --kubelet none --runtime none
alone=$port port=$side_by_side
# steady MISSED MISSED_ALONE: not clearly more than the other one missed in the same time.
steady() { [ "$1" -le $((2 * $2 + 2)) ]; }
missed=$(missed "$port") missed_alone=$(missed "$alone")
before=$(ticks "$port") before_alone=$(ticks "$alone")
seconds=${E2E_STOP_SECONDS:-10}
kill -STOP "$daemon"
sleep "$seconds"
ticks=$(($(ticks "$port") - before)) ticks_alone=$(($(ticks "$alone") - before_alone))
named && pass "names stay while containerd hangs" || fail "names went while containerd hung"
kill -CONT "$daemon"
check "$ticks ticks in $seconds s in which containerd hung, $ticks_alone without a runtime" \
  [ "$ticks" -ge $((ticks_alone * 3 / 4 - 1)) -a "$ticks_alone" -gt 0 ]
kill -KILL "$daemon"
wait "$daemon" 2>/dev/null || true
sleep 2
named && pass "names stay while containerd is dead" || fail "names went with containerd"
background "$work/containerd.log" containerd --config "$work/config.toml"
daemon=$!
wait_for 30 ctr version
pod later ''
expected() {
  local name
  for name in later onhost plain withinit; do
    printf '%s\n' "$name-node-e2e " "$name-node-e2e idle" "$name-node-e2e work"
  done
}
check "a pod that starts after containerd came back is named" wait_for 90 named
missed=$(($(missed "$port") - missed)) missed_alone=$(($(missed "$alone") - missed_alone))
check "$missed ticks missed meanwhile, $missed_alone without a runtime" steady "$missed" "$missed_alone"
finish
