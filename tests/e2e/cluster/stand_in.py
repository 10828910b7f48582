"""What a cluster has beside Kubernetes, as far as cluster.sh needs it; all three read the
real API server.

    stand_in.py names ADDRESS      its DNS: names of Services and of pods behind them. As
                                   nothing routes the addresses of Services here, a
                                   Service's name is the addresses of its pods.
    stand_in.py state PORT         kube_pod_info of kube-state-metrics at /metrics, and targets
                                   as Prometheus finds them by `role: endpoints` at
                                   /targets/NAMESPACE: Debian builds it without Kubernetes
    stand_in.py operator FLAGS...  Prometheus' operator: ServiceMonitors as the configuration
                                   of a Prometheus, on standard output

API, TOKEN and CA are in the environment.
"""

import argparse
import base64
import http.server
import json
import os
import pathlib
import re
import socketserver
import ssl
import struct
import sys
import threading
import time
import urllib.request

DOMAIN = "cluster.local"


def api(path):
    request = urllib.request.Request(os.environ["API"] + path, headers={"Authorization": "Bearer " + os.environ["TOKEN"]})
    context = ssl.create_default_context(cafile=os.environ["CA"])
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        return json.load(answer)


# names


def lookup():
    """Addresses by name."""
    found = {}
    for item in api("/apis/discovery.k8s.io/v1/endpointslices")["items"]:
        service = item["metadata"].get("labels", {}).get("kubernetes.io/service-name")
        name = f"{service}.{item['metadata']['namespace']}.svc.{DOMAIN}"
        for endpoint in item.get("endpoints") or []:
            if endpoint["conditions"].get("ready"):
                found.setdefault(name, set()).update(endpoint["addresses"])
                if endpoint.get("hostname"):
                    found.setdefault(f"{endpoint['hostname']}.{name}", set()).update(endpoint["addresses"])
    return found


def answer(query, table):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    kind, end = struct.unpack(">H", query[at + 1:at + 3])[0], at + 5
    addresses = table.get(".".join(labels))
    records = sorted(addresses or []) if kind == 1 else []
    code = 0 if addresses else 3
    head = query[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, len(records), 0, 0)
    body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + bytes(map(int, a.split("."))) for a in records)
    return head + query[12:end] + body


def names(address):
    table = {}

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            query, socket = self.request
            socket.sendto(answer(query, table), self.client_address)

    server = socketserver.ThreadingUDPServer((address, 53), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        try:
            table = lookup()
        except OSError as error:
            print(error, file=sys.stderr, flush=True)
        time.sleep(1)


# state


def info():
    return "".join(
        f'kube_pod_info{{namespace="{p["metadata"]["namespace"]}",pod="{p["metadata"]["name"]}",'
        f'node="{p["spec"].get("nodeName", "")}"}} 1\n'
        for p in api("/api/v1/pods")["items"])


def targets(space):
    found = []
    pods = {p["metadata"]["name"]: p for p in api(f"/api/v1/namespaces/{space}/pods")["items"]}
    for item in api(f"/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices")["items"]:
        labels = item["metadata"].get("labels", {})
        service = {"namespace": space, "service_name": labels.get("kubernetes.io/service-name", "")}
        for key, value in labels.items():
            service |= {f"service_label_{label(key)}": value, f"service_labelpresent_{label(key)}": "true"}
        for endpoint in item.get("endpoints") or []:
            reference = endpoint.get("targetRef", {})
            own = {"endpoint_address_target_kind": reference.get("kind", ""), "endpoint_address_target_name": reference.get("name", "")}
            pod = pods.get(reference.get("name")) if reference.get("kind") == "Pod" else None
            if pod:
                own |= {"pod_name": reference["name"], "pod_node_name": pod["spec"]["nodeName"],
                        "pod_host_ip": pod["status"]["hostIP"], "pod_container_name": pod["spec"]["containers"][0]["name"]}
            for port in item["ports"]:
                meta = service | own | {"endpoint_port_name": port["name"]}
                found.append({"targets": [f"{endpoint['addresses'][0]}:{port['port']}"],
                              "labels": {f"__meta_kubernetes_{key}": value for key, value in meta.items()}})
    return json.dumps(found)


def state(port):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/metrics":
                kind, body = "text/plain; version=0.0.4", info()
            else:
                kind, body = "application/json", targets(self.path.removeprefix("/targets/"))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


# operator


def label(name):
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def snake(word):
    return re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), word)


def relabeling(rule):
    return {snake(key): value for key, value in rule.items()}


def secret(space, reference, directory):
    data = api(f"/api/v1/namespaces/{space}/secrets/{reference['name']}")["data"][reference["key"]]
    file = pathlib.Path(directory, f"{space}_{reference['name']}_{reference['key']}")
    file.write_bytes(base64.b64decode(data))
    return str(file)


def job(monitor, number, flags):
    """One endpoint of a ServiceMonitor: what the operator puts before its own relabelings."""
    space, name, spec = monitor["metadata"]["namespace"], monitor["metadata"]["name"], monitor["spec"]
    endpoint = spec["endpoints"][number]
    rules = []
    for key, value in spec["selector"]["matchLabels"].items():
        rules.append({
            "action": "keep",
            "source_labels": [f"__meta_kubernetes_service_label_{label(key)}", f"__meta_kubernetes_service_labelpresent_{label(key)}"],
            "regex": f"({value});true",
        })
    rules.append({"action": "keep", "source_labels": ["__meta_kubernetes_endpoint_port_name"], "regex": endpoint["port"]})
    target = ["__meta_kubernetes_endpoint_address_target_kind", "__meta_kubernetes_endpoint_address_target_name"]
    for kind in ["node", "pod"]:
        rules.append({"source_labels": target, "regex": f"{kind.title()};(.*)", "target_label": kind, "replacement": "$1"})
    for source, to in [("namespace", "namespace"), ("service_name", "service"), ("pod_name", "pod"), ("pod_container_name", "container")]:
        rules.append({"source_labels": [f"__meta_kubernetes_{source}"], "target_label": to})
    rules.append({"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job"})
    if "jobLabel" in spec:
        rules.append({"source_labels": [f"__meta_kubernetes_service_label_{label(spec['jobLabel'])}"], "regex": "(.+)", "target_label": "job"})
    rules.append({"target_label": "endpoint", "replacement": endpoint["port"]})
    rules += [relabeling(r) for r in endpoint.get("relabelings", [])]
    tls = dict(endpoint.get("tlsConfig", {}))
    ca = tls.pop("ca", None)
    tls = {snake(key): value for key, value in tls.items()}
    if ca:
        tls["ca_file"] = secret(space, ca["secret"], flags.directory)
    spaces = spec.get("namespaceSelector", {}).get("matchNames", [space])
    return {
        "job_name": f"serviceMonitor/{space}/{name}/{number}",
        "honor_labels": endpoint.get("honorLabels", False),
        "honor_timestamps": endpoint.get("honorTimestamps", True),
        "scheme": endpoint.get("scheme", "http"),
        "metrics_path": endpoint.get("path", "/metrics"),
        "scrape_interval": flags.interval,
        "scrape_timeout": flags.interval,
        # The file is the service account's.
        "authorization": {"credentials_file": flags.token},
        "tls_config": tls,
        "http_sd_configs": [{"url": f"http://127.0.0.1:{flags.state}/targets/{space}", "refresh_interval": flags.interval}
                            for space in spaces],
        "relabel_configs": rules,
        "metric_relabel_configs": [relabeling(r) for r in endpoint.get("metricRelabelings", [])],
    }


def operator(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--token", required=True)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--state", required=True)
    parser.add_argument("--rules", required=True)
    parser.add_argument("--interval", default="5s")
    flags = parser.parse_args(words)
    jobs = [{"job_name": "kube-state-metrics", "honor_labels": True, "scrape_interval": flags.interval,
             "static_configs": [{"targets": [f"127.0.0.1:{flags.state}"]}]}]
    for monitor in api("/apis/monitoring.coreos.com/v1/servicemonitors")["items"]:
        jobs += [job(monitor, number, flags) for number in range(len(monitor["spec"]["endpoints"]))]
    settings = {"scrape_interval": flags.interval, "scrape_timeout": flags.interval, "evaluation_interval": flags.interval}
    json.dump({"global": settings, "rule_files": [flags.rules], "scrape_configs": jobs}, sys.stdout, indent=1)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
