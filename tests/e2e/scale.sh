#!/usr/bin/env bash
# A cluster of simulated agents pushes to an aggregator and asks it meanwhile. What it
# answers in the end must be what was pushed: every point of some series, the sums, every pod,
# its counts and the bytes a value takes. Times are printed, and nothing depends on them.
# E2E_FULL=1 is the size the budgets are for, 5,000 nodes, with the optimised load.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
trap cleanup EXIT

binary=$(binary)
profile=dev
words=(--check --step 2 --variants 5 100x10x2)
if [ -n "${E2E_FULL:-}" ]; then
  profile=release
  words=(--check 1000x30x2 5000x30x2)
fi
scale() { (cd "$root" && cargo bench --quiet --profile "$profile" --bench scale -- --binary "$binary" "${words[@]}"); }
if scale >"$work/scale" 2>&1; then
  pass "$(grep '^checked' "$work/scale" | tail -1)"
else
  fail "what a cluster pushed is answered"
fi
cat "$work/scale"

# The same size asked, as Heapster's pull source is, of kubelets behind an API server.
pulled=(--step 10 100 10 2)
[ -z "${E2E_FULL:-}" ] || pulled=(--step 60 1000 30 2)
pull() { (cd "$root" && cargo bench --quiet --profile "$profile" --bench pull -- --binary "$binary" "${pulled[@]}"); }
if pull >"$work/pull" 2>&1; then
  pass "$(grep '^pull: ' "$work/pull")"
else
  fail "every kubelet is in every step"
  cat "$work/pull"
fi
finish
