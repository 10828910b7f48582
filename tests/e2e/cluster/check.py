"""What cluster.sh asks the databases of its cluster.

    check.py heapster INFLUXDB NODE NAMESPACE POD   every query of Heapster's dashboards returns data
    check.py whole INFLUXDB STEP SINCE FROM UNTIL   from SINCE on no step is missing, but those between
                                                    FROM and UNTIL, when no agent ran; seconds since 1970
    check.py rules                                  kube-prometheus' recording rules, on standard output
    check.py sums PROMETHEUS JOB                    the cluster's CPU and memory, by those rules, and of what
                                                    JOB says, which the rules may not know
    check.py families PROMETHEUS                    those rules, and its dashboards' queries of the 17
                                                    container families, return data
"""

import json
import pathlib
import sys
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import aggregator  # noqa: E402

# How kube-prometheus tells the kubelets' cAdvisor.
CADVISOR = 'job="kubelet", metrics_path="/metrics/cadvisor"'
NODE_OF = 'group_left(node) topk by (cluster, namespace, pod) (1, max by (cluster, namespace, pod, node) (kube_pod_info{node!=""}))'
PREFIX = "node_namespace_pod_container"
# It takes rates over five minutes, which a test has not.
WINDOW = "1m"


def recording(job="kubelet", more=""):
    chosen = f'{CADVISOR.replace("kubelet", job)}, image!=""{more}'
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
        assert found, f"no {record} of {job}"
        print(name, found[0]["value"][1], prometheus(url, f"count({steady})")[0]["value"][1])


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
