#!/usr/bin/env bash
# Certificates of the agents and the aggregators, made with openssl, as a stream
# of Secrets for clusters without cert-manager:
#
#   deploy/kubernetes/certificates.sh [-n NAMESPACE] [-d DIRECTORY] | kubectl apply -f -
#
# The authority stays in DIRECTORY (default ./nodegauge-ca, keep ca.key to
# yourself). Run it again before the certificates end, after 90 days: they are
# made anew by the same authority, and agents and aggregators read them again
# within seconds of a kubelet's updating the mounted Secret (about a minute),
# without a restart. `--ca-bundle` prints what an APIService needs.
set -euo pipefail
namespace=nodegauge directory=nodegauge-ca days=90 bundle=''
while [ $# -gt 0 ]; do
  case $1 in
  -n) namespace=$2; shift 2 ;;
  -d) directory=$2; shift 2 ;;
  --ca-bundle) bundle=yes; shift ;;
  *) sed -n '5p' "$0" >&2; exit 64 ;;
  esac
done
umask 077
mkdir -p "$directory"
cd "$directory"
if [ ! -f ca.key ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=nodegauge-ca" \
    -keyout ca.key -out ca.crt 2>/dev/null
fi
if [ -n "$bundle" ]; then
  base64 <ca.crt | tr -d '\n'
  echo
  exit
fi

# secret NAME DNS...: its first name is the certificate's.
secret() {
  local name=$1 names
  shift
  names=$(printf ',DNS:%s' "$@")
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$name.key" -out "$name.csr" 2>/dev/null
  printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName=%s\n' \
    "${names#,}" >"$name.ext"
  openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -extfile "$name.ext" \
    -out "$name.crt" 2>/dev/null
  cat <<YAML
---
apiVersion: v1
kind: Secret
metadata:
  name: $name-tls
  namespace: $namespace
type: kubernetes.io/tls
data:
  ca.crt: $(base64 <ca.crt | tr -d '\n')
  tls.crt: $(base64 <"$name.crt" | tr -d '\n')
  tls.key: $(base64 <"$name.key" | tr -d '\n')
YAML
}
secret nodegauge-agent "nodegauge-agent.$namespace.svc"
secret nodegauge-aggregator "nodegauge.$namespace.svc" "nodegauge-aggregator.$namespace.svc" \
  nodegauge-aggregator-0.nodegauge-aggregator nodegauge-aggregator-1.nodegauge-aggregator
