#!/usr/bin/env bash
# Packs the image of deploy/Dockerfile around a static binary that is there
# already, without a daemon or a registry:
#
#   deploy/image.sh [--arch amd64|arm64] [--version VERSION] [--tag NAME:TAG] BINARY FILE.tar
#
# FILE.tar is an OCI image layout and a docker-archive at once: `docker load -i`,
# `podman load -i`, `ctr -n k8s.io images import` and `skopeo copy oci-archive:`
# take it. The same binary and words make the same file, byte for byte, with GNU
# tar and gzip: nothing of this machine or moment is in it.
set -euo pipefail
arch='' version=unversioned tag=''
while [ $# -gt 2 ]; do
  case $1 in
  --arch) arch=$2 ;;
  --version) version=$2 ;;
  --tag) tag=$2 ;;
  *) break ;;
  esac
  shift 2
done
[ $# = 2 ] || { sed -n '5p' "$0" >&2; exit 64; }
binary=$1 file=$2
[ -n "$tag" ] || tag=docker.io/library/nodegauge:$version
[ -n "$arch" ] || arch=$(case $(uname -m) in aarch64) echo arm64 ;; *) echo amd64 ;; esac)
[ -f "$binary" ] || { echo "$0: no such file: $binary" >&2; exit 1; }
# An image FROM scratch has no loader; a program that needs one names it at its beginning.
if head -c 4096 "$binary" | grep -aq '/ld-linux'; then
  echo "$0: $binary is not static; build it with RUSTFLAGS=-Ctarget-feature=+crt-static" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# archive DIRECTORY FILE: no owner, no time, no order of this machine; `own` are
# the agent's, all else is root's.
own=var/lib/nodegauge
archive() {
  local flags=(-C "$1" --format=ustar --mtime=@0 --numeric-owner --no-recursion)
  (cd "$1" && find . -mindepth 1 -printf '%P\n' | grep -vx "$own" | LC_ALL=C sort) |
    tar "${flags[@]}" --owner=0 --group=0 -T - -cf "$2"
  [ ! -e "$1/$own" ] || tar "${flags[@]}" --owner=65534 --group=65534 -rf "$2" "$own"
}
digest() { sha256sum "$1" | cut -d ' ' -f 1; }

root=$work/root
mkdir -p "$root/tmp" "$root/usr/bin" "$root/$own"
install -m 0755 "$binary" "$root/nodegauge"
ln -s nodegauge "$root/heapster"
ln -s /nodegauge "$root/usr/bin/cadvisor"
chmod 0755 "$root/usr" "$root/usr/bin" "$root/var" "$root/var/lib"
chmod 0750 "$root/$own"
chmod 1777 "$root/tmp"
archive "$root" "$work/layer.tar"
gzip -n -9 -c "$work/layer.tar" >"$work/layer.tar.gz"
plain=$(digest "$work/layer.tar")

blobs=$work/image/blobs/sha256
mkdir -p "$blobs"
# blob FILE: moves it to where its digest says; prints the digest.
blob() {
  local name
  name=$(digest "$1")
  mv "$1" "$blobs/$name"
  printf '%s\n' "$name"
}
layer=$(blob "$work/layer.tar.gz")
cat >"$work/config.json" <<JSON
{"architecture":"$arch","os":"linux","created":"1970-01-01T00:00:00Z","config":{"User":"65534:65534","ExposedPorts":{"10250/tcp":{},"4194/tcp":{},"8082/tcp":{}},"Entrypoint":["/nodegauge"],"WorkingDir":"/","Healthcheck":{"Test":["CMD","/nodegauge","check"],"Interval":60000000000,"Timeout":20000000000,"StartPeriod":30000000000},"Labels":{"org.opencontainers.image.description":"Container metrics under cAdvisor's and Heapster's names","org.opencontainers.image.licenses":"Apache-2.0","org.opencontainers.image.title":"nodegauge","org.opencontainers.image.version":"$version"}},"rootfs":{"type":"layers","diff_ids":["sha256:$plain"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"deploy/image.sh"}]}
JSON
config=$(blob "$work/config.json")
size() { stat -c %s "$blobs/$1"; }
oci=application/vnd.oci.image
cat >"$work/manifest" <<JSON
{"schemaVersion":2,"mediaType":"$oci.manifest.v1+json","config":{"mediaType":"$oci.config.v1+json","digest":"sha256:$config","size":$(size "$config")},"layers":[{"mediaType":"$oci.layer.v1.tar+gzip","digest":"sha256:$layer","size":$(size "$layer")}]}
JSON
manifest=$(blob "$work/manifest")
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
cat >"$work/image/index.json" <<JSON
{"schemaVersion":2,"mediaType":"$oci.index.v1+json","manifests":[{"mediaType":"$oci.manifest.v1+json","digest":"sha256:$manifest","size":$(size "$manifest"),"annotations":{"io.containerd.image.name":"$tag","org.opencontainers.image.ref.name":"${tag##*:}"},"platform":{"architecture":"$arch","os":"linux"}}]}
JSON
cat >"$work/image/manifest.json" <<JSON
[{"Config":"blobs/sha256/$config","RepoTags":["${tag#docker.io/library/}"],"Layers":["blobs/sha256/$layer"]}]
JSON
chmod -R u=rwX,go=rX "$work/image"
archive "$work/image" "$file"
echo "$file: $tag, linux/$arch, $(stat -c %s "$file") bytes, unpacked $(stat -c %s "$work/layer.tar")"
