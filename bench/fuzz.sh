#!/usr/bin/env bash
# Fuzzes every target of the module for so long each: bench/fuzz.sh 1m
# It goes on after one that fails, and names those in the end.
set -euo pipefail
declared=$(grep -rE --include='*_test.go' '^func Fuzz[A-Z0-9_]' . | wc -l)
packages=$(go list -f '{{.ImportPath}} {{.Dir}}' ./...)
ran=0 failed=
while read -r pkg dir; do
  for target in $(grep -hoE '^func Fuzz[A-Z0-9_][A-Za-z0-9_]*' "$dir"/*_test.go 2>/dev/null | cut -c6- || true); do
    echo "== $pkg $target"
    ran=$((ran + 1))
    # Making each input that covers something new as small as can be takes most of the time.
    go test "$pkg" -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 20x </dev/null || failed+=" $pkg:$target"
  done
done <<<"$packages"
echo "$ran targets fuzzed for $1 each"
[ "$ran" = "$declared" ] || { echo "$declared are in the tree: the others are in no package that is built" >&2; exit 1; }
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
