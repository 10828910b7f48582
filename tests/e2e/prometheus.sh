#!/usr/bin/env bash
# A real Prometheus scrapes a real agent, and promtool accepts what it reads.
# Installs Prometheus from Debian's packages when there is none.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
trap cleanup EXIT

need prometheus prometheus
need curl curl
agent=$(binary)
free_port port
free_port web
background "$work/agent.log" "$agent" agent --listen "127.0.0.1:$port" --interval 1s
wait_for 10 curl -fs "http://127.0.0.1:$port/readyz"

curl -fs "http://127.0.0.1:$port/metrics" >"$work/metrics"
# promtool also lints names, and cAdvisor's are as they are; a parse error is
# another exit code (1) than lint findings (3).
lint=0
promtool check metrics <"$work/metrics" >"$work/lint" 2>&1 || lint=$?
check "promtool parses the text ($(grep -c . "$work/lint" || true) lint lines on cAdvisor's names)" [ "$lint" = 0 -o "$lint" = 3 ]
grep -vE 'snake_case|non-histogram and non-summary|should have "_total" suffix|should not have "_total" suffix|no help text|abbreviated|metric name should not|counter metrics should|use base unit|should not end in|should contain' "$work/lint" >"$work/odd" || true
check "promtool has nothing to say but on names" [ ! -s "$work/odd" ]
[ ! -s "$work/odd" ] || cat "$work/odd"

cat >"$work/prometheus.yml" <<CONFIG
global: { scrape_interval: 1s, scrape_timeout: 1s }
scrape_configs:
  - job_name: nodegauge
    static_configs: [{ targets: ["127.0.0.1:$port"] }]
  - job_name: nodegauge-self
    metrics_path: /metrics/self
    static_configs: [{ targets: ["127.0.0.1:$port"] }]
CONFIG
background "$work/prometheus.log" prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
  --web.listen-address="127.0.0.1:$web"
wait_for 30 curl -fs "http://127.0.0.1:$web/-/ready" || { tail -5 "$work/prometheus.log"; fail "prometheus does not start"; }
query() {
  curl -fsG "http://127.0.0.1:$web/api/v1/query" --data-urlencode "query=$1" |
    sed -n 's/.*"value":\[[^,]*,"\([^"]*\)"\].*/\1/p'
}
both_up() { [ "$(query 'sum(up)')" = 2 ]; }
wait_for 30 both_up || fail "Prometheus does not reach both targets within 30 s"
sleep 5
series=$(query 'count({__name__=~"container_.+"})')
check "Prometheus has $series container series" [ "${series:-0}" -gt 20 ]
check "both targets are up" [ "$(query 'sum(up)')" = 2 ]
cores=$(query 'machine_cpu_cores')
check "machine_cpu_cores is $cores" [ "$cores" = "$(nproc)" ]
usage=$(query 'sum(rate(container_cpu_usage_seconds_total{id="/",cpu="total"}[10s]))')
check "the machine's CPU rate is $usage" awk -v u="${usage:-0}" 'BEGIN { exit !(u > 0) }'
check "no scrape was late, duplicated or out of order" [ "$(query 'max(scrape_samples_scraped - scrape_samples_post_metric_relabeling)')" = 0 ]
check "no warning of Prometheus about samples" [ "$(grep -cE 'out-of-order|duplicate|Error on ingesting' "$work/prometheus.log")" = 0 ]
finish
