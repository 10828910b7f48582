"""Containers that live for 200 ms to 2 s, and who saw them.

  shortlived.py COUNT PER_SECOND REMOVAL_MS PARENT NAME=URL@SECONDS... push:NAME=PORT...

Makes cgroups that are named as Docker names a container's, in every hierarchy, each with
a process that takes a known share of a CPU until it ends; once it has ended the kernel's
own figure is the truth, and REMOVAL_MS later the cgroup is removed, as a runtime does.
Meanwhile each URL is scraped every so many seconds, as Prometheus would, and InfluxDB's
line protocol is taken at each PORT. Then it prints, for each NAME, the share of the
containers that were a series of their own, and how much of their CPU time was on those.

With DOCKER_IMAGE, which has a shell, they are Docker's own containers, and the truth is
what each read of its own cgroup as the last thing it did; REMOVAL_MS means nothing then.
"""

import gzip
import heapq
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = "/sys/fs/cgroup"
ID = re.compile(rb"([0-9a-f]{64})")
FAMILY = b"container_cpu_usage_seconds_total{"
SEEN = (b"container_last_seen{", b"container_start_time_seconds{")


def hierarchies():
    """Every mounted hierarchy, v2 last."""
    found = []
    for line in open("/proc/self/mounts"):
        _, point, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2") and point.startswith(ROOT):
            found.append((kind == "cgroup2", point))
    return [point for _, point in sorted(found)]


class Seen:
    """What one watcher knows: by id the last CPU time, or None where only the container."""

    def __init__(self, name):
        self.name, self.cpu, self.asked, self.failed = name, {}, 0, 0

    def take(self, container, seconds):
        before = self.cpu.get(container)
        if seconds is not None or container not in self.cpu:
            self.cpu[container] = max(before or 0.0, seconds) if seconds is not None else None


def scrape(seen, url, every, stop):
    due = time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        due += every
        try:
            request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
            with urllib.request.urlopen(request, timeout=every) as answer:
                body = answer.read()
                if answer.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
        except OSError as error:
            seen.failed += 1
            print(f"{seen.name}: {error}", file=sys.stderr)
            continue
        seen.asked += 1
        sums = {}
        for line in body.splitlines():
            if line.startswith(FAMILY):
                # One for each CPU, where they are told apart.
                if found := ID.search(line):
                    value = float(line[line.rindex(b"}") + 1 :].split()[0])
                    sums[found[1]] = sums.get(found[1], 0.0) + value
            elif line.startswith(SEEN) and (found := ID.search(line)):
                seen.take(found[1].decode(), None)
        for container, seconds in sums.items():
            seen.take(container.decode(), seconds)


def receive(seen, port):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path.startswith("/write"):
                self.lines(body)
                self.answer(204, b"")
            else:
                self.answer(200, b'{"results":[{}]}')

        def do_GET(self):
            self.answer(200, b'{"results":[{}]}')

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def lines(self, body):
            seen.asked += 1
            for line in body.splitlines():
                name = re.search(rb",container_name=([0-9a-f]{64}),", line)
                if name and line.startswith(b"cpu/usage,"):
                    value = re.search(rb" value=(\d+)i ", line)
                    seen.take(name[1].decode(), int(value[1]) / 1e9)
                elif name:
                    seen.take(name[1].decode(), None)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def burn(directories, life, share):
    """The process of a container; never returns."""
    for directory in directories:
        try:
            with open(f"{directory}/cgroup.procs", "w") as procs:
                procs.write("0")
        except OSError:
            pass
    end = time.monotonic() + life
    while (now := time.monotonic()) < end:
        until = min(end, now + 0.02 * share)
        while time.monotonic() < until:
            pass
        time.sleep(max(0.0, min(end - time.monotonic(), 0.02 * (1 - share))))
    os._exit(0)


class Container:
    def __init__(self, trees, parent, number):
        self.id = "%064x" % random.getrandbits(256)
        self.directories = [f"{tree}/{parent}/docker/{self.id}" for tree in trees]
        self.life = random.uniform(0.2, 2.0)
        self.share = random.uniform(0.05, 0.3)

    def start(self):
        for directory in self.directories:
            os.mkdir(directory)
        self.pid = os.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            burn(self.directories, self.life, self.share)

    def used(self):
        """Seconds of CPU, of the kernel."""
        for directory in self.directories:
            try:
                return int(open(f"{directory}/cpuacct.usage").read()) / 1e9
            except OSError:
                pass
        for directory in self.directories:
            try:
                return int(re.search(r"usage_usec (\d+)", open(f"{directory}/cpu.stat").read())[1]) / 1e6
            except OSError:
                pass
        raise SystemExit("no figure of the kernel")

    def remove(self):
        """True once it is gone: a process that has ended may still be leaving."""
        left = []
        for directory in self.directories:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError:
                left.append(directory)
        self.directories = left
        return not left


# A loop of busybox's shell takes about a microsecond for each turn; what it prints is its
# cgroup's, with what the runtime used in there.
SCRIPT = """sleep {sleep:.2f}
i=0; while [ $i -lt {turns} ]; do i=$((i+1)); done
cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null ||
  while read key value; do [ $key = usage_usec ] && echo ${{value}}000; done </sys/fs/cgroup/cpu.stat
"""


def run_docker(count, per_second, image, parent):
    """The same with Docker's containers."""
    ids = tempfile.TemporaryDirectory()
    begin, truth, running, begun, late, failed = time.monotonic(), {}, [], 0, 0.0, 0
    while begun < count or running:
        now = time.monotonic()
        if begun < count and now >= begin + begun / per_second:
            late = max(late, now - begin - begun / per_second)
            script = SCRIPT.format(sleep=random.uniform(0.1, 1.7), turns=random.randrange(50_000, 300_000))
            command = ["docker", "run", "--rm", "--net=none", f"--cgroup-parent=/{parent}/docker",
                       f"--cidfile={ids.name}/{begun}", image, "sh", "-c", script]
            running.append((begun, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr)))
            begun += 1
            continue
        for number, process in list(running):
            if process.poll() is not None:
                running.remove((number, process))
                used = process.stdout.read().strip()
                if process.returncode == 0 and used.isdigit():
                    truth[open(f"{ids.name}/{number}").read()] = int(used) / 1e9
                else:
                    failed += 1
        time.sleep(0.01)
    took = time.monotonic() - begin
    print(f"{count} containers of Docker in {took:.0f} s, {failed} failed, begun up to {late:.1f} s late, "
          f"{sum(truth.values()):.1f} s of CPU", file=sys.stderr)
    return truth


def run(count, per_second, removal, parent):
    """Makes them all; by id the CPU time that each has used."""
    trees = hierarchies()
    for tree in trees:
        os.makedirs(f"{tree}/{parent}/docker", exist_ok=True)
    begin, truth, running, leaving = time.monotonic(), {}, {}, []
    begun, late = 0, 0.0
    while begun < count or running or leaving:
        now = time.monotonic()
        if begun < count and now >= begin + begun / per_second:
            late = max(late, now - begin - begun / per_second)
            container = Container(trees, parent, begun)
            begun += 1
            container.start()
            running[container.pid] = container
            continue
        while running:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            container = running.pop(pid)
            truth[container.id] = container.used()
            heapq.heappush(leaving, (now + removal, container.id, container))
        while leaving and leaving[0][0] <= now:
            at, name, container = heapq.heappop(leaving)
            if not container.remove():
                heapq.heappush(leaving, (now + 0.005, name, container))
        time.sleep(0.002)
    for tree in trees:
        os.rmdir(f"{tree}/{parent}/docker")
        os.rmdir(f"{tree}/{parent}")
    took = time.monotonic() - begin
    print(f"{count} containers in {took:.0f} s, begun up to {late * 1e3:.0f} ms late, "
          f"{sum(truth.values()):.1f} s of CPU", file=sys.stderr)
    return truth


def main(count, per_second, removal_ms, parent, *watchers):
    stop, all_seen, threads, longest = threading.Event(), [], [], 0.0
    for watcher in watchers:
        name, where = watcher.split("=", 1)
        seen = Seen(name.removeprefix("push:"))
        all_seen.append(seen)
        if name.startswith("push:"):
            receive(seen, int(where))
            longest = max(longest, 10.0)
            continue
        url, every = where.rsplit("@", 1)
        longest = max(longest, float(every))
        thread = threading.Thread(target=scrape, args=(seen, url, float(every), stop), daemon=True)
        thread.start()
        threads.append(thread)
    # All of them have begun, and what they watch is quiet.
    time.sleep(3)
    image = os.environ.get("DOCKER_IMAGE")
    if image:
        truth = run_docker(int(count), float(per_second), image, parent)
    else:
        truth = run(int(count), float(per_second), int(removal_ms) / 1e3, parent)
    # One more scrape, and one more step that is sent.
    time.sleep(2 * longest + 5)
    stop.set()
    for thread in threads:
        thread.join(timeout=20)
    whole = sum(truth.values())
    table = []
    for seen in all_seen:
        own = [name for name in truth if name in seen.cpu]
        used = [min(seen.cpu[name] or 0.0, truth[name]) for name in own]
        # A series may not say more than the kernel: a ten-thousandth is rounding. What reads
        # its own figure goes on for a few milliseconds.
        more = 0.05 if image else 1e-5
        over = sum(1 for name in own if (seen.cpu[name] or 0.0) > truth[name] * 1.0001 + more)
        table.append({
            "name": seen.name,
            "containers": len(truth),
            "asked": seen.asked,
            "failed": seen.failed,
            "seen": round(100 * len(own) / len(truth), 2),
            "cpu": round(100 * sum(used) / whole, 2),
            "over": over,
        })
    print(json.dumps(table))


if __name__ == "__main__":
    main(*sys.argv[1:])
