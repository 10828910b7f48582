#!/usr/bin/env bash
# Two aggregators with one Lease of a real kube-apiserver, in front of a real InfluxDB: the one
# that leads is killed (SIGKILL) again and again. At no moment both may lead, the Lease may change
# hands as often as somebody was killed and no more, and in the end InfluxDB has every step of
# every node once, in as many series as there are nodes.
#
# Builds what kubectl.sh builds, and needs root as it does. E2E_FULL=1: ten kills instead of three.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
. "$here/kubectl/control.sh"
influxdb auth root
kills=3
[ -z "${E2E_FULL:-}" ] || kills=10
lease=4

as admin apply -f - >/dev/null <<YAML
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: nodegauge-lease, namespace: kube-system}
rules:
  - {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
  - {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [nodegauge], verbs: [get, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: nodegauge-lease, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: nodegauge-lease}
subjects: [{kind: ServiceAccount, name: nodegauge, namespace: kube-system}]
YAML

free_port first
free_port second
ports=("$first" "$second")
pids=(0 0)
# aggregate 0|1: starts that one, at its port and on its queue.
aggregate() {
  KUBECONFIG=$work/aggregator.conf background "aggregator-$1.log" "$nodegauge" aggregator \
    --listen "127.0.0.1:${ports[$1]}" --metric-resolution 4s --queue-dir "$work/queue-$1" \
    --ha lease:kube-system/nodegauge --ha-lease "${lease}s" --sink "influxdb:http://127.0.0.1:$influx?name=db"
  pids[$1]=$!
}
mkdir queue-0 queue-1
aggregate 0
aggregate 1
nodes=()
for tree in v2-systemd-6.12 v1-6.1; do
  node=${tree%%-*}
  nodes+=("$node")
  python3 "$root/tests/vm/ttar.py" unpack "$root/fixtures/$tree/tree.ttar" "$node"
  free_port kubelet
  background "$node.kubelet.log" python3 "$here/aggregator.py" kubelet "$kubelet" "$work/$node" "$node"
  wait_for 20 curl -fs "http://127.0.0.1:$kubelet/pods" || fail "no kubelet of $node"
  background "$node.log" "$nodegauge" agent --listen 127.0.0.1:0 --interval 1s --runtime none --node-name "$node" \
    --host-root "$node" --kubelet "http://127.0.0.1:$kubelet" --disk-usage-budget 100 \
    --push "aggregator:http://127.0.0.1:$first?resolution=2s" --push "aggregator:http://127.0.0.1:$second?resolution=2s"
done

# leads 0|1: 1, 0, or nothing where it does not answer.
leads() { curl -fs -m 5 "http://127.0.0.1:${ports[$1]}/metrics" | awk '$1 == "nodegauge_leader" { print $2 + 0 }'; }
# Both lead only where the first does before and after the second is asked.
watch_leaders() {
  while :; do
    if [ "$(leads 0)" = 1 ] && [ "$(leads 1)" = 1 ] && [ "$(leads 0)" = 1 ]; then echo both; fi
    echo looked
    sleep 0.1
  done
}
background leaders watch_leaders
leader() {
  local i
  for i in 0 1; do [ "$(leads $i)" != 1 ] || echo $i; done
}
one_leads() { [[ "$(leader)" =~ ^[01]$ ]]; }
# nodes_series: for each series of a node how many steps it has.
nodes_series() {
  curl -fsG -u root:root "http://127.0.0.1:$influx/query" --data-urlencode db=k8s \
    --data-urlencode "q=SELECT count(value) FROM \"memory/usage\" WHERE \"type\" = 'node' GROUP BY *" |
    jq '.results[0].series[].values[0][1]'
}
points() { nodes_series | awk -v count="$1" -v nodes=${#nodes[@]} '$1 >= count { n++ } END { exit n < nodes }'; }
holder() { as admin get lease nodegauge -n kube-system -o "jsonpath={.spec.$1}"; }
wait_for 60 one_leads || { fail "nobody leads"; tail -5 aggregator-*.log; }
wait_for 120 points 3 || { fail "no three steps of every node in InfluxDB"; tail -5 ./*.log; }
changes=$(holder leaseTransitions)
changes=${changes:-0}

longest=0
for round in $(seq "$kills"); do
  old=$(leader)
  other=$((1 - old))
  held=$(holder holderIdentity)
  kill -9 "${pids[$old]}"
  begun=$(date +%s%3N)
  wait "${pids[$old]}" 2>/dev/null || true
  took_over() { [ "$(leads $other)" = 1 ]; }
  wait_for 60 took_over || { fail "kill $round: nobody took over"; tail -5 "aggregator-$other.log"; }
  took=$(($(date +%s%3N) - begun))
  [ $took -le $longest ] || longest=$took
  [ "$(holder holderIdentity)" != "$held" ] || fail "kill $round: the Lease still names the one that was killed"
  # Some steps under the new one before the old one comes back, as a standby.
  count=$((4 + round * 3))
  wait_for 60 points $count || fail "kill $round: no more steps in InfluxDB"
  aggregate "$old"
  wait_for 60 curl -fs "http://127.0.0.1:${ports[$old]}/readyz" || fail "kill $round: it does not start again"
  standby() { [ "$(leads "$old")" = 0 ]; }
  wait_for 60 standby || fail "kill $round: it leads again at once"
done
pass "killed $kills times, and the other took over, after $longest ms at most with a Lease of $lease s"
now=$(holder leaseTransitions)
check "the Lease changed hands as often: from $changes to $now" [ $((now - changes)) = "$kills" ]
sent() {
  curl -fs "http://127.0.0.1:${ports[$(leader)]}/metrics" | awk '/^nodegauge_push_queue_steps/ { n++; left += $2 } END { exit !(n == 1 && left == 0) }'
}
check "what waited is sent" wait_for 90 sent
check "at no moment both led, of $(grep -c looked leaders)" bash -c "grep -q looked '$work/leaders' && ! grep -q both '$work/leaders'"
if python3 "$here/aggregator.py" whole "http://127.0.0.1:$influx" plain "${nodes[@]}" >whole 2>&1; then
  pass "$(tail -1 whole)"
else
  fail "steps are missing: $(tail -1 whole)"
fi
series=$(nodes_series | wc -l)
check "no second series: $series of ${#nodes[@]} nodes" [ "$series" = ${#nodes[@]} ]
finish
