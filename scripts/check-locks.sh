#!/usr/bin/env bash
# The locks hold what pyproject.toml asks for, agree with one another, and name no address. Works offline.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
.venv/bin/python - <<'PYTHON'
import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

problems = []


def read_lock(name):
    """The versions that a lock allows for each package: several where they depend on the Python version."""
    text = Path("requirements", name).read_text()
    if "://" in text or re.search(r"^--(?!hash)", text, re.MULTILINE):
        problems.append(f"requirements/{name} names an address or an option")
    pins = {}
    for entry in re.split(r"\n(?=\S)", text):
        if pin := re.match(r"([\w.-]+)==([^\s;]+)", entry):
            pins.setdefault(canonicalize_name(pin[1]), set()).add(pin[2])
            if "--hash=sha256:" not in entry:
                problems.append(f"requirements/{name}: {pin[0]} has no hash")
    return pins


def check(lock, name, wanted):
    for requirement in map(Requirement, wanted):
        versions = lock.get(canonicalize_name(requirement.name), set())
        if not versions or not all(requirement.specifier.contains(version) for version in versions):
            problems.append(f"requirements/{name}: wants {requirement}, has {', '.join(sorted(versions)) or 'nothing'}")


project = tomllib.loads(Path("pyproject.toml").read_text())
base, extras = project["project"]["dependencies"], project["project"]["optional-dependencies"]
tools = [tool for tool in extras["dev"] if not tool.startswith("pipelinejob[")] + extras["operator"]
inputs = {path.stem: [line for line in path.read_text().splitlines() if line and line[0] != "#"] for path in Path("requirements").glob("*.in")}
inputs["build"] += project["build-system"]["requires"]
inputs["operator"] += extras["operator"]
inputs["gateway"] += extras["serve"]
for image in ("worker", "operator", "gateway"):
    inputs[image] += extras["traces"]
wanted = {"run": base, "dev": base + tools, **inputs}
locks = {name: read_lock(f"{name}.txt") for name in wanted}
for name, requirements in wanted.items():
    check(locks[name], f"{name}.txt", requirements)
for name in wanted.keys() - {"bench"}:
    differing = [package for package, versions in locks[name].items() if versions != locks["dev"].get(package)]
    problems += [f"requirements/{name}.txt and dev.txt differ in {package}" for package in differing]

if problems:
    sys.exit("\n".join(["the locks are not current; run `make lock`:", *problems]))
print("locks: current")
PYTHON
