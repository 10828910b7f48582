#!/usr/bin/env bash
# Runs every end-to-end script that fits a CI run, one after the other.
set -uo pipefail
cd "$(dirname "$0")"
. ./lib.sh
rm -rf "$work"
need dockerd docker.io
need containerd containerd runc
need curl curl
need ip iproute2
need jq jq
need openssl openssl
[ -d /usr/lib/cni ] || need no-such-command containernetworking-plugins
[ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || need busybox busybox-static
NODEGAUGE=$(binary)
export NODEGAUGE
result=0
for script in docker rest prometheus panels package hostile identity-docker identity-containerd churn shortlived push crash aggregator scale faults pages top; do
  printf '== %s\n' "$script"
  "./$script.sh" || result=1
done
# What it costs beside other programs: the short form, with those that Debian has.
printf '== peers\n'
../peers/run.sh || result=1
# Building parts of Kubernetes takes minutes, and these need Go and its modules: only where they were built, or are
# asked for.
if [ -n "${E2E_KUBELET:-}" ] || compgen -G "${CARGO_TARGET_DIR:-$root/target}/e2e/kubelet-*" >/dev/null; then
  for script in kubelet pod pull cadvisor-client; do
    printf '== %s\n' "$script"
    "./$script.sh" || result=1
  done
fi
if [ -n "${E2E_KUBECTL:-}" ] || compgen -G "${CARGO_TARGET_DIR:-$root/target}/e2e/kubectl-*/kubectl" >/dev/null; then
  for script in kubectl deploy lease; do
    printf '== %s\n' "$script"
    "./$script.sh" || result=1
  done
fi
# Its plugin is in no package of Debian's: only where it is, or is asked for.
if [ -n "${E2E_COMPOSE:-}" ] || docker compose version >/dev/null 2>&1; then
  printf '== compose\n'
  ./compose.sh || result=1
fi
# A whole cluster needs both, and a quarter of an hour.
if [ -n "${E2E_CLUSTER:-}" ] || compgen -G "${CARGO_TARGET_DIR:-$root/target}/e2e/kubectl-*/scheduler" >/dev/null; then
  for script in cluster mounts; do
    printf '== %s\n' "$script"
    "./$script.sh" || result=1
  done
fi
exit $result
