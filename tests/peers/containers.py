#!/usr/bin/env python3
"""Makes containers as a kubelet with the cgroupfs driver lays them out, and keeps them.

containers.py PARENT COUNT STATE SCRATCH

Under PARENT/kubepods/burstable there are pods of two containers, in every hierarchy of
the machine; a container is a cgroup with one process in it. One in four works a little
once a second (1 ms of CPU or less, 256 KiB touched and given back, a block written every
ten seconds), so that their counters move; the first burns a fifth of a core between
SIGUSR1 and SIGUSR2; the others sleep. There is no runtime and no image, and all are in
the machine's network namespace. STATE says, as JSON, what there is, once all of it is.
SIGTERM ends and removes it.
"""

import ctypes
import glob
import hashlib
import json
import mmap
import os
import random
import signal
import sys
import time

PER_POD = 2
PAGES = 64


def hierarchies():
    """Every cgroup mount that takes processes: v2, and each of v1."""
    found = ["/sys/fs/cgroup", *sorted(glob.glob("/sys/fs/cgroup/*"))]
    return [d for d in found if os.path.isfile(d + "/cgroup.procs") and not os.path.islink(d)]


def read(path):
    with open(path) as file:
        return file.read().strip()


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def make(directory):
    """One cgroup, able to take processes and to have cgroups below it."""
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    controllers = parent + "/cgroup.subtree_control"
    if os.path.isfile(controllers):
        for controller in read(parent + "/cgroup.controllers").split():
            try:
                write(controllers, "+" + controller)
            except OSError:
                pass  # not every one can be handed down everywhere
    os.mkdir(directory)
    for name in ("cpuset.cpus", "cpuset.mems"):
        # A new one of v1 has none, and takes no process before it has some.
        if os.path.isfile(f"{directory}/{name}") and not os.path.isfile(controllers):
            write(f"{directory}/{name}", read(f"{parent}/{name}"))


def first(directory):
    """What is in this cgroup gets the processor before others do."""
    for name, most in (("cpu.shares", 262144), ("cpu.weight", 10000)):
        if os.path.isfile(f"{directory}/{name}"):
            write(f"{directory}/{name}", str(most))


def digest(*words):
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()


def container(index):
    """Path below the parent of a container, and of its pod."""
    uid = digest("pod", index // PER_POD)
    uid = f"{uid[:8]}-{uid[8:12]}-4{uid[13:16]}-8{uid[17:20]}-{uid[20:32]}"
    pod = f"kubepods/burstable/pod{uid}"
    return f"{pod}/{digest('container', index)}", pod


def spin(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def burn():
    """A fifth of a core while told to."""
    burning = False

    def switch(number, _):
        nonlocal burning
        burning = number == signal.SIGUSR1

    signal.signal(signal.SIGUSR1, switch)
    signal.signal(signal.SIGUSR2, switch)
    while True:
        if burning:
            spin(0.02)
            time.sleep(0.08)
        else:
            signal.pause()


def work(scratch, index):
    """Little things, once a second."""
    block = mmap.mmap(-1, 4096)
    file = os.open(f"{scratch}/{index}", os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
    os.unlink(f"{scratch}/{index}")
    time.sleep(random.random())
    count = index
    while True:
        if count % 10 == 0:
            os.pwrite(file, block, 0)
        with mmap.mmap(-1, PAGES * 4096) as pages:
            for page in range(PAGES):
                pages[page * 4096] = 1
        count += 1
        time.sleep(1)


def start(directories, index, scratch):
    """The process of a container; it dies with us."""
    pid = os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for directory in directories:
            write(directory + "/cgroup.procs", "0")
        if index == 0:
            burn()
        elif index % 4 == 1:
            work(scratch, index)
        while True:
            signal.pause()
    except BaseException as error:  # never back into the parent's code
        print(f"container {index}: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def stop(roots, pids):
    for root in roots:
        if os.path.isdir(root + "/keeper"):
            write(os.path.dirname(root) + "/cgroup.procs", "0")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    for root in roots:
        for directory, _, _ in os.walk(root, topdown=False):
            for _ in range(50):
                try:
                    os.rmdir(directory)
                    break
                except OSError:
                    time.sleep(0.02)
    sys.exit(0)


def main():
    parent, count, state, scratch = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    mounts = hierarchies()
    pids = []
    roots = [f"{mount}/{parent}" for mount in mounts]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop(roots, pids))
    for root in roots:
        make(root)
        if os.path.isfile(root + "/cpu.shares") or os.path.isfile(root + "/cpu.weight"):
            # On a busy machine it takes minutes otherwise.
            first(root)
            make(root + "/keeper")
            write(root + "/keeper/cgroup.procs", "0")
    for index in range(count):
        path, pod = container(index)
        for root in roots:
            for part in ("/kubepods", "/kubepods/burstable", "/" + pod, "/" + path):
                make(root + part)
        pids.append(start([f"{root}/{path}" for root in roots], index, scratch))
    burner = container(0)[0]

    def file(*names):
        found = [f"{root}/{burner}/{name}" for name in names for root in roots]
        return next((f for f in found if os.path.isfile(f)), None)

    told = {
        "parent": parent,
        "containers": [container(index)[0].rsplit("/", 1)[1] for index in range(count)],
        "pods": len({container(index)[1] for index in range(count)}),
        "burner": {
            "id": burner.rsplit("/", 1)[1],
            "pid": pids[0],
            "cpu": file("cpuacct.usage", "cpu.stat"),
            "memory": file("memory.usage_in_bytes", "memory.current"),
        },
        "hierarchies": mounts,
    }
    write(state + ".new", json.dumps(told))
    os.rename(state + ".new", state)
    while True:
        # None of them ends by itself.
        pid, _ = os.waitpid(-1, 0)
        print(f"process {pid} of a container ended", file=sys.stderr, flush=True)
        pids.remove(pid)


if __name__ == "__main__":
    main()
