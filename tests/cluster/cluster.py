"""What tests do to a cluster that is up."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from cluster.node import Node

SYSTEM = "pipelinejob-system"


class ClusterError(Exception):
    """The cluster cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs, with the chart installed.

    Args:
        kubeconfig: of its administrator.
        data: the host folder behind the claim `catalogue` of the namespace default.
        bin: the folder with kubectl and helm.
        volumes: host folder in which claims get theirs.
        node: our own node; None for kind and for a given cluster.
        namespace: where the chart is installed.
        release: the name of its release.
    """

    kubeconfig: Path
    data: Path
    bin: Path
    volumes: Path
    node: Node | None
    namespace: str = SYSTEM
    release: str = "pipelinejob"

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:
        """kubectl as the administrator; standard output, and standard error too where failure is allowed."""
        return self._run("kubectl", arguments, input, check)

    def helm(self, *arguments: str, input: str | None = None, check: bool = True) -> str:
        """helm as the administrator."""
        return self._run("helm", arguments, input, check)

    def _run(self, program: str, arguments: tuple[str, ...], input: str | None, check: bool) -> str:
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": f"{self.bin}:{os.environ['PATH']}"}
        command = [str(self.bin / program), *arguments]
        ran = subprocess.run(command, input=input or "", capture_output=True, text=True, env=environment, timeout=300)
        if check and ran.returncode:
            raise ClusterError(f"{program} {' '.join(arguments)}: {ran.stderr or ran.stdout}")
        return ran.stdout if check else ran.stdout + ran.stderr

    def apply(self, *documents: dict[str, Any]) -> None:
        """Applies objects."""
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(documents))

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """An object as the API server has it."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def wait_for(self, check: Callable[[], Any], seconds: float, what: str) -> Any:
        """Waits until `check()` is true, and returns it."""
        end = time.monotonic() + seconds
        while not (result := check()):
            if time.monotonic() > end:
                raise ClusterError(f"not within {seconds:.0f} s: {what}")
            time.sleep(0.3)
        return result

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of the ledger as its owner, by way of a port that kubectl forwards."""
        secret = self.get("secret", f"{self.release}-postgres", self.namespace)
        url = urlsplit(base64.b64decode(secret["data"]["url"]).decode())
        with self.forward(f"service/{self.release}-postgres", 5432) as port:
            yield url._replace(netloc=f"{url.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()

    @contextmanager
    def forward(self, target: str, port: int, namespace: str | None = None) -> Iterator[int]:
        """A port of this machine that leads to one of a service or a pod, by default where the chart is installed."""
        command = [str(self.bin / "kubectl"), "--kubeconfig", str(self.kubeconfig), "port-forward", "--address", "127.0.0.1"]
        command += ["-n", namespace or self.namespace, target, f":{port}"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                local = process.stdout.readline().split(" ->")[0].rpartition(":")[2]
                if not local.isdigit():
                    raise ClusterError(f"kubectl port-forward gives no port to {target}")
                yield int(local)
            finally:
                process.terminate()

    def add_claim(self, namespace: str, name: str) -> Path:
        """Makes a claim with a folder of its own, and returns that."""
        folder = self.volumes / f"{namespace}-{name}"
        self.claim(namespace, name, folder)
        return folder

    def claim(self, namespace: str, name: str, folder: Path) -> None:
        """Makes a claim that is bound to a folder of the host, which every user can write to."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        volume = f"{namespace}-{name}"
        common = {"accessModes": ["ReadWriteMany"], "storageClassName": "host"}
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {
                    **common,
                    "capacity": {"storage": "10Gi"},
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {"namespace": namespace, "name": name},
                    "hostPath": {"path": str(folder)},
                },
            }
        )
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
            }
        )

    def stop_process(self, name: str) -> None:
        """Ends one of the node's own processes: kubelet, kube-apiserver, ..."""
        self._own_node().processes.stop(name)

    def start_process(self, name: str) -> None:
        """Starts it again."""
        self._own_node().processes.restart(name)

    def processes_of(self, pod: str) -> list[int]:
        """The processes on this machine of a pod, by its uid; those of our own node alone."""
        self._own_node()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    inside, command = f"pod{pod}" in (entry / "cgroup").read_text(), (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if inside and b"pause" not in command:
                    found.append(int(entry.name))
        return found

    def _own_node(self) -> Node:
        if self.node is None:
            raise ClusterError("only the processes of our own node can be stopped")
        return self.node
