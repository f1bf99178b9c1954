"""A database that fails under a job: connections cut around a commit, a failover, silence, no room; and errors that no waiting mends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ledger import contents, fresh_database
from support.pods import Pods
from support.project import Project
from support.proxy import Choice, Proxy, at_random, once_each

ROWS = 60
SPEC: dict[str, Any] = {
    "source": {"where": {"year": {"gte": 2009}}},
    "sharding": {"batchRows": 5, "rowsPerShard": 20},
    "output": {"path": "out/job"},
}


def _job(project: Project) -> str:
    project.catalogue(ROWS, without=[3, 21], broken=[22])
    return project.job(**SPEC)


class Undisturbed:
    """The job's files and its ledger, of a run that nobody disturbed."""

    def __init__(self, root: Path, url: str) -> None:
        project = Project(root, url)
        ran = project.run("run", _job(project), "--json")
        assert ran.code == 0, ran.err
        self.tree, self.ledger = project.tree("out/job"), contents(url)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, server: str) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"), fresh_database(server))


@pytest.fixture
def pods(project: Project, database: str) -> Iterator[Pods]:
    made = Pods(project, database)
    yield made
    made.close()


WRITES = ("COMMIT", "INSERT INTO pipelinejob.jobs", "record_batches", "close_round", "SET phase = 'Complete'")
CUTS = [lambda: once_each("before", *WRITES), lambda: once_each("after", *WRITES), lambda: at_random(5, 0.12, skip=20)]
cut = pytest.mark.parametrize("choice", CUTS, ids=["before", "after", "at-random"])


@cut
def test_a_runs_connection_is_cut_around_commits(
    project: Project, database: str, undisturbed: Undisturbed, choice: Callable[[], Choice]
) -> None:
    """Each statement must bear to be sent again, whether the server carried it out or not."""
    with Proxy(database, choice()) as proxy:
        ran = project.run("run", _job(project), "--json", "--database", proxy.url())
    assert ran.code == 0, ran.err
    assert len(proxy.cuts) >= 3
    assert project.tree("out/job") == undisturbed.tree
    assert contents(database) == undisturbed.ledger


@cut
def test_a_pods_connection_is_cut_around_commits(pods: Pods, undisturbed: Undisturbed, choice: Callable[[], Choice]) -> None:
    pods.accept(_job(pods.project))
    with Proxy(pods.url, choice()) as proxy:
        for stage in ("plan", "shard", "finalize"):
            count = pods.open_round() if stage == "shard" else 1
            started = [pods.start(stage, index, {"PIPELINEJOB_DATABASE_URL": proxy.url(pods.worker_url)}) for index in range(count)]
            logs = [pod.communicate(timeout=60)[0] for pod in started]
            assert [pod.returncode for pod in started] == [0] * count, logs
    assert len(proxy.cuts) >= 3
    assert pods.project.tree("out/job") == undisturbed.tree
    pods.store.update_counts(pods.job.uid)
    assert contents(pods.url) == undisturbed.ledger
