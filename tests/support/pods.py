"""A cluster's part in a job, by hand: its row in the ledger, its role, and processes in place of pods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import yaml

from pipelinejob import model
from pipelinejob.store import Database, Job, Store, roles
from support.project import Project

PLAIN = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


class Pods:
    """What the operator and Kubernetes do, by hand: a job in the ledger, its role, and processes in place of pods."""

    def __init__(self, project: Project, url: str) -> None:
        self.project, self.url = project, url
        self.database = Database(lambda: url, patience=10, say=lambda _: None)
        self.store = Store(self.database)
        roles.setup(self.database)
        self.roles: list[str] = []
        self.processes: list[subprocess.Popen[str]] = []
        self.termination = project.root.parent / f"{project.root.name}-termination"
        self.round = 0

    def accept(self, file: str, **more: object) -> Job:
        """Enters a job as the operator does."""
        document = yaml.safe_load((self.project.root / file).read_text())
        document["spec"]["data"] = {"persistentVolumeClaim": {"claimName": "catalogue"}}
        job = model.parse(document)
        made = self.store.insert_job(
            **{
                "uid": str(uuid.uuid4()),
                "namespace": job.metadata.namespace,
                "name": job.metadata.name,
                "phase": "Pending",
                "spec": job.spec.as_dict(),
                "functions": [],
                "digest": "",
                "data_root": "/data",
                "output": job.output_path,
                "output_root": "/data",
                "generation": 1,
                "image": "worker:test",
                **more,
            }
        )
        return self.enter(made)

    def enter(self, job: Job) -> Job:
        """Makes the role of a job's pods; from now on they are those of this job."""
        self.job = job
        self.roles.append(job.uid)
        password = roles.create_job_role(self.database, self.job.uid)
        parts = urlsplit(self.url)
        netloc = f"{roles.role_name(self.job.uid)}:{password}@{parts.netloc.rpartition('@')[2]}"
        self.worker_url = urlunsplit(parts._replace(netloc=netloc))
        return self.job

    def start(self, stage: str, index: int = 0, env: Mapping[str, str] | None = None, *, plain: bool = False) -> subprocess.Popen[str]:
        self.termination.unlink(missing_ok=True)
        environment = {
            **self.project.environment,
            "PIPELINEJOB_DATABASE_URL": self.worker_url,
            "PIPELINEJOB_JOB": self.job.uid,
            "PIPELINEJOB_ROUND": str(self.round),
            "JOB_COMPLETION_INDEX": str(index),
            "PIPELINEJOB_CHILDREN": "2",
            "PIPELINEJOB_DATA": str(self.project.root),
            "PIPELINEJOB_TERMINATION_LOG": str(self.termination),
            **(env or {}),
        }
        process = subprocess.Popen(
            [*(PLAIN if plain else []), sys.executable, "-m", "pipelinejob", stage],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
        )
        self.processes.append(process)
        return process

    def run(self, stage: str, index: int = 0, env: Mapping[str, str] | None = None, *, plain: bool = False) -> tuple[int, str]:
        """Runs a stage to its end: (exit code, log); `plain` as in a pod, without root's power over files."""
        with self._open_socket() if plain else nullcontext():
            process = self.start(stage, index, env, plain=plain)
            out, _ = process.communicate(timeout=30)
        return process.returncode, out

    @contextmanager
    def _open_socket(self) -> Iterator[None]:
        """The tests' server has its socket in a folder that only its own user, and root's power, can enter."""
        folder = Path(parse_qs(urlsplit(self.url).query)["host"][0])
        mode = folder.stat().st_mode
        folder.chmod(0o711)
        try:
            yield
        finally:
            folder.chmod(mode)

    def open_round(self) -> int:
        """Opens a round and returns how many pods its Job has."""
        count = self.store.unfinished_count(self.job.uid)
        self.round = self.store.open_round(self.job.uid)
        return count

    def finalize(self) -> None:
        code, log = self.run("finalize")
        assert code == 0, log

    def why(self) -> dict[str, str]:
        """What the pod wrote for Kubernetes."""
        value: dict[str, str] = json.loads(self.termination.read_text())
        return value

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        for uid in self.roles:
            roles.drop_job_role(self.database, uid)
        self.database.close()
