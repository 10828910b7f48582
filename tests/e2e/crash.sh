#!/usr/bin/env bash
# The crash campaign of campaign.py: 5 kills, or CRASH_KILLS of them (50 is the
# full form, about five minutes); CRASH_SEED repeats one.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
trap cleanup EXIT

need influxd influxdb
need python3 python3
agent=$(binary)
here=$(dirname "$0")
seed=${CRASH_SEED:-$RANDOM}
say "seed $seed"
python3 "$here/../vm/ttar.py" unpack "$here/../../fixtures/v2-systemd-6.12/tree.ttar" "$work/tree"
mkdir "$work/campaign"
check "nothing queued is lost, and little sent twice" \
  python3 "$here/campaign.py" "$agent" "$work/tree" "$work/campaign" "${CRASH_KILLS:-5}" "$seed"
[ "$failed" = 0 ] || tail -20 "$work/campaign/agent.log"
finish
