#!/usr/bin/env python3
"""Starts pods by the hundred and measures how soon their rows have names.

starts.py OUR_URL MANIFEST_DIR CRI_STATE_DIR INTERVAL_SECONDS PODS

Static pods are put into the kubelet's directory, 20 at a time. What counts is
the time from the start of a container, as containerd's CRI plugin wrote it
down, to the tick of the first row with the container's pod and name.
"""

import json
import pathlib
import re
import sys
import time
import urllib.request

ROW = re.compile(r'^container_cpu_user_seconds_total\{container="main",id="[^"]*?([0-9a-f]{64})[^"]*".*pod="(start-\d+)-node-e2e"[^}]*\} \S+ (\d+)$')
POD = """apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: e2e}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: main, image: "nodegauge.test/busybox:1", imagePullPolicy: Never, command: [sleep, "3600"]}}
"""
AT_ONCE = 20


def rows(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        for line in answer.read().decode().splitlines():
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
    lags = []
    for first in range(0, pods, AT_ONCE):
        names = [f"start-{number}" for number in range(first, min(first + AT_ONCE, pods))]
        for name in names:
            (manifests / f"{name}.yaml").write_text(POD.format(name=name))
        named, end = {}, time.time() + 180
        while len(named) < len(names) and time.time() < end:
            for container, pod, tick in rows(url):
                if pod in names and pod not in named:
                    named[pod] = (tick, container)
            time.sleep(interval / 4)
        if len(named) < len(names):
            print(f"without a name or never started: {sorted(set(names) - set(named))}")
            return 1
        # A row may be there before its container runs: when it began is read last.
        time.sleep(2)
        lags += [tick - started(state, container) for tick, container in named.values()]
        for name in names:
            (manifests / f"{name}.yaml").unlink()
    lags.sort()
    # A tick that reads the container while it starts is before its start.
    within = sum(lag <= interval + 0.1 for lag in lags)
    print(
        f"{len(lags)} pod starts at an interval of {interval} s: {100 * within / len(lags):.0f} % named within one tick;"
        f" median {lags[len(lags) // 2]:.2f} s, worst {lags[-1]:.2f} s"
    )
    return 0 if within >= 0.95 * len(lags) and lags[-1] <= 2 else 1


if __name__ == "__main__":
    sys.exit(main())
