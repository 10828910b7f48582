#!/usr/bin/env python3
"""Keeps containers of which some end and others begin all the time.

churn.py PARENT COUNT PER_SECOND STATE SCRATCH LOGS

Pods of two containers as the comparison's `containers.py` makes them, each with a process;
PER_SECOND of the containers end and are removed each second, the oldest first, and as many
new ones, in new pods, take their place. With LOGS, a directory, each has a link there as a
kubelet makes it, which is where its names are. STATE has how many were made and removed so
far, as JSON, once all of the first are there. SIGTERM ends and removes all.
"""

import collections
import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../peers"))
import containers  # noqa: E402


def remove(directory):
    """The process has ended, which its cgroups may hear of a little later."""
    for _ in range(100):
        try:
            os.rmdir(directory)
            return
        except OSError:
            time.sleep(0.01)
    print(f"{directory} cannot be removed", file=sys.stderr, flush=True)


class Pod:
    def __init__(self, number, roots, scratch, logs):
        self.roots, self.links, self.pids = roots, [], []
        first = number * containers.PER_POD
        self.path = containers.container(first)[1]
        for index in range(first, first + containers.PER_POD):
            path, _ = containers.container(index)
            for root in roots:
                for part in (self.path, path):
                    containers.make(f"{root}/{part}")
            # All but the first of all, which would burn: one in four works a little.
            self.pids.append(containers.start([f"{root}/{path}" for root in roots], index + 1, scratch))
            if logs:
                uid = self.path.rsplit("/pod", 1)[1]
                name, app = f"service-{number}-x{number}", f"app-{index - first}"
                team = f"team-{number % 20}"
                link = f"{logs}/{name}_{team}_{app}-{path.rsplit('/', 1)[1]}.log"
                os.symlink(f"/var/log/pods/{team}_{name}_{uid}/{app}/0.log", link)
                self.links.append(link)

    def end(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self.pids:
            os.waitpid(pid, 0)
        for root in self.roots:
            below = f"{root}/{self.path}"
            for entry in list(os.scandir(below)):
                if entry.is_dir():
                    remove(entry.path)
            remove(below)
        for link in self.links:
            os.unlink(link)


def main():
    parent, count, rate, state, scratch, logs = (*sys.argv[1:6], *sys.argv[6:], None)[:6]
    roots = [f"{mount}/{parent}" for mount in containers.hierarchies()]
    pods = collections.deque()
    made = 0

    def new():
        nonlocal made
        pods.append(Pod(made, roots, scratch, logs))
        made += 1

    ended = False

    def end(*_):
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    for root in roots:
        for part in ("", "/kubepods", "/kubepods/burstable"):
            containers.make(root + part)
    pause = containers.PER_POD / float(rate)
    due = time.monotonic()
    try:
        while not ended:
            if len(pods) * containers.PER_POD >= int(count):
                due += pause
                time.sleep(max(0.0, due - time.monotonic()))
                pods.popleft().end()
            new()
            if len(pods) * containers.PER_POD >= int(count):
                told = {"made": made * containers.PER_POD, "removed": (made - len(pods)) * containers.PER_POD}
                containers.write(state + ".new", json.dumps(told))
                os.rename(state + ".new", state)
    finally:
        for pod in pods:
            pod.end()
        for root in roots:
            for part in ("/kubepods/burstable", "/kubepods", ""):
                remove(root + part)


if __name__ == "__main__":
    main()
