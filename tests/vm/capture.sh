#!/bin/sh
# Copies what an agent may read of the machine it runs on to a directory. Works
# with busybox and with GNU tools; reads only.
#
#   capture.sh OUT [CGROUP...]
#
# With names of top-level cgroups, only those, their processes, the first
# process and kernel threads: for a machine that has other users.
#
# What differs from the kernel's own files, because plain files cannot hold it:
# - /proc/<pid>/net is a directory for one process of each network namespace
#   and a link to that one for the others (in the kernel all have a directory,
#   whose inode tells the namespace);
# - /proc/self is a link to 1, and mountinfo one to that of 1 where they are equal;
# - of kernel threads only stat and an empty fd are kept.
set -u
out=$1
shift
only=$*

# Cgroups first and in one go, with the times of the directories. The kernel
# refuses to read some files; cp says so and goes on.
mkdir -p "$out/sys/fs"
cp -a /sys/fs/cgroup "$out/sys/fs/" 2>/dev/null
if [ -n "$only" ]; then
    roots=$(sed -n 's|^[^ ]* [^ ]* [^ ]* / \(/sys/fs/cgroup[^ ]*\) .* - cgroup2\{0,1\} .*|\1|p' /proc/self/mountinfo | tr '\n' ' ')
    for root in $roots; do
        for directory in "$out$root"/*/; do
            directory=${directory%/}
            case " $only $roots " in *" ${directory##*/} "* | *" ${directory#"$out"} "*) ;; *) rm -rf "$directory" ;; esac
        done
    done
fi
wanted() { # $1 pid, of a process that is not a kernel thread
    [ -n "$only" ] && [ "$1" != 1 ] || return 0
    for name in $only; do ! grep -q ":/$name/" "/proc/$1/cgroup" || return 0; done
    return 1
}

take() { # $1 directory, rest: files in it, patterns too
    directory=$1
    [ -d "$directory" ] || return 0
    shift
    mkdir -p "$out$directory"
    for name; do
        set -- "$directory"/$name
        [ -e "$1" ] && cp -L -t "$out$directory" "$@" 2>/dev/null
    done
}
link() { # the symbolic link $1
    [ -L "$1" ] || return 0
    mkdir -p "$out${1%/*}"
    cp -P -t "$out${1%/*}" "$1"
}

known='' # "namespace=pid" for each network namespace seen
network() { # $1 pid: /proc/<pid>/net
    namespace=$(stat -L -c %i "/proc/$1/net/dev") # ns/net takes privileges
    for pair in $known; do
        [ "${pair%=*}" = "$namespace" ] || continue
        ln -s "../${pair#*=}/net" "$out/proc/$1/net"
        return
    done
    known="$known $namespace=$1"
    take "/proc/$1/net" dev snmp snmp6 netstat sockstat sockstat6
}
for directory in /proc/1 /proc/[0-9]*; do
    pid=${directory#/proc/}
    [ -d "$directory" ] && [ ! -d "$out$directory" ] || continue
    if [ "$(wc -c <"$directory/cmdline")" = 0 ]; then
        mkdir -p "$out$directory/fd"
        take "$directory" stat
        network "$pid"
        continue
    fi
    wanted "$pid" || continue
    mkdir -p "$out$directory/fd"
    take "$directory" stat statm status cgroup limits io comm cmdline schedstat mountinfo oom_score oom_score_adj
    if [ "$pid" != 1 ] && cmp -s "$out$directory/mountinfo" "$out/proc/1/mountinfo"; then
        ln -sf ../1/mountinfo "$out$directory/mountinfo"
    fi
    cp -P -t "$out$directory/fd" "$directory"/fd/* 2>/dev/null
    mkdir -p "$out$directory/ns"
    cp -P -t "$out$directory/ns" "$directory"/ns/net "$directory"/ns/pid "$directory"/ns/mnt 2>/dev/null
    network "$pid"
    # Gone in the meantime: as if it had never been there.
    [ -d "$directory" ] || rm -rf "${out:?}$directory"
done
if [ -n "$only" ]; then
    find "$out/sys/fs/cgroup" -name cgroup.procs | while read -r procs; do
        list=$(while read -r pid; do [ ! -d "$out/proc/$pid" ] || echo "$pid"; done <"$procs")
        echo "$list" | sed '/^$/d' >"$procs"
    done
fi
ln -s 1 "$out/proc/self"
ln -s self/net "$out/proc/net"
ln -s self/mounts "$out/proc/mounts"
take /proc/1 mounts

take /proc cgroups cpuinfo diskstats filesystems loadavg meminfo partitions schedstat stat swaps uptime version vmstat
take /proc/pressure cpu memory io irq
take /proc/sys/kernel osrelease ostype pid_max threads-max
take /proc/sys/kernel/random boot_id
take /proc/sys/fs file-nr

take /sys/devices/system/cpu online possible present
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
    take "$cpu" online
    take "$cpu/topology" core_id physical_package_id die_id book_id drawer_id core_cpus_list package_cpus_list \
        thread_siblings_list
    for cache in "$cpu"/cache/index*; do take "$cache" id level shared_cpu_list size type; done
done
take /sys/devices/system/node online
for node in /sys/devices/system/node/node[0-9]*; do
    take "$node" cpulist distance meminfo
    for cpu in "$node"/cpu[0-9]*; do link "$cpu"; done
    for size in "$node"/hugepages/*; do take "$size" nr_hugepages free_hugepages; done
done
for size in /sys/kernel/mm/hugepages/*; do take "$size" nr_hugepages free_hugepages; done

for block in /sys/block/*; do
    link "$block"
    [ "$(cat "$block/size")" != 0 ] || continue
    device=$(readlink -f "$block")
    take "$device" dev size stat uevent ro removable
    take "$device/queue" rotational scheduler logical_block_size
    for partition in "$device/${block##*/}"*; do take "$partition" dev size stat uevent partition start; done
done
for device in /sys/dev/block/*; do link "$device"; done
for interface in /sys/class/net/*; do
    link "$interface"
    take "$(readlink -f "$interface")" address mtu speed operstate ifindex iflink uevent
done
link /sys/class/dmi/id
[ ! -d /sys/class/dmi/id ] || take "$(readlink -f /sys/class/dmi/id)" product_uuid product_name sys_vendor
for dimm in /sys/devices/system/edac/mc/mc*/dimm*; do take "$dimm" dimm_mem_type size; done

take /etc os-release machine-id
for log in /var/log/containers/*.log; do link "$log"; done
for log in /var/log/pods/*/*; do take "$log" '*.log'; done
# Of the kernel's log only what OOM kills left. The device never ends.
mkdir -p "$out/dev"
(timeout 1 cat /dev/kmsg | sed -n '/invoked oom-killer/,$p' >"$out/dev/kmsg") 2>/dev/null
[ -s "$out/dev/kmsg" ] || rm -r "$out/dev"
