#!/usr/bin/env bash
# Three real Docker containers: each appears with its id, and its numbers agree
# with `docker stats` and with the kernel's files. Needs root. Installs Docker
# from Debian's packages when there is none, starts its own daemon when none
# runs, and ends it again. No registry is needed: the image is made of busybox.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
trap cleanup EXIT

need dockerd docker.io
need iptables iptables
need curl curl
[ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || need busybox busybox-static
agent=$(binary)

if ! docker info >/dev/null 2>&1; then
  mkdir -p "$work/docker" "$work/exec"
  background "$work/dockerd.log" dockerd --data-root "$work/docker" --exec-root "$work/exec" \
    --pidfile "$work/docker.pid" --host unix:///var/run/docker.sock --iptables=false --bridge=none
  wait_for 60 docker info || { tail -5 "$work/dockerd.log"; fail "dockerd does not start"; finish; exit 1; }
fi

# A root filesystem of one static binary.
mkdir -p "$work/rootfs/bin" "$work/rootfs/data"
cp "$(command -v busybox)" "$work/rootfs/bin/busybox"
for applet in sh sleep head tail; do ln -s busybox "$work/rootfs/bin/$applet"; done
tar -C "$work/rootfs" -c . | docker import - nodegauge-test:1 >/dev/null

containers=()
stop_containers() {
  [ ${#containers[@]} -eq 0 ] || docker rm -f "${containers[@]}" >/dev/null 2>&1 || true
  cleanup
}
trap stop_containers EXIT
run() { docker run -d --net=none "$@"; }
busy=$(run --name "nodegauge-busy-$$" --label com.docker.compose.service=web --cpu-quota 20000 nodegauge-test:1 sh -c 'while :; do :; done')
memory=$(run --memory 128m nodegauge-test:1 sh -c '(head -c 20000000 /dev/zero; sleep 1000) | tail -c 20000000')
idle=$(run nodegauge-test:1 sleep 1000)
disk=$(run nodegauge-test:1 sh -c 'head -c 9000000 /dev/zero >/data/big; head -c 3000 /dev/zero >/data/small; sleep 1000')
containers=("$busy" "$memory" "$idle" "$disk")
sleep 4

free_port port
background "$work/agent.log" "$agent" agent --listen "127.0.0.1:$port" --interval 1s --max-age 100ms --timestamps on --metrics cpu,memory,diskIO,network,process,disk --disk-usage-budget 20
wait_for 10 curl -fs "http://127.0.0.1:$port/readyz"
sleep 1.1
curl -fs "http://127.0.0.1:$port/metrics" >"$work/metrics"

# sample FAMILY ID: the value, and the time in ms where it has one, of the one
# sample of a family whose id ends in a container id.
sample() {
  awk -v family="$1" -v id="$2" 'index($0, family "{") == 1 && match($0, "id=\"[^\"]*" id "[^\"]*\"") { sub(/^.*} /, ""); print; n++ } END { exit n != 1 }' "$work/metrics"
}
value() { sample "$@" | cut -d ' ' -f 1; }
# kernel CONTROLLER FILE ID: a file of the container's cgroup, v1 or v2.
kernel() {
  local pid relative
  pid=$(docker inspect -f '{{.State.Pid}}' "$3")
  if relative=$(awk -F: -v c="$1" '$2 ~ "(^|,)" c "(,|$)" { print $3; f = 1 } END { exit !f }' "/proc/$pid/cgroup"); then
    cat "/sys/fs/cgroup/$1$relative/$2"
  else
    return 1
  fi
}

scrape() { curl -fs "http://127.0.0.1:$port/metrics" >"$work/metrics"; }
# agrees FAMILY ID COMMAND...: whether a value agrees with what the command
# prints within 2 %. They are read one after the other, and write-back moves
# pages in between: one agreement of ten is asked for.
agrees() {
  local family=$1 id=$2 ours other
  shift 2
  for _ in {1..10}; do
    scrape
    other=$("$@" "$id") || return 1
    ours=$(value "$family" "$id")
    say "      $ours and $other"
    near "$ours" "$other" 2 && return
    sleep 1
  done
  return 1
}
# docker stats leaves the inactive file cache out, as the working set does.
docker_memory() {
  docker stats --no-stream --format '{{.MemUsage}}' "$1" | awk 'BEGIN { f["B"] = 1; f["KiB"] = 1024; f["MiB"] = 1048576; f["GiB"] = 1073741824 }
    { n = $1 + 0; u = $1; gsub(/[0-9.]/, "", u); printf "%.0f\n", n * f[u] }'
}
memory_agrees() { agrees container_memory_working_set_bytes "$1" docker_memory; }
kernel_usage() { kernel memory memory.usage_in_bytes "$1" 2>/dev/null || kernel "" memory.current "$1"; }
usage_agrees() { agrees container_memory_usage_bytes "$1" kernel_usage; }

for id in "${containers[@]}"; do
  short=${id:0:12}
  check "container $short has a row" value container_cpu_usage_seconds_total "$id" >/dev/null
  check "$short memory is docker's within 2 %" memory_agrees "$id"
  stats_pids=$(docker stats --no-stream --format '{{.PIDs}}' "$id")
  threads=$(value container_threads "$id")
  check "$short threads $threads are docker's $stats_pids" [ "$threads" = "$stats_pids" ]
  check "$short usage is the kernel's within 2 %" usage_agrees "$id"
done

row=$(grep "^container_memory_rss{.*$busy" "$work/metrics")
check "its row has Docker's name" grep -q "name=\"nodegauge-busy-$$\"" <<<"$row"
check "its row has the image" grep -q 'image="nodegauge-test:1"' <<<"$row"
check "its row has the label compose gave it" grep -q 'container_label_com_docker_compose_service="web"' <<<"$row"

# CPU: docker's percentage and ours over the same seconds. A scrape may be
# answered from a tick a second old, so the samples' own times count.
curl -fs "http://127.0.0.1:$port/metrics" >"$work/metrics"
read -r first from < <(sample container_cpu_usage_seconds_total "$busy")
percent=$(docker stats --no-stream --format '{{.CPUPerc}}' "$busy" | tr -d %)
sleep 2
curl -fs "http://127.0.0.1:$port/metrics" >"$work/metrics"
read -r second to < <(sample container_cpu_usage_seconds_total "$busy")
rate=$(awk -v a="$first" -v b="$second" -v s="$from" -v e="$to" 'BEGIN { printf "%.2f", 100000 * (b - a) / (e - s) }')
check "CPU of the busy container: ours $rate %, docker's $percent %, its quota 20 %" near "$rate" "$percent" 20
check "docker's CPU percentage is the quota too" near "$percent" 20 25
check "its quota is exported" [ "$(value container_spec_cpu_quota "$busy")" = 20000 ]
check "it is throttled" [ "$(value container_cpu_cfs_throttled_periods_total "$busy")" -gt 0 ]
check "20 MB of it are anonymous" [ "$(value container_memory_rss "$memory")" -gt 20000000 ]
check "the memory limit is exported" [ "$(value container_spec_memory_limit_bytes "$memory")" = 134217728 ]

# Disk usage comes when it was measured, off the tick. The layer's directory is
# named by the driver, or with containerd's store by the mount alone.
layer_bytes() {
  curl -fs "http://127.0.0.1:$port/metrics" >"$work/metrics"
  awk -v id="$1" 'index($0, "nodegauge_disk_usage_bytes{") == 1 && /part="layer"/ && match($0, "id=\"[^\"]*" id "[^\"]*\"") { print $(NF - 1); n++ } END { exit n != 1 }' "$work/metrics"
}
wait_for 60 layer_bytes "$disk"
ours=$(layer_bytes "$disk")
pid=$(docker inspect -f '{{.State.Pid}}' "$disk")
upper=$(sed -n 's|^[^ ]* [^ ]* [^ ]* [^ ]* / .*,upperdir=\([^,]*\),workdir=.*|\1|p' "/proc/$pid/mountinfo")
check "layer $ours is what du finds in $upper" [ "$ours" = "$(du -sx --block-size=1 "$upper" | cut -f 1)" ]
size=$(docker inspect -s -f '{{.SizeRw}}' "$disk")
check "layer $ours is docker's $size within 2 %" near "$ours" "$size" 2
all=$(value container_fs_usage_bytes "$disk")
check "container_fs_usage_bytes $all has the layer and the runtime's directory" [ "$all" -gt "$ours" ]
check "the age of it is told" grep -q "^nodegauge_disk_usage_age_seconds{.*$disk.*part=\"logs\"" "$work/metrics"

docker rm -f "$idle" >/dev/null
containers=("$busy" "$memory" "$disk")
sleep 1.1
curl -fs "http://127.0.0.1:$port/metrics" >"$work/metrics"
check "a removed container uses nothing any more" [ "$(grep "$idle" "$work/metrics" | grep -Ec "^container_(memory|fs)_usage_bytes")" = 0 ]
gone() { curl -fs "http://127.0.0.1:$port/metrics" >"$work/metrics" && ! grep -q "$idle" "$work/metrics"; }
check "a removed container's rows go once its final totals were shown" wait_for 20 gone
finish
