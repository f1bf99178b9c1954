"""The cluster: a namespace with its claim, the job as a resource, and the faults that hit its pods, operator and database."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from chaos import catalogue, checker
from chaos.play import Act, NotNowError, StuckError, Undo
from chaos.processes import CHILD, command, pick, send
from chaos.schedule import Fault
from support.shop import Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

SYSTEM = ("-n", "pipelinejob-system")
OPERATOR = ("-l", "app.kubernetes.io/component=operator")
POSTGRES = "pipelinejob-postgres-0"
LOOK_EVERY = 1.0  # seconds between questions to the API server
PODS_GO_WITHIN = 120.0  # seconds after the end of a job


class InCluster:
    """One job in a namespace of its own.

    Args:
        cluster: whose node is on this machine.
        data: the catalogue.
        spec: laid over the job's.
    """

    def __init__(self, cluster: Cluster, data: Path, spec: Mapping[str, Any] | None = None) -> None:
        self.faults: Mapping[str, Act] = FAULTS
        self.undo, self.cluster, self.shop = Undo(), cluster, Shop(cluster, catalogue.NAME)
        shutil.copytree(data, self.shop.root, dirs_exist_ok=True)
        self.shop.root.chmod(0o777)  # copying took over the mode, too
        claim = {"persistentVolumeClaim": {"claimName": "catalogue"}}
        self._document = catalogue.document(data=claim, **(spec or {}))
        self._looked_at = 0.0

    def begin(self) -> None:
        self.shop.kubectl("apply", "-f", "-", input=yaml.safe_dump(self._document))

    def ended(self) -> bool:
        if time.monotonic() - self._looked_at < LOOK_EVERY:
            return False
        self._looked_at = time.monotonic()
        phase = self.shop.phase(catalogue.NAME)
        if phase in ("Failed", "Cancelled"):
            raise StuckError(f"the job ended as {phase}: {self.shop.condition('Failed', catalogue.NAME)}")
        return phase == "Complete"

    def results(self) -> checker.Results:
        self.undo.run(all=True)
        self._await(lambda: not self.pods(), "worker pods live on after the end")
        self._await(self._postgres_is_ready, "Postgres is not ready")
        status = self.shop.status(catalogue.NAME)
        with self.cluster.database() as url:
            return checker.collect(self.output, url, catalogue.NAME, {"the resource's status": status}, namespace=self.shop.namespace)

    @property
    def output(self) -> Path:
        """The output folder of the job, on the host."""
        return self.shop.root / f"out/{catalogue.NAME}"

    def story(self) -> str:
        return self.shop.story()

    def close(self) -> None:
        """Puts right what a fault left, and takes the namespace and its files away."""
        self.undo.run(all=True)
        self.shop.close()
        shutil.rmtree(self.shop.root, ignore_errors=True)

    def pods(self) -> list[dict[str, Any]]:
        """Pods of any stage that run and are not going."""
        found = json.loads(self.shop.kubectl("get", "pods", "-l", f"pipelinejob.dev/job={catalogue.NAME}", "-o", "json"))["items"]
        return [pod for pod in found if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]]

    def victim(self, fault: Fault) -> dict[str, Any]:
        """A pod that runs rows.

        Raises:
            NotNowError: there is none.
        """
        pods = sorted(self.shop.running_pods(name=catalogue.NAME), key=lambda pod: pod["metadata"]["name"])
        if not pods:
            raise NotNowError
        return pods[int(fault.pick * len(pods))]

    def _postgres_is_ready(self) -> bool:
        states = self.cluster.get("pod", POSTGRES, SYSTEM[1])["status"].get("containerStatuses", [])
        return bool(states) and all(one["ready"] for one in states)

    @staticmethod
    def _await(condition: Callable[[], object], otherwise: str) -> None:
        end = time.monotonic() + PODS_GO_WITHIN
        while not condition():
            if time.monotonic() > end:
                raise StuckError(otherwise)
            time.sleep(0.5)


# --- Faults -------------------------------------------------------------------------------------------------------------


def _name(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["name"])


def _processes(world: InCluster, pod: dict[str, Any]) -> list[int]:
    return world.cluster.processes_of(pod["metadata"]["uid"])


def kill_a_pods_processes(world: InCluster, fault: Fault) -> str:
    """All at once, as where a container runs out of memory."""
    pod = world.victim(fault)
    pids = _processes(world, pod)
    if not pids:
        raise NotNowError
    send(pids, signal.SIGKILL)
    return f"SIGKILL to {len(pids)} processes of {_name(pod)}"


def kill_a_child(world: InCluster, fault: Fault) -> str:
    pod = world.victim(fault)
    pid = pick([pid for pid in _processes(world, pod) if CHILD in command(pid)], fault.pick)
    send([pid], signal.SIGKILL)
    return f"SIGKILL to a child in {_name(pod)}"


def stop_a_pods_processes(world: InCluster, fault: Fault) -> str:
    pod = world.victim(fault)
    pids = _processes(world, pod)
    if not pids:
        raise NotNowError
    send(pids, signal.SIGSTOP)
    world.undo.later(fault.lasts, f"stopped {_name(pod)}", lambda: send(_processes(world, pod), signal.SIGCONT))
    return f"SIGSTOP to {len(pids)} processes of {_name(pod)} for {fault.lasts} s"


def delete_a_pod(world: InCluster, fault: Fault) -> str:
    name = _name(world.victim(fault))
    world.shop.kubectl("delete", "pod", name, "--wait=false", "--ignore-not-found")
    return f"deleted {name}"


def delete_a_pod_by_force(world: InCluster, fault: Fault) -> str:
    name = _name(world.victim(fault))
    world.shop.kubectl("delete", "pod", name, "--grace-period=0", "--force", "--wait=false", "--ignore-not-found")
    return f"deleted {name} by force"


def evict_a_pod(world: InCluster, fault: Fault) -> str:
    name = _name(world.victim(fault))
    namespace = world.shop.namespace
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    world.shop.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction), check=False)
    return f"evicted {name}"


def delete_the_operator(world: InCluster, fault: Fault) -> str:
    world.cluster.kubectl("delete", "pod", *SYSTEM, *OPERATOR, "--grace-period=0", "--force", "--wait=false")
    return "deleted the operator's pod by force"


def restart_postgres(world: InCluster, fault: Fault) -> str:
    world.cluster.kubectl("delete", "pod", *SYSTEM, POSTGRES, "--grace-period=0", "--force", "--wait=false", "--ignore-not-found")
    return "deleted the pod of Postgres by force"


def end_sessions(world: InCluster, fault: Fault) -> str:
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pipelinejob'"
    psql = ["exec", *SYSTEM, POSTGRES, "--", "psql", "-U", "pipelinejob", "-d", "pipelinejob", "-Atc", query]
    said = world.cluster.kubectl(*psql, check=False).strip()
    if not said.isdigit() or said == "0":
        raise NotNowError
    return f"pg_terminate_backend for {said} sessions"


def stop_the_kubelet(world: InCluster, fault: Fault) -> str:
    if world.undo.pending("kubelet"):
        raise NotNowError
    world.cluster.stop_process("kubelet")
    world.undo.later(fault.lasts, "kubelet", lambda: world.cluster.start_process("kubelet"))
    return f"no kubelet for {fault.lasts} s"


def suspend_and_resume(world: InCluster, fault: Fault) -> str:
    if world.undo.pending("suspended"):
        raise NotNowError
    world.victim(fault)
    world.shop.patch(catalogue.NAME, suspend=True)
    world.undo.later(fault.lasts, "suspended", lambda: world.shop.patch(catalogue.NAME, suspend=False))
    return f"suspend: true for {fault.lasts} s"


def scale(world: InCluster, fault: Fault) -> str:
    number = 1 + int(fault.pick * 4)
    world.shop.patch(catalogue.NAME, parallelism=number)
    return f"parallelism: {number}"


FAULTS: dict[str, Act] = {
    one.__name__.replace("_", "-"): one
    for one in (
        kill_a_pods_processes,
        kill_a_child,
        stop_a_pods_processes,
        delete_a_pod,
        delete_a_pod_by_force,
        evict_a_pod,
        delete_the_operator,
        restart_postgres,
        end_sessions,
        stop_the_kubelet,
        suspend_and_resume,
        scale,
    )
}
