"""What cluster.sh asks the databases of its cluster.

    check.py heapster INFLUXDB NODE NAMESPACE POD   every query of Heapster's dashboards returns data
    check.py whole INFLUXDB STEP SINCE FROM UNTIL   from SINCE on no step is missing, but those between
                                                    FROM and UNTIL, when no agent ran; seconds since 1970
    check.py used CONTAINER... < PODS               what metrics.k8s.io tells of containers is what the kernel's
                                                    own files have of the seconds it tells it of; PODS is what
                                                    kubectl get pods -A -o json says
    check.py rules                                  kube-prometheus' recording rules, on standard output
    check.py sums PROMETHEUS JOB                    the cluster's CPU and memory, by those rules, and of what
                                                    JOB says, which the rules may not know
    check.py kernel < PODS                          the same of the two minutes that it takes, as the kernel's own
                                                    files have it
    check.py families PROMETHEUS                    those rules, and its dashboards' queries of the 17
                                                    container families, return data
"""

import datetime
import json
import os
import pathlib
import sys
import time
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import aggregator  # noqa: E402
import stand_in  # noqa: E402

# How kube-prometheus tells the kubelets' cAdvisor.
CADVISOR = 'job="kubelet", metrics_path="/metrics/cadvisor"'
NODE_OF = 'group_left(node) topk by (cluster, namespace, pod) (1, max by (cluster, namespace, pod, node) (kube_pod_info{node!=""}))'
PREFIX = "node_namespace_pod_container"
# It takes rates over five minutes, which a test has not.
WINDOW = "1m"


def recording(job="kubelet", more=""):
    # The agents' own job has no path.
    source = 'job="nodegauge"' if job == "nodegauge" else CADVISOR.replace("kubelet", job)
    chosen = f'{source}, image!=""{more}'
    for function, suffix in [("rate", f"rate{WINDOW}"), ("irate", "irate")]:
        name = "container_cpu_usage_seconds_total"
        yield (f"{PREFIX}:{name}:sum_{suffix}", f"sum by (cluster, namespace, pod, container) ({function}({name}{{{chosen}}}[{WINDOW}])) "
               f"* on (cluster, namespace, pod) {NODE_OF}")
    for name in ["working_set_bytes", "rss", "cache", "swap"]:
        yield (f"{PREFIX}:container_memory_{name}", f"container_memory_{name}{{{chosen}}} * on (cluster, namespace, pod) {NODE_OF}")


def queries():
    """What the pages Compute Resources and Networking ask, by family."""
    per_container = f'{CADVISOR}, container!="", namespace="shop"'
    periods = [f"container_cpu_cfs_{kind}periods_total" for kind in ["throttled_", ""]]
    yield periods, " / ".join(f"sum by (container) (increase({name}{{{per_container}}}[{WINDOW}]))" for name in periods)
    name = "container_cpu_usage_seconds_total"
    yield [name], f"sum by (container) (rate({name}{{{per_container}}}[{WINDOW}]))"
    for kind in ["working_set_bytes", "rss", "cache", "swap"]:
        name = f"container_memory_{kind}"
        yield [name], f'sum by (container) ({name}{{{per_container}, image!=""}})'
    for way in ["receive", "transmit"]:
        for kind in ["bytes", "packets", "packets_dropped"]:
            name = f"container_network_{way}_{kind}_total"
            yield [name], f'sum by (pod) (rate({name}{{{CADVISOR}, namespace="shop"}}[{WINDOW}]))'
    device = 'device=~"(/dev/)?(mmcblk.p.+|nvme.+|rbd.+|sd.+|vd.+|xvd.+|dm-.+|md.+|dasd.+)"'
    for way in ["reads", "writes"]:
        for name in [f"container_fs_{way}_total", f"container_fs_{way}_bytes_total"]:
            yield [name], f"sum by (pod, container) (rate({name}{{{CADVISOR}, container!=\"\", {device}}}[{WINDOW}]))"


def prometheus(url, query):
    words = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"{url}/api/v1/query?{words}", timeout=20) as answer:
        return [s for s in json.load(answer)["data"]["result"] if s["value"][1] != "NaN"]


def rules():
    found = [{"record": record, "expr": expr} for record, expr in recording()]
    json.dump({"groups": [{"name": "k8s.rules", "rules": found}]}, sys.stdout, indent=1)


def sums(url, job):
    """Means of a minute, over the containers of pods that neither come nor go: a name, its sum, its rows."""
    # Without `container` they are pause containers, which agents do not know as such.
    for record, expression in recording(job, ', container!=""'):
        name = record.split(":")[1]
        if record.endswith("irate") or name.endswith(("cache", "swap")):
            continue
        rows = f'{record}{{container!=""}}' if job == "kubelet" else f"({expression})"
        steady = f'{rows} * on (namespace, pod) group_left() kube_pod_info{{namespace=~"shop|nodegauge", pod!~"burn-.*"}}'
        found = prometheus(url, f"avg_over_time(sum({steady})[1m:5s])")
        # A scrape that takes too long leaves a hole.
        count = prometheus(url, f"max_over_time(count({steady})[1m:5s])")
        assert found and count, f"no {record} of {job}"
        print(name, found[0]["value"][1], count[0]["value"][1])


def fields(path):
    with open(path) as file:
        return {words[0]: int(words[1]) for words in map(str.split, file)}


def reading(directory, v1):
    """CPU seconds, working set and anonymous memory of one container, from v1's directories or v2's."""
    if v1:
        with open(f"{directory['cpuacct']}/cpuacct.usage") as file:
            cpu = int(file.read()) / 1e9
        stat, names, usage = fields(f"{directory['memory']}/memory.stat"), ("total_inactive_file", "total_rss"), "memory.usage_in_bytes"
    else:
        cpu = fields(f"{directory['memory']}/cpu.stat")["usage_usec"] / 1e6
        stat, names, usage = fields(f"{directory['memory']}/memory.stat"), ("inactive_file", "anon"), "memory.current"
    with open(f"{directory['memory']}/{usage}") as file:
        return cpu, max(int(file.read()) - stat[names[0]], 0), stat[names[1]]


def directories(pods):
    """Of each container that runs: (pod, container) -> its cgroups by controller; and whether they are v1's."""
    v1 = os.path.isdir("/sys/fs/cgroup/memory")
    found = {}
    for pod in pods:
        for status in pod["status"].get("containerStatuses", []):
            if not status["state"].get("running"):
                continue
            found[status["containerID"].split("//")[1]] = (pod["metadata"]["name"], status["name"]), {}
    for controller in ["cpuacct", "memory"] if v1 else ["memory"]:
        for path, _, _ in os.walk(f"/sys/fs/cgroup/{controller if v1 else ''}"):
            for name, (_, paths) in found.items():
                if name in os.path.basename(path):
                    paths[controller] = path
    return dict(found.values()), v1


def at(samples, moment):
    """A counter between two of its samples."""
    after = next(i for i, (t, _) in enumerate(samples) if t >= moment)
    (t, a), (u, b) = samples[max(after - 1, 0)], samples[after]
    return b if u == t else a + (b - a) * (moment - t) / (u - t)


def steady(pods):
    return [pod for pod in pods if pod["metadata"]["namespace"] in ("shop", "nodegauge")
            and not pod["metadata"]["name"].startswith("burn-") and "deletionTimestamp" not in pod["metadata"]]


def kernel():
    """Weighted as `sums` is: the mean of a minute of rates that each look back a minute."""
    found, v1 = directories(steady(json.load(sys.stdin)["items"]))
    samples = []
    until = time.monotonic() + 121
    while time.monotonic() < until:
        samples.append((time.monotonic(), [sum(figure) for figure in zip(*(reading(d, v1) for d in found.values()))]))
        time.sleep(1)
    end = samples[-1][0]
    cpu = [(t, figures[0]) for t, figures in samples]
    rates = [(at(cpu, end - back) - at(cpu, end - back - 60)) / 60 for back in range(0, 60, 5)]
    last = [figures for t, figures in samples if t >= end - 60]
    print("container_cpu_usage_seconds_total", sum(rates) / len(rates), len(found))
    for i, name in [(1, "working_set_bytes"), (2, "rss")]:
        print(f"container_memory_{name}", sum(figures[i] for figures in last) / len(last), len(found))


def quantity(text):
    """Kubernetes' words for cores -> millicores."""
    scales = {"n": 1e-6, "u": 1e-3, "m": 1}
    return float(text[:-1]) * scales[text[-1]] if text[-1] in scales else float(text) * 1e3


def used(*containers):
    found, v1 = directories(json.load(sys.stdin)["items"])
    found = {key: paths for key, paths in found.items() if key[1] in containers}
    samples, told = {key: [] for key in found}, {}
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for _ in range(4):
            for key, paths in found.items():
                samples[key].append((time.time(), reading(paths, v1)[0]))
            time.sleep(0.5)
        for item in stand_in.api("/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods")["items"]:
            end = datetime.datetime.fromisoformat(item["timestamp"].replace("Z", "+00:00")).timestamp()
            for container in item["containers"]:
                key = (item["metadata"]["name"], container["name"])
                if key in found:
                    told[key, end] = quantity(container["usage"]["cpu"]), float(item["window"].rstrip("s"))
    compared = {}
    for (key, end), (is_told, window) in sorted(told.items()):
        if end - window >= samples[key][0][0] and end + 1 <= samples[key][-1][0]:
            # Its time is told in whole seconds.
            really = [(at(samples[key], end + late) - at(samples[key], end + late - window)) / window * 1e3 for late in (0, 0.5, 1)]
            right = 0.9 * min(really) <= is_told <= 1.1 * max(really)
            compared.setdefault(key[1], []).append((round(is_told), round(really[1]), right))
    for name, figures in compared.items():
        print(f"{name}: " + ", ".join(f"{is_told}m of {really}m" for is_told, really, _ in figures), end="; ")
    print()
    assert set(compared) == set(containers) and all(len(figures) > 1 for figures in compared.values()), "too few samples"
    assert all(right for figures in compared.values() for *_, right in figures), "they differ"


def families(url):
    asked, empty = set(), []
    for record, _ in recording():
        if not prometheus(url, record):
            empty.append(record)
    for names, query in queries():
        asked.update(names)
        if not prometheus(url, query):
            empty.append(query)
    assert len(asked) == 17, sorted(asked)
    assert not empty, "no data: " + "; ".join(empty)
    print(f"{len(list(recording()))} recording rules and {len(list(queries()))} queries of {len(asked)} families return data")


def heapster(url, node, namespace, pod):
    values = lambda text: {row[1] for _, rows in aggregator.query(url, "k8s", text) for row in rows}
    found = values('SHOW TAG VALUES FROM "uptime" WITH KEY = "nodename"')
    assert found == {node}, f"template nodename: {found}"
    spaces = values('SHOW TAG VALUES FROM "uptime" WITH KEY = "namespace_name"')
    assert {namespace, "nodegauge"} <= spaces, f"template namespace: {spaces}"
    pods = values(f'SHOW TAG VALUES FROM "uptime" WITH KEY = "pod_name" WHERE "namespace_name" =~ /{namespace}$/')
    assert pod in pods, f"template podname: {pods}"
    count = sum(aggregator.returned(url, "plain", *panel) for panel in aggregator.panels(node, node, namespace, pod))
    print(f"{count} queries of Heapster's dashboards and 3 templates return data")


def whole(url, *seconds):
    step, since, begin, end = (int(s) * 10**9 for s in seconds)
    sets = [("node", "\"type\" = 'node'"), ("namespace", "\"type\" = 'ns' AND \"namespace_name\" = 'shop'"),
            ("cluster", "\"type\" = 'cluster'"),
            ("pod", "\"type\" = 'pod' AND \"namespace_name\" = 'shop' AND \"pod_name\" =~ /^steady-/"),
            ("container", "\"type\" = 'pod_container' AND \"namespace_name\" = 'shop' AND \"pod_name\" =~ /^steady-/ AND \"container_name\" = 'work'")]
    for name, where in sets:
        for metric in ["memory/usage", "cpu/usage_rate"]:
            rows = aggregator.raw(url, "plain", metric, f"{where} AND time >= {since}", [])
            times = sorted(t for _, points in rows for t, _ in points)
            assert times and len(times) == len(set(times)), f"{name} {metric}: {len(times)} points, {len(set(times))} times"
            there = set(times)
            missing = [t for t in range(times[0], times[-1], step) if t not in there]
            away = [t for t in missing if begin <= t <= end]
            lost = [aggregator.stamp(t) for t in missing if t not in away]
            assert times[0] < begin and times[-1] > end, f"{name} {metric}: {aggregator.stamp(times[0])} to {aggregator.stamp(times[-1])}"
            assert not lost, f"{name} {metric}: {len(times)} steps, {len(lost)} lost: {lost}"
            print(f"{name} {metric}: {len(times)} steps, {len(away)} while no agent ran, none lost")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
