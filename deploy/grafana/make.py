#!/usr/bin/env python3
"""Writes the dashboards beside it: what a panel asks for is said once, here.

    deploy/grafana/make.py          writes NAME.json for each
    deploy/grafana/make.py --check  fails if a file is not what it would write
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
INFLUXDB = {"type": "influxdb", "uid": "${datasource}"}

# What is summed over pods: their own rows, which hold the pause container too.
POD = 'pod!="",container="",name=""'
ROOT = 'id="/"'


def rate(family, labels):
    return f"rate({family}{{{labels}}}[$__rate_interval])"


def variable(name, query):
    """A choice of several values that the query finds."""
    return {"name": name, "type": "query", "datasource": PROMETHEUS, "query": query, "refresh": 2, "sort": 1,
            "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


NODE = variable("node", "label_values(machine_cpu_cores, instance)")
NAMESPACE = variable("namespace", 'label_values(container_memory_working_set_bytes{pod!=""}, namespace)')
PODS = variable("pod", 'label_values(container_memory_working_set_bytes{namespace=~"$namespace"}, pod)')
CONTAINER = variable(
    "container", 'label_values(container_memory_working_set_bytes{namespace=~"$namespace",pod=~"$pod"}, container)')
IN_NODE = f'{ROOT},instance=~"$node"'
POD_ON_NODE = POD + ',instance=~"$node"'
IN_NAMESPACE = f'{POD},namespace=~"$namespace"'
IN_POD = 'container!="",namespace=~"$namespace",pod=~"$pod"'
OF_POD = f'{POD},namespace=~"$namespace",pod=~"$pod"'
IN_CONTAINER = IN_POD + ',container=~"$container"'
BY_CONTAINER = "by(namespace,pod,container)"

# title, unit, (expression, legend)...
BOARDS = {
    "cluster": ("Cluster", [], [
        ("Nodes", "short", ("count(machine_cpu_cores)", "nodes")),
        ("CPU of all nodes", "none", (f"sum({rate('container_cpu_usage_seconds_total', ROOT)})", "used"),
         ("sum(machine_cpu_cores)", "cores")),
        ("Memory of all nodes", "bytes", (f"sum(container_memory_working_set_bytes{{{ROOT}}})", "working set"),
         ("sum(machine_memory_bytes)", "memory")),
        ("CPU by namespace", "none",
         (f"sum by(namespace)({rate('container_cpu_usage_seconds_total', POD)})", "{{namespace}}")),
        ("Memory by namespace", "bytes",
         (f"sum by(namespace)(container_memory_working_set_bytes{{{POD}}})", "{{namespace}}")),
        ("Pods by namespace", "short", (f"count by(namespace)(container_memory_working_set_bytes{{{POD}}})", "{{namespace}}")),
        ("Network by namespace, received", "Bps",
         ("sum by(namespace)(rate(container_network_receive_bytes_total{pod!=\"\"}[$__rate_interval]))", "{{namespace}}")),
        ("Network by namespace, sent", "Bps",
         ("sum by(namespace)(rate(container_network_transmit_bytes_total{pod!=\"\"}[$__rate_interval]))", "{{namespace}}")),
        ("Pods that use most CPU", "none",
         (f"topk(10, sum by(namespace,pod)({rate('container_cpu_usage_seconds_total', POD)}))", "{{namespace}}/{{pod}}")),
        ("Pods that use most memory", "bytes",
         (f"topk(10, sum by(namespace,pod)(container_memory_working_set_bytes{{{POD}}}))", "{{namespace}}/{{pod}}")),
        ("OOM kills in ten minutes", "short",
         (f"sum by(namespace)(increase(container_oom_events_total{{{POD}}}[10m]))", "{{namespace}}")),
    ]),
    "node": ("Node", [NODE], [
        ("CPU", "none", (f"sum by(instance)({rate('container_cpu_usage_seconds_total', IN_NODE)})", "{{instance}}"),
         ('machine_cpu_cores{instance=~"$node"}', "{{instance}} cores")),
        ("Memory", "bytes", (f"container_memory_working_set_bytes{{{IN_NODE}}}", "{{instance}} working set"),
         ('machine_memory_bytes{instance=~"$node"}', "{{instance}} memory")),
        ("Memory, what it is", "bytes", (f"container_memory_rss{{{IN_NODE}}}", "{{instance}} anonymous"),
         (f"container_memory_cache{{{IN_NODE}}}", "{{instance}} cache")),
        ("Major page faults", "ops",
         (rate("container_memory_failures_total", IN_NODE + ',failure_type="pgmajfault",scope="container"'), "{{instance}}")),
        ("Waiting for CPU, I/O or memory", "percentunit",
         (rate("container_pressure_cpu_waiting_seconds_total", IN_NODE), "{{instance}} CPU"),
         (rate("container_pressure_io_waiting_seconds_total", IN_NODE), "{{instance}} I/O"),
         (rate("container_pressure_memory_waiting_seconds_total", IN_NODE), "{{instance}} memory")),
        ("Network", "Bps",
         (f"sum by(instance)({rate('container_network_receive_bytes_total', IN_NODE)})", "{{instance}} received"),
         (f"sum by(instance)({rate('container_network_transmit_bytes_total', IN_NODE)})", "{{instance}} sent")),
        ("Network, packets dropped", "pps",
         (f"sum by(instance)({rate('container_network_receive_packets_dropped_total', IN_NODE)})", "{{instance}} received"),
         (f"sum by(instance)({rate('container_network_transmit_packets_dropped_total', IN_NODE)})", "{{instance}} sent")),
        ("Disks", "Bps",
         (f"sum by(instance,device)({rate('container_fs_reads_bytes_total', IN_NODE)})", "{{instance}} {{device}} read"),
         (f"sum by(instance,device)({rate('container_fs_writes_bytes_total', IN_NODE)})", "{{instance}} {{device}} written")),
        ("Filesystems, used", "percentunit",
         (f"container_fs_usage_bytes{{{IN_NODE}}} / container_fs_limit_bytes{{{IN_NODE}}}", "{{instance}} {{device}}")),
        ("Pods that use most CPU", "none",
         (f"topk(10, sum by(namespace,pod)({rate('container_cpu_usage_seconds_total', POD_ON_NODE)}))",
          "{{namespace}}/{{pod}}")),
        ("Pods that use most memory", "bytes",
         (f"topk(10, sum by(namespace,pod)(container_memory_working_set_bytes{{{POD},instance=~\"$node\"}}))",
          "{{namespace}}/{{pod}}")),
    ]),
    "namespace": ("Namespace", [NAMESPACE], [
        ("CPU by pod", "none",
         (f"sum by(namespace,pod)({rate('container_cpu_usage_seconds_total', IN_NAMESPACE)})", "{{namespace}}/{{pod}}")),
        ("Memory by pod", "bytes",
         (f"sum by(namespace,pod)(container_memory_working_set_bytes{{{IN_NAMESPACE}}})", "{{namespace}}/{{pod}}")),
        ("Periods throttled, by pod", "percentunit",
         ('sum by(namespace,pod)(rate(container_cpu_cfs_throttled_periods_total{container!="",namespace=~"$namespace"}'
          '[$__rate_interval])) / sum by(namespace,pod)(rate(container_cpu_cfs_periods_total{container!="",'
          'namespace=~"$namespace"}[$__rate_interval]) > 0)', "{{namespace}}/{{pod}}")),
        ("Waiting for memory, by pod", "percentunit",
         (rate("container_pressure_memory_waiting_seconds_total", IN_NAMESPACE), "{{namespace}}/{{pod}}")),
        ("Network received, by pod", "Bps",
         ('sum by(namespace,pod)(rate(container_network_receive_bytes_total{namespace=~"$namespace",pod!=""}'
          "[$__rate_interval]))", "{{namespace}}/{{pod}}")),
        ("Network sent, by pod", "Bps",
         ('sum by(namespace,pod)(rate(container_network_transmit_bytes_total{namespace=~"$namespace",pod!=""}'
          "[$__rate_interval]))", "{{namespace}}/{{pod}}")),
        ("OOM kills in ten minutes, by pod", "short",
         (f"increase(container_oom_events_total{{{IN_NAMESPACE}}}[10m])", "{{namespace}}/{{pod}}")),
    ]),
    "pod": ("Pod", [NAMESPACE, PODS], [
        ("CPU by container", "none",
         (f"sum {BY_CONTAINER}({rate('container_cpu_usage_seconds_total', IN_POD)})", "{{pod}}/{{container}}")),
        ("Memory by container", "bytes", (f"container_memory_working_set_bytes{{{IN_POD}}}", "{{pod}}/{{container}}")),
        ("Network", "Bps",
         ('sum by(pod,interface)(rate(container_network_receive_bytes_total{namespace=~"$namespace",pod=~"$pod"}'
          "[$__rate_interval]))", "{{pod}} {{interface}} received"),
         ('sum by(pod,interface)(rate(container_network_transmit_bytes_total{namespace=~"$namespace",pod=~"$pod"}'
          "[$__rate_interval]))", "{{pod}} {{interface}} sent")),
        ("Disks by container", "Bps",
         (f"sum {BY_CONTAINER}({rate('container_fs_reads_bytes_total', IN_POD)})", "{{pod}}/{{container}} read"),
         (f"sum {BY_CONTAINER}({rate('container_fs_writes_bytes_total', IN_POD)})", "{{pod}}/{{container}} written")),
        ("Waiting for CPU, I/O or memory", "percentunit",
         (rate("container_pressure_cpu_waiting_seconds_total", OF_POD), "{{pod}} CPU"),
         (rate("container_pressure_io_waiting_seconds_total", OF_POD), "{{pod}} I/O"),
         (rate("container_pressure_memory_waiting_seconds_total", OF_POD), "{{pod}} memory")),
        ("Running since", "dateTimeFromNow", (f"container_start_time_seconds{{{IN_POD}}} * 1000", "{{pod}}/{{container}}")),
    ]),
    "container": ("Container", [NAMESPACE, PODS, CONTAINER], [
        ("CPU", "none", (rate("container_cpu_user_seconds_total", IN_CONTAINER), "{{pod}}/{{container}} user"),
         (rate("container_cpu_system_seconds_total", IN_CONTAINER), "{{pod}}/{{container}} system")),
        ("CPU, quota", "none", (f"container_spec_cpu_quota{{{IN_CONTAINER}}} / container_spec_cpu_period{{{IN_CONTAINER}}}",
                                "{{pod}}/{{container}}")),
        ("Throttled", "percentunit", (rate("container_cpu_cfs_throttled_seconds_total", IN_CONTAINER), "{{pod}}/{{container}}")),
        ("Memory", "bytes", (f"container_memory_working_set_bytes{{{IN_CONTAINER}}}", "{{pod}}/{{container}} working set"),
         (f"container_memory_rss{{{IN_CONTAINER}}}", "{{pod}}/{{container}} anonymous"),
         (f"container_memory_cache{{{IN_CONTAINER}}}", "{{pod}}/{{container}} cache")),
        ("Memory limit (0: none)", "bytes", (f"container_spec_memory_limit_bytes{{{IN_CONTAINER}}}", "{{pod}}/{{container}}")),
        ("Major page faults", "ops",
         (rate("container_memory_failures_total", IN_CONTAINER + ',failure_type="pgmajfault",scope="container"'),
          "{{pod}}/{{container}}")),
        ("OOM kills", "short", (f"container_oom_events_total{{{IN_CONTAINER}}}", "{{pod}}/{{container}}")),
        ("Disks, operations", "ops",
         (f"sum {BY_CONTAINER}({rate('container_fs_reads_total', IN_CONTAINER)})", "{{pod}}/{{container}} reads"),
         (f"sum {BY_CONTAINER}({rate('container_fs_writes_total', IN_CONTAINER)})", "{{pod}}/{{container}} writes")),
    ]),
    "health": ("Agents and aggregators", [], [
        ("Agents that answer", "short", ('sum(up{job="nodegauge"})', "up"), ('count(up{job="nodegauge"})', "known")),
        ("Nodes as aggregators see them", "short", ("nodegauge_nodes", "{{instance}} {{state}}")),
        ("Age of the newest step", "s", ("nodegauge_step_age_seconds", "{{instance}}")),
        ("Agents, CPU", "none", ('rate(process_cpu_seconds_total{job="nodegauge-self"}[$__rate_interval])', "{{instance}}")),
        ("Agents, memory", "bytes", ('process_resident_memory_bytes{job="nodegauge-self"}', "{{instance}}")),
        ("Aggregators, CPU", "none",
         ('rate(process_cpu_seconds_total{job="nodegauge-aggregator"}[$__rate_interval])', "{{instance}}")),
        ("Aggregators, memory", "bytes", ('process_resident_memory_bytes{job="nodegauge-aggregator"}', "{{instance}}")),
        ("Ticks late or missed", "ops", ("rate(nodegauge_ticks_late_total[$__rate_interval])", "{{instance}} late"),
         ("rate(nodegauge_ticks_missed_total[$__rate_interval])", "{{instance}} missed")),
        ("Duration of a tick, p99", "s",
         ("histogram_quantile(0.99, sum by(le,instance)(rate(nodegauge_tick_duration_seconds_bucket[$__rate_interval])))",
          "{{instance}}")),
        ("Cgroups", "short", ("nodegauge_cgroups", "{{instance}}")),
        ("What collectors could not read", "ops",
         ("sum by(instance,collector,reason)(rate(nodegauge_collector_errors_total[$__rate_interval]))",
          "{{instance}} {{collector}} {{reason}}")),
        ("Steps that wait for sinks", "short", ("nodegauge_push_queue_steps", "{{instance}} {{sink}}")),
        ("Age of the oldest that waits", "s", ("nodegauge_push_queue_oldest_age_seconds", "{{instance}} {{sink}}")),
        ("Steps sent", "ops", ("rate(nodegauge_push_sent_steps_total[$__rate_interval])", "{{instance}} {{sink}}")),
        ("Values taken by aggregators", "ops", ("rate(nodegauge_ingest_values_total[$__rate_interval])", "{{instance}}")),
    ]),
}


def influx(measurement, where, group, legend, scale=""):
    """The mean of a step's values, summed over what is not grouped by."""
    tags = "".join(f', "{tag}"' for tag in group)
    query = (f'SELECT sum("value"){scale} FROM "{measurement}" WHERE {where} AND $timeFilter '
             f"GROUP BY time($__interval){tags} fill(none)")
    return (query, legend)


CLUSTER = "\"type\" = 'cluster'"
OF_NODE = "\"type\" = 'node' AND \"nodename\" =~ /^$nodename$/"
OF_PODS = "\"type\" = 'pod' AND \"namespace_name\" =~ /^$namespace$/ AND \"pod_name\" =~ /^$podname$/"
IN_PODS = OF_PODS.replace("'pod'", "'pod_container'")


def tag(name, query):
    return {"name": name, "type": "query", "datasource": INFLUXDB, "query": query, "refresh": 2, "sort": 1,
            "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


INFLUX = {
    "heapster-cluster": ("Cluster (InfluxDB)", [tag("nodename", 'SHOW TAG VALUES FROM "uptime" WITH KEY = "nodename"')], [
        ("CPU of all pods, millicores", "short", influx("cpu/usage_rate", CLUSTER, [], "used")),
        ("Memory of all pods", "bytes", influx("memory/usage", CLUSTER, [], "used")),
        ("CPU by node, millicores", "short", influx("cpu/usage_rate", OF_NODE, ["nodename"], "$tag_nodename")),
        ("Memory by node, working set", "bytes", influx("memory/working_set", OF_NODE, ["nodename"], "$tag_nodename")),
        ("Network by node, received", "Bps", influx("network/rx_rate", OF_NODE, ["nodename"], "$tag_nodename")),
        ("Network by node, sent", "Bps", influx("network/tx_rate", OF_NODE, ["nodename"], "$tag_nodename")),
        ("Filesystems by node, used", "bytes",
         influx("filesystem/usage", OF_NODE, ["nodename", "resource_id"], "$tag_nodename $tag_resource_id")),
        ("CPU by namespace, millicores", "short",
         influx("cpu/usage_rate", "\"type\" = 'ns'", ["namespace_name"], "$tag_namespace_name")),
        ("Memory by namespace", "bytes",
         influx("memory/usage", "\"type\" = 'ns'", ["namespace_name"], "$tag_namespace_name")),
    ]),
    "heapster-pods": ("Pods (InfluxDB)", [
        tag("namespace", 'SHOW TAG VALUES FROM "uptime" WITH KEY = "namespace_name"'),
        tag("podname", 'SHOW TAG VALUES FROM "uptime" WITH KEY = "pod_name" WHERE "namespace_name" =~ /^$namespace$/'),
    ], [
        ("CPU, millicores", "short", influx("cpu/usage_rate", OF_PODS, ["pod_name"], "$tag_pod_name")),
        ("Memory", "bytes", influx("memory/usage", OF_PODS, ["pod_name"], "$tag_pod_name usage"),
         influx("memory/working_set", OF_PODS, ["pod_name"], "$tag_pod_name working set")),
        ("Network", "Bps", influx("network/rx_rate", OF_PODS, ["pod_name"], "$tag_pod_name received"),
         influx("network/tx_rate", OF_PODS, ["pod_name"], "$tag_pod_name sent")),
        ("CPU by container, millicores", "short",
         influx("cpu/usage_rate", IN_PODS, ["pod_name", "container_name"], "$tag_pod_name/$tag_container_name")),
        ("Memory by container, working set", "bytes",
         influx("memory/working_set", IN_PODS, ["pod_name", "container_name"], "$tag_pod_name/$tag_container_name")),
        ("Page faults", "ops", influx("memory/page_faults_rate", OF_PODS, ["pod_name"], "$tag_pod_name")),
        ("Uptime", "ms", influx("uptime", OF_PODS, ["pod_name"], "$tag_pod_name")),
    ]),
}


def board(name, title, variables, panels, source, kind):
    shown = []
    for number, (heading, unit, *targets) in enumerate(panels):
        asked = []
        for index, (query, legend) in enumerate(targets):
            target = {"refId": chr(ord("A") + index), "datasource": source}
            if kind == "prometheus":
                target |= {"expr": query, "legendFormat": legend}
            else:
                target |= {"query": query, "rawQuery": True, "resultFormat": "time_series", "alias": legend}
            asked.append(target)
        shown.append({
            "id": number + 1, "type": "timeseries", "title": heading, "datasource": source, "targets": asked,
            "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}},
                            "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        })
    chosen = {"name": "datasource", "type": "datasource", "query": kind, "label": "data source"}
    return {"uid": f"nodegauge-{name}", "title": f"nodegauge / {title}", "tags": ["nodegauge"], "schemaVersion": 39,
            "time": {"from": "now-1h", "to": "now"}, "refresh": "30s", "timezone": "browser", "editable": True,
            "templating": {"list": [chosen, *variables]}, "panels": shown}


def main():
    boards = {n: board(n, *b, PROMETHEUS, "prometheus") for n, b in BOARDS.items()}
    boards |= {n: board(n, *b, INFLUXDB, "influxdb") for n, b in INFLUX.items()}
    stale = []
    for name, content in boards.items():
        file, text = HERE / f"{name}.json", json.dumps(content, indent=1) + "\n"
        if "--check" not in sys.argv[1:]:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            stale.append(file.name)
    if stale:
        sys.exit(f"not what make.py writes: {', '.join(stale)}")


if __name__ == "__main__":
    main()
