"""The port by which a pod shows that it reaches its database."""

from __future__ import annotations

import socket

import pytest

from pipelinejob.reachable import ReadyPort


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    return number


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_it_is_open_while_the_database_is_reached(port: int) -> None:
    ready = ReadyPort(port)
    for _ in range(3):
        assert not is_open(port)
        ready.show(False)
        ready.show(True)
        ready.show(True)
        assert all(is_open(port) for _ in range(300))  # more than a queue of connections that nobody takes would hold
        ready.show(False)
