"""The pytest fixture `cluster`: one that is up is used and left up, else one is brought up and taken down at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import IO

import pytest

from cluster import control
from cluster.binaries import cache
from cluster.cluster import Cluster

_RESULT = pytest.StashKey[Cluster | str]()
_RESERVED = pytest.StashKey[IO[str]]()  # held to the end


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """So that `-m cluster` and `-m "not cluster"` part the tests."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Brings the cluster up before the first test if any wants it: no test's time limit holds for builds of several minutes."""
    if session.config.option.collectonly or not any("cluster" in getattr(item, "fixturenames", ()) for item in session.items):
        return (yield)
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\ncluster: coming up", file=sys.stderr)
        session.config.stash[_RESULT] = _up(session.config.stash)
    ours = not os.environ.get(control.GIVEN) and (control.owner(cache() / "run") or {}).get("by") == "tests"
    try:
        return (yield)
    finally:
        if ours and not isinstance(session.config.stash[_RESULT], str):
            control.down()
            if left := control.left_over():
                pytest.exit("the cluster left behind: " + "; ".join(left), returncode=1)


def _up(stash: pytest.Stash) -> Cluster | str:
    """The cluster, or why there is none."""
    try:
        stash[_RESERVED] = control.reserve()
        return control.up("tests")
    except control.FAILURES as error:
        return f"no cluster: {error}"


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A real cluster with the chart installed; without one, tests are skipped, or fail where REQUIRE_CLUSTER is set."""
    found = request.config.stash[_RESULT]
    if isinstance(found, Cluster):
        return found
    if os.environ.get("REQUIRE_CLUSTER"):
        pytest.fail(found)
    pytest.skip(found)
