# A kube-apiserver on a real etcd, without a node: sourced by the scripts that talk
# to one, after lib.sh and with `here` set. Leaves in the directory `$work`: certificates,
# `USER.conf` for the users of tokens.csv, `as USER WORDS...`, `$kube`, its port, and
# `$address`, one more address on the loopback interface. `stop_control` ends it. If set
# before: `kube_ip` and `kube` are where it listens, `apiserver_flags` more words for it.
address=198.51.100.$((RANDOM % 200 + 20))
kube_ip=${kube_ip:-127.0.0.1}
stop_control() {
  # It would wait a minute for etcd to come back.
  [ -z "${kube_pid:-}" ] || kill -KILL "$kube_pid" 2>/dev/null || true
  ip address delete "$address/32" dev lo 2>/dev/null || true
}
trap 'stop_control; cleanup' EXIT

need ip iproute2
need etcd etcd-server
need curl curl
need jq jq
need openssl openssl
need python3 python3
nodegauge=$(binary)
built=$("$here/kubectl/build.sh")
cd "$work"
ip address add "$address/32" dev lo

# authority NAME; signed NAME AUTHORITY SUBJECT USAGE [NAMES]
authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
    -keyout "$1.key" -out "$1.crt" 2>/dev/null
}
signed() {
  printf 'extendedKeyUsage=%s\n%s\n' "$4" "${5:+subjectAltName=$5}" >"$1.ext"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$3" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 2 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
}
authority cluster
authority front-proxy
authority service
signed apiserver cluster /CN=apiserver serverAuth "IP:127.0.0.1,IP:$kube_ip,DNS:localhost"
signed front-proxy-client front-proxy /CN=front-proxy-client clientAuth
signed not-a-proxy front-proxy /CN=somebody clientAuth
signed joe cluster /CN=joe/O=viewers clientAuth
signed kubelet-client cluster /CN=kube-apiserver/O=system:masters clientAuth
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out sa.key 2>/dev/null
openssl pkey -in sa.key -pubout -out sa.pub
cat >tokens.csv <<CSV
admin-token,admin,1,"system:masters"
jane-token,jane,2
nobody-token,nobody,3
hpa-token,system:serviceaccount:kube-system:horizontal-pod-autoscaler,4,"system:serviceaccounts"
node-token,system:node:node-e2e,6,"system:nodes"
aggregator-token,system:serviceaccount:kube-system:nodegauge,5,"system:serviceaccounts"
CSV

free_port etcd
free_port peer
background etcd.log etcd --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$etcd" \
  --advertise-client-urls "http://127.0.0.1:$etcd" --listen-peer-urls "http://127.0.0.1:$peer"
[ -n "${kube:-}" ] || free_port kube
background apiserver.log "$built/apiserver" --etcd-servers "http://127.0.0.1:$etcd" --secure-port "$kube" \
  --bind-address "$kube_ip" --advertise-address "$kube_ip" --cert-dir "$work/certs" \
  --tls-cert-file apiserver.crt --tls-private-key-file apiserver.key --client-ca-file cluster.crt \
  --service-account-issuer https://kubernetes.default.svc --service-account-signing-key-file sa.key \
  --service-account-key-file sa.pub --token-auth-file tokens.csv --authorization-mode Node,RBAC \
  --service-cluster-ip-range 10.96.0.0/16 --endpoint-reconciler-type none \
  --enable-aggregator-routing=true --requestheader-client-ca-file front-proxy.crt \
  --requestheader-allowed-names front-proxy-client --requestheader-username-headers X-Remote-User \
  --requestheader-group-headers X-Remote-Group --requestheader-extra-headers-prefix X-Remote-Extra- \
  --proxy-client-cert-file front-proxy-client.crt --proxy-client-key-file front-proxy-client.key "${apiserver_flags[@]}"
kube_pid=$!

# kubeconfig NAME: in $work/NAME.conf, with NAME's token.
kubeconfig() {
  cat >"$1.conf" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://$kube_ip:$kube", certificate-authority: "$work/cluster.crt"}}]
users: [{name: u, user: {token: $1-token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
YAML
}
for user in admin jane nobody hpa aggregator node; do kubeconfig "$user"; done
export HOME=$work
# as USER WORDS...: kubectl as that user.
as() {
  local user=$1
  shift
  "$built/kubectl" --kubeconfig "$work/$user.conf" "$@"
}
wait_for 120 as admin get --raw /readyz || { tail -5 apiserver.log; fail "kube-apiserver does not start"; finish; exit 1; }
pass "kube-apiserver $("$built/apiserver" --version | awk '{ print $2 }') is ready"
