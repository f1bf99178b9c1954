#!/usr/bin/env bash
# Print a Python that can make the project's environment: 3.11 to 3.14, with venv and ensurepip.
# PYTHON=... names one; without it the first that fits is taken.
set -euo pipefail

fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1 </dev/null
}

if [ -n "${PYTHON:-}" ]; then
    candidates=("$PYTHON")
else
    candidates=(python3.13 python3.12 python3.11 python3)
fi
for candidate in "${candidates[@]}"; do
    if fits "$candidate"; then
        command -v "$candidate"
        exit 0
    fi
done

{
    echo "error: none of these is a Python 3.11 to 3.14 that can make virtual environments: ${candidates[*]}"
    echo "  Debian, Ubuntu: scripts/system-packages.sh    (installs python3 and python3-venv)"
    echo "  macOS:          brew install python@3.13"
    echo "  or name one:    make PYTHON=/path/to/python3.12 ..."
} >&2
exit 1
