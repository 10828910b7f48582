#!/bin/sh
# The guest's init: mounts what a node mounts, runs the command boot.sh left in
# /etc/vm-command, hands out /out as a tar on the third disk, powers off.
export PATH=/bin:/sbin
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t tmpfs -o mode=755,size=10% tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /out
hostname node-1
modprobe -a virtio_net veth dummy bfq overlay
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
mkswap /dev/vdb >/dev/null
swapon /dev/vdb

layout=$(cat /etc/vm-layout)
cgroup=/sys/fs/cgroup
mount_v1() {
    mount -t tmpfs -o mode=755,nosuid,nodev,noexec tmpfs $cgroup
    for controllers in cpuset cpu,cpuacct blkio memory devices freezer net_cls,net_prio perf_event hugetlb pids rdma misc; do
        mkdir $cgroup/$controllers
        mount -t cgroup -o "nosuid,nodev,noexec,$controllers" cgroup $cgroup/$controllers 2>/dev/null ||
            rmdir $cgroup/$controllers
    done
    for name in cpu cpuacct; do ln -s cpu,cpuacct $cgroup/$name; done
    for name in net_cls net_prio; do ln -s net_cls,net_prio $cgroup/$name; done
    mkdir $cgroup/systemd
    mount -t cgroup -o nosuid,nodev,noexec,none,name=systemd cgroup $cgroup/systemd
}
case $layout in
    v1) mount_v1 ;;
    hybrid)
        mount_v1
        mkdir $cgroup/unified
        mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 $cgroup/unified
        ;;
    v2) mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 $cgroup ;;
esac

set --
while read -r word; do set -- "$@" "$word"; done </etc/vm-command
cd /host || poweroff -f
sh "$@"
echo $? >/out/.status
kill -9 -1 # nothing may write any more
tar cf /dev/vdc -C /out .
sync
poweroff -f
