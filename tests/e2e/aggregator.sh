#!/usr/bin/env bash
# Agents, live and on captured trees, push to an aggregator, which feeds a real
# InfluxDB 1.x in both of Heapster's schemas. Every query of Heapster's two Grafana
# dashboards must return data there, and the points must be those that the model
# answers with. Then the aggregator is killed several times and InfluxDB stopped for
# a while: no step may be missing afterwards.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
trap cleanup EXIT

need python3 python3
binary=$(binary)
helper=$(dirname "$0")/aggregator.py
unpack=$(dirname "$0")/../vm/ttar.py
fixtures=$(dirname "$0")/../../fixtures

# Heapster's own default.
influxdb auth root

free_port port
aggregate() {
  background "$work/aggregator.log" "$binary" aggregator --listen "127.0.0.1:$port" --metric_resolution=4s \
    --queue-dir "$work/queue" --sink="influxdb:http://127.0.0.1:$influx" \
    --sink="influxdb:http://127.0.0.1:$influx?db=fields&withfields=true&retention=30d&name=fields&pw=\$DATABASE_PW"
  aggregator=$!
}
export DATABASE_PW=root
aggregate
wait_for 30 curl -fs "http://127.0.0.1:$port/readyz" || fail "the aggregator does not start"

agent() {
  local node=$1
  shift
  background "$work/$node.log" "$binary" agent --listen 127.0.0.1:0 --interval 1s --runtime none --node-name "$node" \
    --disk-usage-budget 100 --push "aggregator:http://127.0.0.1:$port?resolution=2s" "$@"
}
agent live
nodes=(live)
for tree in v2-systemd-6.12 v1-6.1 hybrid-6.1; do
  node=${tree%%-*}
  nodes+=("$node")
  python3 "$unpack" unpack "$fixtures/$tree/tree.ttar" "$work/$node"
  free_port kubelet
  background "$work/$node.kubelet.log" python3 "$helper" kubelet "$kubelet" "$work/$node" "$node"
  wait_for 10 curl -fs "http://127.0.0.1:$kubelet/pods" || fail "no kubelet of $node"
  agent "$node" --host-root "$work/$node" --kubelet "http://127.0.0.1:$kubelet"
done

points() {
  python3 "$helper" points "http://127.0.0.1:$influx" "$1" "${nodes[@]}"
}
wait_for 120 points 6 || {
  fail "no six steps of every node in InfluxDB"
  tail -5 "$work"/*.log
}
for schema in plain fields; do
  if python3 "$helper" queries "http://127.0.0.1:$influx" "$schema" "${nodes[@]}" >"$work/queries" 2>&1; then
    pass "$(tail -1 "$work/queries")"
  else
    fail "queries of the dashboards, $schema"
    cat "$work/queries"
  fi
  if python3 "$helper" same "http://127.0.0.1:$influx" "$schema" "http://127.0.0.1:$port" "${nodes[@]}" \
    >"$work/same" 2>&1; then
    pass "$(tail -1 "$work/same")"
  else
    fail "the model and InfluxDB differ, $schema"
    cat "$work/same"
  fi
done
curl -fs -XPOST -u root:root "http://127.0.0.1:$influx/query" \
  --data-urlencode "q=SHOW RETENTION POLICIES ON fields" >"$work/policies"
check "the retention asked for is applied" grep -q '"default","720h0m0s"' "$work/policies"
check "no password in the process listing, the log or the metrics" bash -c \
  "! grep -aq 'pw=root' /proc/$aggregator/cmdline $work/aggregator.log && ! curl -fs http://127.0.0.1:$port/metrics | grep -q root"

for _ in 1 2 3 4; do
  sleep 2
  kill -9 "$aggregator"
  wait "$aggregator" 2>/dev/null || true
  aggregate
  wait_for 30 curl -fs "http://127.0.0.1:$port/readyz" || fail "the aggregator does not start again"
done
kill -STOP "$influxd"
steps() { curl -fs "http://127.0.0.1:$port/metrics" | awk '/^nodegauge_steps_closed_total/ { print int($2) }'; }
before=$(steps)
closes() { [ "$(steps)" -ge $((before + 2)) ]; }
check "steps close while InfluxDB hangs" wait_for 60 closes
kill -CONT "$influxd"
sent() {
  curl -fs "http://127.0.0.1:$port/metrics" |
    awk '/^nodegauge_push_queue_steps/ { n++; left += $2 } END { exit !(n == 2 && left == 0) }'
}
check "everything that waited is sent" wait_for 90 sent
for schema in plain fields; do
  if python3 "$helper" whole "http://127.0.0.1:$influx" "$schema" "${nodes[@]}" >"$work/whole" 2>&1; then
    pass "$(tail -1 "$work/whole")"
  else
    fail "steps are missing, $schema"
    cat "$work/whole"
  fi
done
kill -TERM "$aggregator"
wait "$aggregator" 2>/dev/null && pass "the aggregator stops by itself" || fail "the aggregator's exit status"
finish
