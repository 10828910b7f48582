#!/usr/bin/env bash
# A whole Kubernetes of one node (cluster/machine.sh) with what deploy/kubernetes ships, by the
# commands that docs/ has. Answered there are kubectl top, an autoscaler, a Prometheus that
# ServiceMonitors configure, Heapster's dashboards on an InfluxDB, and kube-prometheus'
# rules and dashboards once agents have the kubelets' place; nothing is lost when agents
# start again while InfluxDB is away.
#
# What it has no registry or time for: a DNS and a Prometheus operator of our own
# (cluster/stand_in.py), no kube-proxy (names of Services are the addresses of their pods),
# volumes made by hand, steps of 15 s, scrapes of 5 s and rates of 1 min. Everything else
# is as shipped.
#
# Builds what kubectl.sh and kubelet.sh build, and two programs more.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
. "$here/cluster/machine.sh"

# As docs/kubernetes.md has it.
k apply -f "$manifests/base/namespace.yaml" >/dev/null
"$manifests/certificates.sh" -d ca | k apply -f - >/dev/null
applied=$SECONDS
k apply -k "$manifests/base" >/dev/null
rolled daemonset/nodegauge-agent
rolled statefulset/nodegauge-aggregator
pass "the base, as documented: agent and aggregators are ready after $((SECONDS - applied)) s"
k -n nodegauge exec daemonset/nodegauge-agent -- /nodegauge check --host-root /host >check.log 2>&1 && ok=yes || ok=no
check "nodegauge check in the agent's pod has nothing against it" [ $ok = yes ]
[ $ok = yes ] || cat check.log

k apply -f - >/dev/null <<'YAML'
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: nodegauge.test/busybox:1
        command: [sh, -c, "dd if=/dev/zero of=/tmp/file bs=64k count=4; exec httpd -f -h /tmp"]
        resources: {requests: {cpu: 10m, memory: 8Mi}, limits: {cpu: 200m, memory: 32Mi}}
---
# At its limit of CPU, on a disk, and asking for a file by a Service's name.
apiVersion: apps/v1
kind: Deployment
metadata: {name: steady, namespace: shop}
spec:
  selector: {matchLabels: {app: steady}}
  template:
    metadata: {labels: {app: steady}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: data, emptyDir: {}}]
      containers:
      - name: work
        image: nodegauge.test/busybox:1
        command: [sh, -c, "while :; do dd if=/dev/zero of=/data/f bs=64k count=8 conv=fsync; dd if=/data/f of=/dev/null bs=64k iflag=direct;
          wget -q -O /dev/null http://web.shop/file; i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; done 2>/dev/null"]
        resources: {requests: {cpu: 100m, memory: 16Mi}, limits: {cpu: 200m, memory: 64Mi}}
        volumeMounts: [{name: data, mountPath: /data}]
      - name: idle
        image: nodegauge.test/busybox:1
        command: [sleep, "3600"]
        resources: {requests: {cpu: 1m, memory: 1Mi}, limits: {cpu: 100m, memory: 16Mi}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: burn, namespace: shop}
spec:
  selector: {matchLabels: {app: burn}}
  template:
    metadata: {labels: {app: burn}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: burn
        image: nodegauge.test/busybox:1
        command: [sh, -c, "while :; do :; done"]
        resources: {requests: {cpu: 50m, memory: 1Mi}, limits: {cpu: 150m, memory: 16Mi}}
YAML

# Everything that does not take another's place, and metrics.k8s.io.
# everything COMPONENT...: one kustomization, as several overlays at once are documented.
everything() {
  mkdir -p everything
  local relative component
  relative=$(realpath --relative-to everything "$manifests")
  {
    printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [%s/base]\ncomponents:\n' "$relative"
    for component; do printf -- '- %s/components/%s\n' "$relative" "$component"; done
    cat <<YAML
patches:
- target: {kind: StatefulSet, name: nodegauge-aggregator}
  patch: '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--metric-resolution=15s"}]'
YAML
  } >everything/kustomization.yaml
  k apply -k everything >/dev/null
}
overlays=(processes metrics-api lease influxdb service-monitor)
everything "${overlays[@]}"
for version in v1 v1beta1; do
  k patch apiservice $version.metrics.k8s.io --type=merge \
    -p "{\"spec\":{\"caBundle\":\"$("$manifests/certificates.sh" -d ca --ca-bundle)\"}}" >/dev/null
done
for part in statefulset/monitoring-influxdb statefulset/nodegauge-aggregator daemonset/nodegauge-agent; do rolled $part; done
settled=$(date +%s)
pass "and with ${overlays[*]}"

available() { k get apiservice v1beta1.metrics.k8s.io -o json | jq -e '.status.conditions[] | select(.type == "Available") | .status == "True"'; }
wait_for 90 available || { k get apiservice v1beta1.metrics.k8s.io -o json | jq .status; fail "the APIService is not available"; }
# running: pods and their containers, as Kubernetes has them.
running() {
  k get pods -A -o json | jq -r '.items[] | select(.status.phase == "Running") | .metadata as $m
    | .status.containerStatuses[] | select(.state.running) | "\($m.namespace) \($m.name) \(.name)"' | sort
}
topped() { k top pods -A --containers --no-headers >top; [ "$(awk '{ print $1, $2, $3 }' top | sort)" = "$(running)" ]; }
wait_for 120 topped && pass "kubectl top pods -A --containers has the $(wc -l <top) containers that run" || {
  running | diff - <(awk '{ print $1, $2, $3 }' top | sort) || true
  fail "kubectl top pods has others than run"
}
cat top
# With a quiet machine they are at their limits, 200m and 150m; with others beside, it gives them less.
k get pods -A -o json | python3 "$here/cluster/check.py" used work burn >used 2>used.log && pass "with what the kernel's files have of the same seconds: $(cat used)" ||
  fail "not with what the kernel's files have of the same seconds: $(cat used; tail -n 1 used.log)"
k top nodes --no-headers >nodes
check "kubectl top nodes: $(cat nodes)" awk '$1 == "node-e2e" && $2 + 0 >= 350 && $4 + 0 > 100 { ok = 1 } END { exit !ok }' nodes

k -n shop autoscale deployment burn --cpu=50% --min=1 --max=3 >/dev/null
scaled() { [ "$(k -n shop get deployment burn -o jsonpath='{.status.readyReplicas}')" = 3 ]; }
wait_for 180 scaled && pass "the autoscaler has three of what burns: $(k -n shop get hpa burn --no-headers)" || {
  k -n shop describe hpa burn | tail -n 20
  fail "the autoscaler does not scale"
}
k -n shop delete hpa burn >/dev/null
k -n shop scale deployment burn --replicas 1 >/dev/null

# The Prometheus of kube-prometheus: its account, what it may, and its monitor of kubelets.
k create namespace monitoring >/dev/null
k label namespace monitoring nodegauge/reader=true >/dev/null
k create serviceaccount prometheus-k8s -n monitoring >/dev/null
k create clusterrolebinding nodegauge-prometheus --clusterrole=nodegauge-metrics-reader --serviceaccount=monitoring:prometheus-k8s >/dev/null
k create token prometheus-k8s -n monitoring --duration 2h >token
k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Service
metadata: {name: kubelet, namespace: kube-system, labels: {app.kubernetes.io/name: kubelet}}
spec: {clusterIP: None, ports: [{name: https-metrics, port: 10250}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubelet, namespace: kube-system, labels: {app.kubernetes.io/name: kubelet, kubernetes.io/service-name: kubelet}}
addressType: IPv4
endpoints: [{addresses: [$address], conditions: {ready: true}, targetRef: {kind: Node, name: node-e2e}}]
ports: [{name: https-metrics, port: 10250}]
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: kubelet, namespace: monitoring, labels: {app.kubernetes.io/name: kubelet}}
spec:
  jobLabel: app.kubernetes.io/name
  namespaceSelector: {matchNames: [kube-system]}
  selector: {matchLabels: {app.kubernetes.io/name: kubelet}}
  endpoints:
  - &endpoint
    port: https-metrics
    scheme: https
    honorLabels: true
    relabelings: [{action: replace, sourceLabels: [__metrics_path__], targetLabel: metrics_path}]
    tlsConfig: {insecureSkipVerify: true}
  - {<<: *endpoint, path: /metrics/cadvisor, honorTimestamps: false}
  - {<<: *endpoint, path: /metrics/probes}
YAML
free_port prometheus
mkdir tls
python3 "$here/cluster/check.py" rules >rules.yaml
configure() { python3 "$here/cluster/stand_in.py" operator --token "$work/token" --directory "$work/tls" --state "$state" --rules "$work/rules.yaml" >prometheus.json; }
configure
background prometheus.log prometheus --config.file prometheus.json --storage.tsdb.path tsdb --web.listen-address "127.0.0.1:$prometheus" --web.enable-lifecycle
prometheus_url=http://127.0.0.1:$prometheus
wait_for 30 curl -fs "$prometheus_url/-/ready" || { tail -n 5 prometheus.log; fail "Prometheus does not start"; finish; exit 1; }
targets() { curl -fs "$prometheus_url/api/v1/targets" | jq -r '.data.activeTargets[] | "\(.labels.job) \(.labels.metrics_path // "-") \(.labels.node // "-") \(.health)"' | sort >targets; }
wanted='kube-state-metrics - - up
kubelet /metrics node-e2e up
kubelet /metrics/cadvisor node-e2e up
kubelet /metrics/probes node-e2e up
nodegauge - node-e2e up
nodegauge-aggregator - - up
nodegauge-aggregator - - up
nodegauge-self - node-e2e up'
scraped() { targets; [ "$(cat targets)" = "$wanted" ]; }
wait_for 90 scraped && pass "Prometheus reaches $(wc -l <targets) targets by the ServiceMonitors, under their jobs and nodes" || {
  diff targets - <<<"$wanted" || true
  curl -fs "$prometheus_url/api/v1/targets" | jq -r '.data.activeTargets[].lastError' | sort -u
  fail "the targets are not those of the ServiceMonitors"
}
query() { curl -fsG "$prometheus_url/api/v1/query" --data-urlencode "query=$1" | jq -r '.data.result[0].value[1] // empty'; }
check "rows keep the names of what is measured" wait_for 30 [ \
  "$(query 'count(container_memory_working_set_bytes{job="nodegauge", namespace="shop", pod=~"steady-.*", container="work", node="node-e2e", instance="node-e2e"})')" = 1 ]
check "and none is moved aside" [ -z "$(query 'count({job=~"nodegauge.*", exported_pod!=""})')" ]

# influx: where it is; its pod's address changes when it is started again.
influx() { printf 'http://%s:8086\n' "$(k -n nodegauge get pod monitoring-influxdb-0 -o jsonpath='{.status.podIP}')"; }
pod=$(k -n shop get pods -l app=steady -o jsonpath='{.items[0].metadata.name}')
heapster() { python3 "$here/cluster/check.py" heapster "$(influx)" node-e2e shop "$pod" >heapster.log 2>&1; }
wait_for 180 heapster && pass "$(tail -n 1 heapster.log)" || fail "$(tail -n 1 heapster.log)"

# sums JOB: one line a figure: name, the sum over the cluster's containers, rows in it.
sums() { python3 "$here/cluster/check.py" sums "$prometheus_url" "$1"; }
# kernel: the same out of the kernel's files, of the two minutes to come: twice as long as a rate looks back.
kernel() { k get pods -A -o json | python3 "$here/cluster/check.py" kernel; }
# A machine that does something else beside gives containers more at one time and less at
# another: what is compared is of the same minutes, or by what the kernel says of both.
kernel >kernel-before
sums kubelet >before
# The agents, whom no rule knows yet.
sums nodegauge >agents
# The same kubelet goes on being asked, under a job that no rule has, and with the times
# at which it measured.
k get servicemonitor kubelet -n monitoring -o json | jq '{apiVersion, kind, metadata: {name: "control", namespace: "monitoring"}, spec}
  | .spec.endpoints |= [.[1] | .honorTimestamps = true | .relabelings += [{targetLabel: "job", replacement: "control"}]]' | k apply -f - >/dev/null
# As docs/migrate/kube-prometheus.md has it.
everything "${overlays[@]}" kube-prometheus
k patch servicemonitor kubelet -n monitoring --type=json --patch-file "$manifests/components/kube-prometheus/without-cadvisor.json" >/dev/null
configure
curl -fs -XPOST "$prometheus_url/-/reload"
kernel >kernel-after
sums kubelet >after
sums control >control
figure() { awk -v name="$2" '$1 == name { print $2; found = 1 } END { exit !found }' "$1"; }
while read -r name was rows; do
  read -r _ is now < <(grep "^$name " after)
  agents=$(figure agents "$name") control=$(figure control "$name")
  then=$(figure kernel-before "$name") since=$(figure kernel-after "$name")
  near "$agents" "$was" 5 && pass "$name before the overlay: the kubelet has $was, agents $agents" ||
    fail "$name before the overlay: the kubelet has $was, agents $agents"
  near "$is" "$control" 5 && pass "$name with the overlay: $is, and the kubelet says $control" ||
    fail "$name with the overlay: $is, and the kubelet says $control"
  near "$is" "$since" 5 && pass "$name with the overlay, and in the kernel's files it is $since" ||
    fail "$name with the overlay: $is, and in the kernel's files it is $since"
  expected=$(awk -v was="$was" -v then="$then" -v since="$since" 'BEGIN { printf "%.6g", was * since / then }')
  near "$is" "$expected" 10 && [ "$rows" = "$now" ] && pass "$name is what it was: $is of $now containers, before $was of $rows (the kernel's: $since, $then)" ||
    fail "$name is not what it was: $is of $now containers, before $was of $rows (the kernel's: $since, $then)"
done <before
families() { python3 "$here/cluster/check.py" families "$prometheus_url" >families.log 2>&1; }
wait_for 60 families && pass "kube-prometheus: $(tail -n 1 families.log)" || fail "kube-prometheus: $(tail -n 1 families.log)"

# InfluxDB goes away, and agents start again meanwhile.
k -n nodegauge scale statefulset monitoring-influxdb --replicas 0 >/dev/null
away() { [ -z "$(k -n nodegauge get pod monitoring-influxdb-0 --ignore-not-found -o name)" ]; }
wait_for 60 away || fail "InfluxDB does not stop"
sleep 20
stopped=$(date +%s)
k -n nodegauge rollout restart daemonset/nodegauge-agent >/dev/null
rolled daemonset/nodegauge-agent
began=$(k -n nodegauge get pods -l app.kubernetes.io/component=agent -o json |
  jq '[.items[] | select(.metadata.deletionTimestamp == null)][0].status.containerStatuses[0].state.running.startedAt | fromdateiso8601')
sleep 35
k -n nodegauge scale statefulset monitoring-influxdb --replicas 1 >/dev/null
rolled statefulset/monitoring-influxdb
# The first step of an agent is not whole, and a rate needs one before it.
whole() { python3 "$here/cluster/check.py" whole "$(influx)" 15 $((settled + 30)) "$stopped" $((began + 30)) >whole.log 2>&1; }
wait_for 180 whole && ok=yes || ok=no
cat whole.log
check "no step is lost when agents start again ($((began - stopped)) s) while InfluxDB is away" [ $ok = yes ]
finish
