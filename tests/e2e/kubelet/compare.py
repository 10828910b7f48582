#!/usr/bin/env python3
"""Compares a kubelet's /metrics/cadvisor with ours.

compare.py KUBELET_URL OUR_URL

Both are scraped for half a minute. For every family both have, the set of
(namespace, pod, container, image) must be the same, and a value of theirs must
agree with one of ours that was sampled within a second of it. What differs for
a reason is in the tables below, with the reason.
"""

import re
import sys
import time
import urllib.request

# Families whose rows or values differ, and why.
ROWS_DIFFER = {
    "container_threads_max": "the kubelet says 0 for the root, which has no limit",
    "container_cpu_usage_seconds_total": "the kubelet leaves out rows whose total is 0",
    "container_fs_usage_bytes": "the kubelet has the root alone with containerd; we have containers too",
    "container_fs_limit_bytes": "as container_fs_usage_bytes",
    "container_blkio_device_usage_total": "rows appear with the first I/O of a device; read seconds apart",
    "container_fs_reads_total": "as container_blkio_device_usage_total",
    "container_fs_writes_total": "as container_blkio_device_usage_total",
    "container_fs_reads_bytes_total": "as container_blkio_device_usage_total",
    "container_fs_writes_bytes_total": "as container_blkio_device_usage_total",
}
VALUES_DIFFER = {
    "cadvisor_version_info": "another program",
    "container_threads": "the kubelet says 0 for the root, which has no pids controller",
    "container_fs_io_time_seconds_total": "the kubelet divides milliseconds by 10^9, or 10^6",
    "container_fs_io_time_weighted_seconds_total": "as container_fs_io_time_seconds_total",
    "container_fs_read_seconds_total": "as container_fs_io_time_seconds_total",
    "container_fs_write_seconds_total": "as container_fs_io_time_seconds_total",
    "container_last_seen": "the time of the scrape",
    "container_start_time_seconds": "the kubelet takes the time of creation as the runtime says it, for the root that of its own start",
    "container_tasks_state": "the kubelet has load readers off and says 0",
    "container_cpu_load_average_10s": "as container_tasks_state",
    "container_cpu_load_d_average_10s": "as container_tasks_state",
    "container_file_descriptors": "opened and closed all the time",
    "container_sockets": "as container_file_descriptors",
    "container_memory_failures_total": "page faults per second are of the size of the tolerance",
    "container_fs_io_current": "requests in flight at the moment",
    "container_fs_inodes_free": "the whole machine's, changing",
    "container_fs_usage_bytes": "as container_fs_inodes_free",
    "machine_scrape_error": "",
    "container_scrape_error": "",
}
# Largest difference allowed besides 5 %, by family: what changes within a second.
SLACK = {
    "container_cpu_usage_seconds_total": 1.2,
    "container_cpu_user_seconds_total": 1.2,
    "container_cpu_system_seconds_total": 1.2,
    "container_processes": 3,
    "container_threads": 3,
}
MEMORY_SLACK = 4 << 20

LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: (\d+))?$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def scrape(url):
    samples = {}
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    now = time.time() * 1000
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        found = LINE.match(line)
        if not found:
            raise SystemExit(f"not a sample: {line}")
        name, labels, value, stamp = found.groups()
        labels = tuple(sorted(LABEL.findall(labels or "")))
        samples[(name, labels)] = (float(stamp or now), float(value))
    return samples


def identity(labels):
    labels = dict(labels)
    return tuple(labels.get(key, "") for key in ("namespace", "pod", "container", "image"))


def of_interest(name, labels):
    """Rows of the pods that live all the time; the crashing one comes and goes.
    A host-network pod's traffic is the host's: the kubelet shows it as the pod's."""
    pod = dict(labels).get("pod", "")
    host_traffic = pod.startswith("onhost") and name.startswith("container_network_")
    return not pod.startswith("crashing") and not host_traffic


def excused(name, labels, samples):
    """Series only the kubelet has: zeros for what has no such figure, such as a
    tmpfs that is on no disk."""
    zeros = name.startswith("container_fs_") and all(value == 0 for _, value in samples)
    return zeros or name in ROWS_DIFFER or name in VALUES_DIFFER


def main():
    theirs_url, ours_url = sys.argv[1:3]
    theirs, ours = {}, {}
    end = time.time() + 30
    while time.time() < end:
        for url, kept in ((theirs_url, theirs), (ours_url, ours)):
            for key, sample in scrape(url).items():
                kept.setdefault(key, set()).add(sample)
        time.sleep(0.5)
    rows = lambda kept: {
        name: {identity(labels) for (n, labels) in kept if n == name and of_interest(n, labels)}
        for name in {n for (n, _) in kept}
    }
    their_rows, our_rows = rows(theirs), rows(ours)
    both = sorted(set(their_rows) & set(our_rows))
    bad = 0
    print(f"families: {len(both)} of both")
    print("  the kubelet's alone:", ", ".join(sorted(set(their_rows) - set(our_rows))) or "none")
    print("  ours alone:", ", ".join(sorted(set(our_rows) - set(their_rows))) or "none")
    for name in both:
        missing, more = their_rows[name] - our_rows[name], our_rows[name] - their_rows[name]
        if (missing or more) and name not in ROWS_DIFFER:
            bad += 1
            print(f"ROWS  {name}: missing {sorted(missing)[:4]}, more {sorted(more)[:4]}")
    compared = 0
    for (name, labels), samples in sorted(theirs.items()):
        if name in VALUES_DIFFER or not of_interest(name, labels) or (name, labels) not in ours:
            continue
        near = [
            (abs(at - our_at), value, our_value)
            for at, value in samples
            for our_at, our_value in ours[(name, labels)]
            if abs(at - our_at) <= 1000
        ]
        if not near:
            continue
        slack = SLACK.get(name, MEMORY_SLACK if name.startswith("container_memory_") else 1.0)
        close = lambda a, b: abs(a - b) <= max(slack, 0.05 * max(abs(a), abs(b)))
        compared += 1
        if not any(close(a, b) for _, a, b in near):
            bad += 1
            _, a, b = min(near)
            print(f"VALUE {name}{dict(labels)}: theirs {a}, ours {b}")
    for (name, labels), samples in sorted(theirs.items()):
        if name in both and (name, labels) not in ours and of_interest(name, labels) and not excused(name, labels, samples):
            bad += 1
            print(f"ONLY THE KUBELET'S  {name}{dict(labels)}")
    print(f"series compared: {compared}")
    if compared < 400:
        print(f"too few series were compared: {compared}")
        bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
