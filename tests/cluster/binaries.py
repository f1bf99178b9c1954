"""The programs of the tests' cluster, built once from the pinned modules in tools/ and kept outside the repository."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TOOLS = Path(__file__).parent / "tools"
_VERSION = "k8s.io/component-base/version"
_CONTAINERD = ("-tags", "no_btrfs,no_devmapper,no_zfs,no_aufs")


class ToolError(Exception):
    """A program could not be had; the message says what to do."""


class _Source(NamedTuple):
    folder: str
    package: str
    flags: tuple[str, ...] = ()
    cgo: bool = False


_SOURCES = {
    **{name: _Source("kubernetes", f"k8s.io/kubernetes/cmd/{name}") for name in ("kubectl", "kubelet", "kube-proxy", "kube-scheduler")},
    **{name: _Source("kubernetes", f"k8s.io/kubernetes/cmd/{name}") for name in ("kube-controller-manager", "kube-apiserver")},
    "etcd": _Source("kubernetes", "go.etcd.io/etcd/server/v3"),
    **{
        name: _Source("containerd", f"github.com/containerd/containerd/v2/cmd/{name}", _CONTAINERD)
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    },
    "runc": _Source("runc", "github.com/opencontainers/runc", ("-tags", "seccomp"), cgo=True),
    "coredns": _Source("coredns", "github.com/coredns/coredns"),
    "helm": _Source("helm", "helm.sh/helm/v4/cmd/helm"),
    "kubeconform": _Source("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform"),
    "kwok": _Source("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    "kind": _Source("kind", "sigs.k8s.io/kind"),
}
CLIENTS = ("kubectl", "helm", "kubeconform")
NODE = tuple(name for name in _SOURCES if name not in ("kwok", "kind"))


def cache() -> Path:
    """The folder outside the repository where programs, images and the running cluster are kept."""
    home = os.environ.get("PIPELINEJOB_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pipelinejob")
    folder = Path(home).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ensure(names: Iterable[str]) -> Path:
    """The folder with these programs, built now where they are missing or their pins changed; a line for each on standard error.

    Raises:
        ToolError: Go is missing, or a build failed.
    """
    folder = cache() / "bin"
    folder.mkdir(exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run that builds is waited for
        for name in names:
            key = _key(_SOURCES[name])
            stamp = folder / f".{name}.key"
            if not (folder / name).exists() or not stamp.exists() or stamp.read_text() != key:
                _build(name, _SOURCES[name], folder / name)
                stamp.write_text(key)
    return folder


def _key(source: _Source) -> str:
    digest = hashlib.sha256(repr((source, _linker_flags(source))).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((TOOLS / source.folder / name).read_bytes())
    return digest.hexdigest()


def _linker_flags(source: _Source) -> str:
    if source.folder != "kubernetes":
        return "-s -w"
    found = re.search(r"k8s\.io/kubernetes v(\d+)\.(\d+)\.(\S+)", (TOOLS / "kubernetes/go.mod").read_text())
    assert found is not None
    major, minor, patch = found.groups()
    return f"-s -w -X {_VERSION}.gitVersion=v{major}.{minor}.{patch} -X {_VERSION}.gitMajor={major} -X {_VERSION}.gitMinor={minor}"


def _build(name: str, source: _Source, target: Path) -> None:
    if shutil.which("go") is None:
        raise ToolError(f"the tests' cluster needs Go to build {name}, and there is no 'go' on the PATH: install Go 1.26 or newer")
    began = time.monotonic()
    print(f"cluster: building {name} ...", end="", file=sys.stderr, flush=True)
    part = target.with_name(f".{name}.part")
    environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false -trimpath", "GOTOOLCHAIN": "local"}
    environment["CGO_ENABLED"] = str(int(source.cgo))
    command = ["go", "build", *source.flags, "-ldflags", _linker_flags(source), "-o", str(part), source.package]
    ran = subprocess.run(command, cwd=TOOLS / source.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ran.returncode:
        raise ToolError(f"building {name} failed:\n{ran.stderr[-3000:]}")
    part.rename(target)
    print(f" {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
