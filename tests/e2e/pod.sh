#!/usr/bin/env bash
# The agent's pod as deploy/kubernetes ships it, run by a real kubelet and containerd:
# its init container, security context, mounts and probes, in the base and with the
# profile `processes`. It is a static pod, which may have neither Secrets nor a service
# account: certificates come from a directory, what it pushes to is away, and names come from
# the log directories.
#
# Needs what kubelet.sh needs.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
trap cleanup EXIT
# The queue's directory on the node is this machine's: not one that somebody uses.
queue=/var/lib/nodegauge
[ ! -e $queue ] || { say "$queue is in use: not touched"; finish; exit 0; }
. "$here/kubelet/machine.sh"
end_pods() { rm -rf $queue; stop; }
trap end_pods EXIT
kubectl=$(command -v kubectl || echo "$("$here/kubectl/build.sh")/kubectl")

"$root/deploy/image.sh" --version 0.1.0 "$agent" "$work/image.tar" >/dev/null
"$here/image.sh" "$work/init.tar" docker.io/library/busybox:1.36 /bin/sh
ctr images import "$work/image.tar" >/dev/null
ctr images import "$work/init.tar" >/dev/null
mkdir "$work/tls"
"$root/deploy/kubernetes/certificates.sh" -d "$work/ca" >/dev/null
for file in ca.crt nodegauge-agent.crt nodegauge-agent.key; do cp "$work/ca/$file" "$work/tls/${file/nodegauge-agent/tls}"; done
chmod 0755 "$work" "$work/tls"
chmod 0644 "$work/tls"/*

# Where the machine's own root is not shared, as systemd has it, nothing propagates.
private=''
findmnt -no PROPAGATION / | grep -q shared || private='/mountPropagation: HostToContainer/d;'

# static DIRECTORY: the pod of its DaemonSet.
static() {
  printf 'apiVersion: v1\nkind: Pod\n'
  "$kubectl" kustomize "$1" | awk 'BEGIN { RS = "---\n" } /\nkind: DaemonSet\n/' |
    awk '/^  updateStrategy:/ { exit } on { print } /^  template:/ { on = 1 }' | sed 's/^    //' |
    sed "s|^metadata:|metadata:\n  name: nodegauge\n  namespace: e2e|
      s|--push=aggregator:https://nodegauge-aggregator-0.*|--push=remote-write:http://127.0.0.1:9/api/v1/write|; /--push=aggregator/d; $private
      /serviceAccountName:/d; /priorityClassName:/d
      s|--auth=kubernetes|--auth=none|; s|--kubelet=https.*|--kubelet=none|" |
    awk -v tls="$work/tls" '/^    secret:/ || /^    projected:/ || /^    - secret:/ { print "    hostPath: {path: " tls "}"; skip = 1; next }
      skip && /^      / { next } skip && /^    name:/ { skip = 0 } /^  - / { skip = 0 } { print }' |
    sed "s|^  - projected:|  - hostPath: {path: $work/tls}|; s|^  - secret:|  - hostPath: {path: $work/tls}|"
}
# shown: what the kubelet says of the pod.
shown() { curl -fs http://127.0.0.1:10255/pods | jq '.items[] | select(.metadata.name == "nodegauge-node-e2e")'; }
is_ready() { shown | jq -e '.status.containerStatuses[0].ready'; }
metrics() { curl -fsk "https://$(shown | jq -r .status.podIP):4194/metrics" >"$work/metrics"; }
process() { pgrep -f '^/nodegauge agent --host-root=/host' | head -n 1; }
caps() { awk '$1 == "Uid:" || $1 == "CapEff:" { print $2 }' "/proc/$(process)/status" | paste -sd ' '; }
# row FAMILY CONTAINER: of the pod `plain` that runs beside it, with a figure over 0.
row() { metrics && grep -qE "^$1\{.*container=\"$2\".*pod=\"plain-node-e2e\".*\} [0-9.]*[1-9]" "$work/metrics"; }
# start DIRECTORY
start() {
  static "$1" >"$work/pod.yaml"
  cp "$work/pod.yaml" "$work/manifests/nodegauge.yaml"
  wait_for 120 is_ready || { shown | jq .status; tail -n 5 "$work/kubelet.log"; cat "$work/pod.yaml"; fail "the pod is not ready"; finish; exit 1; }
}

start "$root/deploy/kubernetes/base"
pass "the pod of the base is ready, by its own probes"
check "as 65534, without a capability" [ "$(caps)" = "65534 0000000000000000" ]
queued() { [ "$(stat -c '%u %a' $queue) $(stat -c %u $queue/* | sort -u)" = "65534 750 65534" ]; }
check "what it queues is its own, on the node" wait_for 30 queued
for family in container_cpu_usage_seconds_total container_memory_working_set_bytes; do
  check "$family of another pod's container, with its names" wait_for 60 row $family work
done
check "network figures of another pod" wait_for 60 row container_network_receive_bytes_total ''
check "no descriptors" bash -c "! grep -q '^container_file_descriptors' '$work/metrics'"

rm "$work/manifests/nodegauge.yaml"
gone() { [ -z "$(shown)" ] && [ -z "$(process)" ]; }
wait_for 60 gone || fail "the pod does not end"
start "$root/deploy/kubernetes/overlays/processes"
pass "the pod of the profile processes is ready"
check "as root with SYS_PTRACE and DAC_READ_SEARCH" [ "$(caps)" = "0 0000000000080004" ]
check "the queue of the other profile is its own" [ "$(stat -c '%u' $queue $queue/* | sort -u)" = 0 ]
check "descriptors of another pod's container" wait_for 60 row container_file_descriptors work
finish
