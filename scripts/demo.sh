#!/usr/bin/env bash
# The main job on the sample catalogue, with the embedded default: a plan, the run, and where to look.
set -euo pipefail
cd "$(dirname "$0")/.."
run() {
  echo
  echo "\$ pipelinejob $*"
  .venv/bin/pipelinejob "$@"
}
run plan manifests/examples/fashion.yaml --data data
run run manifests/examples/fashion.yaml --data data --replace
run results fashion
echo
echo "Look at:"
echo "  data/out/fashion/images/        the processed images"
echo "  data/out/fashion/metadata.csv   one line for each row that succeeded"
echo "  data/out/fashion/failures.csv   the rows that failed, each with its reason"
echo "Next: 'pipelinejob init your.csv' in your own folder (.venv/bin/pipelinejob, or activate .venv)"
