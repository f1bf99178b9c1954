"""Changes of jobs as server-sent events."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.gateway import Gateway, serving, wait
from support.project import Project


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    project = Project(tmp_path_factory.mktemp("events"), None)
    project.catalogue(10)
    with serving(project) as served:
        yield served


class Ear:
    """Listens in a thread."""

    def __init__(self, gateway: Gateway, **query: str) -> None:
        self.heard: list[dict[str, Any]] = []
        self._stream = gateway.client.stream("GET", "/api/v1/events", params=query, timeout=60)
        self._answer = self._stream.__enter__()
        assert self._answer.headers["content-type"].startswith("text/event-stream")
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for line in self._answer.iter_lines():
                if line.startswith("data: "):
                    self.heard.append(json.loads(line.removeprefix("data: ")))
        except httpx.HTTPError:
            return  # it is over

    def close(self) -> None:
        self._answer.close()

    def of(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.heard if one["name"] == name]


def test_a_job_from_its_creation_to_its_deletion(gateway: Gateway) -> None:
    ear = Ear(gateway)
    try:
        time.sleep(0.3)  # the server has begun to look
        gateway.create("seen")
        gateway.ends("seen")
        wait(lambda: any(one["phase"] == "Complete" for one in ear.of("seen")), 10, "the end is told")
        assert ear.of("seen")[-1]["rows"] == {"total": 10, "succeeded": 10, "filtered": 0, "skipped": 0, "failed": 0, "pending": 0}
        wait(lambda: gateway.client.delete("/api/v1/pipelinejobs/seen").status_code == 204, 10)
        wait(lambda: ear.of("seen")[-1]["type"] == "DELETED", 10, "the deletion is told")
        assert ear.of("seen")[0]["type"] == "ADDED"
    finally:
        ear.close()


def test_only_one_job_with_how_it_stands_at_first(gateway: Gateway) -> None:
    gateway.create("one", suspend=True)
    ear, other = Ear(gateway, name="one", namespace="default"), Ear(gateway, namespace="elsewhere")
    try:
        wait(lambda: ear.of("one"), 5, "how it stands is told at once")
        gateway.create("two", suspend=True)
        gateway.client.post("/api/v1/pipelinejobs/one/cancel", json={})
        wait(lambda: ear.heard[-1]["phase"] == "Cancelled", 10)
        assert not ear.of("two") and not other.heard
    finally:
        ear.close()
        other.close()


def test_listeners_that_never_read_harm_nobody(gateway: Gateway) -> None:
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    deaf = []
    for _ in range(20):
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deaf.append(connection)
    ear = Ear(gateway)
    try:
        time.sleep(0.3)
        gateway.create("heard", suspend=True)
        wait(lambda: ear.of("heard"), 10, "who reads hears of it")
    finally:
        ear.close()
        for connection in deaf:
            connection.close()
    assert gateway.get("/healthz") == {"status": "ok"}


def test_the_server_ends_at_once_whoever_listens(bare_project: Project) -> None:
    with serving(bare_project) as gateway:
        ear = Ear(gateway)
        time.sleep(0.3)
        began = time.monotonic()
        said = gateway.close(signal.SIGINT)
        assert time.monotonic() - began < 10 and "Traceback" not in said, said
        ear.close()
