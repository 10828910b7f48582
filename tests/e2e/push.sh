#!/usr/bin/env bash
# A real agent pushes to a real InfluxDB 1.x, Prometheus and VictoriaMetrics, and
# every point is read back: what went through the recording proxies in front of
# them and what the databases hold must be the same, value by value. And what
# was pushed must be what the agent shows to scrapers, on a tree that stands still.
# Installs the servers from Debian's packages when they are missing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
trap cleanup EXIT

need prometheus prometheus
need victoria-metrics victoria-metrics
need python3 python3
agent=$(binary)
push=$(dirname "$0")/push.py
unpack=$(dirname "$0")/../vm/ttar.py

influxdb auth 'secret 1'
free_port prometheus
echo 'global: {}' >"$work/prometheus.yml"
background "$work/prometheus.log" prometheus --config.file="$work/prometheus.yml" \
  --storage.tsdb.path="$work/tsdb" --web.listen-address="127.0.0.1:$prometheus" --web.enable-remote-write-receiver
free_port victoria
background "$work/victoria.log" victoria-metrics -storageDataPath="$work/victoria" \
  -httpListenAddr="127.0.0.1:$victoria" -retentionPeriod=100y
wait_for 30 curl -fs "http://127.0.0.1:$prometheus/-/ready" || fail "Prometheus does not start"
wait_for 30 curl -fs "http://127.0.0.1:$victoria/health" || fail "VictoriaMetrics does not start"
printf 'secret 1\n' >"$work/password"

# proxy NAME TARGET: a recording proxy on the port in $NAME_port.
proxy() {
  free_port "${1}_port"
  local port=${1}_port
  background "$work/$1.log" python3 "$push" proxy "${!port}" "$2" "$work/$1.jsonl"
}
proxy plain "$influx"
proxy fields "$influx"
proxy prom "$prometheus"
proxy vm "$victoria"
proxy vm1 "$victoria"
proxy vm2 "$victoria"
for port in $plain_port $fields_port $prom_port $vm_port $vm1_port $vm2_port; do
  wait_for 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" || fail "no proxy on $port"
done

as="user=root&password-file=$work/password"
free_port port
background "$work/agent.log" "$agent" agent --listen "127.0.0.1:$port" --interval 1s --runtime none \
  --node-name e2e --queue-dir "$work/queue" \
  --push "influxdb:http://127.0.0.1:$plain_port?resolution=1s&name=plain&$as" \
  --push "influxdb:http://127.0.0.1:$fields_port?resolution=1s&name=fields&db=fields&withfields=true&retention=30d&$as" \
  --push "remote-write:http://127.0.0.1:$prom_port/api/v1/write?resolution=1s&name=prom&label.region=a" \
  --push "remote-write:http://127.0.0.1:$vm_port/api/v1/write?resolution=1s&name=vm" \
  --push "influxdb:http://127.0.0.1:$vm1_port?resolution=1s&name=vm1&db=vm1" \
  --push "influxdb2:http://127.0.0.1:$vm2_port?resolution=1s&name=vm2&bucket=b&withfields=true"
pid=$!
wait_for 10 curl -fs "http://127.0.0.1:$port/readyz" || fail "the agent does not start"
steps() {
  curl -fs "http://127.0.0.1:$port/metrics/self" |
    awk '/^nodegauge_push_sent_steps_total/ { n++; if ($2 >= 8) done++ } END { exit !(n == 6 && done == n) }'
}
wait_for 60 steps || { fail "not every sink took 8 steps"; tail -20 "$work/agent.log"; }
check "no password in the process listing, the log or the metrics" \
  bash -c "! grep -aq 'secret 1' /proc/$pid/cmdline $work/agent.log && ! curl -fs http://127.0.0.1:$port/metrics/self | grep -q secret"
kill -TERM "$pid"
wait "$pid" 2>/dev/null && pass "the agent stops by itself" || fail "the agent's exit status"

curl -fs -XPOST -u 'root:secret 1' "http://127.0.0.1:$influx/query" \
  --data-urlencode "q=SHOW RETENTION POLICIES ON fields" >"$work/policies"
check "the retention policy is the one asked for" grep -q '"default","720h0m0s"' "$work/policies"
export PUSH_AUTH='root:secret 1'
# On a tree that stands still, what is pushed is what scrapers get.
python3 "$unpack" unpack "$(dirname "$0")/../../fixtures/v2-systemd-6.12/tree.ttar" "$work/tree"
proxy still "$prometheus"
wait_for 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$still_port" || fail "no proxy on $still_port"
background "$work/still.agent.log" "$agent" agent --listen "127.0.0.1:$port" --interval 1s --runtime none \
  --node-name still --host-root "$work/tree" \
  --push "remote-write:http://127.0.0.1:$still_port/api/v1/write?resolution=1s&name=still&job=still" \
  --push "influxdb:http://127.0.0.1:$plain_port?resolution=1s&name=plain&$as" \
  --push "influxdb:http://127.0.0.1:$fields_port?resolution=1s&name=fields&db=fields&withfields=true&retention=30d&$as" \
  --push "influxdb:http://127.0.0.1:$vm1_port?resolution=1s&name=vm1&db=vm1" \
  --push "influxdb2:http://127.0.0.1:$vm2_port?resolution=1s&name=vm2&bucket=b&withfields=true"
pid=$!
still() {
  curl -fs "http://127.0.0.1:$port/metrics/self" | awk '/^nodegauge_push_sent_steps_total/ { n++; if ($2 >= 2) done++ } END { exit !(n == 5 && done == n) }'
}
wait_for 60 still || { fail "no steps of the captured tree"; tail -20 "$work/still.agent.log"; }
curl -fs "http://127.0.0.1:$port/metrics" >"$work/metrics"
kill -TERM "$pid"
wait "$pid" 2>/dev/null || true
if python3 "$push" pulled "$work/still.jsonl" "$work/metrics" >"$work/compare" 2>&1; then
  pass "$(tail -1 "$work/compare")"
else
  fail "pushed and pulled differ"
  cat "$work/compare"
fi

compare() {
  local what=$1
  shift
  if python3 "$push" compare "$@" >"$work/compare" 2>&1; then
    pass "$what: $(tail -1 "$work/compare")"
  else
    fail "$what"
    cat "$work/compare"
  fi
}
url="http://127.0.0.1:$influx"
compare "InfluxDB" influxdb "$url" k8s "$work/plain.jsonl"
compare "InfluxDB, with fields" influxdb "$url" fields "$work/fields.jsonl"
compare "Prometheus, remote write" prometheus "http://127.0.0.1:$prometheus" nodegauge "$work/prom.jsonl"
compare "Prometheus, captured tree" prometheus "http://127.0.0.1:$prometheus" still "$work/still.jsonl"
compare "VictoriaMetrics, remote write" victoria-remote-write "http://127.0.0.1:$victoria" nodegauge "$work/vm.jsonl"
compare "VictoriaMetrics, InfluxDB v1" victoria-influx "http://127.0.0.1:$victoria" vm1 "$work/vm1.jsonl"
compare "VictoriaMetrics, InfluxDB v2" victoria-influx "http://127.0.0.1:$victoria" "" "$work/vm2.jsonl"
finish
