#!/usr/bin/env bash
# The live tests on other kernels: builds the agent and the tests static, boots
# each kernel with each layout named (default: cgroup v2 on 6.1 and 6.12) and
# runs them in the guest against the guest's own cgroups.
#
#   tests/vm/live.sh [KERNEL:LAYOUT...]
#
# Left out in the guest: what needs programs busybox has not (prlimit, mkfs.ext4, an ip that names both ends of a pair), a user
# namespace, the fixtures, or half a minute of emulated time; and the queue, to which all kernels are alike.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
target=$(uname -m)-unknown-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

export RUSTFLAGS=-Ctarget-feature=+crt-static
cd "$root"
cargo build --quiet --release --target "$target"
if ! cargo test --release --target "$target" --test live --no-run >"$work/build" 2>&1; then
    cat "$work/build"
    df -h . "$work"
    exit 1
fi
tests=$(sed -n 's/.*Executable .*(\(.*\))$/\1/p' "$work/build")
cp "${CARGO_TARGET_DIR:-target}/$target/release/nodegauge" "$work/nodegauge"
cp "$tests" "$work/live"
strip "$work/live" 2>/dev/null || true
cat >"$work/guest.sh" <<'GUEST'
export NODEGAUGE=/host/nodegauge NODEGAUGE_DISK=/host NODEGAUGE_GUEST=1 TMPDIR=/tmp
/host/nodegauge check
/host/live --ignored --test-threads=1 --skip sixty_four_descriptors --skip without_inotify --skip two_hundred --skip a_filesystem_that_breaks --skip a_namespace --skip without_a_pause --skip what_may_not_be_read --skip the_whole_machine --skip queue:: || exit
# Last, since it leaves nothing of the machine's memory: more than there is, and no swap to slow it.
swapoff /dev/vdb
echo 1 >/proc/sys/vm/overcommit_memory
NODEGAUGE_MACHINE_BYTES=2147483648 /host/live --ignored the_whole_machine
GUEST

passed=0
failed=0
for where in "${@:-6.1:v2 6.12:v2}"; do
    for run in $where; do
        echo "== kernel ${run%:*}, ${run#*:}"
        status=0
        tests/vm/boot.sh -k "${run%:*}" -m "${run#*:}" -d "$work" -t 600 -M 768 guest.sh >"$work/log" 2>&1 || status=$?
        cat "$work/log"
        ran=$(sed -n 's/.*test result: [a-zA-Z]*\. \([0-9]*\) passed.*/\1/p' "$work/log" | awk '{ n += $1 } END { if (NR) print n }')
        passed=$((passed + ${ran:-0}))
        if [ "$status" -ne 0 ] || [ -z "$ran" ]; then
            failed=$((failed + 1))
        fi
    done
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
