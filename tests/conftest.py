"""Fixtures: a real Postgres for the whole run, a database of its own for each test, a user's folder for each test."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from pipelinejob.store import EmbeddedServer
from support.project import Project

pytest_plugins = ["cluster.fixture"]
pytest.register_assert_rewrite("support.notebook")  # its check says what it found


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of an embedded Postgres that runs as long as the tests, in a folder that no other run of tests clears."""
    with tempfile.TemporaryDirectory(prefix="pipelinejob-tests-") as home:
        embedded = EmbeddedServer(Path(home))
        yield embedded.url()
        embedded.close()


@pytest.fixture
def database(server: str) -> str:
    """The URL of an empty database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    connection = psycopg2.connect(server)
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def project(tmp_path: Path, database: str) -> Project:
    """A user's folder, with a database of its own."""
    return Project(tmp_path, database)


@pytest.fixture
def bare_project(tmp_path: Path) -> Project:
    """A user's folder on the embedded default."""
    return Project(tmp_path, None)
