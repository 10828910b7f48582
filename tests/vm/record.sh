#!/bin/bash
# Takes the captured trees of fixtures/ again: boots each kernel, makes the
# load, copies, packs. Needs Python 3 besides what boot.sh installs.
#
#   record.sh [SCENARIO...]     all but bare-host, unless named
#
# Figures differ from one run to the next, so every golden has to be reviewed
# afterwards. bare-host is taken from the machine this runs on.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
fixtures=$here/../../fixtures
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

keep=() # for ttar.py
guest() { # $1 scenario, $2 kernel, $3 layout, rest: for fixture.sh
    local scenario=$1 kernel=$2 layout=$3
    shift 3
    "$here/boot.sh" -k "$kernel" -m "$layout" -c 2 -M 768 -o "$out/$scenario" fixture.sh "$@"
    python3 "$here/ttar.py" pack "$out/$scenario/tree" "$fixtures/$scenario/tree.ttar" "${keep[@]}"
}
# What the kinds that are off by default read, and nothing else does.
kinds() {
    keep=(+cgroup.threads +tasks +memory.numa_stat +cpuset.memory_migrate)
    guest "$@" kinds
}

# The machine's own kernel. What tells which machine it is gives way to fixed
# values; about.md lists them.
bare_host() {
    local tree=$out/bare-host status=0
    # Started from here and without output, so that no path shows in /proc.
    (cd "$here" && exec timeout 60 busybox sh load.sh host </dev/null >/dev/null 2>&1) || status=$?
    [ $status != 0 ] || sh "$here/capture.sh" "$tree" nodegauge.slice || status=$?
    busybox sh "$here/load.sh" leave
    [ $status = 0 ] || exit $status
    local first
    first=$(cat "$tree/proc/1/comm")
    rm -rf "$tree"/proc/1/{cmdline,fd,io} "$tree/dev"
    mkdir "$tree/proc/1/fd"
    sed -i "s/$first/init/" "$tree"/proc/1/{comm,stat,status}
    sed -i -E '/ \/(mnt|media|home)\/|:\/mnt\//d' "$tree"/proc/[0-9]*/mountinfo "$tree/proc/1/mounts"
    sed -i -E 's/ \([^()]*@[^()]*\)//' "$tree/proc/version"
    find "$tree/sys/devices" -path '*/net/*/address' -exec sed -i -E '/^00:/!s/.*/02:00:00:00:00:01/' {} +
    echo 0123456789abcdef0123456789abcdef >"$tree/etc/machine-id"
    echo 01234567-89ab-4cde-8f01-23456789abcd >"$tree/proc/sys/kernel/random/boot_id"
    rm -f "$tree"/sys/devices/virtual/dmi/id/*
    python3 "$here/ttar.py" pack "$tree" "$fixtures/bare-host-6.18/tree.ttar"
}

[ $# -gt 0 ] || set -- v2-systemd-6.12 v2-systemd-5.10 v2-cgroupfs-6.1 v2-shapes-6.12 v1-6.1 hybrid-6.1 damaged \
    v2-kinds-6.12 v1-kinds-6.1 hybrid-kinds-6.1
for scenario; do
    mkdir -p "$fixtures/$scenario"
    case $scenario in
        v2-systemd-6.12) guest "$scenario" 6.12 v2 node systemd ;;
        v2-systemd-5.10) guest "$scenario" 5.10 v2 node systemd ;;
        v2-cgroupfs-6.1) guest "$scenario" 6.1 v2 node cgroupfs ;;
        v2-shapes-6.12) guest "$scenario" 6.12 v2 shapes ;;
        v1-6.1) guest "$scenario" 6.1 v1 node cgroupfs ;;
        hybrid-6.1) guest "$scenario" 6.1 hybrid node systemd ;;
        v2-kinds-6.12) kinds "$scenario" 6.12 v2 ;;
        v1-kinds-6.1) kinds "$scenario" 6.1 v1 ;;
        hybrid-kinds-6.1) kinds "$scenario" 6.1 hybrid ;;
        bare-host-6.18) bare_host ;;
        damaged) "$here/damage.sh" ;;
        *) echo "record.sh: no scenario $scenario" >&2; exit 64 ;;
    esac
done
