#!/bin/sh
# Makes the cgroups a node's runtime would make and keeps them busy, so that a
# captured tree has figures in every family. Runs as root in the guest.
#
#   load.sh node systemd|cgroupfs    a node in the layout of that kubelet driver; returns when all have worked
#   load.sh shapes                   one idle cgroup in the path shape of each other runtime (v2 only)
#   load.sh kinds                    one pod with sockets and threads, for the kinds that are off by default
#   load.sh host, load.sh leave      two cgroups on this machine (v1), and their end
#   load.sh last                     what must be in flight while the tree is copied: dirty pages, writeback
#   load.sh do WORK                  one container's work (used by node)
#   load.sh within ROOT WORK         the same in a container's root directory (used by node)
#
# The node has three pods with two or three containers each, one plain Docker
# container and some system services. Ids are SHA-256 sums of names, so that
# they are the same in every capture.
set -u

# --- cgroups of either version --------------------------------------------

cgroup=/sys/fs/cgroup
find_hierarchies() {
    disk=$(cat /sys/block/vda/dev)
    version=2 roots=$cgroup
    [ ! -f $cgroup/cgroup.controllers ] || return 0
    version=1
    roots=$(find $cgroup -mindepth 1 -maxdepth 1 -type d)
}
make() { # the cgroup $1, with all controllers
    if [ $version = 1 ]; then
        for root in $roots; do mkdir -p "$root/$1"; done
        directory=$cgroup/cpuset # cpusets are born without CPUs
        for name in $(echo "$1" | tr / ' '); do
            cat "$directory/cpuset.cpus" >"$directory/$name/cpuset.cpus"
            cat "$directory/cpuset.mems" >"$directory/$name/cpuset.mems"
            directory=$directory/$name
        done
        return
    fi
    directory=$cgroup
    for name in $(echo "$1" | tr / ' '); do
        for controller in $(cat $directory/cgroup.controllers); do
            echo "+$controller" >$directory/cgroup.subtree_control
        done
        directory=$directory/$name
        mkdir -p $directory
    done
}
join() { # the calling shell goes into cgroup $1
    for root in $roots; do echo 0 >"$root/$1/cgroup.procs"; done
}
set_file() { # $1 cgroup, $2 v1 controller, $3 file, $4 value
    if [ $version = 1 ]; then echo "$4" >"$cgroup/$2/$1/$3"; else echo "$4" >"$cgroup/$1/$3"; fi
}
v1() { [ $version = 2 ] || set_file "$@"; }
v2() { [ $version = 1 ] || set_file "$1" - "$2" "$3"; }

# --- names as kubelet, containerd and Docker give them --------------------

id() { printf %s "$1" | sha256sum | cut -c1-64; }
pod() { # $1 QoS class, $2 UID
    case $driver/$1 in
        systemd/guaranteed) echo "kubepods.slice/kubepods-pod$(echo "$2" | tr - _).slice" ;;
        systemd/*) echo "kubepods.slice/kubepods-$1.slice/kubepods-$1-pod$(echo "$2" | tr - _).slice" ;;
        cgroupfs/guaranteed) echo "kubepods/pod$2" ;;
        cgroupfs/*) echo "kubepods/$1/pod$2" ;;
    esac
}
container() { # $1 pod's cgroup, $2 name
    case $driver in systemd) echo "$1/cri-containerd-$(id "$2").scope" ;; *) echo "$1/$(id "$2")" ;; esac
}
docker() { case $driver in systemd) echo "system.slice/docker-$(id "$1").scope" ;; *) echo "docker/$(id "$1")" ;; esac; }
log_links() { # $1 namespace, $2 pod, $3 UID, $4 container
    mkdir -p "/var/log/pods/$1_$2_$3/$4" /var/log/containers
    echo "2026-01-15T08:00:05.000000000Z stdout F started" >"/var/log/pods/$1_$2_$3/$4/0.log"
    ln -sf "/var/log/pods/$1_$2_$3/$4/0.log" "/var/log/containers/$2_$1_$4-$(id "$4").log"
}
root_of() { # a container's root as containerd mounts it, from an image with busybox; $1 name
    image=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1
    layer=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/2
    merged=/run/containerd/io.containerd.runtime.v2.task/k8s.io/$(id "$1")/rootfs
    mkdir -p $image/fs/proc $image/fs/dev $image/fs/host $layer/fs $layer/work "$merged"
    cp -a /bin $image/fs/
    cp "$0" $image/fs/host/
    cp -r /var/lib/www $image/fs/
    mount -t overlay overlay -o "lowerdir=$image/fs,upperdir=$layer/fs,workdir=$layer/work" "$merged"
}

run() { # $1 cgroup, $2 process whose network namespace it joins (1: the host's), rest: for load.sh
    (
        join "$1"
        shift
        process=$1
        shift
        [ "$process" = 1 ] && exec sh "$0" "$@"
        exec nsenter -t "$process" -n sh "$0" "$@"
    ) &
}
run_alone() { # $1 cgroup, rest: for load.sh; in a network namespace of its own, whose pid goes to $sandbox
    (
        join "$1"
        shift
        exec unshare -n sh "$0" "$@"
    ) &
    sandbox=$!
}
address() { # a veth pair between the host and $sandbox; $1 number of the network
    until [ "$(readlink /proc/$sandbox/ns/net)" != "$(readlink /proc/1/ns/net)" ]; do usleep 100000; done
    host=vethpod$1
    ip link add "$host" type veth # busybox leaves the name of the other end to the kernel
    other=$(grep -lx "$(cat "/sys/class/net/$host/iflink")" /sys/class/net/*/ifindex | cut -d/ -f5)
    ip link set "$other" netns "$sandbox"
    ip addr add "10.88.$1.1/24" dev "$host"
    ip link set "$host" up
    nsenter -t "$sandbox" -n sh -c "ip link set $other name eth0; ip link set lo up
        ip addr add 10.88.$1.2/24 dev eth0; ip link set eth0 up"
}

# --- the work -------------------------------------------------------------

state=/run/nodegauge-load # pipes and marks
for_ever() { read -r _ <$state/never; } # nobody ever opens it for writing
named() { printf %s "$1" >/proc/self/comm; }
spin() { i=$1; while [ "$i" -gt 0 ]; do i=$((i - 1)); done; }

do_nothing() { spin 20000; }
do_pause() { named pause; for_ever; }
do_service() { named service; for_ever; }

# Busy without end below a quota; serves, and holds a few sockets.
do_web() {
    httpd -p 8080 -h /www
    nc -l -p 9000 -e sleep 1000 & # takes a connection and never reads: socket memory
    usleep 300000
    (cat /www/blob && sleep 1000) | nc 127.0.0.1 9000 &
    echo started >/started # something in the writable layer
    named web
    while :; do spin 100000; done
}

# Works for a moment longer than its quota allows, then rests: uses its burst.
do_indexer() {
    named indexer
    start=$(cut -d' ' -f1 /proc/uptime | tr -d .)
    spin 20000
    ticks=$(($(cut -d' ' -f1 /proc/uptime | tr -d .) - start))
    turns=$((20000 * 3 / (ticks + 1)))
    while :; do spin $turns; usleep 500000; done
}

# Anonymous memory and files that do not fit its limits together: reclaim,
# swap, refaults, major faults; direct I/O below a throttle; huge pages.
do_db() {
    named db
    fallocate -l 4M /dev/hugepages/db
    fallocate -l 8M /dev/hugepages/db 2>/dev/null # over the limit: an event
    heap=$(head -c 20000000 /dev/zero | tr '\0' x)
    mkdir -p /var/lib/db
    for _ in 1 2 3; do
        dd if=/dev/zero of=/var/lib/db/table bs=1M count=40 conv=fsync 2>/dev/null
        dd if=/var/lib/db/table of=/dev/null bs=1M 2>/dev/null
        dd if=/var/lib/db/table of=/dev/null bs=1M 2>/dev/null
        : ${#heap} # reads all of it
    done
    cp /bin/busybox /var/lib/db/busybox
    sync
    echo 1 >/proc/sys/vm/drop_caches
    /var/lib/db/busybox sleep 1000 & # its pages come by major faults
    fstrim /
    dd if=/dev/vda of=/dev/null bs=64k count=32 iflag=direct 2>/dev/null
    dd if=/dev/zero of=/var/lib/db/log bs=64k count=16 oflag=direct 2>/dev/null
    : >$state/db-done
    while read -r command <$state/db; do $command; done
}

do_flush() { # by turns, so that one of them is always being written back
    for turn in 1 2; do
        while :; do dd if=/dev/zero of=/var/lib/db/flushing$turn bs=1M count=10 conv=fsync 2>/dev/null; done &
    done
    wait
}

# Killed for memory twice, refused a fork once.
do_batch() {
    named batch
    for _ in 1 2; do dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; done
    (for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 1000 & done) 2>/dev/null
    kill $(sed -n '6,$p' "$own/cgroup.procs") 2>/dev/null
    : >$state/batch-done
    for_ever
}

# Listens, holds connections of its own, leaves some in TIME_WAIT.
do_edge() {
    named edge
    mkdir -p $state/www
    head -c 300000 /dev/zero >$state/www/blob
    httpd -p 8080 -h $state/www
    arp -s 10.88.1.200 02:00:00:00:00:09 # nobody answers there
    while :; do tftp -g -r none -l /dev/null 10.88.1.200; done 2>/dev/null &
    ip addr add fd00:88::2/64 dev eth0
    while :; do tftp -g -r none -l /dev/null fd00:88::200; done 2>/dev/null &
    nc -l -p 9000 -e sleep 1000 &
    usleep 300000
    (echo hello && sleep 1000) | nc 127.0.0.1 9000 &
    for _ in 1 2; do wget -q -O /dev/null http://127.0.0.1:8080/blob; done
    : >$state/edge-done
    while :; do spin 50000; usleep 100000; done
}

# All of that in small, on a machine that is not ours.
do_host() {
    dd if=/dev/zero of=$state/file bs=64k count=64 oflag=direct 2>/dev/null
    dd if=$state/file of=/dev/null bs=64k iflag=direct 2>/dev/null
    dd if=/dev/zero of=$state/file bs=1M count=40 conv=fsync 2>/dev/null # more than the limit: failcnt
    do_batch &
    named indexer
    while :; do spin 100000; done
}
do_alone() {
    ip link set lo up
    ping -q -A -c 5 -s 400 127.0.0.1 >/dev/null
    named session
    for_ever
}

# Shared memory, huge anonymous pages, and CPU time at low priority.
do_cache() {
    named cache
    sh "$0" do nothing &
    renice -n 10 -p $!
    wait
    heap=$(head -c 9000000 /dev/zero | tr '\0' x)
    dd if=/dev/zero of=/tmp/cache bs=64k count=48 2>/dev/null
    for_ever
}

# --- commands -------------------------------------------------------------

node() {
    driver=$1
    find_hierarchies
    mkdir -p $state /dev/hugepages /var/lib/www
    mkfifo $state/never $state/db
    mount -t hugetlbfs hugetlbfs /dev/hugepages
    echo 8 >/proc/sys/vm/nr_hugepages
    head -c 300000 /dev/zero >/var/lib/www/blob
    if [ $version = 1 ]; then
        [ -d /sys/fs/cgroup/unified ] || echo bfq >/sys/block/vda/queue/scheduler # adds blkio.bfq.* files
    else
        echo "$disk enable=1" >$cgroup/io.cost.qos 2>/dev/null # adds cost.* to io.stat
    fi

    make init.scope
    for root in $roots; do echo 1 >"$root/init.scope/cgroup.procs"; done
    for service in system.slice/ssh.service system.slice/containerd.service system.slice/kubelet.service \
        user.slice/user-1000.slice/session-1.scope; do
        make $service
        run $service 1 do service
    done
    make dev-hugepages.mount

    # Burstable: one container over its quota, one that bursts.
    uid=6f0c3b1e-9a4d-4f7b-8c1d-2e5f7a9b0c1d
    p=$(pod burstable $uid)
    for name in shop-pause web indexer; do make "$(container "$p" $name)"; done
    run_alone "$(container "$p" shop-pause)" do pause
    address 1
    shop=$sandbox
    for name in web indexer; do
        c=$(container "$p" $name)
        log_links shop shop-7c9d5b8f4-x2k4j $uid $name
        v1 "$c" cpu cpu.cfs_quota_us 20000
        v1 "$c" cpu cpu.shares 256
        v2 "$c" cpu.max "20000 100000"
        v2 "$c" cpu.weight 10
    done
    c=$(container "$p" indexer)
    v1 "$c" cpu cpu.cfs_burst_us 20000 2>/dev/null
    v2 "$c" cpu.max.burst 20000 2>/dev/null # 5.14
    v1 "$c" memory memory.soft_limit_in_bytes 16777216
    v2 "$c" memory.low 16777216
    run "$c" "$shop" do indexer
    root_of web
    run "$(container "$p" web)" "$shop" within "$merged" web

    # Best effort: meets its limits.
    uid=b81f46d2-5c03-4b8e-9f57-03a6c4d1e2f8
    p=$(pod besteffort $uid)
    for name in report-pause batch; do make "$(container "$p" $name)"; done
    run_alone "$(container "$p" report-pause)" do pause
    address 2
    log_links jobs report-28912345-9qz7m $uid batch
    c=$(container "$p" batch)
    v1 "$c" memory memory.limit_in_bytes 33554432
    v1 "$c" memory memory.memsw.limit_in_bytes 33554432
    v2 "$c" memory.max 33554432
    v2 "$c" memory.swap.max 0
    set_file "$c" pids pids.max 12
    own=$(echo "$roots" | head -1)/$c
    export own
    run "$c" "$sandbox" do batch

    # Guaranteed, in the host's network, a static pod: memory and disk.
    uid=3d2f8a51c9e04b6796a1f0b7d5c8e934
    p=$(pod guaranteed $uid)
    for name in store-pause db; do make "$(container "$p" $name)"; done
    run "$(container "$p" store-pause)" 1 do pause
    log_links kube-system store-node-1 $uid db
    c=$(container "$p" db)
    v1 "$c" memory memory.limit_in_bytes 50331648
    v2 "$c" memory.max 100663296
    v2 "$c" memory.high 50331648
    v2 "$c" memory.min 4194304
    set_file "$c" hugetlb "hugetlb.2MB.$([ $version = 1 ] && echo limit_in_bytes || echo max)" 6291456
    v1 "$c" blkio blkio.throttle.read_bps_device "$disk 67108864"
    v1 "$c" blkio blkio.throttle.write_bps_device "$disk 16777216"
    v2 "$c" io.max "$disk rbps=67108864 wbps=16777216"
    v2 "$c" cpu.weight 200
    v1 "$c" cpu cpu.shares 2048
    run "$c" 1 do db

    c=$(docker cache)
    make "$c"
    run_alone "$c" do cache
    address 3

    until [ -f $state/batch-done ] && [ -f $state/db-done ]; do usleep 500000; done
    c=$(container "$p" db)
    v1 "$c" hugetlb hugetlb.2MB.rsvd.limit_in_bytes 6291456 # of the two limits only one can be met at a time
    echo "fallocate -l 10M /dev/hugepages/db" >$state/db
    wget -q -O /dev/null http://10.88.1.2:8080/blob
    ping -q -c 3 -s 400 10.0.2.2 >/dev/null
    for network in 2 3; do ping -q -A -c 5 -s 400 10.88.$network.2 >/dev/null; done
    ip link set vethpod1 mtu 600 # larger packets from the pod are dropped on transmit
    nsenter -t "$shop" -n ping -q -A -c 3 -W 1 -s 1000 10.88.1.1 >/dev/null || true
}

last() {
    echo "sh $0 do flush" >$state/db
    usleep 1000000
    dd if=/dev/zero of=/var/lib/www/dirty bs=64k count=16 2>/dev/null
}

shapes() {
    find_hierarchies
    mkdir -p $state
    mkfifo $state/never
    u=c4a1d7e2-3b5f-4096-8d1c-7f2e9a0b6c53
    u_=$(echo $u | tr - _)
    v=0d9e8f7a-1b2c-4d3e-9f40-5a6b7c8d9e0f
    v_=$(echo $v | tr - _)
    # CRI-O: the empty sandbox, the container with crun's inner level, its monitor.
    p=kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod$u_.slice
    make "$p/crio-$(id crio-sandbox)"
    for leaf in "$p/crio-$(id crio).scope/container" "$p/crio-conmon-$(id crio).scope" \
        "kubepods.slice/kubepods-pod$v_.slice/docker-$(id cri-dockerd).scope" \
        "kubelet_node.slice/kubelet_node-kubepods.slice/kubelet_node-kubepods-besteffort.slice/kubelet_node-kubepods-besteffort-pod$v_.slice/cri-containerd-$(id cgroup-root).scope" \
        "system.slice/docker-$(id kind-node).scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod$v_.slice/cri-containerd-$(id kind).scope" \
        "system.slice/docker-$(id kind-node).scope/system.slice/containerd.service" \
        "docker/$(id k3d-node)/kubepods/besteffort/pod$u/$(id k3d)" \
        "system.slice/runtime.service/kubepods-burstable-pod$u_.slice:cri-containerd:$(id mismatch)" \
        "machine.slice/libpod-$(id podman).scope/container" \
        "machine.slice/libpod-conmon-$(id podman).scope" \
        "user.slice/user-1000.slice/user@1000.service/user.slice/libpod-$(id rootless).scope/container" \
        "system.slice/nerdctl-$(id nerdctl).scope" \
        "default/$(id ctr)" \
        lxc.payload.web-1 lxc.monitor.web-1 \
        machine.slice/systemd-nspawn@builder.service/payload; do
        make "$leaf"
        run "$leaf" 1 do pause
    done
    mkdir "$cgroup/a blank and $(printf '\377')" # the kernel takes any byte but newline and slash
    usleep 2000000
}

# One pod in cgroupfs's layout: sockets of TCP and UDP in a network namespace of
# its own, several processes that take turns, memory by NUMA node, a cpuset.
kinds() {
    driver=cgroupfs
    find_hierarchies
    mkdir -p $state
    mkfifo $state/never
    uid=5e8c1f0a-2d47-4b93-a6e1-90b7c4d3f258
    p=$(pod burstable $uid)
    for name in edge-pause edge; do make "$(container "$p" $name)"; done
    run_alone "$(container "$p" edge-pause)" do pause
    address 1
    log_links shop edge-5d6f7c8b9-m4n5p $uid edge
    c=$(container "$p" edge)
    v1 "$c" cpuset cpuset.memory_migrate 1
    run "$c" "$sandbox" do edge
    until [ -f $state/edge-done ]; do usleep 500000; done
    for _ in 1 2 3; do wget -q -O /dev/null http://10.88.1.2:8080/blob; done
    usleep 2000000
}

# Not in the guest but on the machine itself (v1), which must stay as it was:
# a service that meets its limits and a session with a network of its own.
# Run by busybox sh; `leave` takes it all away.
host() {
    find_hierarchies
    mkdir -p $state
    mkfifo $state/never
    c=nodegauge.slice/batch.service
    make $c
    make nodegauge.slice/session-1.scope
    set_file $c cpu cpu.cfs_quota_us 30000
    set_file $c cpu cpu.cfs_burst_us 10000
    set_file $c memory memory.limit_in_bytes 33554432
    set_file $c pids pids.max 12
    own=$cgroup/pids/$c
    export own
    run $c 1 do host
    run_alone nodegauge.slice/session-1.scope do alone
    until [ -f $state/batch-done ]; do usleep 500000; done
    usleep 3000000
}
leave() {
    find_hierarchies
    kill -9 $(cat $cgroup/*/nodegauge.slice/*/cgroup.procs) 2>/dev/null
    usleep 500000
    for root in $roots; do rmdir "$root"/nodegauge.slice/*/ "$root/nodegauge.slice"; done
    rm -r $state
}

within() { # $1 root directory, $2 work
    mount -t proc proc "$1/proc"
    mount --bind /dev "$1/dev"
    exec chroot "$1" sh "/host/${0##*/}" do "$2"
}

case ${1-} in
    node | shapes | kinds | last | host | leave) "$@" ;;
    within) exec unshare -m sh "$0" entered "$2" "$3" ;;
    entered) within "$2" "$3" ;;
    do) "do_$2" ;;
    *) sed -n '5,11s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
esac
