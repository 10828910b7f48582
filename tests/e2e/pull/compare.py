"""What two aggregators answer of the same pods: one asks the kubelet, one is pushed to.

compare.py PULLED PUSHED. The kubelet reads a cgroup every 10 to 15 s, so what it
tells is older than what was pushed for the same step, and rates are compared as
means over all steps that both have.
"""

import json
import sys
import urllib.request

PULLED, PUSHED = sys.argv[1:3]
PODS = ["plain-node-e2e", "onhost-node-e2e", "withinit-node-e2e"]
# Seconds that the kubelet's sample may be older, and a second of its stamps.
OLDER = 17


def points(base, path, metric, labels=None):
    url = f"{base}/api/v1/model/{path}/metrics/{metric}"
    if labels:
        url += f"?labels={labels}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        series = json.load(answer)["metrics"]
    return {p["timestamp"]: p.get("floatValue", p["value"]) for p in series}


failed = compared = 0


def check(what, pulled, pushed, ok):
    global failed, compared
    compared += 1
    failed += not ok
    print(f"{'ok   ' if ok else 'WRONG'} {what}: pulled {pulled}, pushed {pushed}")


def both(path, metric, labels=None):
    """Values of the steps that both have, oldest first."""
    a, b = points(PULLED, path, metric, labels), points(PUSHED, path, metric, labels)
    # The newest may still be missing from one, and the first pushed one is a part of a step.
    steps = sorted(set(a) & set(b))[1:]
    return [a[s] for s in steps], [b[s] for s in steps], bool(a), bool(b)


def near(a, b, relative, absolute):
    return abs(a - b) <= max(abs(a), abs(b)) * relative + absolute


def entity(name, path, container):
    def there(metric, labels=None):
        a, b, pulled, pushed = both(path, metric, labels)
        if not a:
            check(f"{name} {metric} is in both or in none", pulled, pushed, pulled == pushed)
            return None
        return a, b

    for metric in ["cpu/request", "cpu/limit", "memory/request", "memory/limit", "restart_count"]:
        if found := there(metric):
            a, b = found
            check(f"{name} {metric}", a[-1], b[-1], a[-1] == b[-1])
    mean = lambda values: sum(values) / len(values)
    if found := there("cpu/usage_rate"):
        a, b = map(mean, found)
        check(f"{name} cpu/usage_rate, mean of {len(found[0])}", round(a, 1), round(b, 1), near(a, b, 0.25, 3))
    for metric, absolute in [("memory/usage", 4 << 20), ("memory/working_set", 2 << 20), ("memory/rss", 1 << 20)]:
        if found := there(metric):
            a, b = map(mean, found)
            check(f"{name} {metric}", round(a), round(b), near(a, b, 0.15, absolute))
    if found := there("cpu/usage"):
        a, b = found[0][-1], found[1][-1]
        rise = (found[1][-1] - found[1][0]) / max(1, 15 * (len(found[1]) - 1))
        ok = a <= b * 1.001 + 5e6 and b - a <= rise * OLDER * 1.5 + 60e6
        check(f"{name} cpu/usage", a, b, ok)
    if not container:
        for metric in ["network/rx", "network/tx"]:
            if found := there(metric):
                a, b = found[0][-1], found[1][-1]
                check(f"{name} {metric}", a, b, a <= b and near(a, b, 0.3, 4096))
    if found := there("uptime"):
        a, b = found[0][-1], found[1][-1]
        check(f"{name} uptime", a, b, near(a, b, 0.0, 12_000))
    return there


for pod in PODS:
    path = f"namespaces/e2e/pods/{pod}"
    entity(pod, path, container=False)
    for container in ["work", "idle"]:
        there = entity(f"{pod}/{container}", f"{path}/containers/{container}", container=True)
        for label in ["/", "logs"]:
            if found := there("filesystem/limit", f"resource_id:{label}"):
                a, b = found[0][-1], found[1][-1]
                check(f"{pod}/{container} filesystem/limit {label}", a, b, a == b)
            if found := there("filesystem/usage", f"resource_id:{label}"):
                a, b = found[0][-1], found[1][-1]
                check(f"{pod}/{container} filesystem/usage {label}", a, b, near(a, b, 0.2, 64 << 10))

for metric, relative in [("cpu/node_capacity", 0), ("memory/usage", 0.25), ("memory/working_set", 0.25), ("cpu/usage_rate", 0.5)]:
    a, b, *_ = both("nodes/node-e2e", metric)
    a, b = sum(a) / max(1, len(a)), sum(b) / max(1, len(b))
    # The machine has other work, and the API server's word on its processors is the one that counts.
    if metric != "cpu/node_capacity":
        check(f"node {metric}", round(a), round(b), a > 0 and near(a, b, relative, 64 << 20 if "memory" in metric else 300))
    else:
        check(f"node {metric}", a, "2000 is told", a == 2000)
print(f"{compared} compared, {failed} wrong")
sys.exit(1 if failed or compared < 60 else 0)
