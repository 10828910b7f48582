#!/usr/bin/env bash
# The image that is packed without a daemon: the same twice, small, and what
# containerd and Docker run as it is. What an agent in it, as nobody and without
# a capability, shows of the machine is what the same binary shows outside.
# Needs root for containerd and Docker.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
trap cleanup EXIT

need containerd containerd runc
need dockerd docker.io
need curl curl
agent=$(binary)
pack() { "$root/deploy/image.sh" --version 0.0.0 --tag docker.io/library/nodegauge-e2e:1 "$agent" "$1"; }
say "$(pack "$work/image.tar")"
pack "$work/again.tar" >/dev/null
check "the same binary gives the same image" cmp "$work/image.tar" "$work/again.tar"
tar -xf "$work/image.tar" -C "$work" manifest.json
layer=$(sed -n 's/.*"Layers":\["\([^"]*\)"\].*/\1/p' "$work/manifest.json")
unpacked=$(tar -xOf "$work/image.tar" "$layer" | gzip -dc | wc -c)
# What is shipped is built for size (profile dist); these tests also run with what is not.
case $agent in
*/dist/*) check "$unpacked bytes unpacked are under 25 MiB" [ "$unpacked" -lt $((25 << 20)) ] ;;
*) say "      $unpacked bytes unpacked, of a binary that is not the one shipped" ;;
esac
! "$root/deploy/image.sh" "$(command -v bash)" "$work/none.tar" 2>/dev/null && pass "a binary that is not static is refused" ||
  fail "a binary that is not static was packed"

# containerd of its own: import, and run as shipped.
cat >"$work/config.toml" <<TOML
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.grpc.v1.cri"]
[grpc]
  address = "$work/containerd.sock"
[ttrpc]
  address = "$work/ttrpc.sock"
TOML
background "$work/containerd.log" containerd --config "$work/config.toml"
export CONTAINERD_ADDRESS=$work/containerd.sock CONTAINERD_NAMESPACE=nodegauge-e2e
wait_for 30 ctr version || { tail -5 "$work/containerd.log"; fail "containerd does not start"; finish; exit 1; }
name=nodegauge-e2e-$$
stop() {
  ctr tasks kill -s KILL "$name" >/dev/null 2>&1 || true
  wait_for 10 ctr tasks rm -f "$name" || true
  ctr containers rm "$name" >/dev/null 2>&1 || true
  docker rm -f "$name" >/dev/null 2>&1 || true
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  started=()
  # ctr makes one cgroup for the namespace, and leaves it.
  rmdir "/sys/fs/cgroup/$CONTAINERD_NAMESPACE" /sys/fs/cgroup/*/"$CONTAINERD_NAMESPACE" 2>/dev/null || true
  for point in $(grep -o " $work[^ ]*" /proc/self/mountinfo | sort -ru); do umount "$point" || true; done
  cleanup
}
trap stop EXIT
ctr images import "$work/image.tar" >/dev/null
check "containerd imports it" ctr images check "name==docker.io/library/nodegauge-e2e:1"
free_port port
# As the DaemonSet has it: the host's proc and sys and nothing else, no capability.
drop=()
for capability in $(ctr run --help | grep -q cap-drop && echo CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE); do
  drop+=(--cap-drop "CAP_$capability")
done
ctr run -d --snapshotter native --read-only --net-host "${drop[@]}" \
  --mount type=bind,src=/proc,dst=/host/proc,options=rbind:ro --mount type=bind,src=/sys,dst=/host/sys,options=rbind:ro \
  docker.io/library/nodegauge-e2e:1 "$name" \
  /nodegauge agent --host-root /host --listen "127.0.0.1:$port" --runtime none --kubelet none 2>"$work/ctr.log" ||
  { cat "$work/ctr.log"; fail "containerd does not run it"; finish; exit 1; }
check "containerd runs it, and it is ready" wait_for 20 curl -fs "http://127.0.0.1:$port/readyz"
pid=$(ctr tasks ls | awk -v n="$name" '$1 == n { print $2 }')
check "as 65534, without a capability" \
  [ "$(awk '$1 == "Uid:" || $1 == "CapEff:" { print $2 }' "/proc/$pid/status" | paste -sd ' ')" = "65534 0000000000000000" ]
ids() { sed -n 's/^container_memory_usage_bytes{id="\([^"]*\)".*/\1/p' | grep -v "$name" | sort -u; }
same_rows() {
  curl -fs "http://127.0.0.1:$port/metrics" | ids >"$work/inside"
  "$agent" once --runtime none --kubelet none | ids >"$work/outside"
  cmp -s "$work/inside" "$work/outside"
}
# Cgroups of others come and go.
check "it sees the cgroups that the same binary sees outside" wait_for 60 same_rows
check "$(wc -l <"$work/inside") of them" [ "$(wc -l <"$work/inside")" -ge 1 ]

if ! docker info >/dev/null 2>&1; then
  mkdir -p "$work/docker" "$work/exec"
  background "$work/dockerd.log" dockerd --data-root "$work/docker" --exec-root "$work/exec" \
    --pidfile "$work/docker.pid" --host unix:///var/run/docker.sock --iptables=false --bridge=none
  wait_for 60 docker info || { tail -5 "$work/dockerd.log"; fail "dockerd does not start"; finish; exit 1; }
fi
check "Docker loads it" docker load -i "$work/image.tar"
check "as non-root, with a health check" [ "$(docker inspect -f '{{.Config.User}} {{.Config.Healthcheck.Test}}' nodegauge-e2e:1)" = \
  "65534:65534 [CMD /nodegauge check]" ]
check "Docker runs it" docker run --rm --net=none nodegauge-e2e:1 --version
check "a manifest of cAdvisor's finds its command" docker run --rm --net=none --entrypoint /usr/bin/cadvisor nodegauge-e2e:1 --version
check "a manifest of Heapster's finds its command" docker run --rm --net=none --entrypoint /heapster nodegauge-e2e:1 --version
free_port port
docker run -d --name "$name" --net=host --pid=host --cap-drop ALL --read-only -v /proc:/host/proc:ro -v /sys:/host/sys:ro \
  -e NODEGAUGE_HOST_ROOT=/host -e "NODEGAUGE_LISTEN=127.0.0.1:$port" --health-interval 2s --health-start-period 0s \
  nodegauge-e2e:1 agent >/dev/null
healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$name")" = healthy ]; }
check "its health check passes" wait_for 60 healthy
check "and it answers" curl -fs -o /dev/null "http://127.0.0.1:$port/metrics"
docker rm -f "$name" >/dev/null

# Each mount and each capability of the profiles is needed, which is shown by what
# goes without it: figures of a container whose user is not root.
other=$(docker run -d --name "$name" --net=none --user 1000 nodegauge-e2e:1 agent --runtime none --kubelet none)
inside() {
  docker run --rm --net=none --read-only --cap-drop ALL -e NODEGAUGE_HOST_ROOT=/host \
    -e NODEGAUGE_RUNTIME=none -e NODEGAUGE_KUBELET=none -e NODEGAUGE_METRICS=cpu,memory,process,network,oom_event "$@"
}
mounts=(-v /proc:/host/proc:ro -v /sys:/host/sys:ro)
# has EXPECTED WORDS...: whether CPU, processes, descriptors and sockets of it are told.
has() {
  local expected=$1 found=''
  shift
  inside "${mounts[@]}" "$@" nodegauge-e2e:1 once >"$work/once"
  for family in container_cpu_usage_seconds_total container_processes container_file_descriptors container_sockets; do
    grep -q "^$family{.*$other.*} [0-9.]*[1-9]" "$work/once" && found+=" ${family#container_}" || true
  done
  [ "$found" = "$expected" ] && pass "with ${*:-nothing}:$found" || fail "with ${*:-nothing}:$found, expected$expected"
}
ptrace=(--cap-add SYS_PTRACE) dac=(--cap-add DAC_READ_SEARCH)
all=" cpu_usage_seconds_total processes file_descriptors sockets"
has " cpu_usage_seconds_total" --user 0 "${ptrace[@]}" "${dac[@]}"
# Its processes are known by the host's ids only.
host=(--pid host)
has " cpu_usage_seconds_total processes" "${host[@]}"
has " cpu_usage_seconds_total processes" "${host[@]}" "${ptrace[@]}" "${dac[@]}"
has " cpu_usage_seconds_total processes" "${host[@]}" --user 0
has " cpu_usage_seconds_total processes" "${host[@]}" --user 0 "${ptrace[@]}"
has " cpu_usage_seconds_total processes file_descriptors" "${host[@]}" --user 0 "${dac[@]}"
has "$all" "${host[@]}" --user 0 "${ptrace[@]}" "${dac[@]}"
for mount in /proc /sys; do
  ! inside -v "$mount:/host$mount:ro" nodegauge-e2e:1 check >"$work/check" 2>&1 && pass "with $mount alone: $(grep -m 1 '^fail' "$work/check" | cut -c 1-100)" ||
    fail "with $mount alone it is content"
done
# log EXPECTED WORDS...: what `check` says of the kernel's log.
log() {
  local expected=$1
  shift
  inside "${mounts[@]}" "$@" nodegauge-e2e:1 check >"$work/check" || true
  grep -q "kernel log: $expected" "$work/check" && pass "kernel log with $*: $expected" || fail "kernel log with $*: $(grep 'kernel log' "$work/check")"
}
log "/dev/kmsg: permission denied" --user 0 --cap-add SYSLOG -v /dev/kmsg:/dev/kmsg:ro
log "read from now on" --user 0 --cap-add SYSLOG --device /dev/kmsg:/dev/kmsg:r
if [ "$(cat /proc/sys/kernel/dmesg_restrict)" = 1 ]; then
  log "/dev/kmsg: permission denied" --user 0 --device /dev/kmsg:/dev/kmsg:r
fi
docker rm -f "$name" >/dev/null

# The Dockerfile makes the same image. Its compiler is in an image of no registry that is asked here: its steps run in one of
# that name, where cargo gives the binary that is there already, and the others write down what they were asked for.
stand=$work/stand
mkdir -p "$stand/bin" "$stand/tmp"
cp "$(command -v busybox)" "$stand/bin/busybox"
for applet in sh sed cp mkdir chmod chown ln cat; do ln -s busybox "$stand/bin/$applet"; done
cp "$agent" "$stand/built"
printf '#!/bin/sh\necho "host: %s-unknown-linux-gnu"\n' "$(uname -m)" >"$stand/bin/rustc"
for program in cargo apt-get rustup; do printf '#!/bin/sh\necho "asked: %s $*"\n' "$program" >"$stand/bin/$program"; done
cat >>"$stand/bin/cargo" <<'SH'
for target; do :; done
mkdir -p "target/$target/dist"
cp /built "target/$target/dist/nodegauge"
SH
# Which busybox has not: install -m MODE FROM TO.
printf '#!/bin/sh\ncp "$3" "$4"\nchmod "$2" "$4"\n' >"$stand/bin/install"
chmod 0755 "$stand/bin/"{install,rustc,cargo,apt-get,rustup}
from=$(sed -n "s/^FROM .*docker.io\/library\/\(.*\) AS build/\1/p" "$root/deploy/Dockerfile")
from=${from/'${RUST_VERSION}'/$(sed -n 's/^ARG RUST_VERSION=//p' "$root/deploy/Dockerfile")}
tar -C "$stand" -c . | docker import - "$from" >/dev/null
# Of clients without the plugin buildx only Debian's builds by BuildKit.
client=docker
docker buildx version >/dev/null 2>&1 || [ ! -x /usr/bin/docker ] || client=/usr/bin/docker
# built ARCHITECTURE: by the Dockerfile, as nodegauge-e2e:ARCHITECTURE.
built() {
  DOCKER_BUILDKIT=1 $client build --progress plain --network none --platform "linux/$1" --build-arg VERSION=0.0.0 \
    -f "$root/deploy/Dockerfile" -t "nodegauge-e2e:$1" "$root" >"$work/build-$1.log" 2>&1
}
# described IMAGE: its settings and its files.
described() {
  docker inspect -f '{{json .Config.User}} {{json .Config.ExposedPorts}} {{json .Config.Entrypoint}} {{json .Config.Healthcheck}} {{json .Config.Labels}}' "$1"
  docker rm -f "$name" >/dev/null 2>&1 || true
  docker create --name "$name" "$1" >/dev/null
  docker export "$name" | tar -tv --numeric-owner --full-time | awk '{ print $1, $2, $3, $6, $7, $8 }' | grep -vE ' (\.dockerenv|dev|etc|proc|sys)(/|$| )' | sort -k 4
  docker cp "$name:/nodegauge" - | tar -xO | sha256sum
  docker rm -f "$name" >/dev/null
}
case $(uname -m) in aarch64) own=arm64 other=amd64 ;; *) own=amd64 other=arm64 ;; esac
if built $own; then
  described nodegauge-e2e:1 >"$work/packed"
  described "nodegauge-e2e:$own" >"$work/by-dockerfile"
  check "the Dockerfile makes the same image: settings, files, owners and modes" diff "$work/packed" "$work/by-dockerfile"
  check "it runs" docker run --rm --net=none "nodegauge-e2e:$own" --version
  check "built from what is locked, without another compiler" [ "$(grep -o 'asked: .*' "$work/build-$own.log")" = \
    "asked: cargo build --locked --profile dist --bin nodegauge --target $(uname -m)-unknown-linux-gnu" ]
else
  tail -n 20 "$work/build-$own.log"
  fail "the Dockerfile's steps fail"
fi
if built $other; then
  check "for $other it asks for another linker, C library and Rust's own" \
    [ "$(grep -o 'asked: [a-z-]* [a-z]*' "$work/build-$other.log" | sort -u | paste -sd ,)" = \
      "asked: apt-get install,asked: apt-get update,asked: cargo build,asked: rustup target" ]
  check "and the image says so" [ "$(docker inspect -f '{{.Architecture}}' "nodegauge-e2e:$other")" = $other ]
else
  tail -n 20 "$work/build-$other.log"
  fail "the Dockerfile's steps for $other fail"
fi
docker rmi "$from" "nodegauge-e2e:$own" "nodegauge-e2e:$other" >/dev/null 2>&1 || true

compose=()
if docker compose version >/dev/null 2>&1; then compose=(docker compose); elif command -v docker-compose >/dev/null; then compose=(docker-compose); fi
if [ ${#compose[@]} -gt 0 ]; then
  check "${compose[*]} takes the compose file" "${compose[@]}" -f "$root/deploy/compose/docker-compose.yaml" config -q
fi
docker rmi nodegauge-e2e:1 >/dev/null
finish
