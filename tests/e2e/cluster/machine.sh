# A whole Kubernetes of one node: sourced by the scripts that need one, after lib.sh and
# with `here` set: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, a kubelet
# and containerd, with the images of deploy/ loaded. Leaves what kubelet/runtime.sh and
# kubectl/control.sh leave, `k WORDS...`, which is kubectl as an administrator, `$manifests`,
# `$state` (cluster/stand_in.py), and volumes.
#
# It runs as root in mount, network and process namespaces of its own, which end with it:
# the script that sources this is started again in them. Everybody's logs are copied to
# the directory E2E_LOGS, if that is set.
# What of this machine Kubernetes writes to: inside, each is another directory.
own=(/var/lib/nodegauge /var/lib/kubelet /var/lib/containerd /var/log/pods /var/log/containers /run/containerd /run/netns)
if [ -z "${E2E_INSIDE:-}" ]; then
  if find /sys/fs/cgroup -path '*/kubepods*' -name cgroup.procs -exec cat {} + 2>/dev/null | grep -q .; then
    say "this machine runs Kubernetes already: not touched"
    cleanup
    exit 0
  fi
  need containerd containerd runc
  need ip iproute2
  need etcd etcd-server
  need prometheus prometheus
  need influxd influxdb
  need curl curl
  need jq jq
  need openssl openssl
  need python3 python3
  [ -d /usr/lib/cni ] || need no-such-command containernetworking-plugins
  [ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || need busybox busybox-static
  NODEGAUGE=$(binary)
  "$here/kubelet/build.sh" >/dev/null
  "$here/kubectl/build.sh" apiserver kubectl controller-manager scheduler >/dev/null
  made=()
  for directory in "${own[@]}"; do [ -e "$directory" ] || { mkdir -p "$directory"; made+=("$directory"); }; done
  # SIGTERM does not reach who waits for namespaces; its end ends what is inside.
  TMPDIR=$work E2E_INSIDE=1 NODEGAUGE=$NODEGAUGE \
    unshare -m -n -p --fork --kill-child=TERM --propagation shared --mount-proc "$0" &
  inside=$!
  trap 'kill -KILL $inside; wait_for 60 test -e "$work/ended" || true; exit 143' INT TERM
  trap 'rm -rf "$work"; [ -z "${made[*]}" ] || rmdir "${made[@]}" 2>/dev/null || true' EXIT
  result=0
  wait $inside || result=$?
  exit $result
fi
trap 'exit 143' INT TERM
export PYTHONDONTWRITEBYTECODE=1
for directory in "${own[@]}"; do
  mkdir -p "$work/own$directory"
  mount --bind "$work/own$directory" "$directory"
done
# The node's network: what routes of pods end at, and the address of the API server in them.
kube_ip=10.96.0.1 kube=443 dns=10.96.0.10 routes='{"dst":"0.0.0.0/0"}' containerd_root=/var/lib/containerd
ip link set lo up
ip link add eth0 type veth peer name uplink
ip link set uplink up
ip link set eth0 up
ip address add $kube_ip/32 dev lo
ip address add $dns/32 dev lo

. "$here/kubelet/runtime.sh"
apiserver_flags=(--kubelet-client-certificate kubelet-client.crt --kubelet-client-key kubelet-client.key
  --kubelet-preferred-address-types InternalIP)
. "$here/kubectl/control.sh"
end() {
  [ -z "${E2E_LOGS:-}" ] || cp ./*.log ./*.json "$E2E_LOGS"
  stop_control
  end_runtime
  # Who made the namespaces removes what is left, once they are gone.
  cleanup 2>/dev/null || true
  touch "$TMPDIR/ended"
}
trap end EXIT
manifests=$root/deploy/kubernetes
ip route add default dev eth0
k() { as admin "$@"; }

"$root/deploy/image.sh" --version 0.1.0 "$agent" image.tar >/dev/null
"$here/image.sh" init.tar docker.io/library/busybox:1.36 /bin/sh
EXTRA='/usr/bin/influxd /etc/influxdb/influxdb.conf' "$here/image.sh" influxdb.tar docker.io/library/influxdb:1.8 /usr/bin/influxd
for image in image init influxdb; do ctr images import $image.tar >/dev/null; done
: >resolv.conf
cat >kubelet.yaml <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $work/cluster.crt}}
authorization: {mode: Webhook}
address: $address
healthzPort: 0
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
clusterDNS: [$dns]
clusterDomain: cluster.local
resolvConf: $work/resolv.conf
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
enforceNodeAllocatable: []
evictionHard: {memory.available: 1Mi, nodefs.available: 1Mi}
# Images that were loaded cannot be pulled again.
imageGCHighThresholdPercent: 100
YAML
background kubelet.log "$kubelet" --config kubelet.yaml --kubeconfig node.conf --hostname-override node-e2e --node-ip "$address"
kubelet_pid=$!
background controller-manager.log "$built/controller-manager" --kubeconfig admin.conf --leader-elect=false \
  --controllers '*,-nodeipam,-cloud-node-lifecycle-controller' --service-account-private-key-file sa.key \
  --root-ca-file cluster.crt --bind-address 127.0.0.1 --horizontal-pod-autoscaler-sync-period 5s
background scheduler.log "$built/scheduler" --kubeconfig admin.conf --leader-elect=false --bind-address 127.0.0.1
export API=https://$kube_ip TOKEN=admin-token CA=$work/cluster.crt
free_port state
background names.log python3 "$here/cluster/stand_in.py" names $dns
background state.log python3 "$here/cluster/stand_in.py" state "$state"
node_ready() { k get node node-e2e -o json | jq -e '.status.conditions[] | select(.type == "Ready") | .status == "True"'; }
wait_for 120 node_ready || { tail -n 5 kubelet.log controller-manager.log; fail "the node is not ready"; finish; exit 1; }
pass "a node of Kubernetes $(k get node node-e2e -o jsonpath='{.status.nodeInfo.kubeletVersion}') is ready"

# Who provisions volumes is not there; and the Prometheus operator's kind, for the overlays.
for i in 0 1 2; do
  mkdir -p "volumes/$i"
  k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: PersistentVolume
metadata: {name: volume-$i}
spec:
  capacity: {storage: 20Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  local: {path: $work/volumes/$i}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node-e2e]}]}]}}
YAML
done
k apply -f - >/dev/null <<YAML
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: ServiceMonitor, listKind: ServiceMonitorList, plural: servicemonitors, singular: servicemonitor}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
YAML

# rolled WHAT: it is as it is described, and ready.
rolled() {
  k -n nodegauge rollout status "$1" --timeout 180s >rollout.log 2>&1 && return
  cat rollout.log
  k -n nodegauge get pods -o wide
  k -n nodegauge get events | tail -n 20
  for pod in $(k -n nodegauge get pods -o name); do k -n nodegauge logs "$pod" --tail 5; done
  fail "$1 does not become ready"
  finish
  exit 1
}
