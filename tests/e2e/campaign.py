"""The crash campaign: an agent pushes every second to a real InfluxDB through a
proxy, while the agent, the server or both are killed at random moments, stopped
and continued, the proxy cuts, delays, answers 500 and 429, and the disk of the
queue is full.

  campaign.py AGENT TREE DIRECTORY KILLS SEED OUTAGE

The queue is in DIRECTORY/disk, which may be a small filesystem of its own. After
the kills the database is away for OUTAGE seconds, with figures that move, which
may be more than the disk holds.

A second sink, an aggregator that never fails, keeps the ledger: the sequence of
every step that was ever queued. At the end

- the ledger has every sequence from 1 on: the queue lost no step;
- the database has as many steps, but for those that the queue counts as dropped
  for want of room, each with as many points: it got all the others;
- of what the database had acknowledged, at most one body a kill came again, and
  with the same bytes.
"""

import base64
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import push

PORTS = {}
QUEUE_BYTES = 4 << 20


class Ledger(BaseHTTPRequestHandler):
    """An aggregator that holds sequences."""

    protocol_version = "HTTP/1.1"
    seen = []
    guard = threading.Lock()

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # The stamp: one more frame, with one raw block, at the end.
        at = body.rindex(b"\x28\xb5\x2f\xfd\x20")
        sequence = dict(push.fields(body[at + 9 :]))[3]
        with self.guard:
            self.seen.append(sequence)
        answer = b"\x0a\x10" + b"L" * 16 + b"\x10" + encoded(sequence)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def encoded(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def wait_for(what, seconds, test):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if test():
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.1)
    raise SystemExit(f"{what}: not within {seconds} s")


class Process:
    """Started again and again with the same words."""

    def __init__(self, words, log):
        self.words, self.log, self.running = words, log, None

    def start(self):
        self.running = subprocess.Popen(
            self.words, stdout=open(self.log, "ab"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )

    def signal(self, number):
        self.running.send_signal(number)

    def kill(self):
        self.running.kill()
        self.running.wait()


def metrics():
    text = push.get(f"http://127.0.0.1:{PORTS['agent']}/metrics/self")
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def drained():
    waiting = [v for k, v in metrics().items() if k.startswith("nodegauge_push_queue_steps{")]
    return len(waiting) == 2 and all(float(v) == 0 for v in waiting)


def dropped(sink):
    wanted = f'nodegauge_push_dropped_steps_total{{sink="{sink}"'
    return int(sum(float(v) for k, v in metrics().items() if k.startswith(wanted)))


class Disk:
    """Where the queue is; full while there is a file that takes all the rest."""

    def __init__(self, directory):
        self.queue, self.filler = os.path.join(directory, "queue"), os.path.join(directory, "filler")

    def fill(self):
        with open(self.filler, "wb", buffering=0) as out:
            try:
                while out.write(bytes(4096)) == 4096:
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def empty(self):
        os.remove(self.filler)

    def used(self):
        return sum(entry.stat().st_size for entry in os.scandir(self.queue))


class Load(threading.Thread):
    """Counters that move: a captured tree stands still, and its steps are nothing once compressed."""

    FILES = {"cpu.stat", "memory.stat", "io.stat"}

    def __init__(self, tree, chance):
        super().__init__(daemon=True)
        self.chance, self.files = chance, {}
        for folder, _, names in os.walk(os.path.join(tree, "sys/fs/cgroup")):
            for name in self.FILES.intersection(names):
                with open(os.path.join(folder, name)) as file:
                    self.files[os.path.join(folder, name)] = re.split(r"(?<=[ =])(\d+)\b", file.read())

    def run(self):
        while True:
            for path, parts in self.files.items():
                # Of one width, so that whoever reads meanwhile finds whole figures.
                parts[1::2] = [str(int(n) % 10**11 + 10**11 + self.chance.randrange(10**6)) for n in parts[1::2]]
                with open(path, "r+") as file:
                    file.write("".join(parts))
            time.sleep(1)


class Ticks:
    """How often the agent has read the kernel, and what memory it takes."""

    def __init__(self, agent):
        now = metrics()
        self.done = float(now['nodegauge_ticks_total{origin="grid"}'])
        self.late, self.missed = (float(now[f"nodegauge_ticks_{what}_total"]) for what in ("late", "missed"))
        with open(f"/proc/{agent.running.pid}/status") as status:
            self.kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def since(self, before):
        done, late, missed = self.done - before.done, self.late - before.late, self.missed - before.missed
        return f"{done:.0f} ticks, {late:.0f} late, {missed:.0f} missed; {before.kib} KiB resident, then {self.kib}"


def main(agent_path, tree, directory, kills, seed, outage):
    chance = random.Random(seed)
    for name, port in zip(("agent", "influx", "meta", "proxy", "ledger"), range(20000 + os.getpid() % 9000 * 5, 65536)):
        PORTS[name] = port
    at = lambda *path: os.path.join(directory, *path)
    with open(at("influx.conf"), "w") as out:
        out.write(
            f'reporting-disabled = true\nbind-address = "127.0.0.1:{PORTS["meta"]}"\n'
            f'[meta]\n  dir = "{at("meta")}"\n[data]\n  dir = "{at("data")}"\n  wal-dir = "{at("wal")}"\n'
            f'[http]\n  bind-address = "127.0.0.1:{PORTS["influx"]}"\n  log-enabled = false\n'
        )
    disk = Disk(at("disk"))
    server = Process(["influxd", "-config", at("influx.conf")], at("influx.log"))
    agent = Process(
        [agent_path, "agent", "--listen", f"127.0.0.1:{PORTS['agent']}", "--interval", "1s", "--runtime", "none",
         "--node-name", "crash", "--host-root", tree, "--queue-dir", disk.queue, "--queue-max-bytes", str(QUEUE_BYTES),
         "--push", f"influxdb:http://127.0.0.1:{PORTS['proxy']}?resolution=1s&name=db",
         "--push", f"aggregator:http://127.0.0.1:{PORTS['ledger']}?resolution=1s&name=ledger"],
        at("agent.log"),
    )
    proxy = push.Proxy(PORTS["proxy"], PORTS["influx"], at("recorded.jsonl"))
    ledger = ThreadingHTTPServer(("127.0.0.1", PORTS["ledger"]), Ledger)
    ledger.daemon_threads = True
    for serving in (proxy, ledger):
        threading.Thread(target=serving.serve_forever, daemon=True).start()
    server.start()
    influx = f"http://127.0.0.1:{PORTS['influx']}"
    try:
        wait_for("InfluxDB starts", 30, lambda: push.get(influx + "/ping") == "")
        agent.start()
        done, capped = run(chance, kills, agent, server, proxy, disk), True
        if outage:
            done["outage"] = 1
            proxy.mood = "500"
            wait_for("the agent answers", 60, metrics)
            Load(tree, chance).start()
            before = Ticks(agent)
            time.sleep(outage)
            print(f"in {outage} s without a database: {Ticks(agent).since(before)}, queue {disk.used() >> 10} KiB")
            capped = disk.used() <= QUEUE_BYTES
            proxy.mood = "well"
        wait_for("InfluxDB starts again", 60, lambda: push.get(influx + "/ping") == "")
        wait_for("the queue is empty", 180, drained)
        capped = capped and disk.used() <= QUEUE_BYTES
        lost = {sink: dropped(sink) for sink in ("db", "ledger")}
        agent.signal(signal.SIGTERM)
        agent.running.wait(30)
        return judge(influx, at("recorded.jsonl"), done, lost) and capped
    finally:
        for process in (agent, server):
            if process.running and process.running.poll() is None:
                process.signal(signal.SIGCONT)
                process.kill()


def run(chance, kills, agent, server, proxy, disk):
    """Breaks things until there were so many kills; how often each was done."""
    done = {}
    # Filling a disk that others use too would be rude.
    own_disk = os.path.ismount(os.path.dirname(disk.queue))
    while done.get("kills", 0) < kills:
        time.sleep(chance.uniform(0.3, 2.5))
        what = chance.choice(
            ["kill agent", "kill agent", "kill server", "kill server", "kill both", "stop agent", "stop server",
             "cut", "cut-answer", "delay", "500", "429"] + ["full disk"] * 2 * own_disk
        )
        done[what] = done.get(what, 0) + 1
        if what.startswith("kill"):
            hit = [agent, server] if what == "kill both" else [agent if what == "kill agent" else server]
            chance.shuffle(hit)
            for process in hit:
                process.kill()
            time.sleep(chance.uniform(0, 1.5))
            for process in hit:
                process.start()
            done["kills"] = done.get("kills", 0) + 1
        elif what.startswith("stop"):
            process = agent if what == "stop agent" else server
            process.signal(signal.SIGSTOP)
            time.sleep(chance.uniform(0.5, 3))
            process.signal(signal.SIGCONT)
        elif what == "full disk":
            disk.fill()
            time.sleep(chance.uniform(1, 3))
            # Half of the time it is still full when the agent starts again.
            if chance.random() < 0.5:
                agent.kill()
                agent.start()
                done["kills"] = done.get("kills", 0) + 1
                time.sleep(chance.uniform(1, 3))
            disk.empty()
        else:
            proxy.mood = what
            time.sleep(chance.uniform(1, 3))
            proxy.mood = "well"
    return done


def judge(influx, recorded, done, lost):
    sequences = sorted(set(Ledger.seen))
    gaps = sorted(set(range(1, (sequences or [0])[-1] + 1)) - set(sequences))
    answer = push.influx_points(influx)
    steps = {}
    for key in answer:
        steps[key[3]] = steps.get(key[3], 0) + 1
    bodies = {}
    for record in push.records([recorded]):
        if record["status"] == 204:
            body = push.decoded(record)
            # A step is a body or several; each begins with another series.
            first = body.split(b"\n", 1)[0].split(b" ")
            bodies.setdefault((first[-1], first[0]), []).append(body)
    sizes = {}
    for (time, _), body in bodies.items():
        sizes[time] = sizes.get(time, 0) + len(push.line_points(body[0].decode()))
    short = [time for time, size in sizes.items() if steps.get(int(time), 0) != size]
    again = sum(len(b) - 1 for b in bodies.values())
    changed = sum(len(set(b)) > 1 for b in bodies.values())
    faults = ", ".join(f"{count} {what}" for what, count in sorted(done.items()))
    print(f"faults: {faults}")
    print(f"steps queued: {len(sequences)}, missing from the queue: {len(gaps)} {gaps[:5]}")
    print(f"steps in the database: {len(steps)}, with points missing: {len(short)}, dropped: {lost}")
    print(f"bodies the database took again: {again} in {done['kills']} kills, with other bytes: {changed}")
    print(f"batches the ledger got again: {len(Ledger.seen) - len(sequences)}")
    good = sequences and len(gaps) == lost["ledger"] and not short and not changed
    good = good and len(steps) + lost["db"] == (sequences or [0])[-1]
    # Only a long outage is more than there is room for.
    good = good and (done.get("outage") or not any(lost.values()))
    return bool(good) and again <= done["kills"] + done.get("cut-answer", 0) * 4


if __name__ == "__main__":
    path, tree, directory, kills, seed, outage = sys.argv[1:]
    sys.exit(0 if main(path, tree, directory, int(kills), int(seed), int(outage)) else 1)
