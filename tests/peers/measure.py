#!/usr/bin/env python3
"""Measures programs that watch the same containers, each alone, one after the other.

measure.py STATE WORK OUTPUT WARM SECONDS EVERY ROUNDS NAME=VERSION=BINARY...

STATE is what containers.py has written. Each program runs in a cgroup of its own, which
counts its CPU and memory with those of its children, in another order each round. Once
it shows all containers (or a minute has gone) it is left alone for WARM seconds, then
measured for SECONDS, in which it is scraped each EVERY seconds as Prometheus scrapes,
gzip allowed. All of this goes before whatever else the machine does. Meanwhile one container burns a fifth of a core: what the program says of
its CPU seconds is compared with the kernel. One line of JSON for each run is appended
to OUTPUT. No failure of a program is one of this script.
"""

import gzip
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time

from containers import first
from programs import PROGRAMS

READY = 60
TIMEOUT = 30
SETTLE = 10
ID = re.compile(rb"[0-9a-f]{64}")


def read(path):
    with open(path) as file:
        return file.read()


def keyed(path):
    """A file of keys and numbers."""
    lines = (line.split() for line in read(path).splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def place(told, controller):
    """Where the cgroups of this run are, of that controller."""
    top = "/sys/fs/cgroup"
    if not os.path.isfile(top + "/cgroup.controllers"):
        # Several names may lead to one hierarchy.
        top = os.path.realpath(f"{top}/{controller}")
    return f"{top}/{told['parent']}"


class Group:
    """The cgroup of a measured program."""

    def __init__(self, told):
        parents = {name: place(told, name) for name in ("cpu", "cpuacct", "memory")}
        self.cpu, self.memory = parents["cpuacct"] + "/measured", parents["memory"] + "/measured"
        self.directories = sorted({parent + "/measured" for parent in parents.values()})
        for directory in self.directories:
            os.mkdir(directory)
        first(parents["cpu"] + "/measured")

    def start(self, command, log):
        """The program and what it starts are in the cgroup from the first instruction on."""
        enter = "".join(f"echo $$ >{d}/cgroup.procs; " for d in self.directories)
        with open(log, "wb") as file:
            words = ["sh", "-c", enter + 'exec "$@"', "sh", *command]
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=os.path.dirname(log))

    def cpu_seconds(self):
        """Of all, of user and of system code."""
        if os.path.isfile(self.cpu + "/cpuacct.usage"):
            split = keyed(self.cpu + "/cpuacct.stat")
            ticks = os.sysconf("SC_CLK_TCK")
            return int(read(self.cpu + "/cpuacct.usage")) / 1e9, split["user"] / ticks, split["system"] / ticks
        split = keyed(self.cpu + "/cpu.stat")
        return tuple(split[key] / 1e6 for key in ("usage_usec", "user_usec", "system_usec"))

    def pids(self):
        return [int(pid) for pid in read(self.cpu + "/cgroup.procs").split()]

    def resident(self):
        """Resident bytes, pages shared between its processes once; descriptors; threads."""
        pids = self.pids()
        rss = pss = descriptors = threads = 0
        for pid in pids:
            try:
                rss += keyed(f"/proc/{pid}/status").get("VmRSS", 0) * 1024
                pss += keyed(f"/proc/{pid}/smaps_rollup").get("Pss", 0) * 1024
                descriptors += len(os.listdir(f"/proc/{pid}/fd"))
                threads += len(os.listdir(f"/proc/{pid}/task"))
            except (OSError, ValueError):
                pass  # it has ended
        # Not the latter for one process: others may run the same program.
        return rss if len(pids) == 1 else pss, descriptors, threads

    def charged(self):
        """Bytes charged to it without reclaimable file pages: kernel memory counts, as in a pod's limit."""
        for usage, inactive in (("usage_in_bytes", "total_inactive_file"), ("current", "inactive_file")):
            if os.path.isfile(f"{self.memory}/memory.{usage}"):
                stat = keyed(self.memory + "/memory.stat")
                return int(read(f"{self.memory}/memory.{usage}")) - stat[inactive]
        return None

    def end(self, process):
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        for _ in range(100):
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                for directory in [d for d in self.directories if os.path.isdir(d)]:
                    os.rmdir(directory)
                break
            except OSError:
                time.sleep(0.1)
        process.wait()


class Scrape:
    """An answer to a request as Prometheus makes it, with its time and size."""

    def __init__(self, port, path, timeout=TIMEOUT):
        self.error = None
        self.body = b""
        self.began = time.monotonic()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
            connection.request("GET", path, headers={"accept": "text/plain;version=0.0.4", "accept-encoding": "gzip"})
            answer = connection.getresponse()
            self.body = answer.read()
            self.packed = answer.getheader("content-encoding") == "gzip"
            if answer.status != 200:
                self.error = f"status {answer.status}"
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            self.error = repr(error)
        self.ended = time.monotonic()
        self.wire = len(self.body)

    def text(self):
        if self.error:
            return b""
        return gzip.decompress(self.body) if self.packed else self.body


def containers_in(text, known):
    return len(known.intersection(ID.findall(text)))


def lines_of(text, container):
    """The samples of one container."""
    return [line.decode() for line in text.splitlines() if container in line and not line.startswith(b"#")]


def burner_cpu(told):
    path = told["burner"]["cpu"]
    return int(read(path)) / 1e9 if path.endswith("usage") else keyed(path)["usage_usec"] / 1e6


def run(program, told, port, work, warm, seconds, every):
    known = {container.encode() for container in told["containers"]}
    burner = told["burner"]["id"].encode()
    sees_containers = program.cpu is not None
    out = {"program": program.name, "version": program.version, "containers": len(known), "load": os.getloadavg()[0]}
    log = f"{work}/{program.name}.log"
    for old in [log, *program.logs]:
        if os.path.exists(old):
            os.remove(old)
    group = Group(told)
    began = time.monotonic()
    process = group.start(program.command, log)
    try:
        while True:
            early = Scrape(port, program.path, READY)
            if not early.error and (not sees_containers or containers_in(early.text(), known) == len(known)):
                out["complete_after"] = early.ended - began
                break
            if time.monotonic() - began > READY or process.poll() is not None:
                break
            time.sleep(0.5)
        if process.poll() is not None:
            out["failed"] = f"it has ended, by {process.returncode}"
            return out
        alone = time.monotonic(), group.cpu_seconds()[0]
        time.sleep(warm)
        # Without scrapes, this is what collecting takes.
        out["cpu_alone"] = (group.cpu_seconds()[0] - alone[1]) / (time.monotonic() - alone[0])
        with open("/proc/cgroups") as file:
            out["cgroups"] = max(int(line.split()[2]) for line in file if not line.startswith("#"))

        quiet, quiet_kernel = Scrape(port, program.path), burner_cpu(told)
        os.kill(told["burner"]["pid"], signal.SIGUSR1)
        started, before = time.monotonic(), group.cpu_seconds()
        scrapes, kernel = [], []
        for number in range(int(seconds / every)):
            if scrapes and time.monotonic() - started > 2 * seconds:
                break  # they take longer than that
            time.sleep(max(0, started + (number + 0.5) * every - time.monotonic()))
            scrapes.append(Scrape(port, program.path))
            kernel.append(burner_cpu(told))
        time.sleep(max(0, started + seconds - time.monotonic()))
        after, window = group.cpu_seconds(), time.monotonic() - started
        out["resident"], out["descriptors"], out["threads"] = group.resident()
        out["charged"] = group.charged()
        os.kill(told["burner"]["pid"], signal.SIGUSR2)
        out["window"] = window
        out["cpu"], out["cpu_user"], out["cpu_system"] = ((b - a) / window for a, b in zip(before, after))

        # The figures of a container that has come to rest must be the kernel's.
        if sees_containers:
            says = lambda scrape: program.cpu(lines_of(scrape.text(), burner))
            from_ = says(quiet)
            end = time.monotonic() + SETTLE
            while True:
                time.sleep(1)
                truth = burner_cpu(told) - quiet_kernel
                last = Scrape(port, program.path)
                to = says(last)
                told_cpu = to - from_ if None not in (from_, to) and truth > 0 else None
                close = told_cpu is not None and abs(told_cpu / truth - 1) < 0.001
                if close or last.error or time.monotonic() > end:
                    break
            out["cpu_error"] = told_cpu / truth - 1 if told_cpu is not None else None
            told_memory = program.memory(lines_of(last.text(), burner))
            if told_memory is not None:
                out["memory_error"] = told_memory - int(read(told["burner"]["memory"]))
    finally:
        group.end(process)

    good = [scrape for scrape in scrapes if not scrape.error]
    out["scrapes"], out["scrapes_failed"] = len(scrapes), len(scrapes) - len(good)
    out["scrape_seconds"] = [scrape.ended - scrape.began for scrape in good]
    if good:
        text = good[-1].text()
        samples = [line for line in text.splitlines() if line and not line.startswith(b"#")]
        of_containers = [line for line in samples if (found := ID.search(line)) and found[0] in known]
        names = {re.split(rb"[{ ]", line, maxsplit=1)[0].decode() for line in of_containers}
        out["bytes"], out["wire_bytes"] = len(text), good[-1].wire
        out["samples"], out["container_samples"] = len(samples), len(of_containers)
        out["families"] = len({re.split(rb"[{ ]", line, maxsplit=1)[0] for line in samples})
        out["container_families"] = sorted(names)
        out["seen"] = containers_in(text, known)
    if sees_containers and len(good) > 1 and not out["scrapes_failed"]:
        # How long ago the kernel's counter was at what the answer says.
        rate = (kernel[-1] - kernel[0]) / (scrapes[-1].ended - scrapes[0].ended)
        figures = [says(scrape) for scrape in scrapes]
        out["age_seconds"] = [(k - f) / rate for k, f in zip(kernel, figures) if f is not None]
    errors = []
    for path in [log, *program.logs]:
        if os.path.exists(path):
            with open(path, errors="replace") as file:
                errors += [line.strip() for line in file if program.errors.search(line)]
    out["log_errors"], out["log_example"] = len(errors), errors[0][:300] if errors else None
    return out


def main():
    state, work, output = sys.argv[1:4]
    warm, seconds, every = (float(word) for word in sys.argv[4:7])
    rounds = int(sys.argv[7])
    told = json.loads(read(state))
    programs = [word.split("=", 2) for word in sys.argv[8:]]
    # Ahead of other work on the machine, so that it lengthens the scrapes less.
    group = place(told, "cpu")
    os.makedirs(group + "/scraper", exist_ok=True)
    with open(group + "/scraper/cgroup.procs", "w") as file:
        file.write("0")
    for directory in (group, group + "/scraper"):
        first(directory)
    port = int(os.environ.get("PEERS_PORT", "0")) or 19180
    for number in range(rounds):
        turn = number % len(programs)
        for name, version, binary in programs[turn:] + programs[:turn]:
            program = PROGRAMS[name](binary, version, port, told, work)
            row = {"round": number + 1, "time": time.time()}
            try:
                row.update(run(program, told, port, work, warm, seconds, every))
            except Exception as error:  # an answer that cannot be read, a program that ended
                row.update(program=program.name, version=version, containers=len(told["containers"]))
                row.update(load=os.getloadavg()[0], failed=repr(error))
            with open(output, "a") as file:
                file.write(json.dumps(row) + "\n")
            if "cpu" in row:
                median = sorted(row["scrape_seconds"] or [0])[len(row["scrape_seconds"]) // 2]
                print(
                    f"{row['containers']:5} containers, round {number + 1}: {name:14} {row['cpu'] * 100:6.2f} % of a core, "
                    f"{row['resident'] / 2**20:6.1f} MiB, {median * 1000:7.1f} ms a scrape, {row.get('seen', 0)} seen",
                    flush=True,
                )
            else:
                print(f"{row['containers']:5} containers, round {number + 1}: {name:14} {row.get('failed')}", flush=True)


if __name__ == "__main__":
    main()
