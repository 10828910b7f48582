#!/usr/bin/env bash
# A real kubelet as a `kubernetes.summary_api` source: one aggregator finds it through
# an API server (a stand-in that tells of the kubelet's own pods) and asks it,
# another is pushed to by an agent on the same machine. What both answer of the same
# pods must be equal, as far as the kubelet's slower samples allow.
#
# Needs what kubelet.sh needs, and like it runs only where the kubelet was built.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
trap cleanup EXIT
. "$here/kubelet/machine.sh"

kubelet_url=http://127.0.0.1:10255
free_port api
background "$work/api.log" python3 "$here/pull/apiserver.py" "$api" "$kubelet_url" node-e2e
wait_for 20 curl -fs "http://127.0.0.1:$api/api/v1/nodes?limit=500"

free_port pulled
background "$work/pulled.log" "$agent" \
  "--source=kubernetes.summary_api:http://127.0.0.1:$api?inClusterConfig=false&kubeletPort=10255" \
  --listen_ip=127.0.0.1 "--heapster-port=$pulled" --metric_resolution=15s
free_port pushed
background "$work/pushed.log" "$agent" aggregator --listen "127.0.0.1:$pushed" --metric-resolution 15s
for port in "$pulled" "$pushed"; do
  wait_for 20 curl -fs "http://127.0.0.1:$port/readyz" || { cat "$work"/pu*.log; fail "an aggregator does not start"; finish; exit 1; }
done
free_port port
background "$work/agent.log" "$agent" agent --listen "127.0.0.1:$port" --node-name node-e2e --interval 1s \
  --kubelet "$kubelet_url" --push "aggregator:http://127.0.0.1:$pushed?resolution=5s"

# steps PORT: how many closed steps have a rate of a container that works.
steps() {
  curl -fs "http://127.0.0.1:$1/api/v1/model/namespaces/e2e/pods/plain-node-e2e/containers/work/metrics/cpu/usage_rate" |
    jq '.metrics | length'
}
both() { [ "$(steps "$pulled")" -ge "${E2E_STEPS:-6}" ] && [ "$(steps "$pushed")" -ge "${E2E_STEPS:-6}" ]; }
if wait_for 240 both; then
  pass "$(steps "$pulled") steps of what was pulled, $(steps "$pushed") of what was pushed"
else
  curl -fs "http://127.0.0.1:$pulled/metrics" | grep '^nodegauge_\(pull\|watch\)' || true
  tail -5 "$work"/pulled.log "$work"/pushed.log
  fail "steps are missing: $(steps "$pulled") and $(steps "$pushed")"
fi
python3 "$here/pull/compare.py" "http://127.0.0.1:$pulled" "http://127.0.0.1:$pushed" >"$work/compare" && ok=yes || ok=no
cat "$work/compare"
check "what was pulled is what was pushed, within tolerance" [ "$ok" = yes ]
own() { curl -fs "http://127.0.0.1:$pulled/metrics" | awk -v name="$1" '$1 == name { printf "%d", $2 }'; }
check "no summary was lost" [ "$(curl -fs "http://127.0.0.1:$pulled/metrics" | awk '/^nodegauge_pull_failures_total/ { n += $2 } END { printf "%d", n }')" = 0 ]
check "the node, its pods and its namespace are watched" \
  [ "$(own 'nodegauge_watch_up{kind="nodes"}')$(own 'nodegauge_watch_up{kind="pods"}')$(own 'nodegauge_watch_up{kind="namespaces"}')" = 111 ]
curl -fs "http://127.0.0.1:$pulled/api/v1/metric-export" >"$work/export"
check "the export names host and namespace" jq -e \
  'any(.[]; .labels.host_id == "host-e2e" and .labels.namespace_id == "uid-of-e2e" and .labels.pod_name == "plain-node-e2e")' \
  "$work/export" >/dev/null
# A pod is left out while one of its containers has no rate: of the step before, perhaps.
top() {
  curl -fs "http://127.0.0.1:$pulled/apis/metrics.k8s.io/v1beta1/namespaces/e2e/pods" |
    jq -e '[.items[] | select(.metadata.name | test("^(plain|onhost|withinit)")).containers[]] | length == 6'
}
check "metrics.k8s.io answers from what was pulled" wait_for 60 top

# An agent takes over: it is not asked any more.
background "$work/agent2.log" "$agent" agent --listen 127.0.0.1:0 --node-name node-e2e --interval 1s \
  --kubelet "$kubelet_url" --push "aggregator:http://127.0.0.1:$pulled?resolution=5s"
is_pushed() { [ "$(own 'nodegauge_pull_nodes{state="pushed"}')" = 1 ]; }
check "where an agent pushes the kubelet is not asked" wait_for 60 is_pushed
finish
