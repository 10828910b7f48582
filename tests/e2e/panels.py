"""Asks a Prometheus and an InfluxDB what the panels of deploy/grafana ask them.

    panels.py PROMETHEUS-URL INFLUXDB-URL DIRECTORY

Prints each query that has no data, and fails if there is one.
"""

import json
import pathlib
import sys
import urllib.parse
import urllib.request

# Grafana's words, as it would fill them in with everything chosen.
WORDS = {"$__rate_interval": "20s", "$__interval": "10s", "$timeFilter": "time > now() - 10m", "${datasource}": ""}
CHOICES = ["node", "namespace", "podname", "nodename", "pod", "container"]


def filled(query):
    for word, value in WORDS.items():
        query = query.replace(word, value)
    for name in CHOICES:
        query = query.replace(f"${name}$/", ".*$/").replace(f'"${name}"', '".*"')
    return query


def get(url, **parameters):
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=20) as answer:
        return json.load(answer)


def prometheus(url, query):
    """How many series have a number."""
    return sum(s["value"][1] != "NaN" for s in get(f"{url}/api/v1/query", query=query)["data"]["result"])


def influxdb(url, query):
    answer = get(f"{url}/query", db="k8s", q=query)["results"][0]
    if "error" in answer:
        raise ValueError(answer["error"])
    return sum(any(v[-1] is not None for v in s["values"]) for s in answer.get("series", []))


def main():
    first, second, directory = sys.argv[1:]
    asked, empty = 0, []
    for file in sorted(pathlib.Path(directory).glob("*.json")):
        board = json.loads(file.read_text())
        queries = [(p["title"], t) for p in board["panels"] for t in p["targets"]]
        # What can be chosen has to be found too.
        queries += [(f"${v['name']}", {"query" if v["datasource"]["type"] == "influxdb" else "label": v["query"]})
                    for v in board["templating"]["list"] if v["type"] == "query"]
        for title, target in queries:
            asked += 1
            if "label" in target:
                # label_values(SELECTOR, LABEL)
                selector, label = target["label"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
                query = f'count by({label})({filled(selector)}) and on() count({filled(selector)}) > 0'
                found = prometheus(first, query)
            elif "expr" in target:
                query = filled(target["expr"])
                found = prometheus(first, query)
            else:
                query = filled(target["query"])
                found = influxdb(second, query)
            if not found:
                empty.append(f"{file.name}: {title}: {query}")
    print("\n".join(empty + [f"{asked} queries, {len(empty)} without data"]))
    sys.exit(1 if empty else 0)


if __name__ == "__main__":
    main()
