#!/usr/bin/env bash
# Fuzzes every target of the module for so long each: bench/fuzz.sh 1m
set -euo pipefail
for pkg in $(go list ./...); do
  dir=$(go list -f '{{.Dir}}' "$pkg")
  for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go 2>/dev/null | cut -c6- || true); do
    echo "== $pkg $target"
    # Making each input that covers something new as small as can be takes most of the time.
    go test "$pkg" -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 20x
  done
done
