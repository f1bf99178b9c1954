"""The tests' own cluster: what they rely on works, one is enough, and it holds nothing of its caller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import images
from cluster.cluster import Cluster
from cluster.processes import Processes, of_cluster

TESTS = Path(__file__).parents[1]


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of its own that admits restricted pods only."""
    name = f"harness-{uuid.uuid4().hex[:5]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def start(cluster: Cluster, namespace: str, name: str, *command: str, volume: str | None = None) -> None:
    """Runs a pod as workers run: user 10001, nothing allowed; waits until it runs or has ended."""
    container: dict[str, Any] = {
        "name": "main",
        "image": images.WORKER,
        "command": list(command),
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    if volume:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": volume}}]
    metadata = {"name": name, "namespace": namespace, "labels": {"run": name}}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    cluster.wait_for(lambda: phase(cluster, namespace, name) in ("Running", "Succeeded", "Failed"), 60, f"pod {name} runs")


def phase(cluster: Cluster, namespace: str, name: str) -> str:
    found: str = cluster.get("pod", name, namespace)["status"]["phase"]
    return found


def end(cluster: Cluster, namespace: str, name: str) -> str:
    """Waits for a pod's end, and returns what it wrote."""
    cluster.wait_for(lambda: phase(cluster, namespace, name) in ("Succeeded", "Failed"), 60, f"pod {name} ends")
    told = cluster.kubectl("logs", name, "-n", namespace)
    assert phase(cluster, namespace, name) == "Succeeded", told
    return told


def test_logs_and_exec(cluster: Cluster, namespace: str) -> None:
    start(cluster, namespace, "one", "sh", "-c", "echo started; exec sleep 300")
    cluster.wait_for(lambda: cluster.kubectl("logs", "one", "-n", namespace) == "started\n", 10, "the log is there")
    assert cluster.kubectl("exec", "one", "-n", namespace, "-i", "--", "cat", input="given") == "given"
    assert cluster.kubectl("exec", "one", "-n", namespace, "--", "id", "-u").strip() == "10001"


def test_a_service_is_reached_by_its_name(cluster: Cluster, namespace: str) -> None:
    start(cluster, namespace, "web", "python", "-m", "http.server", "8000", "--directory", "/etc")
    service = {"selector": {"run": "web"}, "ports": [{"port": 80, "targetPort": 8000}]}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": namespace}, "spec": service})
    ask = (
        "import time, urllib.request\n"
        "for attempt in range(50):\n"
        f"    for name in ('shop', 'shop.{namespace}.svc.cluster.local'):\n"
        "        try:\n"
        "            print(urllib.request.urlopen(f'http://{name}/hostname', timeout=2).read().decode().strip()); raise SystemExit\n"
        "        except OSError as error:\n"
        "            last = error\n"
        "    time.sleep(0.2)\n"
        "raise last\n"
    )
    start(cluster, namespace, "visitor", "python", "-c", ask)
    assert end(cluster, namespace, "visitor") == "web\n"


def test_what_a_pod_writes_to_a_claim_lies_in_the_host_folder(cluster: Cluster, namespace: str) -> None:
    folder = cluster.add_claim(namespace, "pictures")
    (folder / "given").write_text("from the host")
    start(cluster, namespace, "writer", "sh", "-c", "cat /data/given; mkdir /data/made && echo hello > /data/made/file", volume="pictures")
    assert end(cluster, namespace, "writer") == "from the host"
    assert (folder / "made/file").read_text() == "hello\n"
    assert (folder / "made/file").stat().st_uid == 10001


def test_the_sample_catalogue_is_there_and_its_folder_takes_output(cluster: Cluster) -> None:
    assert (cluster.data / "fashion/styles.csv").is_file()
    assert cluster.data.stat().st_mode & 0o777 == 0o777
    assert cluster.get("pvc", "catalogue")["status"]["phase"] == "Bound"


def test_a_process_can_be_stopped_and_started(cluster: Cluster) -> None:
    if cluster.node is None:
        pytest.skip("the node is not our own")
    before = cluster.node.processes.pid("kube-scheduler")
    cluster.stop_process("kube-scheduler")
    assert cluster.node.processes.pid("kube-scheduler") is None
    cluster.start_process("kube-scheduler")
    assert cluster.node.processes.pid("kube-scheduler") not in (None, before)


def test_a_second_cluster_beside_it_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    if cluster.node is None:
        pytest.skip("the node is not our own")
    environment = {**os.environ, "PIPELINEJOB_CACHE": str(tmp_path), "PYTHONPATH": str(TESTS)}
    ran = subprocess.run([sys.executable, "-m", "cluster", "up"], env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert str(cluster.kubeconfig.parent) in ran.stderr
    assert "make cluster-down" in ran.stderr
    assert cluster.node.is_up()


def test_no_process_holds_what_its_caller_wrote_to(cluster: Cluster) -> None:
    if cluster.node is None:
        pytest.skip("the node is not our own")
    run = cluster.node.run
    for name in ("etcd", "kube-apiserver", "containerd", "kubelet", "kube-proxy", "coredns"):
        files = [os.readlink(f"/proc/{cluster.node.processes.pid(name)}/fd/{number}") for number in range(3)]
        assert files == ["/dev/null", f"{run}/logs/{name}.log", f"{run}/logs/{name}.log"]
    assert len(list(of_cluster(run, cluster.node.bin))) > 8  # shims and containers are found as well


def test_a_pid_that_another_program_has_by_now_is_left_alone(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("napper", ["sleep", "60"])
    pid = processes.pid("napper")
    assert pid is not None
    record = json.loads((tmp_path / "napper.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps({**record, "command": ["sleep", "61"]}))
    processes.stop("other")
    assert processes.pid("napper") == pid
    processes.stop("napper")
    assert processes.pid("napper") is None
    processes.stop("napper")
    processes.restart("napper")
    assert processes.pid("napper") not in (None, pid)
    processes.stop("napper")


def test_a_process_that_does_not_listen_is_ended_by_force(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("deaf", ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"])
    while "deaf" not in processes.log("deaf").read_text():
        time.sleep(0.01)
    processes.stop("deaf", seconds=0.3)
    assert processes.pid("deaf") is None
