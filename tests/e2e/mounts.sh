#!/usr/bin/env bash
# Each mount and privilege of the agent's pod, as deploy/kubernetes ships it, is needed: on a
# real cluster (cluster/machine.sh) the pod runs beside ones that have all but one of
# them, and what those go without is named. package.sh does the same for single
# containers, with `/proc`, `/sys` and `/dev/kmsg`, which are not tried again here.
#
# Needs what cluster.sh needs.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
. "$here/cluster/machine.sh"

k apply -f "$manifests/base/namespace.yaml" >/dev/null
"$manifests/certificates.sh" -d ca | k apply -f - >/dev/null
k apply -k "$manifests/base" >/dev/null
rolled statefulset/nodegauge-aggregator
# Its place is taken by the pods below.
k -n nodegauge delete daemonset nodegauge-agent --wait=true >/dev/null
k create serviceaccount reader -n nodegauge >/dev/null
k create clusterrolebinding reader --clusterrole=nodegauge-metrics-reader --serviceaccount=nodegauge:reader >/dev/null
token=$(k create token reader -n nodegauge --duration 2h)
# What is measured: a container of another user, with a volume and something in its layer.
k apply -f - >/dev/null <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: default}
spec:
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: work
    image: nodegauge.test/busybox:1
    command: [sh, -c, "dd if=/dev/zero of=/data/file bs=64k count=32; exec httpd -f -p 8080 -h /data"]
    securityContext: {runAsUser: 1500}
    volumeMounts: [{name: data, mountPath: /data}]
YAML

for profile in base overlays/processes; do
  k kustomize "$manifests/$profile" | k create --dry-run=client -f - -o json |
    jq -s '[.[] | if .kind == "List" then .items[] else . end | select(.kind == "DaemonSet")][0].spec.template.spec' >"${profile##*/}.json"
done
# start NAME PROFILE CHANGE: the pod of a profile as jq's CHANGE leaves it, with a queue of its own.
start() {
  jq --arg name "$1" 'def mount(f): .containers[0].volumeMounts |= map(select(f));
    def flag(f): .containers[0].args |= map(select(f));
    (.volumes[] | select(.name == "queue") | .hostPath.path) += "/" + $name
    | '"$3"' | {apiVersion: "v1", kind: "Pod", metadata: {name: $name, namespace: "nodegauge"}, spec: (. + {nodeName: "node-e2e"})}' \
    "$2.json" | k apply -f - >/dev/null
}
address() { k -n nodegauge get pod "$1" -o jsonpath='{.status.podIP}'; }
# has NAME PATH PATTERN: whether a row of the agent matches, with a figure over 0.
has() { curl -fsk -H "Authorization: Bearer $token" "https://$(address "$1"):4194$2" >rows && grep -qE "^$3 [0-9.e+]*[1-9]" rows; }
ready() { k -n nodegauge get pod "$1" -o json | jq -e '.status.containerStatuses[0].ready'; }
# with NAME WHAT PATH PATTERN: it has the row.
with() { wait_for 120 has "$1" "$3" "$4" && pass "$1: $2" || { k -n nodegauge logs "$1" --tail 5; fail "$1: no $2"; }; }
# without NAME WHAT PATH PATTERN: it runs, and has not.
without() {
  wait_for 120 ready "$1" || { k -n nodegauge get pod "$1" -o json | jq .status; fail "$1 is not ready"; return; }
  wait_for 20 curl -fsk -H "Authorization: Bearer $token" "https://$(address "$1"):4194/metrics" -o rows || { fail "$1 does not answer"; return; }
  ! has "$1" "$3" "$4" && pass "$1: no $2" || fail "$1: $2 all the same"
}
plain='[^}]*pod="plain"[^}]*\}'
named="container_memory_working_set_bytes\\{container=\"work\",$plain"
image="container_memory_working_set_bytes\\{container=\"work\",[^}]*image=\"nodegauge.test/busybox:1\"$plain"
network="container_network_receive_bytes_total\\{$plain"
sent='nodegauge_push_sent_steps_total\{[^}]*\}'
descriptors="container_file_descriptors\\{container=\"work\",$plain"
sockets="container_sockets\\{container=\"work\",$plain"
layer='nodegauge_disk_usage_bytes\{[^}]*pod="plain"[^}]*part="layer"[^}]*\}'
size='nodegauge_disk_usage_bytes\{container="work",[^}]*pod="plain"[^}]*part="logs"[^}]*\}'
volume='nodegauge_disk_usage_bytes\{[^}]*pod="plain"[^}]*volume="data"[^}]*\}'

start base base .
start base-without-host-pid base '.hostPID = false'
start base-without-kubelet-certificate base 'mount(.name != "kubelet-certificate")'
# Where the kubelet does not tell names.
names='(.containers[0].args |= map(sub("^--kubelet=.*"; "--kubelet=none")))'
start logs base "$names"
start logs-without-container-logs base "$names | mount(.name != \"container-logs\")"
start base-without-pod-logs base 'mount(.name != "pod-logs")'
start base-without-push-token base 'mount(.name != "push-token")'
start base-without-queue base 'mount(.name != "queue")'
start base-without-tls base 'mount(.name != "tls")'
for capability in CHOWN FOWNER DAC_READ_SEARCH; do
  name=init-without-$(tr A-Z_ a-z- <<<$capability)
  # As the agent of another profile leaves it.
  [ $capability != DAC_READ_SEARCH ] || install -d -o 65534 -g 65534 -m 0750 "/var/lib/nodegauge/$name" "/var/lib/nodegauge/$name/log"
  start "$name" base ".initContainers[0].securityContext.capabilities.add -= [\"$capability\"]"
done
start processes processes .
start processes-without-containerd processes 'mount(.name != "containerd")'
start processes-without-kubelet processes 'mount(.name != "kubelet")'
for capability in SYS_PTRACE DAC_READ_SEARCH; do
  start "processes-without-$(tr A-Z_ a-z- <<<$capability)" processes ".containers[0].securityContext.capabilities.add -= [\"$capability\"]"
done

with base "name and image of another pod's container" /metrics "$image"
with base "sizes of its logs" /metrics "$size"
with base "its network" /metrics "$network"
with base "steps that aggregators took" /metrics/self "$sent"
with logs "names from the log directories" /metrics "$named"
with processes "descriptors" /metrics "$descriptors"
with processes "sockets" /metrics "$sockets"
with processes "its layer" /metrics "$layer"
with processes "its volume" /metrics "$volume"
# What others have found meanwhile they have had time for, too.
sleep 20
without base-without-host-pid "network of pods" /metrics "$network"
without base-without-kubelet-certificate "images" /metrics "$image"
without logs-without-container-logs "names" /metrics "$named"
without base-without-pod-logs "sizes of logs" /metrics "$size"
without base-without-push-token "steps sent" /metrics/self "$sent"
without processes-without-containerd "layers" /metrics "$layer"
without processes-without-kubelet "volumes" /metrics "$volume"
without processes-without-sys-ptrace "sockets" /metrics "$sockets"
without processes-without-dac-read-search "descriptors" /metrics "$descriptors"
for name in base-without-queue base-without-tls; do
  ended() { k -n nodegauge get pod $name -o json | jq -e '.status.containerStatuses[0] | .restartCount > 0 and (.ready | not)'; }
  wait_for 60 ended && pass "$name does not start: $(k -n nodegauge logs $name --previous --tail 1 2>/dev/null | cut -c 1-120)" || fail "$name runs"
done
for name in init-without-chown init-without-fowner init-without-dac-read-search; do
  ended() { k -n nodegauge get pod $name -o json | jq -e '.status.initContainerStatuses[0].restartCount > 0'; }
  wait_for 60 ended && pass "$name: $(k -n nodegauge logs $name -c queue 2>&1 | tail -n 1 | cut -c 1-120)" || fail "$name succeeds"
done
finish
