#!/usr/bin/env bash
# Write requirements/*.txt anew: every version with its hashes, for Linux and macOS, Python 3.11 to 3.14, naming no package index.
# Versions that still fit stay; UPGRADE=1 takes the newest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lock() { # lock OUTPUT INPUT...
    local output=$1
    shift
    echo "lock: $output"
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
        --custom-compile-command "make lock" ${UPGRADE:+--upgrade} --output-file "$output" "$@" </dev/null
}

lock requirements/dev.txt --extra dev pyproject.toml
lock requirements/run.txt --extra serve --constraints requirements/dev.txt pyproject.toml
for name in build worker operator gateway; do
    lock "requirements/$name.txt" --constraints requirements/dev.txt "requirements/$name.in"
done
lock requirements/bench.txt requirements/bench.in
scripts/check-locks.sh
