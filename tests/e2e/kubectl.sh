#!/usr/bin/env bash
# A real kube-apiserver hands on what it is asked about metrics.k8s.io to the
# aggregator, which real agents push to; the current kubectl reads it as a user
# does, and whoever may not is refused.
#
# Needs a Go toolchain, with which it builds kube-apiserver and kubectl once (some
# minutes on two cores; kept in target/e2e). That is why `run.sh` runs it only
# where they were built before, or where E2E_KUBECTL=1 asks for it. Needs root for one
# more address on the loopback interface: Kubernetes takes no 127.0.0.1 as an endpoint.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
. "$here/kubectl/control.sh"
signed ours service /CN=nodegauge serverAuth DNS:nodegauge.kube-system.svc

free_port api
as admin apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: nodegauge, namespace: kube-system}
spec: {ports: [{port: 443, targetPort: $api}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: nodegauge, namespace: kube-system, labels: {kubernetes.io/service-name: nodegauge}}
addressType: IPv4
ports: [{name: "", port: $api, protocol: TCP}]
endpoints: [{addresses: [$address], conditions: {ready: true}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: nodegauge-auth-delegator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:auth-delegator}
subjects: [{kind: ServiceAccount, name: nodegauge, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: metrics, namespace: shop}
rules: [{apiGroups: [metrics.k8s.io], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: metrics, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: metrics}
subjects: [{kind: User, name: jane}, {kind: Group, name: viewers}]
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  service: {name: nodegauge, namespace: kube-system, port: 443}
  caBundle: $(base64 -w 0 service.crt)
  groupPriorityMinimum: 100
  versionPriority: 100
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1
  service: {name: nodegauge, namespace: kube-system, port: 443}
  caBundle: $(base64 -w 0 service.crt)
  groupPriorityMinimum: 100
  versionPriority: 200
YAML
as admin patch node node-1 --subresource=status --type=merge \
  -p '{"status":{"capacity":{"cpu":"2","memory":"4Gi"},"allocatable":{"cpu":"2","memory":"4Gi"}}}' >/dev/null

free_port model
export KUBECONFIG=$work/aggregator.conf
background aggregator.log "$nodegauge" aggregator --listen "127.0.0.1:$model" --metric-resolution 5s \
  --api-listen "$address:$api" --api-tls-cert ours.crt --api-tls-key ours.key
wait_for 20 curl -fs "http://127.0.0.1:$model/readyz" || { cat aggregator.log; fail "the aggregator does not start"; finish; exit 1; }
# ask WORDS...: curl, past the API server.
ask() { curl --cacert service.crt --connect-to "nodegauge.kube-system.svc:443:$address:$api" "$@"; }
ready() { ask -fs https://nodegauge.kube-system.svc/readyz; }
! ready >/dev/null 2>&1 && pass "not ready while it may not read whom to believe" || fail "ready without the config map"
as admin create rolebinding nodegauge-auth-reader -n kube-system --role=extension-apiserver-authentication-reader \
  --serviceaccount=kube-system:nodegauge >/dev/null
check "ready once it may" wait_for 60 ready

# Two pods of a captured node: their CPU grows at known rates.
python3 "$root/tests/vm/ttar.py" unpack "$root/fixtures/v2-cgroupfs-6.1/tree.ttar" tree
background grow.log python3 "$here/kubectl/grow.py" tree 500 4b5e57f6eb2f=150 70fa78e5ae55=50 7bdc25d1694e=250 4bb24efc9641=30
free_port agent
background agent.log "$nodegauge" agent --listen "127.0.0.1:$agent" --interval 500ms --runtime none --kubelet none \
  --host-root tree --node-name node-1 --push "aggregator:http://127.0.0.1:$model?resolution=2s"

available() { as admin get apiservice "$1.metrics.k8s.io" -o json | jq -e '.status.conditions[] | select(.type == "Available") | .status == "True"'; }
for version in v1beta1 v1; do
  wait_for 60 available "$version" && pass "the APIService of $version is available" || {
    fail "the APIService of $version: $(as admin get apiservice "$version.metrics.k8s.io" -o jsonpath='{.status.conditions}')"
    cat aggregator.log
    finish
    exit 1
  }
done
measured() { as admin get --raw /apis/metrics.k8s.io/v1beta1/pods | jq -e '.items | length == 3'; }
wait_for 60 measured || { as admin get --raw /apis/metrics.k8s.io/v1beta1/pods; cat agent.log; fail "pods are not measured"; finish; exit 1; }

# within WHAT FOUND EXPECTED: a rate over two seconds of steps that come a little late.
within() { near "$2" "$3" 20 && pass "$1: $2, expected $3" || fail "$1: $2, expected $3"; }
as admin top nodes --no-headers >top
within "kubectl top nodes, millicores" "$(awk '{ print $2 + 0 }' top)" 980
within "kubectl top nodes, percent of CPU" "$(awk '{ print $3 + 0 }' top)" 49
check "kubectl top nodes has memory and its share: $(cat top)" awk '$4 ~ /^[1-9][0-9]*Mi$/ && $5 ~ /%$/ { ok = 1 } END { exit !ok }' top
as admin top pods -A --containers --no-headers >top
cat top
for line in "shop-7c9d5b8f4-x2k4j web 150" "shop-7c9d5b8f4-x2k4j indexer 50" "store-node-1 db 250" "report-28912345-9qz7m batch 30"; do
  read -r pod container expected <<<"$line"
  within "kubectl top pods, $pod/$container" \
    "$(awk -v p="$pod" -v c="$container" '$2 == p && $3 == c { print $4 + 0 }' top)" "$expected"
done
as admin top pods -A --sum --sort-by=cpu --no-headers >top
check "the pod that uses most comes first" [ "$(awk 'NR == 1 { print $2 }' top)" = store-node-1 ]
mebi=$(as admin top pod shop-7c9d5b8f4-x2k4j -n shop --containers --no-headers | awk '$2 == "web" { print $4 + 0 }')
web=$(dirname "$(find tree -path '*4b5e57f6eb2f*' -name memory.current)")
set_size=$(($(cat "$web/memory.current") - $(awk '$1 == "inactive_file" { print $2 }' "$web/memory.stat")))
check "its memory is the working set: $mebi Mi of $set_size bytes" [ "$mebi" = $((set_size / 1048576)) ]

as admin get podmetrics -A >table
check "kubectl get podmetrics is a table: $(head -1 table)" grep -qE '^NAMESPACE +NAME +CPU +MEMORY +WINDOW' table
as admin get nodes.metrics.k8s.io >table
check "kubectl get nodes.metrics.k8s.io: $(tail -1 table)" grep -qE '^node-1 +[0-9]+[num]? +[0-9]+(Ki|Mi)? +[0-9.]+s' table
as admin get podmetrics -n shop -o json >one.json
check "and JSON with timestamp and window of the push" jq -e '.items[0]
  | (.timestamp | fromdateiso8601 | now - . < 30) and (.window | rtrimstr("s") | tonumber | . > 1 and . < 4)' one.json
check "kubectl explain knows it" bash -c "'$built/kubectl' --kubeconfig admin.conf explain podmetrics.containers.usage | grep -q 'by resource'"
check "kubectl api-resources lists it" bash -c "'$built/kubectl' --kubeconfig admin.conf api-resources --api-group=metrics.k8s.io | grep -q '^pods .*true *PodMetrics'"
as admin get pods.metrics.k8s.io/nothing -n shop 2>missing && fail "there is no such pod" || true
check "what is not there: $(cat missing)" grep -q '(NotFound)' missing

as nobody top pods -A 2>refused && fail "nobody may" || true
check "an unauthorised user is refused: $(cat refused)" grep -q '(Forbidden)' refused
check "who may see one namespace does" bash -c "'$built/kubectl' --kubeconfig jane.conf top pods -n shop --no-headers | grep -q '^shop-'"
! as jane top pods -A >/dev/null 2>&1 && pass "and no other" || fail "jane sees all namespaces"

# As the controller sends it: protobuf if there is, else JSON.
curl -fs --cacert cluster.crt -H 'Authorization: Bearer hpa-token' -H 'Accept: application/vnd.kubernetes.protobuf,application/json' \
  "https://127.0.0.1:$kube/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods?labelSelector=app%21%3Dother" >hpa.json
check "the autoscaler finds its pods" jq -e '.kind == "PodMetricsList" and (.items | length) == 1
  and (.items[0].containers | map(.usage.cpu) | length) == 2 and (.items[0].metadata.name | startswith("shop-"))' hpa.json
check "and by a label that none has, none" bash -c "curl -fs --cacert cluster.crt -H 'Authorization: Bearer hpa-token' \
  'https://127.0.0.1:$kube/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods?labelSelector=app%3Dother' | jq -e '.items == []'"

# direct EXPECTED WORDS...: the status of a request past the API server.
direct() {
  local expected=$1 found
  shift
  found=$(ask -s -o answer -w '%{http_code}' "$@") || true
  [ "$found" = "$expected" ] && pass "direct: $expected to $(printf '%s ' "${@:1:$#-1}") $(jq -r '.message // .kind' answer 2>/dev/null)" ||
    fail "direct: $found instead of $expected to $*"
}
pods="https://nodegauge.kube-system.svc/apis/metrics.k8s.io/v1beta1"
direct 401 "$pods/pods"
direct 401 -H 'X-Remote-User: admin' -H 'X-Remote-Group: system:masters' "$pods/pods"
direct 401 --cert not-a-proxy.crt --key not-a-proxy.key -H 'X-Remote-User: admin' -H 'X-Remote-Group: system:masters' "$pods/pods"
direct 200 --cert front-proxy-client.crt --key front-proxy-client.key -H 'X-Remote-User: jane' "$pods/namespaces/shop/pods"
direct 403 --cert front-proxy-client.crt --key front-proxy-client.key -H 'X-Remote-User: jane' "$pods/nodes"
direct 200 -H 'Authorization: Bearer jane-token' "$pods/namespaces/shop/pods"
direct 403 -H 'Authorization: Bearer jane-token' "$pods/namespaces/jobs/pods"
direct 403 -H 'Authorization: Bearer jane-token' "https://nodegauge.kube-system.svc//apis/metrics.k8s.io//v1beta1//pods/"
direct 401 -H 'Authorization: Bearer made-up' "$pods/pods"
direct 200 --cert joe.crt --key joe.key -H 'X-Remote-Group: system:masters' "$pods/namespaces/shop/pods"
direct 403 --cert joe.crt --key joe.key -H 'X-Remote-Group: system:masters' "$pods/pods"
finish
