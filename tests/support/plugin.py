"""`kubectl pipelinejob` as a user types it: kubectl finds the executables that pyproject.toml declares on the PATH."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from support.project import Ran

if TYPE_CHECKING:
    from support.shop import Shop

ROOT = Path(__file__).resolve().parents[2]


def install(folder: Path) -> Path:
    """Writes the executables into a folder, as an installation would."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name, place in scripts.items():
        if name.startswith("kubectl"):
            module, _, function = place.partition(":")
            path = folder / name
            path.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
            path.chmod(0o755)
    return folder


def environment_for(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a user who has the executables of a folder on the PATH."""
    python = os.pathsep.join([str(ROOT / "worker"), str(ROOT / "operator")])
    path = os.pathsep.join([str(folder), environment.get("PATH", os.environ["PATH"])])
    return {**os.environ, "COLUMNS": "120", "PYTHONPATH": python, **environment, "PATH": path}


def run(*words: str, folder: Path, environment: Mapping[str, str], cwd: Path, kubectl: str = "kubectl") -> Ran:
    """Runs kubectl, or another program, with these words."""
    full = environment_for(folder, environment)
    ran = subprocess.run([kubectl, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, env=full, cwd=cwd, timeout=100)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


class Plugin:
    """The command in a namespace of a cluster, from a folder of its own.

    Args:
        shop: the namespace.
        folder: a temporary one, which is also the current directory.
    """

    def __init__(self, shop: Shop, folder: Path) -> None:
        self.shop, self.folder = shop, folder
        self._path = folder / "bin"
        self._path.mkdir()
        install(self._path)
        cluster = shop.cluster
        self.environment = {"KUBECONFIG": str(cluster.kubeconfig), "PATH": os.pathsep.join([str(cluster.bin), os.environ["PATH"]])}

    def __call__(self, *words: str) -> Ran:
        """kubectl pipelinejob WORDS, in the namespace."""
        return self.kubectl("pipelinejob", *words, "-n", self.shop.namespace)

    def kubectl(self, *words: str) -> Ran:
        """kubectl WORDS."""
        kubectl = str(self.shop.cluster.bin / "kubectl")
        return run(*words, folder=self._path, environment=self.environment, cwd=self.folder, kubectl=kubectl)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """kubectl pipelinejob WORDS, in the namespace, while it runs."""
        return subprocess.Popen(
            [str(self.shop.cluster.bin / "kubectl"), "pipelinejob", *words, "-n", self.shop.namespace],
            env=environment_for(self._path, self.environment),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,  # noqa: PLW1509 - a background job would ignore it
        )
