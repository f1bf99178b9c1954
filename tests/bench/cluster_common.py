"""What the measurements on a cluster share: the cluster, a namespace for one of them, fake nodes, and a watch with our own clock."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from common import CACHE, ROOT, BenchError

sys.path.append(str(ROOT / "tests"))

from kubernetes import client, config

from cluster import binaries
from cluster.cluster import Cluster
from cluster.control import FAILURES, up
from pipelinejob.model import API_VERSION, GROUP, KIND, VERSION
from pipelinejob_operator.kube import PLURAL

MARK = f"{GROUP}/bench"  # label and taint of the fake nodes
FAKE_NODES = 10
CLAIM = "catalogue"
OPERATOR = "pipelinejob_operator"
TICKS = os.sysconf("SC_CLK_TCK")


class Arena:
    """A namespace of a cluster for one measurement, with a claim for data.

    Args:
        cluster: with the chart installed.
        namespace: made for this.
        data: the host folder behind its claim.
    """

    def __init__(self, cluster: Cluster, namespace: str, data: Path) -> None:
        self.cluster, self.namespace, self.data = cluster, namespace, data
        self._config = client.Configuration()
        config.load_kube_config(str(cluster.kubeconfig), client_configuration=self._config)
        self._config.connection_pool_maxsize = 40
        self._api = self.connect()

    def connect(self) -> Any:
        """An API client of its own."""
        return client.ApiClient(self._config)

    def create(self, name: str, **spec: Any) -> dict[str, Any]:
        """Creates a PipelineJob; answers with it."""
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec_of(**spec)}
        found: dict[str, Any] = self._jobs().create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, body)
        return found

    def patch(self, name: str, **spec: Any) -> None:
        """Merges fields into a PipelineJob's spec."""
        self._jobs().patch_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name, {"spec": spec})

    def delete(self, name: str) -> None:
        """Deletes a PipelineJob."""
        self._jobs().delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name)

    def create_job(self, manifest: dict[str, Any]) -> None:
        """Creates a Job of Kubernetes."""
        client.BatchV1Api(self._api).create_namespaced_job(self.namespace, manifest, _preload_content=False)

    def _jobs(self) -> Any:
        return client.CustomObjectsApi(self._api)

    @contextmanager
    def watch(self, kind: str, told: Callable[[float, str, dict[str, Any]], None]) -> Iterator[None]:
        """Calls `told(when, type, object)` for every event of "jobs" or "pipelinejobs"; the time is that of its arrival."""
        api, options = self.connect(), {"watch": True, "_preload_content": False}
        if kind == "jobs":
            raw = client.BatchV1Api(api).list_namespaced_job(self.namespace, **options)
        else:
            raw = client.CustomObjectsApi(api).list_namespaced_custom_object(GROUP, VERSION, self.namespace, kind, **options)

        def read() -> None:
            with suppress(Exception):  # closed at the end
                for line in _lines(raw):
                    when = time.monotonic()
                    event = json.loads(line)
                    told(when, event["type"], event["object"])

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield
        finally:
            raw.shutdown()  # closing would wait for the reader, and the reader for the server
            reader.join(10)


def _lines(raw: Any) -> Iterator[bytes]:
    rest = b""
    for chunk in raw.stream(amt=None, decode_content=False):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)


def spec_of(**more: Any) -> dict[str, Any]:
    """The spec of a PipelineJob whose pods go to fake nodes."""
    worker = {"nodeSelector": {MARK: "fake"}, "tolerations": [{"key": MARK, "operator": "Exists"}]}
    source = {"csv": "styles.csv", "images": "images/{id}.jpg"}
    return {"source": source, "data": {"persistentVolumeClaim": {"claimName": CLAIM}}, "worker": worker, **more}


@contextmanager
def arena(name: str, say: Callable[[str], None]) -> Iterator[Arena]:
    """The cluster, brought up if it is not, and a namespace that is there for the time of a measurement.

    Raises:
        BenchError: there can be no cluster on this machine.
    """
    try:
        cluster = up("make")
    except FAILURES as error:
        raise BenchError(f"no cluster: {error}") from error
    namespace = f"plj-bench-{name}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is made here is removed then, too
    _remove(cluster, namespace)  # what a killed measurement left
    cluster.kubectl("create", "namespace", namespace)
    try:
        yield Arena(cluster, namespace, cluster.add_claim(namespace, CLAIM))
    finally:
        say(f"{name}: removing what it made")
        _remove(cluster, namespace)


def _remove(cluster: Cluster, namespace: str) -> None:
    """The namespace, its volume, and its jobs in the ledger."""
    quiet = ("--ignore-not-found", "--wait=false")
    if "NotFound" not in cluster.kubectl("get", "namespace", namespace, check=False):
        served = "NotFound" not in cluster.kubectl("get", "crd", f"{PLURAL}.{GROUP}", check=False)
        if served:
            cluster.kubectl("delete", PLURAL, "--all", "-n", namespace, *quiet)
            cluster.wait_for(lambda: not cluster.kubectl("get", PLURAL, "-n", namespace, "-o", "name"), 300, f"no job in {namespace}")
        cluster.kubectl("delete", "namespace", namespace, *quiet)
        cluster.wait_for(lambda: "NotFound" in cluster.kubectl("get", "namespace", namespace, check=False), 300, f"{namespace} is gone")
        if served:
            cluster.wait_for(lambda: not _live_in_ledger(cluster, namespace), 90, f"the operator has closed the jobs of {namespace}")
            _psql(cluster, f"DELETE FROM pipelinejob.jobs WHERE namespace = '{namespace}'")
    cluster.kubectl("delete", "pv", f"{namespace}-{CLAIM}", *quiet)
    shutil.rmtree(cluster.volumes / f"{namespace}-{CLAIM}", ignore_errors=True)


def _live_in_ledger(cluster: Cluster, namespace: str) -> int:
    """Jobs that are not closed, and roles that are not dropped."""
    jobs = f"SELECT uid, deleted_at FROM pipelinejob.jobs WHERE namespace = '{namespace}'"
    role = "SELECT 1 FROM pg_roles WHERE rolname = 'plj_' || replace(j.uid::text, '-', '')"
    return int(_psql(cluster, f"SELECT count(*) FROM ({jobs}) j WHERE j.deleted_at IS NULL OR EXISTS ({role})"))


def _psql(cluster: Cluster, statement: str) -> str:
    name = f"{cluster.release}-postgres-0"
    command = ("psql", "-U", "pipelinejob", "-d", "pipelinejob", "-Atqc", statement)
    return cluster.kubectl("exec", "-n", cluster.namespace, name, "--", *command)


# --- Fake nodes --------------------------------------------------------------------------------------------------------


@contextmanager
def fake_nodes(cluster: Cluster, *, running_shards: bool = False) -> Iterator[None]:
    """Nodes whose pods run in name only, by kwok: they complete at once.

    Args:
        cluster: where.
        running_shards: pods of the stage "shard" run for ever, and those of the others take two seconds.
    """
    program = binaries.ensure(["kwok"]) / "kwok"
    stages = CACHE / "kwok-stages.yaml"
    stages.parent.mkdir(exist_ok=True)
    stages.write_text(_stages())
    command = [str(program), f"--kubeconfig={cluster.kubeconfig}", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"]
    if running_shards:
        command.append(f"--config={stages}")
    _remove_nodes(cluster)
    log = CACHE / "logs/kwok.log"
    log.parent.mkdir(exist_ok=True)
    with open(log, "wb") as output:
        kwok = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        cluster.apply(*(_node(f"plj-bench-{number}") for number in range(FAKE_NODES)))
        cluster.kubectl("wait", "node", "-l", f"{MARK}=fake", "--for=condition=Ready", "--timeout=60s")
        yield
    finally:
        with suppress(*FAILURES):
            _remove_nodes(cluster)
        kwok.terminate()
        kwok.wait(20)


def _node(name: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {MARK: "fake"}, "annotations": {"kwok.x-k8s.io/node": "fake"}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": [{"key": MARK, "effect": "NoSchedule"}]}}


def _remove_nodes(cluster: Cluster) -> None:
    """The nodes, and what says that they live."""
    cluster.kubectl("delete", "node", "-l", f"{MARK}=fake", "--ignore-not-found")
    names = [f"plj-bench-{number}" for number in range(FAKE_NODES)]
    cluster.kubectl("delete", "lease", "-n", "kube-node-lease", *names, "--ignore-not-found")


def _stages() -> str:
    """kwok's own stages, from its module; a pod of a shard does not complete, and the others later."""
    command = ["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]
    ran = subprocess.run(command, cwd=binaries.TOOLS / "kwok", capture_output=True, text=True)
    folder = Path(ran.stdout.strip()) / "kustomize/stage"
    documents = [(folder / name).read_text() for name in ("node/fast/node-initialize.yaml", "pod/fast/pod-ready.yaml")]
    documents.append((folder / "pod/fast/pod-delete.yaml").read_text())
    complete = (folder / "pod/fast/pod-complete.yaml").read_text()
    stage = f"    - key: '.metadata.labels[\"{GROUP}/stage\"]'\n      operator: 'NotIn'\n      values:\n      - 'shard'\n"
    complete = re.sub(r"(  next:\n)", rf"{stage}  delay:\n    durationMilliseconds: 2000\n\1", complete, count=1)
    return "---\n".join([*documents, complete])


# --- The operator's process --------------------------------------------------------------------------------------------


class Usage(NamedTuple):
    """What a process has used by now: resident bytes, the most it ever had, processor seconds."""

    resident: int
    peak: int
    processor: float


def operator_pid(cluster: Cluster) -> int | None:
    """The pid on this machine of the operator that the chart installed, as its container's control group tells."""
    found = json.loads(cluster.kubectl("get", "pods", "-n", cluster.namespace, "-l", "app.kubernetes.io/component=operator", "-o", "json"))
    uids = [pod["metadata"]["uid"] for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]
    marks = {mark for uid in uids for mark in (uid, uid.replace("-", "_"))}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            command = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            groups = Path(f"/proc/{entry}/cgroup").read_text()
            if OPERATOR.encode() in command and any(mark in groups for mark in marks):
                return int(entry)
    return None


def usage(pid: int) -> Usage:
    """Memory and processor time of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident, peak = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) * 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[index]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Usage(resident, peak, (int(fields[11]) + int(fields[12])) / TICKS)


def status_writes(cluster: Cluster) -> int:
    """Statuses of PipelineJobs written since the API server started."""
    found = cluster.kubectl("get", "--raw", "/metrics")
    lines = [line for line in found.splitlines() if line.startswith("apiserver_request_total{") and f'resource="{PLURAL}"' in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if 'subresource="status"' in line and 'verb="PATCH"' in line)


# --- Pace and figures --------------------------------------------------------------------------------------------------


def at_rate(work: Callable[[int], None], count: int, a_second: float) -> None:
    """Calls `work(0)`, `work(1)`, ... at fixed times, whether or not earlier calls have come back."""
    with ThreadPoolExecutor(16) as threads:
        began, calls = time.monotonic(), []
        for number in range(count):
            time.sleep(max(0.0, began + number / a_second - time.monotonic()))
            calls.append(threads.submit(work, number))
        for call in calls:
            call.result()


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the most, of at least one value."""
    ordered = sorted(values)
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], "max": ordered[-1]}


def wait_until(check: Callable[[], bool], seconds: float, what: str) -> float:
    """Waits for something; the time when it was so."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise BenchError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)
    return time.monotonic()
