"""Helper of aggregator.sh.

kubelet PORT TREE NODE       serves /pods for the pods of a captured tree
points URL COUNT NODE...     whether InfluxDB has so many steps of every node
queries URL SCHEMA NODE...   every query of Heapster's Grafana dashboards returns data
same URL SCHEMA MODEL NODE.. the points are those that the model answers with
whole URL SCHEMA NODE...     no step is missing between the first and the last
"""

import base64
import http.server
import json
import os
import re
import sys
import urllib.parse
import urllib.request

STEP = 4_000_000_000
# What the made-up specs say of every container.
CPU_REQUEST, CPU_LIMIT = 100, 500
MEMORY_REQUEST, MEMORY_LIMIT = 64 << 20, 256 << 20
DATABASES = {"plain": "k8s", "fields": "fields"}


def pods(tree, node):
    """Pods by UID, each with the ids of its containers, out of the cgroup paths."""
    found = {}
    for path, _, _ in os.walk(os.path.join(tree, "sys/fs/cgroup")):
        match = re.search(r"pod([0-9a-f]{8}[0-9a-f_-]{24,28})(?:\.slice)?/(?:cri-containerd-)?([0-9a-f]{64})(?:\.scope)?$", path)
        if match:
            uid = match[1].replace("_", "-")
            ids = found.setdefault(uid, [])
            if match[2] not in ids:
                ids.append(match[2])
    items = []
    for number, (uid, ids) in enumerate(sorted(found.items())):
        volume = os.path.join(tree, "var/lib/kubelet/pods", uid, "volumes/kubernetes.io~empty-dir/cache")
        os.makedirs(volume, exist_ok=True)
        with open(os.path.join(volume, "data"), "wb") as file:
            file.write(b"x" * 100_000)
        names = [f"c{at}" for at in range(len(ids))]
        amounts = {
            "requests": {"cpu": f"{CPU_REQUEST}m", "memory": str(MEMORY_REQUEST)},
            "limits": {"cpu": f"{CPU_LIMIT}m", "memory": str(MEMORY_LIMIT)},
        }
        items.append({
            "metadata": {"name": f"{node}-pod-{number}", "namespace": f"space-{number % 2}", "uid": uid,
                         "labels": {"app": "web", "node": node}},
            "spec": {"containers": [{"name": n, "image": "r/app:0", "resources": amounts} for n in names]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": n, "image": "r/app:0", "restartCount": 0, "containerID": f"containerd://{i}",
                 "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
                for n, i in zip(names, sorted(ids))]},
        })
    return items


def kubelet(port, tree, node):
    body = json.dumps({"kind": "PodList", "apiVersion": "v1", "items": pods(tree, node)}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


def query(url, database, text):
    """Series of a statement: (tags, rows without the null ones)."""
    words = urllib.parse.urlencode({"db": database, "epoch": "ns", "q": text})
    request = urllib.request.Request(f"{url}/query?{words}")
    request.add_header("Authorization", "Basic " + base64.b64encode(b"root:root").decode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        result = json.load(answer)["results"][0]
    if "error" in result:
        raise SystemExit(f"{text}: {result['error']}")
    rows = [(s.get("tags", {}), s["values"]) for s in result.get("series", [])]
    return [(tags, [v for v in values if v[1] is not None]) for tags, values in rows]


def source(schema, metric):
    """Measurement and field of a metric."""
    return (metric, "value") if schema == "plain" or "/" not in metric else tuple(metric.split("/", 1))


def raw(url, schema, metric, where, group):
    measurement, field = source(schema, metric)
    tags = ", ".join(f'"{tag}"' for tag in group)
    text = f'SELECT "{field}" FROM "{measurement}" WHERE {where}' + (f" GROUP BY {tags}" if group else "")
    return query(url, DATABASES[schema], text)


def points(url, count, *nodes):
    for schema in DATABASES:
        for metric in ["memory/usage", "cpu/usage_rate", "cpu/limit" if len(nodes) > 1 else "uptime"]:
            wanted = set(nodes) - ({"live"} if metric == "cpu/limit" else set())
            found = {t["nodename"]: len(v) for t, v in raw(url, schema, metric, "\"type\" = 'node'", ["nodename"])}
            if any(found.get(node, 0) < int(count) for node in wanted):
                raise SystemExit(f"{schema} {metric}: {found}")
        volumes = raw(url, schema, "filesystem/usage", "\"type\" = 'pod'", ["pod_name"])
        if not volumes:
            raise SystemExit("no volume is measured yet")


NODE = "\"type\" = 'node'"
POD = "\"type\" = '{}' AND \"namespace_name\" =~ /{}$/ AND \"pod_name\" =~ /{}$/"


def panels(node, disk, namespace, pod):
    """Every target of the dashboards: title, metrics, condition, tag grouped by."""
    cpu = ["cpu/usage_rate", "cpu/limit", "cpu/request"]
    memory = ["memory/usage", "memory/working_set", "memory/limit", "memory/request"]
    network = ["network/tx_rate", "network/rx_rate"]
    filesystem = ["filesystem/usage", "filesystem/limit"]
    for title, metrics in [("CPU", cpu), ("memory", memory), ("network", network), ("filesystem", filesystem)]:
        yield f"overall {title}", metrics, NODE, None
        yield f"{title} by node", metrics, NODE, "nodename"
        one = disk if title == "filesystem" else node
        yield f"one node {title}", metrics, f'{NODE} AND "nodename" =~ /{one}$/', "nodename"
    for title, metrics, kind, group in [
        ("CPU", cpu, "pod_container", "container_name"),
        ("memory", memory, "pod_container", "container_name"),
        ("network", network, "pod", None),
        ("filesystem", filesystem, "pod", None),
    ]:
        yield f"pod {title}", metrics, POD.format(kind, namespace, pod), group


def returned(url, schema, title, metrics, where, group):
    """Asks what a target asks; how many queries that were."""
    count = 0
    for metric in metrics:
        measurement, field = source(schema, metric)
        # The stored text says mean, the editor's model of it sum.
        for function in ["mean", "sum"] if schema == "plain" else ["sum"]:
            tag = f', "{group}"' if group else ""
            text = (f'SELECT {function}("{field}") FROM "{measurement}" WHERE {where} AND time > now() - 30m '
                    f"GROUP BY time(1m){tag} fill(null)")
            rows = query(url, DATABASES[schema], text)
            assert any(values for _, values in rows), f"{title}, {metric}: no data for {text}"
            count += 1
    return count


def queries(url, schema, *nodes):
    database, count, first = DATABASES[schema], 0, "uptime"
    values = lambda text: {row[1] for _, rows in query(url, database, text) for row in rows}
    found = values(f'SHOW TAG VALUES FROM "{first}" WITH KEY = "nodename"')
    assert found == set(nodes), f"template nodename: {found}"
    namespaces = values(f'SHOW TAG VALUES FROM "{first}" WITH KEY = "namespace_name"')
    assert namespaces == {"space-0", "space-1"}, f"template namespace: {namespaces}"
    names = values(f'SHOW TAG VALUES FROM "{first}" WITH KEY = "pod_name" WHERE "namespace_name" =~ /space-0$/')
    assert names and all(name.rsplit("-", 2)[0] in nodes for name in names), f"template podname: {names}"
    networks = {t["pod_name"] for t, v in raw(url, schema, "network/rx_rate", "\"type\" = 'pod'", ["pod_name"]) if v}
    volumes = {t["pod_name"] for t, v in raw(url, schema, "filesystem/usage", "\"type\" = 'pod'", ["pod_name"]) if v}
    pod = sorted(networks & volumes & names)[0]
    node = pod.split("-")[0]
    # The captured trees are of guests without a disk.
    for title, metrics, where, group in panels(node, "live", "space-0", pod):
        count += returned(url, schema, title, metrics, where, group)
        if title.startswith("pod ") and title[4:] in ("CPU", "memory"):
            request, limit = (CPU_REQUEST, CPU_LIMIT) if "CPU" in title else (MEMORY_REQUEST, MEMORY_LIMIT)
            for metric, value in [("request", request), ("limit", limit)]:
                rows = raw(url, schema, f"{metrics[0].split('/')[0]}/{metric}", where, [group])
                assert rows and all(v[1] == value for _, vs in rows for v in vs), f"{title} {metric}: {rows}"
    print(f"{schema}: {count} queries of the dashboards and 3 templates return data")


def model(url, path):
    with urllib.request.urlopen(f"{url}/api/v1/model/{path}", timeout=30) as answer:
        found = json.load(answer)["metrics"]
    return {p["timestamp"]: p.get("floatValue", p["value"]) for p in found}


def stamp(ns):
    import datetime
    return datetime.datetime.fromtimestamp(ns // 10**9, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def same(url, schema, base, *nodes):
    count = 0
    metrics = ["cpu/usage", "cpu/usage_rate", "cpu/request", "memory/usage", "memory/working_set", "memory/limit",
               "network/rx_rate", "cpu/node_utilization", "uptime"]
    subjects = [(f"nodes/{node}", f"{NODE} AND \"nodename\" = '{node}'", metrics) for node in nodes]
    for tags, _ in raw(url, schema, "memory/usage", "\"type\" = 'pod_container'",
                       ["namespace_name", "pod_name", "container_name"]):
        space, pod, container = tags["namespace_name"], tags["pod_name"], tags["container_name"]
        where = f"\"type\" = 'pod_container' AND \"pod_name\" = '{pod}' AND \"container_name\" = '{container}'"
        subjects.append((f"namespaces/{space}/pods/{pod}/containers/{container}", where, metrics))
        where = f"\"type\" = 'pod' AND \"pod_name\" = '{pod}'"
        subjects.append((f"namespaces/{space}/pods/{pod}", where, metrics))
    sums = ["cpu/usage_rate", "cpu/request", "cpu/limit", "memory/usage", "memory/request", "memory/limit"]
    for space in ["space-0", "space-1"]:
        subjects.append((f"namespaces/{space}", f"\"type\" = 'ns' AND \"namespace_name\" = '{space}'", sums))
    subjects.append(("", "\"type\" = 'cluster'", sums))
    for path, where, names in subjects:
        for metric in names:
            there = {stamp(t): v for _, rows in raw(url, schema, metric, where, []) for t, v in rows}
            here = model(base, f"{path}/metrics/{metric}" if path else f"metrics/{metric}")
            common = there.keys() & here.keys()
            assert common or not here, f"{path} {metric}: {len(here)} in the model, {len(there)} in InfluxDB"
            for time in common:
                assert abs(there[time] - here[time]) <= 1e-9 * abs(here[time]), \
                    f"{path} {metric} at {time}: {there[time]} in InfluxDB, {here[time]} in the model"
            count += len(common)
    assert count > 500, f"only {count} points"
    print(f"{schema}: {count} points of {len(subjects)} sets are the model's")


def whole(url, schema, *nodes):
    sets = [(f"\"type\" = 'node' AND \"nodename\" = '{node}'", node) for node in nodes]
    sets += [("\"type\" = 'cluster'", "cluster"), ("\"type\" = 'ns' AND \"namespace_name\" = 'space-0'", "space-0")]
    count = 0
    for where, name in sets:
        rows = raw(url, schema, "memory/usage", where, [])
        times = [t for _, vs in rows for t, _ in vs]
        assert len(times) == len(set(times)), f"{name}: two points of one time"
        gaps = [stamp(a) for a, b in zip(times, times[1:]) if b - a != STEP]
        assert len(times) > 8 and not gaps, f"{name}: {len(times)} steps, missing after {gaps}"
        count += len(times)
    print(f"{schema}: {count} steps of {len(sets)} sets, none missing, none twice")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
