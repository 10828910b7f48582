"""Proxy, readers and the crash campaign of the push tests.

  push.py proxy LISTEN TARGET FILE     forward, and record every request that was answered
  push.py compare KIND URL NAME FILE...    whether a database holds exactly the points recorded
  push.py pulled FILE METRICS          whether what was pushed is what scrapers get
  push.py campaign …                   see crash.sh

Nothing but the standard library: snappy and protobuf are decoded by hand, which
also makes this a second, independent reader of what the agent writes.
"""

import base64
import gzip
import http.client
import json
import math
import os
import re
import socket
import struct
import sys
import threading
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STALE = 0x7FF0000000000002


# --- what was sent -----------------------------------------------------------


def line_points(text):
    """Line protocol -> (measurement, tags, field, time in ns) -> value."""
    points = {}
    for line in text.splitlines():
        head, field, time = re.match(r"((?:\\.|[^ ])+) ((?:\\.|[^ ])+) (\d+)$", line).groups()
        parts = [re.sub(r"\\([,= ])", r"\1", part) for part in re.split(r"(?<!\\),", head)]
        tags = tuple(sorted(tuple(part.split("=", 1)) for part in parts[1:]))
        name, value = field.split("=", 1)
        value = int(value[:-1]) if value.endswith("i") else float(value)
        key = (parts[0], tags, name, int(time))
        assert key not in points, f"twice in one body: {key}"
        points[key] = value
    return points


def unsnappy(data):
    length, at = varint(data, 0)
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            size = tag >> 2
            if size >= 60:
                extra = size - 59
                size = int.from_bytes(data[at : at + extra], "little")
                at += extra
            out += data[at : at + size + 1]
            at += size + 1
            continue
        if tag & 3 == 1:
            size, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at]
            at += 1
        else:
            wide = 2 if tag & 3 == 2 else 4
            size, offset = (tag >> 2) + 1, int.from_bytes(data[at : at + wide], "little")
            at += wide
        for _ in range(size):
            out.append(out[-offset])
    assert len(out) == length
    return bytes(out)


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 1:
            value, at = data[at : at + 8], at + 8
        elif key & 7 == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {key & 7}")
        yield key >> 3, value


def series_points(data):
    """Remote write -> (labels, time in ms) -> value; staleness markers apart."""
    points, ended = {}, set()
    for _, series in fields(data):
        labels, samples = [], []
        for number, value in fields(series):
            if number == 1:
                labels.append(tuple(v.decode() for _, v in fields(value)))
            else:
                sample = dict(fields(value))
                samples.append((sample[2], sample[1]))
        assert labels == sorted(labels), f"not sorted: {labels}"
        for time, bits in samples:
            if struct.unpack("<Q", bits)[0] == STALE:
                ended.add((tuple(labels), time))
            else:
                points[(tuple(labels), time)] = struct.unpack("<d", bits)[0]
    return points, ended


def decoded(record):
    body = base64.b64decode(record["body"])
    encoding = record["encoding"]
    if encoding == "gzip":
        return gzip.decompress(body)
    return unsnappy(body) if encoding == "snappy" else body


def records(files):
    for file in files:
        with open(file) as lines:
            for line in lines:
                record = json.loads(line)
                if record["method"] == "POST" and "/query" not in record["path"]:
                    yield record


# --- what is there -----------------------------------------------------------


def get(url, **query):
    if query:
        url += "?" + urllib.parse.urlencode(query)
    request = urllib.request.Request(url)
    if "PUSH_AUTH" in os.environ:
        request.add_header("Authorization", "Basic " + base64.b64encode(os.environ["PUSH_AUTH"].encode()).decode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def influx_points(url, database="k8s"):
    answer = json.loads(get(url + "/query", db=database, epoch="ns", q='SELECT * FROM /.*/ GROUP BY *'))
    points = {}
    for series in answer["results"][0].get("series", []):
        tags = tuple(sorted((k, v) for k, v in series["tags"].items() if v))
        for row in series["values"]:
            for name, value in zip(series["columns"][1:], row[1:]):
                if value is not None:
                    points[(series["name"], tags, name, row[0])] = value
    return points


def prometheus_points(url, job):
    answer = json.loads(get(url + "/api/v1/query", query='{job="%s"}[1h]' % job))
    points = {}
    for series in answer["data"]["result"]:
        labels = tuple(sorted(series["metric"].items()))
        for time, value in series["values"]:
            points[(labels, round(time * 1000))] = float(value)
    return points


def victoria_points(url, match):
    get(url + "/internal/force_flush")
    points = {}
    for line in get(url + "/api/v1/export", **{"match[]": match}).splitlines():
        series = json.loads(line)
        labels = tuple(sorted(series["metric"].items()))
        for time, value in zip(series["timestamps"], series["values"]):
            # The staleness marker is exported as null.
            if value is not None:
                points[(labels, time)] = value
    return points


def as_victoria(points, database):
    """Points of line protocol under the names VictoriaMetrics gives them."""
    out = {}
    for (measurement, tags, field, time), value in points.items():
        name = f"{measurement}_{field}"
        labels = dict(tags, __name__=name, **({"db": database} if database else {}))
        out[(tuple(sorted(labels.items())), time // 1_000_000)] = value
    return out


def compare(kind, url, files, argument):
    sent = {}
    for record in records(files):
        body = decoded(record)
        points = series_points(body)[0] if record["encoding"] == "snappy" else line_points(body.decode())
        for key, value in points.items():
            assert sent.get(key, value) == value, f"sent twice with two values: {key}"
        sent.update(points)
    exact = True
    if kind == "influxdb":
        there = influx_points(url, argument or "k8s")
    elif kind == "prometheus":
        there = prometheus_points(url, argument or "nodegauge")
    elif kind == "victoria-remote-write":
        there, exact = victoria_points(url, '{job="%s"}' % (argument or "nodegauge")), False
    else:
        # VictoriaMetrics keeps floats as decimals of about 15 digits.
        sent, exact = as_victoria(sent, argument), False
        there = victoria_points(url, '{db="%s"}' % argument if argument else '{db="",job="",cluster_name!=""}')
    missing = [key for key in sent if key not in there]
    surplus = [key for key in there if key not in sent]
    def same(a, b):
        return a == b or (not exact and math.isclose(a, b, rel_tol=1e-12))
    wrong = [(key, sent[key], there[key]) for key in sent if key in there and not same(sent[key], there[key])]
    for what, keys in [("missing", missing), ("surplus", surplus), ("wrong", wrong)]:
        for key in keys[:3]:
            print(f"{what}: {key}")
    print(f"{len(sent)} points sent, {len(there)} there, {len(missing)} missing, {len(surplus)} surplus, {len(wrong)} wrong")
    return len(sent) > 0 and not missing and not surplus and not wrong


def pulled(file, text):
    """Whether what was pushed by remote write is what the same agent shows to
    scrapers, on a tree that stands still: each series against the sum of those
    that have its name and its own labels."""
    own = ("cpu", "device", "failure_type", "scope")
    shown = []
    for line in open(text):
        match = re.match(r"(\w+)\{(.*)\} (\S+)$", line)
        if match:
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2)))
            shown.append((match.group(1), labels, float(match.group(3))))
    last = {}
    for record in records([file]):
        for (labels, _), value in series_points(decoded(record))[0].items():
            last[labels] = value
    same, wrong = 0, []
    for labels, value in last.items():
        labels = dict(labels)
        def fits(name, other):
            place = other.get("id", "")
            here = place == labels["id"] if labels["id"].startswith("/") else labels["id"] in place.split("/")[-1]
            return name == labels["__name__"] and here and all(other.get(k) == labels[k] for k in own if k in labels)
        found = [v for name, other, v in shown if fits(name, other)]
        if not found:
            continue
        if math.isclose(sum(found), value, rel_tol=1e-12):
            same += 1
        else:
            wrong.append((labels, value, found))
    for one in wrong[:5]:
        print(f"wrong: {one}")
    print(f"{same} series pushed as they are shown to scrapers, {len(wrong)} different")
    return same >= 25 and not wrong


# --- the proxy ---------------------------------------------------------------


class Proxy(ThreadingHTTPServer):
    """Forwards to `target`; `mood` says how it misbehaves."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, listen, target, file):
        self.target, self.mood, self.guard = target, "well", threading.Lock()
        self.out = open(file, "a", buffering=1)
        super().__init__(("127.0.0.1", listen), Forward)

    def handle_error(self, request, client_address):
        pass


class Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle_any(self):
        mood = self.server.mood
        length = int(self.headers.get("Content-Length", 0))
        write = self.command == "POST" and "/query" not in self.path
        if write and mood == "cut":
            self.rfile.read(length // 2)
            self.hang_up()
            return
        body = self.rfile.read(length)
        if len(body) < length:
            self.hang_up()
            return
        if write and mood in ("500", "429"):
            self.answer(int(mood), b"not now", {"Retry-After": "1"} if mood == "429" else {})
            return
        if mood == "delay":
            threading.Event().wait(1.5)
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=30)
        try:
            skipped = ("host", "connection", "accept-encoding")
            headers = {k: v for k, v in self.headers.items() if k.lower() not in skipped}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            text = answer.read()
        except OSError:
            self.hang_up()
            return
        except http.client.HTTPException:
            self.hang_up()
            return
        finally:
            upstream.close()
        # Recorded before it is answered: what the agent knows, we know.
        record = {
            "method": self.command, "path": self.path, "status": answer.status,
            "encoding": self.headers.get("Content-Encoding", ""), "body": base64.b64encode(body).decode(),
        }
        with self.server.guard:
            self.server.out.write(json.dumps(record) + "\n")
        if write and mood == "cut-answer":
            self.hang_up()
            return
        self.answer(answer.status, text, {})

    do_GET = do_POST = handle_any

    def hang_up(self):
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def answer(self, status, text, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if status != 204:
            self.wfile.write(text)


def main(words):
    if words[0] == "proxy":
        Proxy(int(words[1]), int(words[2]), words[3]).serve_forever()
    elif words[0] == "compare":
        kind, url, argument, *files = words[1:]
        sys.exit(0 if compare(kind, url, files, argument) else 1)
    elif words[0] == "pulled":
        sys.exit(0 if pulled(*words[1:]) else 1)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
