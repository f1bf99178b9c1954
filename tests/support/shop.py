"""A user of the cluster: a namespace with a claim, its folder on the host, and PipelineJobs applied with kubectl."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from support.project import Project

if TYPE_CHECKING:
    from cluster.cluster import Cluster

ENDS = ("Complete", "Failed", "Cancelled")
SLOW = {"name": "slow"}  # a function of the jobs that are to last until a test lets them go on
CODE = """
import contextlib
import time


def slow(image, row):
    \"\"\"Takes the seconds that stand in a file of the claim, while there is one.\"\"\"
    begun = time.monotonic()
    with contextlib.suppress(OSError, ValueError):
        while time.monotonic() < begun + float(open("/data/slow").read()):
            time.sleep(0.02)
    return image
"""


class Shop:
    """A namespace of its own with the claim `catalogue`; `project` is the claim's folder."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.namespace = f"{name}-{uuid.uuid4().hex[:5]}"
        cluster.kubectl("create", "namespace", self.namespace)
        cluster.kubectl("label", "namespace", self.namespace, "pod-security.kubernetes.io/enforce=restricted")
        self.root: Path = cluster.add_claim(self.namespace, "catalogue")
        self.project = Project(self.root, None)

    def close(self) -> None:
        """Removes the namespace with all in it."""
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found")

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:
        """kubectl in the namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, input=input, check=check)

    def document(self, name: str = "job", **spec: Any) -> dict[str, Any]:
        """A PipelineJob over rows.csv, `spec` laid over the reference chain at a small size."""
        full: dict[str, Any] = {
            "source": {"csv": "rows.csv", "images": "img/{id}.jpg"},
            "functions": [
                {"name": "random_crop", "params": {"ratio": 0.8}},
                {"name": "resize", "params": {"width": 16, "height": 16}},
            ],
            "output": {"path": f"out/{name}"},
            "failurePolicy": {"maxFailedRowsPercent": 100},
            "data": {"persistentVolumeClaim": {"claimName": "catalogue"}},
        }
        source = {**full["source"], **spec.pop("source", {})}
        full = {**full, **spec, "source": {key: value for key, value in source.items() if value is not None}}
        return {"apiVersion": "pipelinejob.dev/v1alpha1", "kind": "PipelineJob", "metadata": {"name": name}, "spec": full}

    def apply(self, name: str = "job", **spec: Any) -> None:
        """Applies a PipelineJob."""
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump(self.document(name, **spec)))

    def slow_down(self, seconds: float = 0.2) -> None:
        """From now on each row of a job with the function SLOW takes so long, however fast the machine is."""
        function = {"apiVersion": "pipelinejob.dev/v1alpha1", "kind": "PipelineFunction", "metadata": SLOW}
        self.kubectl("apply", "-f", "-", input=json.dumps({**function, "spec": {"source": {"inline": CODE}}}))
        (self.root / "slow").write_text(str(seconds))

    def speed_up(self) -> None:
        """Lets rows be done as fast as they can be."""
        (self.root / "slow").unlink(missing_ok=True)

    def patch(self, name: str = "job", **spec: Any) -> None:
        """Changes fields of a PipelineJob's spec."""
        self.kubectl("patch", "pipelinejob", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def get(self, name: str = "job") -> dict[str, Any]:
        """The resource."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "pipelinejob", name, "-o", "json"))
        return found

    def status(self, name: str = "job") -> dict[str, Any]:
        """Its status, {} before the first."""
        found: dict[str, Any] = self.get(name).get("status", {})
        return found

    def phase(self, name: str = "job") -> str:
        """Its phase, "" before the first."""
        return str(self.status(name).get("phase", ""))

    def condition(self, kind: str, name: str = "job") -> dict[str, Any]:
        """One of its conditions, {} when it has none of that type."""
        return next((one for one in self.status(name).get("conditions", []) if one["type"] == kind), {})

    def wait(self, what: Callable[[], Any], seconds: float = 60, why: str = "") -> Any:
        """Waits until `what()` is true, and returns it; shows what there is when it never is."""
        end = time.monotonic() + seconds
        while not (result := what()):
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds:.0f} s: {why or what}\n{self.story()}")
            time.sleep(0.3)
        return result

    def wait_phase(self, *phases: str, name: str = "job", seconds: float = 120) -> dict[str, Any]:
        """Waits for one of these phases, and returns the status."""
        self.wait(lambda: self.phase(name) in phases, seconds, f"phase of {name} in {phases}")
        return self.status(name)

    def wait_end(self, name: str = "job", seconds: float = 150) -> dict[str, Any]:
        """Waits for the end of a job, and returns the status."""
        return self.wait_phase(*ENDS, name=name, seconds=seconds)

    def pods(self, stage: str = "shard", name: str = "job") -> list[dict[str, Any]]:
        """The pods of a stage."""
        selector = f"pipelinejob.dev/job={name},pipelinejob.dev/stage={stage}"
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return found

    def running_pods(self, stage: str = "shard", name: str = "job") -> list[dict[str, Any]]:
        """Those that run and are not going."""
        return [pod for pod in self.pods(stage, name) if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]]

    def events(self, name: str = "job") -> list[tuple[str, str]]:
        """(type, reason) of the Events of a PipelineJob."""
        selector = f"involvedObject.kind=PipelineJob,involvedObject.name={name}"
        items = json.loads(self.kubectl("get", "events", "--field-selector", selector, "-o", "json"))["items"]
        return [(item["type"], item["reason"]) for item in items]

    def story(self) -> str:
        """Everything that tells what happened, for the message of a failed test."""
        told = []
        for command in (
            ["get", "pipelinejobs", "-o", "yaml"],
            ["get", "jobs,pods", "-o", "wide"],
            ["get", "events", "--sort-by=.lastTimestamp"],
            ["logs", "-l", "pipelinejob.dev/job", "--tail=30", "--prefix"],
        ):
            told.append(self.kubectl(*command, check=False))
        operator = ["-n", "pipelinejob-system", "-l", "app.kubernetes.io/component=operator", "--tail=60"]
        told.append(self.cluster.kubectl("logs", *operator, check=False))
        return "\n".join(told)

    def laptop(self, folder: Path, database: str, name: str = "job", **spec: Any) -> Project:
        """The same job on the same data run on this machine, in a folder of its own."""
        shutil.copytree(self.root, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("out"))
        project = Project(folder, database)
        (folder / "slow.py").write_text(CODE)
        document = self.document(name, **spec)
        functions = document["spec"]["functions"]
        document["spec"]["functions"] = [{**SLOW, "file": "slow.py"} if function == SLOW else function for function in functions]
        (folder / "laptop.yaml").write_text(yaml.safe_dump(document))
        ran = project.run("run", "laptop.yaml", timeout=300)
        assert ran.code == 0, ran.err
        return project
