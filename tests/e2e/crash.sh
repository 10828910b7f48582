#!/usr/bin/env bash
# The crash campaign of campaign.py: 5 kills, or CRASH_KILLS of them (50 is the
# full form, about five minutes); CRASH_OUTAGE=300 lets the database be away for
# so many seconds, which is more than the queue's disk holds; CRASH_SEED repeats
# one; CRASH_CONTAINERS=90 instead of 20 make larger steps. Needs root for a small disk.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
stop() {
  umount "$work/campaign/disk" 2>/dev/null || true
  cleanup
}
trap stop EXIT

need influxd influxdb
need python3 python3
agent=$(binary)
here=$(dirname "$0")
seed=${CRASH_SEED:-$RANDOM}
say "seed $seed"
python3 "$here/../vm/ttar.py" unpack "$here/../../fixtures/v2-systemd-6.12/tree.ttar" "$work/tree"
# More containers, so that a step takes some room.
pods=$work/tree/sys/fs/cgroup/kubepods.slice
container=$(find "$pods" -type d -name 'cri-containerd-*' | sort | head -1)
for more in $(seq -f %02.0f "${CRASH_CONTAINERS:-20}"); do
  cp -r "$container" "${container%??????.scope}0000$more.scope"
done
mkdir -p "$work/campaign/disk"
mount -t tmpfs -o size=4m nodegauge-crash "$work/campaign/disk"
check "nothing queued is lost, and little sent twice" \
  python3 "$here/campaign.py" "$agent" "$work/tree" "$work/campaign" "${CRASH_KILLS:-5}" "$seed" "${CRASH_OUTAGE:-0}"
[ "$failed" = 0 ] || tail -20 "$work/campaign/agent.log"
finish
