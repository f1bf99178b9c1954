#!/usr/bin/env bash
# All tests: those that need the cluster beside the others, since they mostly wait for it. With arguments for pytest, in one go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pytest=(.venv/bin/python -m pytest -q tests)
if [ $# -gt 0 ]; then
  exec "${pytest[@]}" "$@"
fi

log=$(mktemp)
"${pytest[@]}" -m cluster >"$log" 2>&1 &
of_cluster=$!
trap 'kill -INT "$of_cluster" 2>/dev/null && wait "$of_cluster" || true; rm -f "$log"' EXIT

failed=0
echo "test: without the cluster"
"${pytest[@]}" -m "not cluster" || failed=$?
echo "test: with the cluster"
tail -n +1 -f --pid="$of_cluster" "$log"
wait "$of_cluster" || failed=$?
exit "$failed"
