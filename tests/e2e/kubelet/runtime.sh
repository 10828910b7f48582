# A real containerd for pods, with a bridge: sourced by the scripts that run a
# kubelet, after lib.sh, with `here` set. Leaves the binary to test in `agent`, the
# kubelet's in `kubelet`, containerd's pid in `daemon`. `stop_runtime` ends it all.
# If set before, `routes` are those of pods, `containerd_root` is where layers are.

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

mkdir -p "$work/cni"
# What is left in there belongs to others.
networks=$(ls /var/run/netns 2>/dev/null || true)
cat >"$work/config.toml" <<TOML
version = 2
root = "${containerd_root:-$work/root}"
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
"ipMasq":false,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}]],"routes":[${routes:-}],"dataDir":"$work/ipam"}}]}
JSON

# Ends what runs.
end_runtime() {
  local container pid cgroup
  # First what would start them again.
  [ -z "${kubelet_pid:-}" ] || kill "$kubelet_pid" 2>/dev/null && wait "$kubelet_pid" 2>/dev/null || true
  if [ -n "${daemon:-}" ]; then
    for container in $(ctr -n k8s.io tasks ls -q 2>/dev/null); do ctr -n k8s.io tasks rm -f "$container" >/dev/null 2>&1 || true; done
  fi
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  started=()
  for cgroup in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do
    [ ! -d "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
# And removes what it left on the machine.
stop_runtime() {
  local point name
  end_runtime
  ip link delete ngtest1 2>/dev/null || true
  for point in $(grep -oE " ($work|/var/lib/kubelet)[^ ]*" /proc/self/mountinfo | sort -ru); do umount "$point" 2>/dev/null || true; done
  for name in $(ls /var/run/netns 2>/dev/null); do
    [[ $name != cni-* ]] || grep -qxF "$name" <<<"$networks" || ip netns delete "$name" 2>/dev/null || rm -f "/var/run/netns/$name"
  done
  rm -rf /var/lib/kubelet /run/containerd/containerd.sock*
}
trap 'stop_runtime; cleanup' EXIT

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
