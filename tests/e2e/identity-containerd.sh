#!/bin/sh
# Runs the live identity tests against a containerd of its own, in a directory
# of its own. Needs root and Debian's containerd, runc, busybox-static and
# containernetworking-plugins.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/nodegauge-containerd.XXXXXX)
mkdir -p "$work/run/containerd" "$work/cni"
cat >"$work/config.toml" <<TOML
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "$work/run/containerd/containerd.sock"
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
{"cniVersion":"0.4.0","name":"nodegauge","plugins":[{"type":"bridge","bridge":"ngtest0","isGateway":true,
"ipMasq":false,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.89.0.0/16"}]],"dataDir":"$work/ipam"}}]}
JSON
containerd --config "$work/config.toml" >"$work/log" 2>&1 &
daemon=$!
stop() {
    for task in $(ctr tasks ls -q); do ctr tasks rm -f "$task" >/dev/null 2>&1 || true; done
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    ip link delete ngtest0 2>/dev/null || true
    for point in $(grep -o " $work[^ ]*" /proc/self/mountinfo | sort -ru); do umount "$point" || true; done
    rm -rf "$work"
    for cgroup in /sys/fs/cgroup/nodegauge-live-* /sys/fs/cgroup/*/nodegauge-live-*; do
        [ ! -d "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} +
    done
}
trap stop EXIT
export CONTAINERD_ADDRESS="$work/run/containerd/containerd.sock" CONTAINERD_NAMESPACE=k8s.io
for _ in $(seq 100); do
    ctr version >/dev/null 2>&1 && break
    sleep 0.1
done
# The pause image: waits, and ends when asked to.
"$here/image.sh" "$work/pause.tar" nodegauge.test/pause:1 \
    /bin/sh -c 'trap "exit 0" TERM INT; while :; do sleep 3600 & wait $!; done'
"$here/image.sh" "$work/busybox.tar" nodegauge.test/busybox:1 /bin/sleep 3600
ctr images import "$work/pause.tar" >/dev/null
ctr images import "$work/busybox.tar" >/dev/null
NODEGAUGE_LIVE_ROOT="$work" cargo test --test it "${1:-identity_live::containerd}" -- --ignored --nocapture --test-threads=1
