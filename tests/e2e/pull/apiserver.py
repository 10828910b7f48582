"""An API server that knows one node and the pods its kubelet tells of.

apiserver.py PORT KUBELET_URL NODE. Lists have one page; a watch says every two
seconds how all objects are, until its time is over.
"""

import json
import sys
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, KUBELET, NODE = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def nodes():
    return [{
        "metadata": {"name": NODE, "labels": {"zone": "e2e"}},
        "spec": {"externalID": "host-e2e"},
        "status": {
            "capacity": {"cpu": "2", "memory": "8Gi"},
            "allocatable": {"cpu": "1900m", "memory": "7Gi"},
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": NODE}],
        },
    }]


def pods():
    with urllib.request.urlopen(KUBELET + "/pods", timeout=10) as answer:
        return json.load(answer)["items"]


def namespaces():
    return [{"metadata": {"name": "e2e", "uid": "uid-of-e2e"}}]


KINDS = {"nodes": nodes, "pods": pods, "namespaces": namespaces}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        objects = KINDS[url.path.removeprefix("/api/v1/")]
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        if "watch" not in query:
            metadata = {"resourceVersion": "1"}
            self.wfile.write(json.dumps({"kind": "List", "metadata": metadata, "items": objects()}).encode())
            return
        end = time.monotonic() + float(query["timeoutSeconds"])
        version = int(query["resourceVersion"])
        while time.monotonic() < end:
            time.sleep(2)
            for item in objects():
                version += 1
                item["metadata"]["resourceVersion"] = str(version)
                self.wfile.write(json.dumps({"type": "MODIFIED", "object": item}).encode() + b"\n")
            self.wfile.flush()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
