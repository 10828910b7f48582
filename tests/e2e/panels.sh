#!/usr/bin/env bash
# Every panel of deploy/grafana and every rule of deploy/prometheus on a real
# Prometheus and a real InfluxDB, fed by an agent of a captured node with pods whose
# CPU grows at known rates, one of this machine, and an aggregator: each query has
# data, the rules' unit tests pass, and the recorded roll-ups are the aggregator's.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
trap cleanup EXIT

need prometheus prometheus
need python3 python3
nodegauge=$(binary)
deploy=$root/deploy

check "the dashboards are what make.py writes" python3 "$deploy/grafana/make.py" --check
check "promtool takes the rules" promtool check rules "$deploy/prometheus/alerts.yaml" "$deploy/prometheus/rollups.yaml"
check "and their unit tests pass" promtool test rules "$deploy/prometheus/tests.yaml"
# The same for the Prometheus operator, two columns to the right.
for rule in alerts rollups; do
  awk -v name="nodegauge-$rule" '/^---/ { on = 0 } $0 == "  name: " name { on = 1 } on && /^  groups:/ { body = 1 } /^---/ { body = 0 } body && on { sub(/^  /, ""); print }' \
    "$deploy/prometheus/prometheusrules.yaml" >"$work/$rule.operator"
  check "prometheusrules.yaml says what $rule.yaml says" bash -c "sed -n '/^groups:/,\$p' '$deploy/prometheus/$rule.yaml' | cmp - '$work/$rule.operator'"
done

for name in prometheus tree_port own_port model; do free_port $name; done
influxdb
sed 's/interval: 30s/interval: 5s/; s/\[2m\]/[20s]/' "$deploy/prometheus/rollups.yaml" >"$work/rollups.yaml"
cp "$deploy/prometheus/alerts.yaml" "$work/alerts.yaml"
# The jobs and labels of the ServiceMonitors.
cat >"$work/prometheus.yml" <<CONFIG
global: { scrape_interval: 2s, scrape_timeout: 2s }
rule_files: [alerts.yaml, rollups.yaml]
scrape_configs:
  - job_name: nodegauge
    honor_labels: true
    static_configs:
      - { targets: ["127.0.0.1:$tree_port"], labels: { instance: node-1, node: node-1 } }
      - { targets: ["127.0.0.1:$own_port"], labels: { instance: here, node: here } }
  - job_name: nodegauge-self
    metrics_path: /metrics/self
    static_configs:
      - { targets: ["127.0.0.1:$tree_port"], labels: { instance: node-1, node: node-1 } }
      - { targets: ["127.0.0.1:$own_port"], labels: { instance: here, node: here } }
  - job_name: nodegauge-aggregator
    honor_labels: true
    static_configs: [{ targets: ["127.0.0.1:$model"] }]
CONFIG
background "$work/prometheus.log" prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
  --web.listen-address="127.0.0.1:$prometheus"
wait_for 30 curl -fs "http://127.0.0.1:$influx/ping" || fail "InfluxDB does not start"
wait_for 30 curl -fs "http://127.0.0.1:$prometheus/-/ready" || { tail -n 5 "$work/prometheus.log"; fail "Prometheus does not start"; }

background "$work/aggregator.log" "$nodegauge" aggregator --listen "127.0.0.1:$model" --metric-resolution 5s \
  --sink "influxdb:http://127.0.0.1:$influx"
python3 "$root/tests/vm/ttar.py" unpack "$root/fixtures/v2-cgroupfs-6.1/tree.ttar" "$work/tree"
background "$work/grow.log" python3 "$root/tests/e2e/kubectl/grow.py" "$work/tree" 500 \
  4b5e57f6eb2f=150 70fa78e5ae55=50 7bdc25d1694e=250 4bb24efc9641=30
push="aggregator:http://127.0.0.1:$model?resolution=5s"
background "$work/tree.log" "$nodegauge" agent --listen "127.0.0.1:$tree_port" --interval 1s --host-root "$work/tree" \
  --runtime none --kubelet none --label-style kubernetes --node-name node-1 --push "$push"
# It also has a sink that is away: what waits for one is a panel.
background "$work/own.log" "$nodegauge" agent --listen "127.0.0.1:$own_port" --interval 1s \
  --runtime none --kubelet none --node-name here --push "$push" \
  --push 'remote-write:http://127.0.0.1:9/api/v1/write?name=nowhere'

panels() { python3 "$root/tests/e2e/panels.py" "http://127.0.0.1:$prometheus" "http://127.0.0.1:$influx" "$deploy/grafana" >"$work/panels"; }
wait_for 180 panels && ok=yes || ok=no
cat "$work/panels"
check "every query of every panel has data" [ "$ok" = yes ]

query() {
  curl -fsG "http://127.0.0.1:$prometheus/api/v1/query" --data-urlencode "query=$1" |
    sed -n 's/.*"value":\[[^,]*,"\([^"]*\)"\].*/\1/p'
}
rolled() { curl -fs "http://127.0.0.1:$model/metrics/rollups" | awk -v n="$1" '$1 == n { print $2 }'; }
for name in nodegauge_cluster_cpu_usage_cores nodegauge_cluster_memory_usage_bytes 'nodegauge_namespace_cpu_usage_cores{namespace="shop"}'; do
  equal() {
    ours=$(query "$name")
    theirs=$(rolled "$name")
    [ -n "$ours" ] && [ -n "$theirs" ] && near "$ours" "$theirs" 5
  }
  wait_for 60 equal && pass "recorded $name is the aggregator's: $ours and $theirs" ||
    fail "recorded $name is not the aggregator's: $ours and $theirs"
done
health() { curl -fs "http://127.0.0.1:$prometheus/api/v1/rules" | python3 -c '
import json, sys
rules = [r for g in json.load(sys.stdin)["data"]["groups"] for r in g["rules"]]
print(len(rules), [r["name"] + ": " + r["lastError"] for r in rules if r["health"] == "err"])'; }
check "no rule fails: $(health)" bash -c "[[ '$(health | tr -d \')' == *'[]' ]]"
finish
