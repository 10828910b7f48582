#!/usr/bin/env bash
# cAdvisor's REST API and a kubelet's answers on this machine with real Docker
# containers: every path answers JSON that says what runs here; what is malformed or
# giant is refused, or answered in bounds; and under `wrk` with fifty connections
# ticks of one second stay on time, others are served, and the agent stays under 32 MiB.
# WRK_SECONDS=N makes the load longer. Without Docker or wrk that part is left out.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e

need curl curl
need jq jq
agent=$(binary)

containers=()
stop() {
  [ ${#containers[@]} -eq 0 ] || docker rm -f "${containers[@]}" >/dev/null 2>&1 || true
  cleanup
}
trap stop EXIT

if command -v dockerd >/dev/null && ! docker info >/dev/null 2>&1; then
  background "$work/dockerd.log" dockerd --data-root "$work/docker" --exec-root "$work/exec" --pidfile "$work/docker.pid" \
    --host unix:///var/run/docker.sock --iptables=false --bridge=none
  wait_for 60 docker info || tail -5 "$work/dockerd.log"
fi
if docker info >/dev/null 2>&1; then
  "$here/image.sh" "$work/busybox.tar" nodegauge.test/busybox:1 /bin/sleep 3600
  docker load -q -i "$work/busybox.tar" >/dev/null
  for name in one two; do
    containers+=("$(docker run -d --net=none --name "nodegauge-rest-$name-$$" --memory 64m --label "team=a<b \"$name\"" \
      nodegauge.test/busybox:1 /bin/sh -c 'while :; do dd if=/dev/zero of=/tmp/x bs=64k count=16 2>/dev/null; sleep 0.2; done')")
  done
else
  say "no Docker: its containers are left out"
fi

free_port port
background "$work/agent.log" "$agent" -logtostderr -port="$port" -listen_ip=127.0.0.1 -housekeeping_interval=1s \
  -storage_duration=1m -url_base_prefix=/node/1
agent_pid=$!
url="http://127.0.0.1:$port/node/1"
wait_for 20 curl -fs "$url/readyz" || { cat "$work/agent.log"; fail "the agent does not start"; finish; exit 1; }
# Whoever is not wrk comes from another address.
ask() { curl -s --max-time 20 --interface 127.0.0.2 "$@"; }
status() { ask -o /dev/null -w '%{http_code}' "$@" || true; }

# is PATH FILTER [CURL WORDS...]: the answer is JSON of which the filter of jq is true.
is() {
  local path=$1 filter=$2
  shift 2
  ask -f "$@" "$url$path" >"$work/answer" && jq -e "$filter" "$work/answer" >/dev/null || {
    say "      $path: $(head -c 300 "$work/answer")"
    return 1
  }
}
check "nothing is served beside the prefix" test "$(status "http://127.0.0.1:$port/metrics")" = 404
check "the prefix alone is led to the page" test "$(ask -L -o "$work/page" -w '%{url_effective}' "$url")" = "$url/"
script() { grep -q 'src="page/agent.js"' "$work/page" && test "$(status "$url/page/agent.js")" = 200; }
check "which finds its files below the prefix" script
three() { is /api/v1.3/containers '.stats | length >= 3'; }
wait_for 20 three || true

machine='.num_cores > 0 and .memory_capacity > 1048576 and (.boot_id | length > 0) and (.filesystems | length > 0) and (.topology[0].cores | length > 0) and (.disk_map | length > 0)'
for version in v1.0 v1.3 v2.0 v2.1; do check "machine of $version" is "/api/$version/machine" "$machine"; done
check "the root, with three samples" is /api/v1.3/containers/ \
  '.name == "/" and .spec.has_cpu and (.stats | length == 3) and (.stats[2].memory.usage > 0) and (.stats[2].cpu.usage.total > .stats[0].cpu.usage.total)' -d '{"num_stats":3}'
check "all that is below it" is /api/v1.1/subcontainers 'length > 2 and all(.[]; .spec.creation_time)' -d '{"num_stats":1}'
check "a kubelet's old endpoint" is /stats/container/ 'length > 2 and .["/"].stats[0].timestamp' -d '{"subcontainers":true,"num_stats":1}'
check "creations" is '/api/v1.3/events?creation_events=true&subcontainers=true&max_events=2' 'length == 2'
check "samples of the machine" is '/api/v2.1/machinestats?count=2' 'length == 2 and .[1].cpu_inst.usage.total > 0 and .[1].filesystem[0].capacity > 0'
check "specs" is '/api/v2.1/spec/?recursive=true' 'length > 2'
check "summaries" is '/api/v2.1/summary/' '.["/"].minute_usage.cpu.count > 0'
check "attributes" is /api/v2.1/attributes '.kernel_version | length > 0'
check "filesystems" is /api/v2.1/storage 'length > 0 and .[0].capacity > 0'
check "the version" is /api/v2.1/version 'startswith("v")'
check "applications, of which there are none" is /api/v2.1/appmetrics/ '.["/"] == {}'
check "the agent among all processes" is /api/v2.1/ps/ "any(.[]; .pid == $agent_pid and .cmd == \"$(head -c 15 <"/proc/$agent_pid/comm" | tr -d '\n')\" and .rss > 0 and .fd_count > 3)"
check "a kubelet's summary" is /stats/summary '.node.cpu.usageCoreNanoSeconds > 0 and .node.rlimit.curproc > 0 and (.pods | type == "array")'
resource() { ask "$url/metrics/resource" | grep -q '^node_memory_working_set_bytes [1-9]'; }
check "its resource metrics" resource
if [ ${#containers[@]} -gt 0 ]; then
  named() { is '/api/v1.3/docker' 'length >= 2'; }
  check "Docker's containers have names" wait_for 20 named
  name=nodegauge-rest-one-$$
  check "one by its name" is "/api/v1.3/docker/$name" \
    "[.[]][0] | .aliases[0] == \"$name\" and .spec.labels.team == \"a<b \\\"one\\\"\" and .spec.memory.limit == 67108864 and (.spec.cpu.mask | length > 0) and .namespace == \"docker\""
  check "one by the beginning of its id" is "/api/v2.1/spec/${containers[1]:0:20}?type=docker" "length == 1"
  check "samples of all" is '/api/v2.1/stats/?type=docker&recursive=true&count=1' 'length >= 2 and all(.[]; .stats[0].memory.usage > 0)'
  shell=$(docker inspect -f '{{.State.Pid}}' "${containers[0]}")
  check "its processes" is "/api/v2.0/ps/$name?type=docker" "any(.[]; .pid == $shell and .cmd == \"sh\") and all(.[]; .cgroup_path == \"\")"
  check "a page of it" test "$(status "$url/docker/$name")" = 200
fi

for body in '{"num_stats":' '[1,2]' '{"num_stats":-2}' '{"num_stats":1e400}' '{"start":"soon"}' $'\xff\xfe\x01' "$(printf '[%.0s' {1..50000})"; do
  check "refused: $(printf %q "${body:0:20}")" test "$(status -d "$body" "$url/api/v1.3/containers/")" = 400
  check "also there" test "$(status -d "$body" "$url/stats/container/")" = 400
done
head -c 70000 /dev/zero | tr '\0' ' ' >"$work/long"
check "a body that is too long" test "$(status --data-binary "@$work/long" "$url/api/v1.3/containers/")" = 413
for path in '/api/v1.3/containers/nope' '/api/v3.0/machine' '/api/v2.1/ps/nope' '/api/v1.3/docker/nope'; do
  check "$path is not there" test "$(status "$url$path")" = 404
done
for query in 'count=-2' 'count=x' 'count=99999999999999999999' 'max_age=soon' 'type=lxc'; do
  check "$query" test "$(status "$url/api/v2.1/stats/?$query")" = 400
done
for body in '{"num_stats":9223372036854775807}' '{"start":"0001-01-01T00:00:00Z","end":"9999-12-31T23:59:59Z"}' '{"end":"1970-01-01T00:00:00Z"}'; do
  check "in bounds: $body" is /api/v1.3/subcontainers 'length > 2' -d "$body"
done
check "all samples there are" is '/api/v2.1/stats/?recursive=true&count=9223372036854775807' 'length > 1'

own() { ask "$url/metrics/self" | awk -v name="$1" '$1 == name { printf "%d", $2 }'; }
command -v wrk >/dev/null || need wrk wrk || true
if command -v wrk >/dev/null; then
  seconds=${WRK_SECONDS:-8}
  missed=$(own nodegauge_ticks_missed_total)
  ticks=$(own 'nodegauge_ticks_total{origin="grid"}')
  began=$SECONDS
  for load in '/metrics/cadvisor:gzip' '/stats/summary:identity' '/api/v2.1/stats/?recursive=true&count=1:identity'; do
    wrk -t 1 -c 50 -d "${seconds}s" -H "accept-encoding: ${load##*:}" "$url${load%:*}" >"$work/wrk" &
    pid=$!
    served=0 asked=0
    while kill -0 "$pid" 2>/dev/null; do
      asked=$((asked + 1))
      [ "$(status "$url/metrics/cadvisor")" = 200 ] && served=$((served + 1))
      sleep 0.5
    done
    wait "$pid" || true
    # What is beyond a peer's rate is refused, which is an answer too.
    say "      ${load%:*}: $(awk '/requests in/ { r = $1 } /Non-2xx/ { n = $NF } /Latency/ { l = $2 } END { printf "%d answers, %d beyond the rate, %s on average", r, n, l }' "$work/wrk")"
    check "wrk gets answers of ${load%:*}" awk '/requests in/ { r = $1 } /Non-2xx/ { n = $NF } END { exit !(r - n > 50) }' "$work/wrk"
    check "another client gets $served of $asked meanwhile" test "$served" -eq "$asked"
  done
  passed_seconds=$((SECONDS - began))
  ticks=$(($(own 'nodegauge_ticks_total{origin="grid"}') - ticks)) missed=$(($(own nodegauge_ticks_missed_total) - missed))
  check "$ticks ticks in $passed_seconds s, $missed missed" test "$missed" -le 1 -a "$ticks" -ge $((passed_seconds - 3))
else
  say "no wrk: its load is left out"
fi
peak=$(awk '/VmHWM/ { print $2 }' "/proc/$agent_pid/status")
check "the agent stayed under 32 MiB: $peak KiB" test "$peak" -lt $((32 * 1024))
finish
