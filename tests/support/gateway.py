"""`pipelinejob serve` as a user starts it, and requests as a program sends them."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from support.project import Project

TOOL = str(Path(sys.executable).with_name("schemathesis"))
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
ENDS = ("Complete", "Failed", "Cancelled")


class Gateway:
    """A running server over a user's folder."""

    def __init__(self, project: Project, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.project = project
        self._process = project.start("serve", "--port", "0", *arguments, env=env)
        assert self._process.stderr
        self.said: list[str] = []
        for line in self._process.stderr:
            self.said.append(line)
            if match := re.search(r"PipelineJob on (http://\S+?)/ ", line):
                self.url = match[1]
                break
        else:
            raise AssertionError(f"no server: {self.said}")
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def close(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Ends the server; returns what else it said."""
        self.client.close()
        if self._process.returncode is not None:
            return ""
        self._process.send_signal(number)
        try:
            _, rest = self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        return rest

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def document(self, name: str, **spec: Any) -> dict[str, Any]:
        """A job over the catalogue of the project."""
        import yaml

        loaded: dict[str, Any] = yaml.safe_load((self.project.root / self.project.job(name, **spec)).read_text())
        return loaded

    def create(self, name: str, **spec: Any) -> dict[str, Any]:
        """Creates a job."""
        answer = self.client.post("/api/v1/pipelinejobs", json=self.document(name, **spec))
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of an answer that is 200."""
        answer = self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ends(self, name: str, seconds: float = 40) -> dict[str, Any]:
        """Waits for the end of a job; returns its status."""
        status: dict[str, Any] = {}

        def ended() -> bool:
            nonlocal status
            status = self.get(f"/api/v1/pipelinejobs/{name}")["status"]
            return status["phase"] in ENDS

        wait(ended, seconds, f"{name} ends")
        return status


def wait(condition: Callable[[], object], seconds: float = 20, what: str = "") -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what or condition
        time.sleep(0.05)


@contextlib.contextmanager
def serving(project: Project, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Gateway]:
    """A server for the time of a test."""
    gateway = Gateway(project, *arguments, env=env)
    try:
        yield gateway
    finally:
        gateway.close()


def ask_by_the_hundred(url: str, folder: Path, examples: int, token: str | None = None) -> None:
    """Requests made from the OpenAPI document: no answer is an error of the server's, or one that the document does not know."""
    said = ["2xx", "3xx", "4xx", "501"]  # 501 says what a cluster's gateway is not for
    (folder / "schemathesis.toml").write_text(f"[checks.not_a_server_error]\nexpected-statuses = {said}\n")
    ran = subprocess.run(
        [
            TOOL, "run", f"{url}/api/v1/openapi.json", "--checks", CHECKS, "--max-examples", str(examples), "--seed", "6",
            "--exclude-path", "/api/v1/events", "--continue-on-failure", "--no-color", "--generation-database", "none",
            "--request-timeout", "60", "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all",
            *(["--header", f"Authorization: Bearer {token}"] if token else []),
        ],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr
