#!/bin/bash
# Boots a stock Debian cloud kernel in qemu, runs one script in it and brings
# its results out. No KVM, no network beyond the machine, no disk of the host.
#
#   boot.sh [options] SCRIPT [ARG...]
#
#   SCRIPT        a file of DIR, run by busybox sh as root in the guest, in DIR
#   -k KERNEL     5.10, 6.1 or 6.12 (default 6.1)
#   -m LAYOUT     v2, v1 or hybrid: what is mounted on /sys/fs/cgroup (default v2)
#   -d DIR        seen as /host in the guest; static binaries go here (default: beside this script)
#   -o DIR        what the script leaves in /out comes here (default: thrown away)
#   -c CPUS       default 1
#   -M MEGABYTES  memory of the guest (default 512)
#   -t SECONDS    give up after this long (default 300)
#   -w DIR        where kernels are kept between runs (default target/vm)
#
# Exit status: the script's; 124 when the time ran out; 125 when the guest did
# not come up or died on the way.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "$0")" && pwd)
kernel=6.1 layout=v2 dir=$here out='' cpus=1 memory=512 limit=300
work=${CARGO_TARGET_DIR:-$here/../../target}/vm
usage() { sed -n '5,15s/^# \{0,1\}//p' "$0" >&2; exit 64; }
die() { echo "boot.sh: $2" >&2; exit "$1"; }
while getopts k:m:d:o:c:M:t:w: option; do
    case $option in
        k) kernel=$OPTARG ;; m) layout=$OPTARG ;; d) dir=$OPTARG ;; o) out=$OPTARG ;;
        c) cpus=$OPTARG ;; M) memory=$OPTARG ;; t) limit=$OPTARG ;; w) work=$OPTARG ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || usage
case $kernel in
    5.10) suite=bullseye ;;
    6.1) suite=bookworm ;;
    6.12) suite=trixie ;;
    *) die 64 "no kernel $kernel; one of 5.10, 6.1, 6.12" ;;
esac
case $layout in v2 | v1 | hybrid) ;; *) die 64 "no layout $layout; one of v2, v1, hybrid" ;; esac
[ -f "$dir/$1" ] || die 64 "no script $1 in $dir"
mkdir -p "$work"
work=$(cd "$work" && pwd)

need=()
command -v qemu-system-x86_64 >/dev/null || need+=(qemu-system-x86)
command -v busybox >/dev/null || need+=(busybox-static)
command -v mkfs.ext4 >/dev/null || need+=(e2fsprogs)
[ ${#need[@]} = 0 ] || apt-get install -y -q --no-install-recommends "${need[@]}" >&2

# The kernel comes from the mirror this machine is configured for, through a
# package list of our own, so that another release's packages never mix with
# the machine's.
fetch_kernel() {
    local apt=$work/apt-$suite key=/usr/share/keyrings/debian-archive-keyring.gpg
    local codename main security image
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    archive() {
        apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
            awk -v release="$1" '$2 == release && $3 == "main" { print $1; exit }'
    }
    main=$(archive "$codename")
    security=$(archive "$codename-security")
    [ -n "$main" ] || die 125 "apt is configured with no archive of $codename"
    rm -rf "$apt"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/unpacked"
    echo "deb [signed-by=$key] $main $suite main" >"$apt/sources.list"
    [ -z "$security" ] || echo "deb [signed-by=$key] $security $suite-security main" >>"$apt/sources.list"
    local options=(-q -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o Dir::State::status=/dev/null
        -o APT::Sandbox::User=root -o Acquire::Languages=none)
    apt-get "${options[@]}" update >&2
    image=$(apt-cache "${options[@]}" depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    (cd "$apt" && apt-get "${options[@]}" download "$image" base-files >&2)
    for deb in "$apt"/*.deb; do dpkg-deb -x "$deb" "$apt/unpacked"; done
    rm -rf "$work/kernel-$kernel.new"
    keep_kernel "$apt/unpacked" "$work/kernel-$kernel.new"
    mv "$work/kernel-$kernel.new" "$work/kernel-$kernel"
    rm -rf "$apt"
}

# Of a kernel package: the image, the few modules the guest uses, uncompressed,
# and the release's own os-release.
keep_kernel() {
    local from=$1 to=$2 version modules file
    version=$(basename "$from"/boot/vmlinuz-*)
    version=${version#vmlinuz-}
    modules=$to/lib/modules/$version
    mkdir -p "$modules"
    cp "$from/boot/vmlinuz-$version" "$to/vmlinuz"
    cp "$from/usr/lib/os-release" "$to/os-release"
    for name in virtio virtio_ring virtio_pci virtio_pci_legacy_dev virtio_pci_modern_dev virtio_blk \
        virtio_net net_failover failover veth dummy bfq overlay; do
        file=$(find "$from" -path "*/modules/$version/*" -name "$name.ko*")
        case $file in
            *.xz) xz -dc "$file" >"$modules/$name.ko" ;;
            *.zst) zstd -qdc "$file" >"$modules/$name.ko" ;;
            *.ko) cp "$file" "$modules/" ;;
        esac
    done
    busybox depmod -b "$to" "$version"
}
[ -d "$work/kernel-$kernel" ] || fetch_kernel

run=$(mktemp -d "$work/run.XXXXXX")
trap 'rm -rf "$run"' EXIT
userland() { # busybox and the modules, in directory $1
    mkdir -p "$1"/{bin,sbin,dev,proc,sys,lib}
    cp "$(command -v busybox)" "$1/bin/busybox"
    busybox --list | grep -vx busybox | (cd "$1/bin" && xargs -n1 ln -sf busybox)
    cp -r "$work/kernel-$kernel/lib/modules" "$1/lib/"
}

# A real node's root is a partition of a disk, so the guest's is too: the
# initramfs only loads the disk driver and goes over to it.
userland "$run/initramfs"
cp "$here/guest-initramfs.sh" "$run/initramfs/init"
chmod +x "$run/initramfs/init"
mkdir "$run/initramfs/root"
(cd "$run/initramfs" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$run/initrd.gz"

userland "$run/root"
mkdir -p "$run/root"/{etc,tmp,out,var,run,host}
cp "$here/guest-init.sh" "$run/root/sbin/init"
chmod +x "$run/root/sbin/init"
cp -rL "$dir/." "$run/root/host/"
cp "$work/kernel-$kernel/os-release" "$run/root/etc/os-release"
echo 0123456789abcdef0123456789abcdef >"$run/root/etc/machine-id"
printf '%s\n' "$@" >"$run/root/etc/vm-command"
echo "$layout" >"$run/root/etc/vm-layout"

# One Linux partition from sector 2048 on: an MBR is 16 bytes of table and a mark.
sectors=$(((256 + $(du -sm "$run/root" | cut -f1)) * 2048))
truncate -s $(((2048 + sectors) * 512)) "$run/root.img"
mkfs.ext4 -q -F -d "$run/root" -E offset=$((2048 * 512)) "$run/root.img" $((sectors / 2))k
little_endian() { printf '\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
printf "\\0\\0\\0\\0\\x83\\0\\0\\0$(little_endian 2048)$(little_endian $sectors)" |
    dd of="$run/root.img" bs=1 seek=446 conv=notrunc status=none
printf '\x55\xaa' | dd of="$run/root.img" bs=1 seek=510 conv=notrunc status=none
truncate -s 256M "$run/swap.img" "$run/out.img"

# The clock and the ids are fixed, so that two captures differ in figures only;
# the root disk is slow, so that there is writeback to see.
disk() { echo "-drive file=$run/$1.img,if=virtio,format=raw,cache=unsafe,discard=unmap${2-}"; }
status=0
# shellcheck disable=SC2046 # the words of disk are meant to be split
timeout --foreground -k 5 "$limit" qemu-system-x86_64 -accel tcg,thread=single -cpu qemu64 -smp "cpus=$cpus,sockets=1,cores=$cpus" \
    -m "$memory" -nodefaults -display none -monitor none -serial stdio -no-reboot \
    -rtc base=2026-01-15T08:00:00 -uuid 2f5e1c9a-7b3d-4e68-9a0f-c1d2e3f4a5b6 \
    -netdev user,id=net,restrict=on -device virtio-net-pci,netdev=net,romfile= \
    -kernel "$work/kernel-$kernel/vmlinuz" -initrd "$run/initrd.gz" \
    -append "console=ttyS0 quiet panic=-1 nokaslr mitigations=off psi=1 swapaccount=1" \
    $(disk root ,throttling.bps-write=25165824) $(disk swap) $(disk out) </dev/null > >(sed 's/\r$//') || status=$?
[ $status != 124 ] || die 124 "the guest was still running after $limit s"
[ $status = 0 ] || die 125 "qemu ended with $status"

mkdir "$run/out"
tar xf "$run/out.img" -C "$run/out" 2>/dev/null || die 125 "the guest ended without results"
status=$(cat "$run/out/.status")
rm "$run/out/.status"
if [ -n "$out" ]; then
    mkdir -p "$out"
    cp -a "$run/out/." "$out/"
fi
exit "$status"
