#!/usr/bin/env bash
# Make or complete an environment from a hash lock; `make` calls this when a lock or pyproject.toml has changed.
#   setup.sh run      .venv with what the package needs to run (make demo)
#   setup.sh dev      .venv with the checks and the build tools as well
#   setup.sh bench    .venv-bench with the engines that `make bench` compares with
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
profile=${1:?usage: setup.sh run|dev|bench}

environment=.venv
case $profile in
    run) locks=(-r requirements/build.txt -r requirements/run.txt) ;;
    dev) locks=(-r requirements/dev.txt) ;;
    bench) environment=.venv-bench locks=(-r requirements/bench.txt) ;;
    *) echo "usage: setup.sh run|dev|bench" >&2 && exit 2 ;;
esac

if ! "$environment/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(scripts/find-python.sh)
    echo "setup: making $environment with $("$python" --version)"
    "$python" -m venv --clear "$environment"
fi

pip() { "$environment/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@"; }

echo "setup: installing the $profile packages into $environment"
pip --require-hashes "${locks[@]}"
if [ "$environment" = .venv ]; then
    PYTHONWARNINGS=ignore pip --no-build-isolation --no-deps --editable . # it warns of folders that could hide packages; ours cannot
fi

touch "$environment/.installed-$profile"
if [ "$profile" = dev ]; then
    touch .venv/.installed .venv/.installed-run # dev holds all of run
fi
