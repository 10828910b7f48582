#!/usr/bin/env bash
# Simulated agents push to aggregators that are killed, in front of a real InfluxDB 1.x that hangs
# for a while (tests/bench/faults.rs says what comes when). Every step of every node must be in
# the database in the end, once, and in as many series as there are things. E2E_FULL=1 is the long
# form: 200 nodes, 30 kills of the aggregator, 10 of the one that leads, which the short one leaves out.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
# A database that was stopped does not end by itself.
trap 'kill -CONT "${influxd:-0}" 2>/dev/null || true; cleanup' EXIT

binary=$(binary)
words=(--nodes 20 --kills 5 --handovers 0 --step 4)
[ -z "${E2E_FULL:-}" ] || words=(--nodes 200 --kills 30 --handovers 10 --step 5)

influxdb
mkdir "$work/queues"
export RUST_BACKTRACE=0
faults() {
  (cd "$root" && cargo bench --quiet --profile dev --bench faults -- "${words[@]}" --binary "$binary" \
    --influx "http://127.0.0.1:$influx" --influxd "$influxd" --directory "$work/queues")
}
faults >"$work/faults" 2>&1 || fail "the run ended early"
stages=(kills stuck)
[ -z "${E2E_FULL:-}" ] || stages+=(leader)
for what in "${stages[@]}"; do
  if told=$(grep "^$what: " "$work/faults"); then pass "$told"; else fail "$what"; fi
done
[ "$failed" -eq 0 ] || tail -n 30 "$work/faults" "$work/influx.log"
finish
