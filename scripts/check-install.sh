#!/usr/bin/env bash
# manifests/install.yaml is what scripts/render-install.sh writes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v "${HELM:-helm}" >/dev/null; then
    echo "check-install: not checked, for there is no helm (the variable HELM names one)"
    exit 0
fi
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
scripts/render-install.sh "$fresh"
if ! diff -u manifests/install.yaml "$fresh"; then
    echo "check-install: manifests/install.yaml is not current: run scripts/render-install.sh" >&2
    exit 1
fi
echo "check-install: manifests/install.yaml is current"
