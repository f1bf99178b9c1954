#!/usr/bin/env bash
# What scripts/generate.py makes from the model is what stands in the project.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
.venv/bin/python scripts/generate.py "$fresh"

drifted=()
while IFS= read -r file; do
    diff -u "$file" "$fresh/$file" || drifted+=("$file")
done < <(cd "$fresh" && find . -type f -printf '%P\n' | sort)
if [ "${#drifted[@]}" -ne 0 ]; then
    echo "check-generated: not current: ${drifted[*]}; run .venv/bin/python scripts/generate.py" >&2
    exit 1
fi
echo "generated files: current"
