#!/usr/bin/env bash
# The manifests of deploy/kubernetes against a real kube-apiserver: base and
# overlays are accepted by its own schema, strictly; roles give what is used and
# no more; and two aggregators and an agent, started with exactly the words,
# certificates and roles that are shipped, find, believe and feed one another.
#
# Builds what kubectl.sh builds, and needs root as it does.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
. "$here/kubectl/control.sh"
manifests=$root/deploy/kubernetes

# Kinds that only operators know, unless their CRDs are in the directory E2E_CRDS.
operators='^apiVersion: (monitoring.coreos.com|cert-manager.io)/'
if [ -n "${E2E_CRDS:-}" ]; then
  as admin apply --server-side -f "$E2E_CRDS" >/dev/null
  sleep 5
  operators='^$.'
fi
known() { awk -v skip="$operators" 'BEGIN { RS = "---\n" } { n = split($0, line, "\n"); ok = 1; for (i = 1; i <= n; i++) if (line[i] ~ skip) ok = 0; if (ok && $0 != "") printf "---\n%s", $0 }'; }
render() { "$built/kubectl" kustomize "$1"; }
# The namespace itself, since what is in it is asked about.
as admin apply -f "$manifests/base/namespace.yaml" >/dev/null
for directory in "$manifests/base" "$manifests"/overlays/*; do
  name=${directory##*/}
  render "$directory" >"$name.yaml" || { fail "$name is not rendered"; continue; }
  if known <"$name.yaml" | as admin apply --server-side --dry-run=server --validate=strict -f - >"$name.log" 2>&1; then
    pass "$name: $(grep -c 'serverside-applied' "$name.log") objects are accepted"
  else
    fail "$name: $(grep -v 'serverside-applied' "$name.log")"
  fi
done

# The chart says the same as the manifests, as the API server understands both.
# Without helm, and unless E2E_HELM asks for building it, that is left out.
objects() {
  operators="$operators|^kind: Namespace$" known | as admin create --dry-run=server -f - -o json | jq -sS '
    [.[] | if .kind == "List" then .items[] else . end
    | del(.metadata.uid, .metadata.creationTimestamp, .metadata.generation, .metadata.managedFields, .spec.clusterIP, .spec.clusterIPs)]
    | sort_by(.kind, .metadata.name)
    # Mounts and flags have no order.
    | walk(if type == "array" then sort_by(tojson) else . end)'
}
if helm=$("$here/kubectl/helm.sh"); then
  chart=$root/deploy/helm/nodegauge
  template() { "$helm" template nodegauge "$chart" -n nodegauge --kube-version 1.36.0 "$@"; }
  check "helm lints the chart" "$helm" lint --kube-version 1.36.0 --strict "$chart"
  while read -r name values; do
    objects <"$name.yaml" >expected.json
    # shellcheck disable=SC2086
    template $values | objects >found.json || true
    if cmp -s expected.json found.json; then
      pass "the chart${values:+ with }$values is the manifests' $name: $(jq length found.json) objects"
    else
      fail "the chart${values:+ with }$values is not the manifests' $name"
      diff expected.json found.json | head -n 20 || true
    fi
  done <<PAIRS
base
processes --set agent.profile=processes
oom-log --set agent.profile=oom-log
nodes-proxy --set agent.nodesProxy=true
kubelets --set aggregator.askKubelets=true
metrics-api --set metricsApi.enabled=true
service-monitor --set serviceMonitor.enabled=true
kube-prometheus --set serviceMonitor.kubePrometheus=true
cert-manager --set certManager.enabled=true
PAIRS
  for values in "$chart"/ci/*.yaml; do
    template -f "$values" | objects >found.json && pass "with ${values##*/}: $(jq length found.json) objects are accepted" || fail "with ${values##*/}"
  done
  for wrong in agent.profile=root aggregator.replicas=0 agent.extraArgs={verbose} aggregator.sinks={kafka:http://h} agnet.profile=core; do
    ! template --set "$wrong" >/dev/null 2>wrong.log && pass "refused: $wrong: $(grep -m 1 '^- ' wrong.log)" || fail "$wrong is taken"
  done
fi

as admin apply -f base.yaml >/dev/null
# may YES|NO ACCOUNT WORDS...
may() {
  local expected=$1 account=$2 found
  shift 2
  found=$(as admin auth can-i --as "system:serviceaccount:nodegauge:nodegauge-$account" "$@" 2>/dev/null) || true
  [ "$found" = "$expected" ] && pass "$account: $expected to $*" || fail "$account: $found to $*"
}
may yes agent get nodes --subresource=pods
may no agent get nodes --subresource=proxy
may no agent list pods -A
may no agent get secrets -n nodegauge
may yes agent create tokenreviews.authentication.k8s.io
may yes agent post /api/v1/batches
may no agent get /metrics
may no agent put /api/v1/batches
may yes aggregator list nodes
may no aggregator list pods -A
may no aggregator get secrets -n nodegauge
as admin apply -f influxdb.yaml >/dev/null
may yes aggregator update leases.coordination.k8s.io/nodegauge -n nodegauge
may no aggregator update leases.coordination.k8s.io/other -n nodegauge
may no aggregator get leases.coordination.k8s.io/nodegauge -n kube-system
as admin apply -f kubelets.yaml >/dev/null
may yes aggregator watch pods -A
may yes aggregator get nodes --subresource=stats
as admin apply -f nodes-proxy.yaml >/dev/null
may yes agent get nodes --subresource=proxy
# What runs below: with a lease and a sink, and no more permissions than those need.
as admin apply -f influxdb.yaml >/dev/null

"$manifests/certificates.sh" -d "$work/ca" >secrets.yaml
check "the certificates' Secrets are accepted" as admin apply -f secrets.yaml
for part in agent aggregator; do
  mkdir "$part-tls"
  as admin get secret "nodegauge-$part-tls" -n nodegauge -o json >secret.json
  for file in ca.crt tls.crt tls.key; do jq -r --arg f "$file" '.data[$f] | @base64d' secret.json >"$part-tls/$file"; done
done
printf 'apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n' | as admin apply -f - >/dev/null
printf '127.0.0.1 localhost\n127.0.0.1 nodegauge-aggregator-%s.nodegauge-aggregator\n' 0 1 >hosts

# account NAME: credentials of a service account, as a kubeconfig.
account() {
  sed "s/admin-token/$(as admin create token "nodegauge-$1" -n nodegauge)/" admin.conf >"$1.conf"
}
account agent
account aggregator
# words KIND: the words of its first container, as the manifest has them.
words() {
  as admin get "$1" -n nodegauge -o json | jq -r '.spec.template.spec.containers[0].args[]'
}
# in_cluster COMMAND...: where the names of the aggregators are this machine's.
in_cluster() { exec unshare -m bash -c 'mount --bind "$0" /etc/hosts && exec "$@"' "$work/hosts" "$@"; }
free_port first
free_port second
free_port own
for i in 0 1; do
  [ $i = 0 ] && port=$first || port=$second
  mapfile -t flags < <(words statefulset/nodegauge-aggregator | sed "s|0.0.0.0:8082|127.0.0.1:$port|; s|/etc/nodegauge/tls|$work/aggregator-tls|;
    s|\$(NAMESPACE)|nodegauge|; s|/var/lib/nodegauge|$work/data-$i|")
  mkdir "data-$i"
  KUBECONFIG=$work/aggregator.conf background "aggregator-$i.log" "$nodegauge" "${flags[@]}"
done
as admin create token nodegauge-agent -n nodegauge --audience nodegauge --bound-object-kind Node --bound-object-name node-1 >token
mapfile -t flags < <(words daemonset/nodegauge-agent | sed "s|0.0.0.0:4194|127.0.0.1:$own|; s|/etc/nodegauge/tls|$work/agent-tls|;
  s|--host-root=/host|--host-root=/|; s|/var/run/secrets/nodegauge/token|$work/token|; s|\$(NODE_IP)|127.0.0.1|;
  s|/var/lib/nodegauge|$work/queue|; s|-0.nodegauge-aggregator:8082|-0.nodegauge-aggregator:$first|;
  s|-1.nodegauge-aggregator:8082|-1.nodegauge-aggregator:$second|")
mkdir queue
KUBECONFIG=$work/agent.conf NODEGAUGE_NODE_NAME=node-1 background agent.log in_cluster "$nodegauge" "${flags[@]}"

as admin create serviceaccount prometheus -n nodegauge >/dev/null
as admin create clusterrolebinding prometheus --clusterrole=nodegauge-metrics-reader --serviceaccount=nodegauge:prometheus >/dev/null
scraper=$(as admin create token prometheus -n nodegauge)
nobody=$(as admin create token default -n nodegauge 2>/dev/null || { as admin create serviceaccount default -n nodegauge >/dev/null; as admin create token default -n nodegauge; })
# get HOST PORT PATH TOKEN [WORDS...]
get() { curl -s --cacert "$work/ca/ca.crt" --connect-to "$1:$2:127.0.0.1:$2" -H "Authorization: Bearer $4" "https://$1:$2$3" "${@:5}"; }
status() { get "$@" -o /dev/null -w '%{http_code}'; }
agent=nodegauge-agent.nodegauge.svc aggregator=nodegauge-aggregator.nodegauge.svc
ready() { [ "$(status $agent "$own" /readyz x)" = 200 ]; }
wait_for 30 ready && pass "the agent is ready under the name that scrapers believe" || { fail "the agent is not ready"; cat agent.log; }
for port in "$first" "$second"; do
  reported() { get $aggregator "$port" /metrics "$scraper" | grep -q '^nodegauge_nodes{state="live"} 1\(\.0\)\?$'; }
  wait_for 90 reported && pass "an aggregator hears of the node by a token that is bound to it" || {
    fail "an aggregator does not hear of the node"
    tail -n 8 agent.log; tail -n 8 aggregator-0.log
  }
done
leaders() { for port in "$first" "$second"; do get $aggregator "$port" /metrics "$scraper" | awk '$1 == "nodegauge_leader" { print $2 + 0 }'; done | sort | paste -sd ' '; }
one_leads() { [ "$(leaders)" = "0 1" ]; }
check "one of them holds the lease" wait_for 60 one_leads
check "scraped with nodegauge-metrics-reader: /metrics, /metrics/cadvisor, /metrics/self of the agent, roll-ups" [ \
  "$(for path in /metrics /metrics/cadvisor /metrics/self; do status $agent "$own" $path "$scraper"; done; status $aggregator "$first" /metrics/rollups "$scraper")" = 200200200200 ]
check "and by nobody else" [ "$(status $agent "$own" /metrics "$nobody") $(status $agent "$own" /metrics none) $(status $aggregator "$first" /metrics "$nobody")" = "403 401 403" ]

# New certificates of the same authority reach running processes.
serial() { openssl s_client -connect "127.0.0.1:$own" -servername $agent </dev/null 2>/dev/null | openssl x509 -noout -serial; }
before=$(serial)
"$manifests/certificates.sh" -d "$work/ca" >secrets.yaml
awk '/^  name: nodegauge-agent-tls/ { ours = 1 } /^---/ { ours = 0 } ours && /tls\.(crt|key)/ { print $1, $2 }' secrets.yaml |
  while read -r file data; do base64 -d <<<"$data" >"agent-tls/${file%:}"; done
changed() { [ -n "$(serial)" ] && [ "$(serial)" != "$before" ]; }
check "certificates that are made anew are served without a restart" wait_for 60 changed
check "and believed" get $agent "$own" /readyz x -f -o /dev/null
finish
