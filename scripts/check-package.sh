#!/usr/bin/env bash
# Does dist/*.whl work for a user? Its files are complete, and in an empty environment away from the project, with the locked
# dependencies, it runs the sample job.
set -euo pipefail
exec </dev/null
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project"

wheels=(dist/pipelinejob-*.whl)
if [ ${#wheels[@]} -ne 1 ] || [ ! -f "${wheels[0]}" ]; then
    echo "check-package: expected one wheel in dist/, found: ${wheels[*]}; run make package" >&2
    exit 1
fi
wheel=$project/${wheels[0]}

echo "check-package: every file of the package is in the wheel"
.venv/bin/python - "$wheel" <<'PYTHON'
import sys
import zipfile
from pathlib import Path

roots = [Path("worker"), Path("operator")]
files = [(root, path) for root in roots for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc" and ".egg-info" not in str(path)]
tree = {path.relative_to(root).as_posix() for root, path in files}
wheel = {name for name in zipfile.ZipFile(sys.argv[1]).namelist() if ".dist-info/" not in name}
if tree != wheel:
    sys.exit("\n".join([*(f"not in the wheel: {name}" for name in sorted(tree - wheel)), *(f"only in the wheel: {name}" for name in sorted(wheel - tree))]))
PYTHON

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV PIPELINEJOB_DATABASE_URL PIPELINEJOB_HOME

echo "check-package: installing it into an empty environment"
.venv/bin/python -m venv "$scratch/venv"
pip=("$scratch/venv/bin/python" -m pip --quiet --no-input --disable-pip-version-check)
"${pip[@]}" install --require-hashes -r requirements/run.txt
"${pip[@]}" install --no-deps "$wheel"
"${pip[@]}" check

echo "check-package: running the sample job there"
mkdir "$scratch/job"
cp -R data "$scratch/job/data"
rm -rf "$scratch/job/data/out" "$scratch/job/data/output"
cp manifests/examples/fashion.yaml "$scratch/job/job.yaml"
cd "$scratch/job"
"$scratch/venv/bin/pipelinejob" run job.yaml --data data --json >result.txt
"$scratch/venv/bin/python" - <<'PYTHON'
import csv
import json
from pathlib import Path

result = json.loads(Path("result.txt").read_text().splitlines()[-1])
assert result["phase"] == "Complete", result
with Path(result["output"], "metadata.csv").open(newline="", encoding="utf-8") as file:
    lines = sum(1 for _ in csv.DictReader(file))
assert lines == result["rows"]["succeeded"] > 0, (lines, result)
print(f"check-package: Complete, metadata.csv has {lines} rows")
PYTHON
