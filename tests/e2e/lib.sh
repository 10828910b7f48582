# Shared by the end-to-end scripts: where things are, waiting, and counting.
# Each script sources this file, so it sets no options of its own.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
passed=0
failed=0
started=()

# Ends what was started here, and nothing else.
cleanup() {
  local pid
  for pid in "${started[@]}"; do
    kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}

say() { printf '%s\n' "$*"; }

pass() {
  passed=$((passed + 1))
  say "ok    $*"
}

fail() {
  failed=$((failed + 1))
  say "FAIL  $*"
}

# check WORDS -- COMMAND...: passes when the command succeeds.
check() {
  local what=$1
  shift
  if "$@"; then pass "$what"; else fail "$what"; fi
}

# wait_for SECONDS COMMAND...
wait_for() {
  local seconds=$1 end
  shift
  end=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.2
  done
}

# background LOG COMMAND...: starts it and remembers to end it; the pid is in $!.
background() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 </dev/null &
  started+=("$!")
}

# near A B PERCENT: whether A is within so many percent of B.
near() {
  awk -v a="$1" -v b="$2" -v p="$3" 'BEGIN { d = a - b; if (d < 0) d = -d; m = b < 0 ? -b : b; exit !(d <= m * p / 100) }'
}

# need COMMAND PACKAGE...: installs Debian packages when a command is missing.
need() {
  local command=$1
  shift
  command -v "$command" >/dev/null && return
  say "installing $*"
  [ -n "${updated:-}" ] || apt-get update -qq
  updated=1
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The binary to test: built here, static as in the image, unless NODEGAUGE
# names one.
binary() {
  if [ -z "${NODEGAUGE:-}" ]; then
    local target
    target="$(uname -m)-unknown-linux-gnu"
    (cd "$root" && RUSTFLAGS=-Ctarget-feature=+crt-static cargo build --quiet --release --target "$target")
    NODEGAUGE="${CARGO_TARGET_DIR:-$root/target}/$target/release/nodegauge"
  fi
  printf '%s\n' "$NODEGAUGE"
}

# free_port NAME: sets NAME. Not printed, because RANDOM repeats in subshells.
free_port() {
  local candidate
  while :; do
    candidate=$((20000 + RANDOM % 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null || break
  done
  printf -v "$1" %s "$candidate"
}

# influxdb [auth PASSWORD]: starts a real InfluxDB 1.x, its port is in $influx and its pid in
# $influxd; with `auth` only root with that password may use it.
influxdb() {
  local meta auth=false
  [ "${1:-}" != auth ] || auth=true
  need influxd influxdb
  need curl curl
  free_port influx
  free_port meta
  cat >"$work/influx.conf" <<CONFIG
reporting-disabled = true
bind-address = "127.0.0.1:$meta"
[meta]
  dir = "$work/influx/meta"
[data]
  dir = "$work/influx/data"
  wal-dir = "$work/influx/wal"
  query-log-enabled = false
[http]
  bind-address = "127.0.0.1:$influx"
  log-enabled = false
  auth-enabled = $auth
CONFIG
  background "$work/influx.log" influxd -config "$work/influx.conf"
  influxd=$!
  wait_for 60 curl -fs "http://127.0.0.1:$influx/ping" || fail "InfluxDB does not start"
  [ $auth = false ] || curl -fs -XPOST "http://127.0.0.1:$influx/query" \
    --data-urlencode "q=CREATE USER root WITH PASSWORD '$2' WITH ALL PRIVILEGES" >/dev/null
}

finish() {
  say "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
}
