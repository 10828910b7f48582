#!/usr/bin/env python3
"""Compares a kubelet's /stats/summary and /metrics/resource with ours, field by field.

summary.py KUBELET_URL OUR_URL

Both are asked for half a minute. Every field the kubelet sends must be sent by us
too, and its value agree with one of ours that was sampled within a second of it.
What differs for a reason is in the tables below, with the reason; each difference
that was seen is printed with it.
"""

import json
import re
import sys
import time
import urllib.request
from datetime import datetime

# Fields the kubelet sends and we do not, and why: the first that fits.
MISSING = [
    (r"\.psi\.|\.io\.", "cgroup v1 has no pressure of cgroups; the kubelet sends zeros"),
    (r"^pods\[e2e/onhost.*\]\.network\.", "a host-network pod's traffic is the host's; the kubelet repeats it"),
    (r"\.swap\.swapAvailableBytes$", "swap is not limited where the kernel has no such account"),
    (r"^pods\[.*\]\.volume\[kube-api-access", "made by an API server, of which there is none"),
]
# Values that differ, and why.
VALUES_DIFFER = [
    (r"\.psi\.", "totals are nanoseconds here; on cgroup v1 the kubelet sends zeros"),
    (r"\.usageNanoCores$", "the kubelet's window is 10 to 20 s and its own; ours is one interval"),
    (r"^node\.startTime$", "the kubelet counts back from the uptime, which is some seconds off"),
    (r"systemContainers\[\w+\]\.startTime$", "the kubelet tells the time of a cgroup's youngest file"),
    (r"\.(pageFaults|majorPageFaults)$", "the kubelet counts without what is below on cgroup v1; and they rise by the second"),
    (r"^node\.runtime\..*\.(usedBytes|inodesUsed)$", "the runtime counts again every ten seconds"),
    (r"\.(rootfs|logs|ephemeral-storage)\.(usedBytes|inodesUsed)$", "measured in the background, a minute apart"),
    (r"\.(availableBytes|inodesFree|inodesUsed|usedBytes)$", "of the machine's disk, which others write to"),
    (r"^container_start_time_seconds", "the kubelet tells the time at which the runtime made it"),
]
MEMORY_SLACK = 8 << 20
SLACK = [
    (r"usageCoreNanoSeconds$", 2.5e9),
    (r"cpu_usage_seconds_total", 2.5),
    (r"(memory|swap)\.\w+$|_bytes", MEMORY_SLACK),
    (r"curproc$", 100),
    (r"process_count$", 3),
    (r"(rx|tx)(Bytes|Errors)$", 65536),
    (r"startTime$", 2),
]
NAMED = {"pods": None, "containers": "name", "systemContainers": "name", "interfaces": "name", "volume": "name"}
SAMPLE = re.compile(r"^([a-z_]+)(\{.*\})? (\S+)(?: (\d+))?$")


def seconds(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def fields(value, path, at, found):
    """Leaves by path, each with the time of the object it is in."""
    if isinstance(value, dict):
        at = seconds(value["time"]) if "time" in value else at
        for key, inner in value.items():
            if key != "time":
                fields(inner, f"{path}.{key}" if path else key, at, found)
    elif isinstance(value, list):
        for inner in value:
            reference = inner.get("podRef")
            name = f"{reference['namespace']}/{reference['name']}" if reference else inner["name"]
            fields(inner, f"{path}[{name}]", at, found)
    else:
        found.append((path, at, value))


def ask(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def summary(base, query=""):
    found = []
    fields(json.loads(ask(base + "/stats/summary" + query)), "", time.time(), found)
    return found


def resource(base):
    found = []
    for line in ask(base + "/metrics/resource").splitlines():
        if line and not line.startswith("#"):
            name, labels, value, stamp = SAMPLE.match(line).groups()
            found.append((name + (labels or ""), int(stamp) / 1000 if stamp else time.time(), float(value)))
    return found


def number(path, value):
    if isinstance(value, str) and path.endswith("startTime"):
        return seconds(value)
    return value


def reason(table, path):
    return next((why for pattern, why in table if re.search(pattern, path)), None)


def close(path, a, b):
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    slack = next((slack for pattern, slack in SLACK if re.search(pattern, path)), 1)
    return abs(a - b) <= max(slack, 0.05 * max(abs(a), abs(b)))


def compare(what, theirs, ours):
    """Prints what differs; how many differences have no reason, and how many values were compared."""
    bad, compared, explained = 0, 0, {}
    for path in sorted(theirs):
        # It comes and goes; and pods of starts.py.
        if "crashing-" in path or "start-" in path:
            continue
        if path not in ours:
            why = reason(MISSING, path)
            if why is None:
                bad += 1
                print(f"MISSING {what} {path}: theirs {sorted(theirs[path], key=str)[-1]}")
            else:
                explained.setdefault(("missing", why), []).append(path)
            continue
        near = [
            (abs(at - our_at), number(path, value), number(path, our_value))
            for at, value in theirs[path]
            for our_at, our_value in ours[path]
            if abs(at - our_at) <= 1.5 or "." not in path
        ]
        if not near:
            # Of what is measured in the background each has its own time.
            near = [(0, number(path, v), number(path, o)) for _, v in theirs[path] for _, o in ours[path]]
        if any(close(path, a, b) for _, a, b in near):
            compared += 1
            continue
        why = reason(VALUES_DIFFER, path)
        _, a, b = min(near)
        if why is None:
            bad += 1
            print(f"VALUE {what} {path}: theirs {a}, ours {b}")
        else:
            explained.setdefault(("value", why), []).append(path)
    for (kind, why), paths in sorted(explained.items()):
        print(f"  {what}: {kind} of {len(paths)} fields differs: {why}; such as {paths[0]}")
    alone = sorted({re.sub(r"\[[^\]]*\]|\{.*\}", "", path) for path in set(ours) - set(theirs)})
    print(f"  {what}: {compared} fields agree; ours alone: {', '.join(alone) or 'none'}")
    return bad, compared


def main():
    theirs_url, ours_url = (url.rstrip("/") for url in sys.argv[1:3])
    asked = {
        "summary": summary,
        "reduced summary": lambda base: summary(base, "?only_cpu_and_memory=true"),
        "resource": resource,
    }
    kept = {(what, base): {} for what in asked for base in (theirs_url, ours_url)}
    end = time.time() + 30
    while time.time() < end:
        for (what, base), found in kept.items():
            for path, at, value in asked[what](base):
                found.setdefault(path, set()).add((at, value))
        time.sleep(0.3)
    bad = 0
    for what, least in (("summary", 100), ("reduced summary", 60), ("resource", 20)):
        more, compared = compare(what, kept[(what, theirs_url)], kept[(what, ours_url)])
        if compared < least:
            print(f"too few fields of {what} were compared: {compared}")
            more += 1
        bad += more
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
