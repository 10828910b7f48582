#!/usr/bin/env python3
"""Starts pods by the hundred and measures how soon their rows have names.

starts.py OUR_URL MANIFEST_DIR CRI_STATE_DIR INTERVAL_SECONDS PODS

Static pods are put into the kubelet's directory, 20 at a time. What counts are the
ticks between the start of a container, as containerd's CRI plugin wrote it down, and
that of the first row with the container's pod and name: there must be none. Ticks are
those that were seen, by their own times, so that a machine on which they come late
proves as much as one that has time. Seconds are printed beside.
"""

import json
import pathlib
import re
import sys
import time
import urllib.request

ROW = re.compile(r'^container_cpu_user_seconds_total\{container="main",id="[^"]*?([0-9a-f]{64})[^"]*".*pod="(start-\d+)-node-e2e"[^}]*\} \S+ (\d+)$')
TICK = re.compile(r'^container_cpu_user_seconds_total\{[^}]*\} \S+ (\d+)$', re.MULTILINE)
POD = """apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: e2e}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: main, image: "nodegauge.test/busybox:1", imagePullPolicy: Never, command: [sleep, "3600"]}}
"""
AT_ONCE = 20


def rows(url, ticks):
    """Rows of the pods started here; the tick they are of joins the others."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    ticks.update(int(stamp) / 1000 for stamp in TICK.findall(text))
    for line in text.splitlines():
        found = ROW.match(line)
        if found:
            yield found[1], found[2], int(found[3]) / 1000


def started(state, container):
    """Seconds since the epoch, from the CRI plugin's own file."""
    status = json.loads((state / "containers" / container / "status").read_text())
    return status.get("StartedAt", 0) / 1e9


def main():
    url, manifests, state, interval, pods = sys.argv[1:6]
    manifests, state = pathlib.Path(manifests), pathlib.Path(state)
    interval, pods = float(interval), int(pods)
    lags, late = [], []
    for first in range(0, pods, AT_ONCE):
        names = [f"start-{number}" for number in range(first, min(first + AT_ONCE, pods))]
        for name in names:
            (manifests / f"{name}.yaml").write_text(POD.format(name=name))
        named, ticks, end = {}, set(), time.time() + 180
        while len(named) < len(names) and time.time() < end:
            for container, pod, tick in rows(url, ticks):
                if pod in names and pod not in named:
                    named[pod] = (tick, container)
            time.sleep(interval / 4)
        if len(named) < len(names):
            print(f"without a name or never started: {sorted(set(names) - set(named))}")
            return 1
        # A row may be there before its container runs: when it began is read last.
        time.sleep(2)
        for tick, container in named.values():
            start = started(state, container)
            lags.append(tick - start)
            # A tick takes a moment: one that was under way when the container began may not have it.
            late.append(sum(start + 0.1 < seen < tick for seen in ticks))
        for name in names:
            (manifests / f"{name}.yaml").unlink()
    lags.sort()
    within = late.count(0)
    print(
        f"{len(lags)} pod starts at an interval of {interval} s: {100 * within / len(lags):.0f} % named in the first tick,"
        f" at most {max(late)} later; after {lags[len(lags) // 2]:.2f} s on the median, {lags[-1]:.2f} s at worst"
    )
    return 0 if within >= 0.95 * len(late) and max(late) <= 3 else 1


if __name__ == "__main__":
    sys.exit(main())
