# A real kubelet, standalone with static pods, on a real containerd: sourced by the
# scripts that need one, after lib.sh, with `here` set. Leaves the binary to test in
# `agent`, containerd's pid in `daemon`, and ends everything on exit.

need containerd containerd runc
need curl curl
need jq jq
need ip iproute2
need python3 python3
[ -d /usr/lib/cni ] || need no-such-command containernetworking-plugins
[ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || need busybox busybox-static
agent=$(binary)
kubelet=$("$here/kubelet/build.sh")
if [ -e /var/lib/kubelet/pods ] || [ -S /run/containerd/containerd.sock ] && ctr version >/dev/null 2>&1; then
  say "this machine runs Kubernetes or containerd already: not touched"
  finish
  exit 0
fi

mkdir -p "$work/cni" "$work/manifests"
cat >"$work/config.toml" <<TOML
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "/run/containerd/containerd.sock"
[ttrpc]
  address = "$work/ttrpc.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "nodegauge.test/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$work/cni"
TOML
cat >"$work/cni/10-bridge.conflist" <<JSON
{"cniVersion":"0.4.0","name":"nodegauge","plugins":[{"type":"bridge","bridge":"ngtest1","isGateway":true,
"ipMasq":false,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}]],"dataDir":"$work/ipam"}}]}
JSON
cat >"$work/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
address: 127.0.0.1
readOnlyPort: 10255
healthzPort: 0
staticPodPath: $work/manifests
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
podCIDR: 10.88.0.0/16
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
enforceNodeAllocatable: []
evictionHard: {memory.available: 1Mi, nodefs.available: 1Mi}
fileCheckFrequency: 1s
YAML

# pod NAME EXTRA [MOUNTS]: two containers, one that works a little and one that sleeps.
pod() {
  cat >"$work/manifests/$1.yaml" <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $1, namespace: e2e, labels: {app: $1}}
spec:
  terminationGracePeriodSeconds: 1
$2
  containers:
  - name: work
    image: nodegauge.test/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, "dd if=/dev/zero of=/data/f bs=64k count=32; while :; do dd if=/dev/zero of=/tmp/f bs=64k count=16 conv=notrunc 2>/dev/null; sleep 0.2; done"]
${3:-}
    resources: {requests: {cpu: 20m, memory: 16Mi}, limits: {memory: 64Mi}}
  - name: idle
    image: nodegauge.test/busybox:1
    imagePullPolicy: Never
    command: [sleep, "3600"]
YAML
}

stop() {
  rm -f "$work"/manifests/*
  local container
  if [ -n "${daemon:-}" ]; then
    for container in $(ctr -n k8s.io tasks ls -q 2>/dev/null); do ctr -n k8s.io tasks rm -f "$container" >/dev/null 2>&1 || true; done
  fi
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  started=()
  ip link delete ngtest1 2>/dev/null || true
  for point in $(grep -oE " ($work|/var/lib/kubelet)[^ ]*" /proc/self/mountinfo | sort -ru); do umount "$point" 2>/dev/null || true; done
  for cgroup in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do
    [ ! -d "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  rm -rf /var/lib/kubelet /var/log/pods/e2e_* /var/log/containers/*_e2e_* /run/containerd/containerd.sock*
  # Left by the kubelet; another's are not empty.
  rmdir /var/log/pods /var/log/containers 2>/dev/null || true
  cleanup
}
trap stop EXIT

export CONTAINERD_ADDRESS=/run/containerd/containerd.sock CONTAINERD_NAMESPACE=k8s.io
mkdir -p /run/containerd
background "$work/containerd.log" containerd --config "$work/config.toml"
daemon=$!
wait_for 30 ctr version || { tail -5 "$work/containerd.log"; fail "containerd does not start"; finish; exit 1; }
"$here/image.sh" "$work/pause.tar" nodegauge.test/pause:1 \
  /bin/sh -c 'trap "exit 0" TERM INT; while :; do sleep 3600 & wait $!; done'
"$here/image.sh" "$work/busybox.tar" nodegauge.test/busybox:1 /bin/sleep 3600
ctr images import "$work/pause.tar" >/dev/null
ctr images import "$work/busybox.tar" >/dev/null

pod plain '  volumes: [{name: data, emptyDir: {}}]' '    volumeMounts: [{name: data, mountPath: /data}]'
pod onhost '  hostNetwork: true'
pod withinit '  initContainers:
  - {name: prepare, image: "nodegauge.test/busybox:1", imagePullPolicy: Never, command: [sh, -c, "sleep 2"]}'
cat >"$work/manifests/crashing.yaml" <<YAML
apiVersion: v1
kind: Pod
metadata: {name: crashing, namespace: e2e}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: crash, image: "nodegauge.test/busybox:1", imagePullPolicy: Never, command: [sh, -c, "sleep 3; exit 3"]}
YAML
background "$work/kubelet.log" "$kubelet" --config "$work/kubelet.yaml" --hostname-override node-e2e
kubelet_pid=$!

# running POD N: the kubelet says so many containers of the pod run.
running() {
  curl -fs http://127.0.0.1:10255/pods | jq -e --arg pod "$1-node-e2e" --argjson n "$2" \
    '[.items[] | select(.metadata.name == $pod).status.containerStatuses[]? | select(.state.running)] | length == $n'
}
for name in plain onhost withinit; do
  wait_for 120 running "$name" 2 || { tail -20 "$work/kubelet.log"; fail "$name does not run"; finish; exit 1; }
done
pass "kubelet $("$kubelet" --version | awk '{ print $2 }') runs three pods of two containers, and one that crashes"
