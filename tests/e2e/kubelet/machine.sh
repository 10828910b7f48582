# A real kubelet, standalone with static pods, on a real containerd: sourced by the
# scripts that need one, after lib.sh, with `here` set. Leaves what runtime.sh leaves,
# and ends everything on exit.
. "$here/kubelet/runtime.sh"
stop() {
  rm -f "$work"/manifests/*
  stop_runtime
  rm -rf /var/log/pods/e2e_* /var/log/containers/*_e2e_*
  # Left by the kubelet; another's are not empty.
  rmdir /var/log/pods /var/log/containers 2>/dev/null || true
  cleanup
}
trap stop EXIT

mkdir -p "$work/manifests"
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
# Images that were loaded cannot be pulled again.
imageGCHighThresholdPercent: 100
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
