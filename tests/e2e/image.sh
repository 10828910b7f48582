#!/bin/sh
# Makes a container image out of Debian's busybox-static, so that tests need no
# registry: image.sh FILE TAG COMMAND... writes a docker-archive. EXTRA names files of
# this machine that it has too, with the libraries that programs among them ask for;
# CONFIG more of the image's configuration, such as "Entrypoint":["/bin/sh"].
set -eu
file=$1 tag=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin" "$work/root/tmp" "$work/root/proc" "$work/root/sys" "$work/root/dev" "$work/root/etc"
cp "$(command -v busybox)" "$work/root/bin/busybox"
for applet in sh sleep cat dd true false wget httpd chown chmod; do
    ln -s busybox "$work/root/bin/$applet"
done
for extra in ${EXTRA:-}; do
    for path in "$extra" $(ldd "$extra" 2>/dev/null | grep -oE '/[^ ]+'); do
        mkdir -p "$work/root${path%/*}"
        cp -L "$path" "$work/root$path"
    done
done
tar -C "$work/root" --sort=name --mtime=@0 --owner=0 --group=0 -cf "$work/layer.tar" .
layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
command=$(printf '%s\n' "$@" | sed 's/["\\]/\\&/g; s/.*/"&"/' | paste -sd, -)
cat >"$work/config.json" <<JSON
{"architecture":"amd64","os":"linux","config":{${CONFIG:+$CONFIG,}"Cmd":[$command],"Env":["PATH=/bin"],"Labels":{"org.opencontainers.image.title":"$tag"}},
"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]},"history":[{"created":"2024-01-01T00:00:00Z"}]}
JSON
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$tag" >"$work/manifest.json"
tar -C "$work" -cf "$file" config.json layer.tar manifest.json
