"""A real cluster for tests and for `make cluster-up`: kind where an engine runs, else a node of our own on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import yaml

from cluster import binaries, images
from cluster.cluster import SYSTEM, Cluster, ClusterError
from cluster.node import Node, NodeError
from cluster.processes import command_of, of_cluster

PROJECT = Path(__file__).resolve().parents[2]
KIND_NAME = "pipelinejob-test"
GIVEN = "PIPELINEJOB_TEST_KUBECONFIG"  # the only way to have an existing cluster used

# All that can go wrong on the way to a cluster.
FAILURES = (ClusterError, NodeError, binaries.ToolError, images.ImageError, subprocess.SubprocessError)


def up(by: str) -> Cluster:
    """Brings the cluster up with the images, the sample catalogue and the chart; one that is up is brought up to date.

    Args:
        by: who it is for: "make" (stays until `make cluster-down`) or "tests".

    Raises:
        FAILURES: it cannot come up.
    """
    home = binaries.cache()
    run = home / "run"
    with _alone(home):
        if given := os.environ.get(GIVEN):
            made = Cluster(Path(given), run / "data", binaries.ensure(binaries.CLIENTS), run / "volumes", None)
        else:
            _refuse_a_second(home)
            engine = _engine()
            made = _kind(home, engine, by) if engine else _own(home, by)
        _install(made, run)
    return made


def down() -> None:
    """Takes the cluster away with all that it made; can be done twice."""
    home = binaries.cache()
    run = home / "run"
    with _alone(home):
        if not run.exists() or os.environ.get(GIVEN):
            return
        if (run / "kind").exists():
            kind = str(binaries.ensure(["kind"]) / "kind")
            environment = {**os.environ, "KIND_EXPERIMENTAL_PROVIDER": (run / "kind").read_text()}
            subprocess.run([kind, "delete", "cluster", "--name", KIND_NAME], check=True, env=environment)
        else:
            Node(run, home / "bin").down()
        shutil.rmtree(run)


def left_over() -> list[str]:
    """What of the cluster is still on this machine: nothing after `down`."""
    home = binaries.cache()
    run = home / "run"
    found = [str(run)] if run.exists() else []
    return found if _engine() else found + Node(run, home / "bin").left()


def owner(run: Path) -> dict[str, Any] | None:
    """Who brought the cluster up: {by, pid, project}; None when there is none."""
    try:
        found: dict[str, Any] = json.loads((run / "owner").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found


def _sign(run: Path, by: str) -> None:
    """Writes down who the cluster is for; one that `make` brought up stays that."""
    found = owner(run)
    by = "make" if found and found["by"] == "make" else by
    (run / "owner").write_text(json.dumps({"by": by, "pid": os.getpid(), "project": str(PROJECT)}))


def _refuse_a_second(home: Path) -> None:
    run = home / "run"
    found = owner(run)
    if found is None or not ((run / "kind").exists() or any(of_cluster(run, home / "bin"))):
        return
    if found.get("project", str(PROJECT)) != str(PROJECT):
        raise ClusterError(
            f"the cluster of the project in {found['project']} is up in {run}, and this machine bears one: "
            "take it away with 'make cluster-down'"
        )
    testing = found["by"] == "tests" and found["pid"] != os.getpid() and any("pytest" in word for word in command_of(found["pid"]))
    if testing:
        raise ClusterError(
            f"a run of the tests (process {found['pid']}) has a cluster up in {run}, and this machine bears one: "
            "wait for it, or end it and run 'make cluster-down'"
        )


def _own(home: Path, by: str) -> Cluster:
    """A node on this machine; the one that is up is kept if all of it is well."""
    run = home / "run"
    node = Node(run, home / "bin")
    is_up = node.is_up()
    if not is_up:
        node.down()  # what a killed one left
        node.check()
    programs = binaries.ensure(binaries.NODE)
    archives = images.archives(home / "images")
    if not is_up:
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
    _sign(run, by)
    try:
        node.load(archives) if is_up else node.up(archives)
    except BaseException:
        node.down()  # its folder stays, for the logs
        raise
    return Cluster(node.kubeconfig, run / "data", programs, run / "volumes", node)


def _engine() -> str | None:
    for engine in ("docker", "podman"):
        with suppress(subprocess.TimeoutExpired):
            if shutil.which(engine) and subprocess.run([engine, "info"], capture_output=True, timeout=30).returncode == 0:
                return engine
    return None


def _kind(home: Path, engine: str, by: str) -> Cluster:
    """A kind cluster that sees the run folder under its own path."""
    run = home / "run"
    programs = binaries.ensure([*binaries.CLIENTS, "kind"])
    archives = images.archives(home / "images", engine)
    kind = str(programs / "kind")
    environment = {**os.environ, "KIND_EXPERIMENTAL_PROVIDER": engine}
    config = run / "kubeconfig"
    run.mkdir(exist_ok=True)
    (run / "kind").write_text(engine)
    _sign(run, by)
    listed = subprocess.run([kind, "get", "clusters"], capture_output=True, text=True, env=environment).stdout.split()
    if KIND_NAME not in listed:
        mounts = [{"hostPath": str(run), "containerPath": str(run)}]
        document = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": [{"role": "control-plane", "extraMounts": mounts}]}
        command = [kind, "create", "cluster", "--name", KIND_NAME, "--kubeconfig", str(config), "--config", "-", "--wait", "120s"]
        subprocess.run(command, input=yaml.safe_dump(document), text=True, check=True, env=environment, stdout=sys.stderr)
    for archive in archives:
        subprocess.run([kind, "load", "image-archive", str(archive), "--name", KIND_NAME], check=True, env=environment, stdout=sys.stderr)
    made = Cluster(config, run / "data", programs, run / "volumes", None)
    storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "host"}}
    made.apply({**storage, "provisioner": "kubernetes.io/no-provisioner"})
    return made


def chart(folder: Path) -> Path:
    """Packs the chart, as a user gets it."""
    folder.mkdir(parents=True, exist_ok=True)
    helm = binaries.ensure(["helm"]) / "helm"
    ran = subprocess.run([str(helm), "package", str(PROJECT / "helm/pipelinejob"), "-d", str(folder)], capture_output=True, text=True)
    if ran.returncode:
        raise ClusterError(f"helm package: {ran.stderr}")
    return max(folder.glob("pipelinejob-*.tgz"), key=lambda path: path.stat().st_mtime)


def _install(made: Cluster, run: Path) -> None:
    """The sample catalogue, and the chart from its package with its own Postgres."""
    made.claim("default", "catalogue", made.data)
    if not (made.data / "fashion").exists():
        shutil.copytree(PROJECT / "data/fashion", made.data / "fashion")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}})
    made.claim(SYSTEM, "data-pipelinejob-postgres-0", made.volumes / "postgres")
    values = {
        "image.operator": images.OPERATOR,
        "image.worker": images.WORKER,
        "image.gateway": images.GATEWAY,
        "postgres.enabled": "true",
        "postgres.image": images.POSTGRES,
        "postgres.persistence.storageClass": "host",
        "operator.podAnnotations.image": _digest_of_images(),
        "operator.replicas": "1",  # tests that want a standby ask for it
    }
    sets = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    try:
        made.helm("upgrade", "--install", made.release, str(chart(run / "chart")), "-n", SYSTEM, *sets, "--wait", "--timeout", "150s")
    except ClusterError as error:
        pods = made.kubectl("get", "pods", "-n", SYSTEM, "-o", "wide", check=False)
        logs = made.kubectl("logs", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--tail=15", check=False)
        raise ClusterError(f"{error}\n{pods}\n{logs}") from None


def _digest_of_images() -> str:
    """Changes with the images, so that an operator of an older one is replaced."""
    names = sorted(path.name for path in (binaries.cache() / "images").glob("*.tar"))
    return "i" + hashlib.sha256("".join(names).encode()).hexdigest()[:12]


def reserve() -> IO[str]:
    """Keeps the cluster for this run of the tests, which stop its parts and uninstall its chart, until the file is closed.

    Raises:
        ClusterError: another run of the tests has it.
    """
    lock = open(binaries.cache() / "tests.lock", "w")  # noqa: SIM115 - held for the whole run
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ClusterError("another run of the tests uses the cluster of this machine: wait for it") from None
    return lock


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    with open(home / "cluster.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(f"another process is bringing the cluster in {home}/run up or down: wait for it") from None
        yield
