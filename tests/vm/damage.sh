#!/bin/bash
# Makes fixtures/damaged from fixtures/v2-systemd-6.12: a few of its cgroups,
# with files as a failing disk, a dying container or an odd kernel leaves them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
fixtures=$here/../../fixtures
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
python3 "$here/ttar.py" unpack "$fixtures/v2-systemd-6.12/tree.ttar" "$tree"

cd "$tree"
rm -r dev var
for stat in proc/[0-9]*/stat; do [ -e "${stat%stat}status" ] || rm -r "${stat%/stat}"; done # kernel threads
cd sys/fs/cgroup
rm -r user.slice system.slice/containerd.service system.slice/kubelet.service system.slice/docker-*
pod=$(echo kubepods.slice/kubepods-burstable.slice/*.slice)
batch=$(echo kubepods.slice/kubepods-besteffort.slice/*.slice)
store=$(echo kubepods.slice/kubepods-pod*.slice)
scope() { # the container of pod $1 whose first process is called $2
    for directory in "$1"/*.scope; do
        [ "$(cat "$tree/proc/$(head -1 "$directory/cgroup.procs")/comm")" != "$2" ] || echo "$PWD/$directory"
    done
}
web=$(scope "$pod" web) indexer=$(scope "$pod" indexer) db=$(scope "$store" db) gone=$(scope "$batch" batch)
: "${web:?}" "${indexer:?}" "${db:?}" "${gone:?}" # an empty one would mean the machine's own root

# Cut short: in the middle of a number, of a key, of a line.
truncate -s 60 "$web/memory.stat"
truncate -s 25 "$web/cpu.stat"
truncate -s 40 "$web/cpu.pressure"
truncate -s 30 "$db/io.stat"
truncate -s 3 "$db/memory.events"
# Empty.
: >"$web/memory.current"
: >"$indexer/cpu.stat"
: >"$indexer/memory.stat"
: >"$indexer/pids.current"
: >"$db/cpu.max"
# Not text: every byte there is.
bytes() { for byte in {0..255}; do printf '%b' "\\x$(printf %02x "$byte")"; done; }
bytes >"$db/memory.stat"
bytes >"$db/memory.pressure"
bytes >"$indexer/cgroup.procs"
bytes >"$indexer/io.stat"
# Numbers that are none, or not of this world.
echo -5 >"$indexer/memory.current"
echo 99999999999999999999999999 >"$db/memory.current"
echo 0x10 >"$db/pids.current"
echo "max" >"$indexer/cpu.max"
printf '12\0\0\0' >"$db/memory.peak"
printf 'max 34' >"$db/pids.events"
# A cgroup that was removed while it was copied has some files only; its
# process is gone from /proc. Another has none at all.
find "$gone" -type f ! -name cgroup.procs ! -name cgroup.events ! -name memory.current -delete
while read -r pid; do rm -r "$tree/proc/$pid"; done <"$gone/cgroup.procs"
find system.slice/ssh.service -type f -delete

cd "$tree/proc"
process=$(head -1 "$web/cgroup.procs")
network=$(readlink "$process/net" | cut -d/ -f2)
truncate -s 260 "$network/net/dev"
: >"$process/limits"
bytes >"$process/stat"
sed -i '3s/.*/not a mount at all/' 1/mountinfo
printf '99 98 0:99 / /half' >>1/mountinfo
truncate -s 100 meminfo
sed -i '2s/.*/ 254 x vda1 1 2 3/' diskstats
: >stat
bytes >pressure/io
: >sys/kernel/random/boot_id
: >"$tree/etc/os-release"
printf 'MemTotal' >"$tree/sys/devices/system/node/node0/meminfo"
: >"$tree/sys/devices/system/cpu/online"
python3 "$here/ttar.py" pack "$tree" "$fixtures/damaged/tree.ttar"
