#!/usr/bin/env bash
# Hostile clients against the static binary: 10,000 connections that say
# nothing or trickle, giant heads and bodies, odd paths and methods, and on a TLS
# port whoever speaks something else. Meanwhile others are served and probes
# answered; at the end the agent has stayed under 32 MiB and missed hardly a tick.
# CONNECTIONS=N makes it shorter.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
trap cleanup EXIT
# Writing to a connection that the agent has closed is what this is about.
trap '' PIPE

need curl curl
need openssl openssl
agent=$(binary)
connections=${CONNECTIONS:-10000}
limit_kib=$((32 * 1024))
ulimit -n "$(ulimit -Hn)"
descriptors=$(ulimit -n)
if [ "$descriptors" != unlimited ] && [ "$descriptors" -lt $((connections + 100)) ]; then
  connections=$((descriptors - 100))
  say "only $connections connections: the limit of descriptors is $descriptors"
fi

cd "$work"
token=0123456789abcdef-of-the-collectors
printf '# collectors\n%s\n' "$token" >tokens
new_key() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" "${@:2}" 2>/dev/null; }
new_key ca -x509 -days 2 -subj /CN=ca -out ca.crt
for name in server client; do
  new_key $name -subj "/O=collectors/CN=$name" -out $name.csr
  printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=%sAuth\n' $name >$name.ext
  openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.crt 2>/dev/null
done

free_port plain
background plain.log "$agent" agent --listen "127.0.0.1:$plain" --interval 1s
plain_pid=$!
free_port tls
background tls.log "$agent" agent --listen "127.0.0.1:$tls" --interval 1s --tls-cert server.crt --tls-key server.key \
  --tls-client-ca ca.crt --auth token --auth-token-file tokens
tls_pid=$!
http="http://127.0.0.1:$plain" https="https://127.0.0.1:$tls"
# Whoever is not the attacker comes from another address.
ask() { curl -s --max-time 20 --interface 127.0.0.2 --cacert ca.crt "$@"; }
status() { ask -o /dev/null -w '%{http_code}' "$@" || true; }
with_token=(-H "authorization: Bearer $token")
wait_for 20 ask -f "$http/readyz" || fail "the plain agent does not start: $(tail -1 plain.log)"
wait_for 20 ask -f "$https/readyz" || fail "the TLS agent does not start: $(tail -1 tls.log)"

is() { [ "$1" = "$2" ] || { say "      got $1, not $2"; return 1; }; }
check "a probe without a token" is "$(status "$https/healthz")" 200
check "no token: 401" is "$(status "$https/metrics")" 401
check "a wrong token: 401" is "$(status -H 'authorization: Bearer 0123456789abcdef-of-nobody' "$https/metrics")" 401
check "the token: 200" is "$(status "${with_token[@]}" "$https/metrics")" 200
check "a client's certificate: 200" is "$(status --cert client.crt --key client.key "$https/metrics")" 200

# attack PORT TEXT: opens many connections, says TEXT on each, and holds them.
attack() {
  local port=$1 text=$2 fd n
  for ((n = 0; n < connections; n++)); do
    # Bash gives up a connection that is reset while it opens.
    exec {fd}<>"/dev/tcp/127.0.0.1/$port" || continue
    [ -z "$text" ] || printf '%s' "$text" >&"$fd" || true
  done
  : >"opened.$port"
  exec sleep 60
} 2>/dev/null

under_attack() {
  local what=$1 port=$2 text=$3 url=$4 pid asked=0 answered=0
  shift 4
  rm -f "opened.$port"
  attack "$port" "$text" &
  pid=$!
  started+=("$pid")
  local end=$((SECONDS + 120))
  while [ ! -e "opened.$port" ] && [ $SECONDS -lt $end ]; do
    asked=$((asked + 2))
    [ "$(status "$url/healthz")" = 200 ] && answered=$((answered + 1))
    [ "$(status "$@" "$url/metrics")" = 200 ] && answered=$((answered + 1))
    sleep 0.2
  done
  check "$what: $connections were opened" test -e "opened.$port"
  check "$what: others get $answered of $asked answers" test "$answered" -eq "$asked" -a "$asked" -gt 0
  check "$what: afterwards too" is "$(status "$@" "$url/metrics")" 200
  kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
}
under_attack "silence" "$plain" "" "$http"
under_attack "slow loris" "$plain" "GET /metrics HTTP/1.1
x: " "$http"
under_attack "stalled handshakes" "$tls" "" "$https" "${with_token[@]}"
under_attack "plain http on the TLS port" "$tls" "GET /metrics HTTP/1.1

" "$https" "${with_token[@]}"

head -c 200000 /dev/zero | tr '\0' a >giant
refused() { case $1 in 000 | 400 | 413 | 414 | 431) ;; *) say "      got $1"; return 1 ;; esac; }
check "a giant header" refused "$(status -H "x: $(head -c 100000 giant)" "$http/metrics")"
check "a giant path" refused "$(status "$http/$(head -c 100000 giant)")"
head -c 300000000 /dev/zero >body
check "a giant body" refused "$(status --data-binary @body -H 'expect:' "$http/metrics")"
check "a giant chunked body" refused "$(status -T - -H 'expect:' "$http/metrics" <body)"
rm body
for path in /../../etc/passwd /%2e%2e/%2e%2e/etc/passwd //metrics /metrics/..%2f..%2fetc/passwd /healthz/../metrics /%68ealthz; do
  check "$path: 404" is "$(status --path-as-is "$http$path")" 404
  check "$path without a token: 401" is "$(status --path-as-is "$https$path")" 401
done
for method in POST PUT DELETE TRACE CONNECT NONSENSE; do
  case $(status -X $method "$http/metrics") in 400 | 404 | 405) pass "$method" ;; *) fail "$method" ;; esac
done

hello() { openssl s_client -connect "127.0.0.1:$tls" -CAfile ca.crt -verify_return_error "$@" </dev/null >hello.log 2>&1; }
check "TLS 1.2" hello -tls1_2
check "TLS 1.3" hello -tls1_3
old() { ! hello -cipher 'ALL:@SECLEVEL=0' "$1"; }
check "no TLS 1.1" old -tls1_1
check "no TLS 1.0" old -tls1
for n in 1 2 3 4 5 6 7 8; do
  head -c 100000 /dev/urandom | timeout 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$tls; cat >&3" 2>/dev/null || true
done
urls=()
for n in $(seq 300); do urls+=(-o /dev/null "$https/metrics"); done
ask --no-progress-meter --parallel --parallel-max 120 --compressed "${with_token[@]}" "${urls[@]}" >/dev/null || true
check "after garbage and 120 scrapers at once" is "$(status "${with_token[@]}" "$https/metrics")" 200

# A new certificate is served without a restart.
new_key server -subj /CN=server -out server.csr
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile server.ext -out server.crt 2>/dev/null
serial=$(openssl x509 -in server.crt -noout -serial)
served() { [ "$(openssl s_client -connect "127.0.0.1:$tls" </dev/null 2>/dev/null | openssl x509 -noout -serial)" = "$serial" ]; }
check "the new certificate is served" wait_for 30 served

own() { awk -v s="$1" '$1 == s { print $2 }' "$2"; }
ask "$http/metrics/self" >plain.own
ask "${with_token[@]}" "$https/metrics/self" >tls.own
grep -h '^nodegauge_\(tls\|auth\|credential\|http_refused\|http_connections_lost\)' tls.own | sed 's/^/      /'
for kind in plain tls; do
  pid_name=${kind}_pid
  peak=$(awk '/^VmHWM/ { print $2 }' "/proc/${!pid_name}/status")
  missed=$(own nodegauge_ticks_missed_total $kind.own)
  ticks=$(own 'nodegauge_ticks_total{origin="grid"}' $kind.own)
  say "      $kind: $ticks ticks, $(own nodegauge_ticks_late_total $kind.own) late"
  check "$kind: peak memory $peak KiB under $limit_kib" test "$peak" -lt $limit_kib
  # The attackers are on this machine too and may take a tick.
  check "$kind: missed ticks: $missed" awk -v n="$missed" -v ticks="$ticks" 'BEGIN { exit !(n != "" && n * 50 <= ticks) }'
done
check "no token in the logs" test -z "$(grep -l "$token" ./*.log || true)"
finish
