"""What may go wrong between the operator and the API server while a job runs, and changes nothing in its result.

The operator runs on this machine as it does in its pod, and all it says to the API server goes through a proxy, which spoils it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from support.api_proxy import Fault, Proxy, Refusal, every_other, is_watch, is_write
from support.host_operator import HostOperator, account_token
from support.shop import SLOW, Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(240)
ROWS = 60
OPTIONS: dict[str, Any] = {"sharding": {"rowsPerShard": ROWS, "batchRows": 5}, "backoffLimitPerIndex": 0}
LONGER: dict[str, Any] = {
    "functions": [{"name": "random_crop", "params": {"ratio": 0.8}}, {"name": "resize", "params": {"width": 16, "height": 16}}, SLOW],
    "sharding": {"rowsPerShard": 20, "batchRows": 5},
    "parallelism": 1,  # pods come one after the other
}
HEARD_WITHIN = 35  # seconds: a look every 30 needs no watch
GONE = {"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}}


@pytest.fixture(scope="module")
def proxy(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    made = Proxy(cluster.kubeconfig, tmp_path_factory.mktemp("proxy"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def operator(cluster: Cluster, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostOperator]:
    """The only operator, behind the proxy."""
    scale = ("scale", "deployment/pipelinejob-operator", "-n", cluster.namespace)
    cluster.kubectl(*scale, "--replicas=0")
    selector = ("-n", cluster.namespace, "-l", "app.kubernetes.io/component=operator")
    cluster.kubectl("wait", "pod", *selector, "--for=delete", "--timeout=60s")
    try:
        with cluster.database() as url:
            log = tmp_path_factory.mktemp("operator") / "log"
            made = HostOperator(cluster, proxy.kubeconfig(account_token(cluster)), url, log)
            try:
                cluster.wait_for(made.leads, 60, "the operator on this machine leads")
                yield made
            finally:
                proxy.well()
                made.close()
    finally:
        cluster.kubectl(*scale, "--replicas=1")
        cluster.kubectl("rollout", "status", "deployment/pipelinejob-operator", "-n", cluster.namespace, "--timeout=90s")


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    made = Shop(cluster, "api")
    made.project.catalogue(ROWS, without=[11], broken=[40])
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(shop: Shop, server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a run that nothing disturbs."""
    return _files(shop.laptop(tmp_path_factory.mktemp("laptop"), server, "calm", **OPTIONS).tree("out/calm"))


class Stage:
    """A job, and what spoils its way."""

    def __init__(self, shop: Shop, proxy: Proxy, operator: HostOperator, name: str, undisturbed: dict[str, str]) -> None:
        self.shop, self.proxy, self.operator, self.name, self._undisturbed = shop, proxy, operator, name, undisturbed
        self._starts = operator.starts

    def apply(self, **more: Any) -> None:
        self.shop.apply(self.name, **{**OPTIONS, **more})

    def spoilt(self) -> set[str]:
        """The methods of the calls that went wrong."""
        return {call.split()[0] for call in self.proxy.spoilt}

    def begin(self) -> None:
        """Applies a job that has some rows done and some to do until it is to end."""
        self.shop.slow_down(0.5)
        self.apply(**LONGER)
        self.shop.wait(lambda: self.shop.status(self.name).get("rows", {}).get("succeeded"), 60, "some rows are done")

    def ends_as_if_nothing_had_happened(self, seconds: float = 90, starts: int = 0) -> None:
        """All files and counts are those of an undisturbed run, and nobody was told of any trouble."""
        self.shop.speed_up()
        try:
            status = self.shop.wait_end(self.name, seconds)
            assert status["phase"] == "Complete"
            assert status["rows"] == {"total": ROWS, "succeeded": ROWS - 2, "filtered": 0, "skipped": 0, "failed": 2, "pending": 0}
            assert _files(self.shop.project.tree(f"out/{self.name}")) == self._undisturbed
            assert "Warning" not in dict(self.shop.events(self.name))
            assert self.operator.starts == self._starts + starts
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.operator.log()}") from error


def _files(tree: dict[str, str]) -> dict[str, str]:
    return {path: digest for path, digest in tree.items() if path != "manifest.json"}


@pytest.fixture
def stage(shop: Shop, proxy: Proxy, operator: HostOperator, undisturbed: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Stage]:
    proxy.spoilt.clear()
    words = re.findall("[a-z0-9]+", request.node.name.removeprefix("test_").lower())
    yield Stage(shop, proxy, operator, f"{'-'.join(words)[-34:].strip('-')}-job", undisturbed)
    proxy.well()
    proxy.drop_watches()


def _is_no_watch(request: Any) -> bool:
    return not is_watch(request)


TRANSIENT: dict[str, Callable[[], Fault]] = {
    "429 with Retry-After": lambda: every_other(Refusal(429, "TooManyRequests", retry_after=1)),
    "500 and 503": lambda: every_other(Refusal(500, "InternalError"), Refusal(503, "ServiceUnavailable")),
    "connections dropped": lambda: every_other("drop"),
}
AMBIGUOUS: dict[str, Callable[[], Fault]] = {
    "409 to writes": lambda: every_other(Refusal(409, "Conflict"), of=is_write),
    "answers cut off": lambda: every_other("cut", of=_is_no_watch),
}


@pytest.mark.parametrize("fault", TRANSIENT)
def test_every_other_call_fails(stage: Stage, fault: str) -> None:
    stage.proxy.fault = TRANSIENT[fault]()
    stage.proxy.drop_watches()  # they begin anew, in the midst of it
    stage.apply()
    stage.ends_as_if_nothing_had_happened()
    assert {"GET", "POST", "PATCH", "PUT"} <= stage.spoilt()


@pytest.mark.parametrize("fault", AMBIGUOUS)
def test_every_other_call_leaves_open_whether_it_was_done(stage: Stage, fault: str) -> None:
    """The job is suspended, and so its Job deleted, and goes on with another one."""
    stage.begin()
    stage.proxy.fault = AMBIGUOUS[fault]()
    stage.shop.patch(stage.name, suspend=True)
    stage.shop.wait_phase("Suspended", name=stage.name, seconds=60)
    stage.shop.patch(stage.name, suspend=False)
    stage.ends_as_if_nothing_had_happened()
    assert {"DELETE", "POST", "PATCH", "PUT"} <= stage.spoilt()


def test_the_api_server_is_away_for_longer_than_a_leader_may_be_without_it(stage: Stage) -> None:
    stage.begin()
    before = stage.operator.starts
    stage.proxy.fault = lambda _: "drop"
    stage.proxy.drop_watches()
    stage.shop.wait(lambda: stage.operator.starts > before, 30, "the operator ends, and is started again")
    stage.proxy.well()
    stage.ends_as_if_nothing_had_happened(starts=1)


def test_watches_are_dropped_again_and_again(stage: Stage) -> None:
    _ends_though_no_watch_lives_long(stage, None)


def test_watches_end_with_410_gone_again_and_again(stage: Stage) -> None:
    _ends_though_no_watch_lives_long(stage, GONE)


def _ends_though_no_watch_lives_long(stage: Stage, last: dict[str, Any] | None) -> None:
    stage.apply()
    dropped, end = 0, time.monotonic() + 60
    while stage.shop.phase(stage.name) != "Complete" and time.monotonic() < end:
        dropped += stage.proxy.drop_watches(last)
        time.sleep(0.4)
    stage.ends_as_if_nothing_had_happened(1)
    assert dropped > 6


def test_watches_go_silent(stage: Stage) -> None:
    """No byte and no end: what was applied is heard of at the next look, and what has begun goes on when watches tell again."""
    stage.proxy.is_silent = True
    stage.apply()
    stage.shop.wait(lambda: stage.shop.status(stage.name).get("conditions"), HEARD_WITHIN, "the operator hears of it")
    stage.proxy.well()
    assert stage.proxy.drop_watches() == 4  # PipelineJobs, PipelineFunctions, Jobs, pods
    stage.ends_as_if_nothing_had_happened()
    assert stage.operator.leads(), "its probe is red"
