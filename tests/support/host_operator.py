"""The operator as a process of this machine: the same program, settings and rights as in its pod, with another way to the API server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.cluster import Cluster

SYSTEM = "pipelinejob-operator"
AGAIN = 1.0  # seconds until one that ended is started again


def account_token(cluster: Cluster) -> str:
    """A token of the chart's ServiceAccount, and so its rights."""
    return cluster.kubectl("create", "token", SYSTEM, "-n", cluster.namespace, "--duration=1h").strip()


class HostOperator:
    """Runs it, and starts it again when it ends, as a kubelet does.

    Args:
        cluster: whose Deployment's settings are taken.
        kubeconfig: how it reaches the API server.
        database_url: how it reaches the ledger.
        log: the file that it writes to.
    """

    def __init__(self, cluster: Cluster, kubeconfig: Path, database_url: str, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        (container,) = cluster.get("deployment", SYSTEM, cluster.namespace)["spec"]["template"]["spec"]["containers"]
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("PIPELINEJOB_", "KUBERNETES_"))}
        self._environment = {
            **outside,
            **{one["name"]: one["value"] for one in container["env"] if "value" in one},
            "PIPELINEJOB_DATABASE_URL": database_url,
            "PIPELINEJOB_WORKER_DATABASE": f"{cluster.release}-postgres.{cluster.namespace}.svc:5432",
            "PIPELINEJOB_PROBE_PORT": str(self._port),
            "POD_NAME": f"host-{os.getpid()}",
            "KUBECONFIG": str(kubeconfig),
        }
        self._log = log
        self.starts = 0
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def health(self) -> tuple[int, dict[str, str]]:
        """(status, what the probe says); 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz", timeout=3) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, {}
        except OSError:
            return 0, {}

    def leads(self) -> bool:
        """Whether it leads, and its loops run."""
        status, said = self.health()
        return status == 200 and "reconcile" in said

    def log(self) -> str:
        """The last of what it has written."""
        return "".join(self._log.read_text(errors="replace").splitlines(keepends=True)[-60:])

    def close(self) -> None:
        """Ends it; the Lease is free then."""
        self._closing.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(timeout=20)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()

    def _keep(self) -> None:
        while not self._closing.is_set():
            with open(self._log, "ab") as log:
                self.starts += 1
                command = [sys.executable, "-m", "pipelinejob_operator"]
                self._process = subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self._process.wait()
            self._closing.wait(AGAIN)
