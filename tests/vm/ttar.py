#!/usr/bin/env python3
"""Packs a captured tree into one text file, and back. The format is described
in fixtures/README.md; tests/it/ttar.rs reads it too.

    ttar.py pack DIRECTORY ARCHIVE [LEFT-OUT-PATTERN...]
    ttar.py unpack ARCHIVE DIRECTORY

Patterns are shell patterns over whole paths, in addition to PRUNED; a name of
PRUNED with a + before it stays in.
"""

import fnmatch
import os
import re
import sys

MAGIC = "# A captured tree; fixtures/README.md describes the format.\n"

# Cgroup files no agent reads: settings that carry no figure, lists of threads,
# figures by NUMA node, what another file tells too, and files that can only be
# written.
PRUNED = """
cgroup.event_control cgroup.freeze cgroup.kill cgroup.max.* cgroup.pressure cgroup.sane_behavior cgroup.threads
tasks notify_on_release release_agent
blkio.reset_stats blkio.bfq.weight* cpu.idle cpu.rt_* cpu.uclamp.* cpu.weight.nice
cpuacct.usage_all cpuacct.usage_percpu_* cpuset.cpu_exclusive cpuset.cpus.exclusive* cpuset.cpus.isolated
cpuset.cpus.partition cpuset.effective_mems cpuset.mem* cpuset.sched_*
hugetlb.*.numa_stat io.bfq.* io.cost.* io.latency io.prio.class io.weight irq.pressure
memory.force_empty memory.kmem.failcnt memory.kmem.limit_in_bytes memory.kmem.max_usage_in_bytes memory.kmem.slabinfo memory.kmem.tcp.* memory.move_charge_at_immigrate memory.numa_stat
memory.oom.group memory.pressure_level memory.reclaim memory.swappiness memory.zswap.*
misc.* rdma.*
""".split()

# v1 hierarchies without a figure: the mount points stay, empty.
EMPTIED = ["devices", "freezer", "misc", "net_cls,net_prio", "perf_event", "rdma", "systemd"]

CGROUP = "sys/fs/cgroup"
# Their times tell when the cgroup was made.
MARKERS = ["cgroup.events", "cgroup.clone_children"]


def left_out(path, patterns):
    if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns):
        return True
    if not path.startswith(CGROUP + "/"):
        return False
    below = path[len(CGROUP) + 1 :].split("/")
    if below[0] in EMPTIED and len(below) > 1:
        return True
    return "+" + below[-1] not in patterns and any(fnmatch.fnmatchcase(below[-1], p) for p in PRUNED)


def escape(data):
    """Bytes as one line of text: control characters, a blank at the end and
    what is not UTF-8 become \\xHH."""
    text = data.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    odd = lambda m: "".join(f"\\x{byte:02x}" for byte in m.group().encode("utf-8", "surrogateescape"))
    return re.sub(r"[\x00-\x08\x0a-\x1f\x7f\udc80-\udcff]|[ \t]$", odd, text)


def unescape(text):
    one = lambda m: b"\\" if m.group(1) == b"\\" else bytes([int(m.group(1)[1:], 16)])
    return re.sub(rb"\\(\\|x[0-9a-f]{2})", one, text.encode())


def seconds(path):
    return int(os.lstat(path).st_mtime)


def pack(root, archive, patterns):
    root = os.fsencode(root)
    directories = []
    for at, subdirectories, files in os.walk(root):
        name = lambda n: os.fsdecode(os.path.relpath(os.path.join(at, n), root))
        subdirectories[:] = [d for d in subdirectories if not left_out(name(d), patterns)]
        links = [d for d in subdirectories if os.path.islink(os.path.join(at, d))]
        files = sorted(f for f in files + links if not left_out(name(f), patterns))
        directories.append((os.path.relpath(at, root), at, files))
    with open(archive, "w", encoding="utf-8", newline="\n") as out:
        out.write(MAGIC)
        for relative, at, files in sorted(directories):
            out.write(f"\ndir {escape(relative)}\n")
            timed = os.fsdecode(relative).startswith(CGROUP)
            if timed:
                out.write(f"time {seconds(at)}\n")
            for name in files:
                path = os.path.join(at, name)
                if os.path.islink(path):
                    out.write(f"link {escape(name)}\n|{escape(os.readlink(path))}\n")
                    continue
                out.write(f"file {escape(name)}\n")
                if timed and os.fsdecode(name) in MARKERS:
                    out.write(f"time {seconds(path)}\n")
                with open(path, "rb") as file:
                    lines = file.read().split(b"\n")
                for line in lines[:-1]:
                    out.write(f"|{escape(line)}\n")
                if lines[-1]:
                    out.write(f"\\{escape(lines[-1])}\n")


def unpack(archive, root):
    root = os.fsencode(root)
    times = []
    at = target = path = None
    content = b""

    def finish():
        if path is None:
            return
        if target == "link":
            os.symlink(content.rstrip(b"\n"), path)
        else:
            with open(path, "wb") as file:
                file.write(content)

    for line in open(archive, encoding="utf-8", newline="\n"):
        line = line.removesuffix("\n")
        word, _, rest = line.partition(" ")
        if line.startswith(("|", "\\")):
            content += unescape(line[1:]) + (b"\n" if line[0] == "|" else b"")
        elif word == "time":
            times.append((path or at, int(rest)))
        elif word in ("dir", "file", "link"):
            finish()
            path, content, target = None, b"", word
            if word == "dir":
                at = os.path.normpath(os.path.join(root, unescape(rest)))
                os.makedirs(at, exist_ok=True)
            else:
                path = os.path.join(at, unescape(rest))
        elif line and not line.startswith("#"):
            sys.exit(f"{archive}: not understood: {line!r}")
    finish()
    # Last, since making a file changes its directory's time.
    for path, when in times:
        os.utime(path, (when, when))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pack", directory, archive, *patterns]:
            pack(directory, archive, patterns)
        case ["unpack", archive, directory]:
            unpack(archive, directory)
        case _:
            sys.exit(__doc__)
