#!/usr/bin/env bash
# Both pages in a headless Chromium: 500 containers on a made node, two agents that
# push to one aggregator. Needs no root. E2E_PAGES_SHOTS names a directory for pictures.
# E2E_FULL=1 waits for 60 updates and looks at the aggregator of 1,000 simulated nodes too.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
trap cleanup EXIT

need chromium chromium
need curl curl
need python3 python3
nodegauge=$(binary)
updates=${E2E_PAGES_UPDATES:-6}
[ "${E2E_FULL:-0}" != 1 ] || updates=60
cd "$work"
python3 "$here/pages.py" tree "$root/fixtures/v2-cgroupfs-6.1/tree.ttar" "$work/tree"
background move.log python3 "$here/pages.py" move "$work/tree"
# One sink that takes everything, and one where nobody listens.
free_port good
free_port dead
background take.log python3 "$here/pages.py" take "$good"
free_port central
background aggregator.log "$nodegauge" aggregator --listen "127.0.0.1:$central" --metric-resolution 1s \
  --sink "influxdb:http://127.0.0.1:$good?name=good" --sink "influxdb:http://127.0.0.1:$dead?name=dead"
for number in 1 2; do
  free_port port
  [ "$number" = 1 ] && agent=$port
  background "agent-$number.log" "$nodegauge" agent --host-root "$work/tree" --listen "127.0.0.1:$port" --interval 1s \
    --runtime none --kubelet none --node-name "node-$number" --push "aggregator:http://127.0.0.1:$central?resolution=1s"
done
has_pods() { curl -fs "127.0.0.1:$central/api/page/cluster" | grep -q '"pods":[1-9]'; }
wait_for 60 curl -fs "127.0.0.1:$agent/readyz" || fail "the agent does not start: $(tail -3 agent-1.log)"
wait_for 60 has_pods || fail "the aggregator has no pods: $(tail -3 aggregator.log)"
result=0
python3 "$here/pages.py" look "http://127.0.0.1:$agent" "http://127.0.0.1:$central" "$updates" ${E2E_PAGES_SHOTS:+"$E2E_PAGES_SHOTS"} || result=$?
check "the pages do what they should" [ "$result" = 0 ]
if [ "${E2E_FULL:-0}" = 1 ]; then
  during="python3 '$here/pages.py' many \$AGGREGATOR 1000 10 ${E2E_PAGES_SHOTS:-}"
  many() {
    (cd "$root" && cargo bench --quiet --profile dev --bench scale -- --binary "$nodegauge" --step 5 --variants 4 \
      --during "$during" 1000x30x2)
  }
  check "and the aggregator's of 1,000 nodes" many
fi
finish
