#!/usr/bin/env bash
# Runs every end-to-end script that fits a CI run, one after the other.
set -uo pipefail
cd "$(dirname "$0")"
. ./lib.sh
NODEGAUGE=$(binary)
export NODEGAUGE
rm -rf "$work"
result=0
for script in docker prometheus; do
  printf '== %s\n' "$script"
  "./$script.sh" || result=1
done
exit $result
