#!/usr/bin/env bash
# What the agent takes with everything on: 500 named containers in pods, a sink of
# every kind, TLS on the listener and to all sinks, a scraper. Real cgroups with
# nothing in them; the receivers say yes to everything. Needs root.
# E2E_MEMORY_SECONDS=300 is the full run.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
trap cleanup EXIT

need curl curl
need openssl openssl
need python3 python3
agent=$(binary)
seconds=${E2E_MEMORY_SECONDS:-60}
limit_kib=$((24 * 1024))
if [ -e /var/log/containers ]; then
  say "this machine runs Kubernetes already: not touched"
  finish
  exit 0
fi

cd "$work"
token=0123456789abcdef-of-the-collectors
printf '%s\n' "$token" >tokens
new_key() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" "${@:2}" 2>/dev/null; }
new_key ca -x509 -days 2 -subj /CN=ca -out ca.crt
new_key server -subj /CN=server -out server.csr
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >server.ext
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.crt 2>/dev/null

hierarchies=()
for directory in /sys/fs/cgroup /sys/fs/cgroup/*; do
  [ -f "$directory/cgroup.procs" ] && [ ! -L "$directory" ] && hierarchies+=("$directory")
done
parent=nodegauge-memory-$$
stop() {
  cleanup
  local directory
  for directory in "${hierarchies[@]}"; do
    [ ! -d "$directory/$parent" ] || find "$directory/$parent" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  rm -rf /var/log/containers
}
trap stop EXIT
# A pod has two containers and a sandbox; names come from the links to the logs.
mkdir -p /var/log/containers
for pod in $(seq 0 249); do
  uid=$(printf '0a0b0c0d-0000-4000-8000-%012x' "$pod")
  for container in 0 1 2; do
    id=$(printf '%064x' $((pod * 4 + container + 1)))
    mkdir -p "${hierarchies[@]/%//$parent/kubepods/burstable/pod$uid/$id}" 2>/dev/null || true
    name="service-$pod-7d4b9c6f5d-x$pod"
    [ "$container" = 0 ] ||
      ln -s "/var/log/pods/team-$((pod % 20))_${name}_$uid/app-$container/0.log" "/var/log/containers/${name}_team-$((pod % 20))_app-$container-$id.log"
  done
done

free_port sinks
background sinks.log python3 "$here/memory.py" "$sinks" server.crt server.key
free_port port
to="https://127.0.0.1:$sinks"
with="ca=$work/ca.crt&resolution=5s"
background agent.log "$agent" agent --listen "127.0.0.1:$port" --interval 1s --runtime none --kubelet none \
  --tls-cert server.crt --tls-key server.key --auth token --auth-token-file tokens --queue-dir "$work/queue" \
  --push "influxdb:$to?$with" --push "influxdb2:$to/v2?$with&bucket=b" --push "remote-write:$to/api/v1/write?$with" \
  --push "aggregator:$to/aggregator?$with"
pid=$!
fetch() { curl -fs --cacert ca.crt -H "authorization: Bearer $token" --compressed "https://127.0.0.1:$port/$1"; }
wait_for 20 fetch readyz || { tail -3 agent.log; fail "the agent does not start"; finish; exit 1; }
memory() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$pid/status"; }
end=$((SECONDS + seconds))
while [ $SECONDS -lt $end ]; do
  fetch metrics >metrics
  sleep 5
done
named=$(grep -c '^container_cpu_user_seconds_total{.*namespace="team-' metrics)
fetch metrics/self >self
sent() { awk '/^nodegauge_push_sent_steps_total/ { n++; if ($2 >= 3) done++ } END { print n + 0, done + 0 }' self; }
check "750 containers and pods are named: $named" [ "$named" -ge 750 ]
check "four sinks got their steps" [ "$(sent)" = "4 4" ]
say "      $(grep -vc '^#' metrics) samples a scrape; $(awk '/^nodegauge_push_sent_values_total/ { n += $2 } END { printf "%d", n }' self) values were sent"
say "      $(memory RssAnon) KiB anonymous, $(memory RssFile) KiB of the binary, $(memory Threads) threads"
rss=$(memory VmRSS) peak=$(memory VmHWM)
check "$rss KiB resident, $peak KiB at most: below $limit_kib KiB" [ "$peak" -le "$limit_kib" ]
finish
