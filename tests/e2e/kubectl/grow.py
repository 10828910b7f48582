"""Lets time pass in an unpacked tree of cgroup v2: each cgroup that is named uses
CPU at its rate and is throttled, those above use what those below do, and the root more.

    grow.py TREE ROOT-MILLICORES NAME=MILLICORES...

NAME is the beginning of a cgroup's own name.
"""

import os
import sys
import time


def plan(tree, more, rates):
    """Files, their lines, and thousandths of a core."""
    root = os.path.join(tree, "sys/fs/cgroup")
    found = [directory for directory, _, files in os.walk(root) if "cpu.stat" in files]
    named = {d: r for d in found for n, r in rates.items() if os.path.basename(d).startswith(n)}
    for directory in found:
        rate = sum(r for d, r in named.items() if d == directory or d.startswith(directory + "/"))
        rate += more if directory == root else 0
        if rate:
            file = os.path.join(directory, "cpu.stat")
            yield file, [line.split() for line in open(file)], rate


def main():
    rates = {n: int(r) for n, r in (word.split("=") for word in sys.argv[3:])}
    files = list(plan(sys.argv[1], int(sys.argv[2]), rates))
    start = time.monotonic()
    while True:
        passed = time.monotonic() - start
        for file, lines, rate in files:
            grown = {"usage_usec": int(passed * rate * 1000), "user_usec": int(passed * rate * 1000)}
            # Half of the periods of 100 ms are throttled, for the half of each.
            grown |= {"nr_periods": int(passed * 10), "nr_throttled": int(passed * 5), "throttled_usec": int(passed * 250000)}
            # In place and never shorter: the agent holds the files open.
            with open(file, "r+") as out:
                out.write("".join(f"{key} {int(value) + grown.get(key, 0)}\n" for key, value in lines))
        time.sleep(0.05)


main()
