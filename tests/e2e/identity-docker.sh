#!/bin/sh
# Runs the live identity tests against a Docker daemon of its own, in a
# directory of its own. Needs root and Debian's docker.io and busybox-static.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/nodegauge-docker.XXXXXX)
mkdir -p "$work/run"
export DOCKER_HOST="unix://$work/run/docker.sock"
dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" \
    --bridge none --iptables=false --cgroup-parent "/nodegauge-live-$$" >"$work/log" 2>&1 &
daemon=$!
stop() {
    docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1 || true
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    for point in $(grep -o " $work[^ ]*" /proc/self/mountinfo | sort -ru); do umount "$point" || true; done
    rm -rf "$work"
    for cgroup in /sys/fs/cgroup/nodegauge-live-$$ /sys/fs/cgroup/*/nodegauge-live-$$; do
        [ ! -d "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} +
    done
}
trap stop EXIT
for _ in $(seq 200); do
    docker version >/dev/null 2>&1 && break
    sleep 0.1
done
"$here/image.sh" "$work/busybox.tar" nodegauge.test/busybox:1 /bin/sleep 3600
docker load -qi "$work/busybox.tar"
docker run -d --name shop-db-1 --network none --label com.docker.compose.project=shop \
    --label com.docker.compose.service=db --label com.docker.compose.container-number=1 nodegauge.test/busybox:1
docker run -d --name shop-web-1 --network container:shop-db-1 --label com.docker.compose.project=shop \
    --label com.docker.compose.service=web --label com.docker.compose.container-number=1 nodegauge.test/busybox:1
docker run -d --name node --network host nodegauge.test/busybox:1
docker create --name never-started --network none nodegauge.test/busybox:1
NODEGAUGE_LIVE_ROOT="$work" cargo test --test it "${1:-identity_live::docker}" -- --ignored --nocapture --test-threads=1
