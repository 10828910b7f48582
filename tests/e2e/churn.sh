#!/usr/bin/env bash
# A soak: containers that come and go, the agent at an interval of 1 s with names, scrapes,
# a queue on disk and two sinks. Its resident memory, its handles and its threads stay where
# they were. A minute and 100 containers by default; E2E_FULL=1 is half an hour and 500, of
# which four end each second. E2E_CHURN_SECONDS, _COUNT and _RATE change that. Needs root.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
trap cleanup EXIT

need curl curl
need jq jq
need openssl openssl
need python3 python3
agent=$(binary)
seconds=${E2E_CHURN_SECONDS:-60} count=${E2E_CHURN_COUNT:-100} rate=${E2E_CHURN_RATE:-4}
if [ "${E2E_FULL:-0}" = 1 ]; then
  seconds=${E2E_CHURN_SECONDS:-1800} count=${E2E_CHURN_COUNT:-500}
fi
parent=nodegauge-churn-$$
links=/var/log/containers

stop() {
  cleanup
  local directory
  # Left over only after a failure.
  for directory in /sys/fs/cgroup/$parent /sys/fs/cgroup/*/$parent; do
    [ ! -d "$directory" ] || find "$directory" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  [ -z "${ours:-}" ] || rm -rf "$links"
}
trap stop EXIT
named=()
if [ -e "$links" ]; then
  say "this machine runs Kubernetes already: the containers have no names"
else
  ours=1
  mkdir -p "$links"
  named=("$links")
fi

mkdir "$work/blocks"
background "$work/churn.log" python3 "$here/churn.py" "$parent" "$count" "$rate" "$work/state" "$work/blocks" "${named[@]}"
churn=$!
made() { [ -e "$work/state" ] || ! kill -0 "$churn" 2>/dev/null; }
wait_for 120 made && [ -e "$work/state" ] || { tail -3 "$work/churn.log"; fail "the containers are not made"; finish; exit 1; }

cd "$work"
openssl req -x509 -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.crt \
  -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -addext basicConstraints=critical,CA:FALSE 2>/dev/null
free_port sinks
background sinks.log python3 "$here/memory.py" "$sinks" server.crt server.key
free_port port
background agent.log "$agent" agent --listen "127.0.0.1:$port" --interval 1s --runtime none --kubelet none \
  --queue-dir "$work/queue" --push "influxdb:https://127.0.0.1:$sinks?ca=$work/server.crt&resolution=5s" \
  --push "aggregator:https://127.0.0.1:$sinks/aggregator?ca=$work/server.crt&resolution=5s"
pid=$!
wait_for 20 curl -fs "http://127.0.0.1:$port/readyz" || { tail -3 agent.log; fail "the agent does not start"; finish; exit 1; }
status() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$pid/status"; }
own() { curl -fs "http://127.0.0.1:$port/metrics/self" | awk -v name="$1" '$1 == name { printf "%d", $2 }'; }
# Handles when all containers are there: one that is just replaced has twenty, so the most of some looks.
handles() { for _ in 1 2 3 4 5 6 7 8; do find "/proc/$pid/fd" -mindepth 1 | wc -l; sleep 0.1; done | sort -n | tail -1; }
# Resident KiB, of it not the binary's, handles, threads.
sample() { echo "$(status VmRSS) $(status RssAnon) $(handles) $(status Threads)"; }

# What it holds is there after a few minutes of history, and of a short run after a third.
began=$SECONDS settling=$((seconds / 3 < 300 ? seconds / 3 : 300))
before=$(jq .made state)
: >early; : >late
while [ $((SECONDS - began)) -lt "$seconds" ]; do
  sleep $((seconds < 600 ? 2 : 5))
  curl -fs --compressed "http://127.0.0.1:$port/metrics" >metrics
  elapsed=$((SECONDS - began))
  if [ $elapsed -ge $((settling + (seconds - settling) * 2 / 3)) ]; then sample >>late
  elif [ $elapsed -ge "$settling" ] && [ $elapsed -lt $((settling + (seconds - settling) / 3)) ]; then sample >>early
  fi
  if [ $((elapsed / (seconds / 6 + 1))) != "${part:-0}" ]; then
    part=$((elapsed / (seconds / 6 + 1)))
    say "      after $elapsed s and $(jq .removed state) ended: $(sample) (KiB resident, anonymous, handles, threads)"
  fi
done
# column FILE N: its median and its largest.
column() { awk -v n="$2" '{ print $n }' "$1" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)], v[NR] }'; }
flat() { # flat WHAT COLUMN MORE: neither the middle nor the most of the last third is above the first third's most by more.
  local early_median early_most late_median late_most
  read -r early_median early_most <<<"$(column early "$2")"
  read -r late_median late_most <<<"$(column late "$2")"
  check "$1: $early_median in the middle and $early_most at most, then $late_median and $late_most" \
    [ "$late_median" -le $((early_median + $3)) -a "$late_most" -le $((early_most + $3)) ]
}
shown=$(grep -c '^container_last_seen{.*image="",name="[0-9a-f]\{64\}\|^container_last_seen{.*kubepods' metrics || true)
ended=$(($(jq .removed state)))
appeared=$(own nodegauge_cgroups_appeared_total) vanished=$(own nodegauge_cgroups_vanished_total)
check "$ended containers ended of $(jq .made state) made, and $appeared cgroups were seen to come, $vanished to go" \
  [ "$vanished" -ge $((ended * 9 / 10)) -a "$(jq .made state)" -ge $((before + seconds * rate / 2)) ]
check "$shown cgroups of pods and containers are in an answer, of $((count * 3 / 2)) alive" [ "$shown" -ge "$count" ]
if [ -n "${ours:-}" ]; then
  check "the containers have their names" [ "$(grep -c '^container_last_seen{.*namespace="team-' metrics)" -ge $((count * 9 / 10)) ]
fi
# An allocator's pages: a thirtieth of what is resident. A minute is too short to have the
# history and the events that are kept of each that was there.
more=$((seconds < 600 ? 2048 : 512))
flat "KiB resident" 1 $more
flat "KiB that are not the binary's" 2 $more
flat "handles" 3 $((count / 25))
flat "threads" 4 $((seconds < 600 ? 1 : 0))
missed=$(own nodegauge_ticks_missed_total)
ticks=$(own 'nodegauge_ticks_total{origin="grid"}')
# A busy machine may take a tick; what comes and goes may not.
check "$missed of $ticks ticks were missed" [ $((missed * 50)) -le "$ticks" ]
check "both sinks got their steps" \
  [ "$(curl -fs "http://127.0.0.1:$port/metrics/self" | awk -v least=$((seconds / 10)) '/^nodegauge_push_sent_steps_total/ && $2 >= least { n++ } END { print n + 0 }')" = 2 ]
finish
