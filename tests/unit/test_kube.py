"""The operator's view of the cluster and its calls, against a server in this process that answers as the API server does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from kubernetes.aio.utils.retry import Backoff  # type: ignore[attr-defined]

from pipelinejob_operator import client
from pipelinejob_operator.cache import Cache
from pipelinejob_operator.kube import ApiError, Foreign, Kube

Answer = tuple[int, dict[str, Any]] | tuple[int, dict[str, Any], dict[str, str]]
LABELS = {"pipelinejob.dev/uid": "u1", "pipelinejob.dev/job": "men"}
KEY = ("shop", "men")


def pipelinejob(version: int = 1, uid: str = "u1", name: str = "men", **more: Any) -> dict[str, Any]:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "kept"}
    metadata = {"namespace": "shop", "name": name, "uid": uid, "resourceVersion": str(version), "managedFields": [{}]}
    return {"metadata": {**metadata, "annotations": annotations}, "spec": {"parallelism": 2}, **more}


def job(version: int = 1, uid: str = "j1", *, namespace: str = "shop", stage: str = "shard", **status: Any) -> dict[str, Any]:
    labels = {**LABELS, "pipelinejob.dev/stage": stage}
    owners = [{"uid": "u1", "controller": True}]
    metadata = {"namespace": namespace, "name": uid, "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {
        "metadata": {**metadata, "ownerReferences": owners},
        "spec": {"parallelism": 2, "template": {"spec": {}}},
        "status": status,
    }


def pod(version: int = 1, uid: str = "p1", phase: str = "Running") -> dict[str, Any]:
    annotations = {"batch.kubernetes.io/job-completion-index": "0", "other": "dropped"}
    metadata = {"namespace": "shop", "name": uid, "uid": uid, "resourceVersion": str(version), "labels": LABELS, "annotations": annotations}
    volumes = [{"name": "tmp", "emptyDir": {}}, {"name": "data", "persistentVolumeClaim": {"claimName": "catalogue"}}]
    container = {"name": "worker", "image": "worker:1", "env": [{}]}
    spec = {"nodeName": "node-0", "containers": [container], "volumes": volumes, "tolerations": [{}]}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase, "containerStatuses": [{}]}}


# ---- the cache


def test_only_what_is_read_is_kept() -> None:
    cache = Cache()
    cache.see("pipelinejobs", pipelinejob(), False)
    cache.see("jobs", job(), False)
    cache.see("pods", pod(), False)
    seen = cache.job(KEY)
    assert seen is not None
    assert "managedFields" not in seen["metadata"]
    assert seen["metadata"]["annotations"] == {"note": "kept"}
    assert cache.children("u1")[0]["spec"] == {"parallelism": 2}
    (running,) = cache.pods("u1")
    assert running["metadata"]["annotations"] == {"batch.kubernetes.io/job-completion-index": "0"}
    assert running["spec"]["containers"] == [{"name": "worker", "image": "worker:1"}]
    assert [one["name"] for one in running["spec"]["volumes"]] == ["data"]
    cache.see("pods", pod(2, phase="Succeeded"), False)
    (ended,) = cache.pods("u1")
    assert (ended["spec"], ended["status"]) == ({}, {"phase": "Succeeded"})


def test_an_older_version_is_no_news() -> None:
    cache = Cache()
    assert cache.see("pipelinejobs", pipelinejob(10), False)
    assert not cache.see("pipelinejobs", pipelinejob(9), False)
    assert not cache.see("pipelinejobs", pipelinejob(10), False)
    assert cache.see("pipelinejobs", pipelinejob(11), False)


def test_the_end_of_an_old_job_does_not_touch_a_new_one_of_its_name() -> None:
    cache = Cache()
    cache.see("pipelinejobs", pipelinejob(1), False)
    cache.see("jobs", job(2), False)
    cache.see("pipelinejobs", pipelinejob(5, uid="u2"), False)
    cache.see("pipelinejobs", pipelinejob(4, uid="u1"), True)
    seen = cache.job(KEY)
    assert seen is not None
    assert seen["metadata"]["uid"] == "u2"
    assert cache.children("u1") == []


def test_what_belongs_to_a_job_goes_with_it() -> None:
    cache = Cache()
    cache.see("pipelinejobs", pipelinejob(), False)
    cache.see("jobs", job(), False)
    cache.see("pods", pod(), False)
    cache.see("pipelinejobs", pipelinejob(9), True)
    assert (cache.job(KEY), cache.keys(), cache.jobs_in("shop"), cache.children("u1"), cache.pods("u1")) == (None, [], [], [], [])
    assert vars(cache) == vars(Cache())  # nothing is left over


def test_a_label_forged_in_another_namespace_is_not_believed() -> None:
    cache = Cache()
    cache.see("jobs", job(namespace="attacker"), False)
    cache.see("pipelinejobs", pipelinejob(), False)
    assert cache.children("u1") == []


# ---- the calls


class Server:
    """Answers calls as told, in the order told, and remembers them; the last answer for a call is given again and again."""

    def __init__(self, tmp_path: Path) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.answers: dict[str, list[Answer]] = {}
        self.headers: list[Mapping[str, str]] = []
        self._kubeconfig = tmp_path / "config"

    def on(self, call: str, *answers: Answer) -> None:
        self.answers[call] = list(answers)

    async def _answer(self, request: web.Request) -> web.Response:
        call = f"{request.method} {request.path}"
        self.calls.append((call, json.loads(await request.text() or "null") or dict(request.query)))
        self.headers.append(request.headers)
        told = self.answers.get(call, [(404, {"reason": "NotFound", "message": "not found"})])
        status, body, *headers = told.pop(0) if len(told) > 1 else told[0]
        return web.json_response(body, status=status, headers=headers[0] if headers else None)

    async def run(self, story: Callable[[Kube], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        config = {
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        self._kubeconfig.write_text(yaml.safe_dump(config))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(self._kubeconfig))
        monkeypatch.setattr(client, "TRIES", Backoff(steps=3, duration=0.001, factor=1))
        kube = Kube(**settings)
        await kube.open()
        try:
            await story(kube)
        finally:
            await kube.close()
            await runner.cleanup()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


JOBS, PODS = "/apis/batch/v1/namespaces/shop/jobs", "/api/v1/namespaces/shop/pods"
PIPELINEJOBS = "/apis/pipelinejob.dev/v1alpha1/namespaces/shop/pipelinejobs"
EVERYWHERE = "/apis/pipelinejob.dev/v1alpha1/pipelinejobs"


def listed(version: int, *items: dict[str, Any], more: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(items)}


def test_calls_carry_the_token(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on("GET /apis", (200, {"groups": []}), (200, {"groups": [{"name": "pipelinejob.dev"}]}))
    server.on("GET /apis/pipelinejob.dev/v1alpha1", (200, {"resources": [{"name": "pipelinejobs"}, {"name": "pipelinefunctions"}]}))

    async def story(kube: Kube) -> None:
        assert (await kube.client.configuration.auth_settings())["BearerToken"]["value"] == "Bearer secret"
        assert not await kube.is_served()
        assert await kube.is_served()

    asyncio.run(server.run(story, monkeypatch))
    assert server.headers[0]["authorization"] == "Bearer secret"


def test_a_busy_server_is_asked_again_when_it_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    busy: Answer = (429, {"reason": "TooManyRequests"}, {"Retry-After": "7"})
    server.on(f"POST {JOBS}", busy, (503, {}), (201, job()))
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(client, "_sleep", sleep)

    async def story(kube: Kube) -> None:
        assert (await kube.create_job("shop", job()))["metadata"]["uid"] == "j1"

    asyncio.run(server.run(story, monkeypatch))
    assert waits == [7, 0.001]


def test_what_stays_refused_says_why(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on(f"POST {JOBS}", (403, {"reason": "Forbidden", "message": 'User "x" cannot create resource "jobs"'}))
    server.on(f"PATCH {JOBS}/j1", (500, {"reason": "InternalError", "message": "etcd"}))

    async def story(kube: Kube) -> None:
        with pytest.raises(ApiError, match=r"403 Forbidden: User .* cannot create .* check the operator's ClusterRole"):
            await kube.create_job("shop", job())
        with pytest.raises(ApiError) as caught:
            await kube.set_parallelism("shop", "j1", 3)
        assert (caught.value.status, caught.value.reason) == (500, "InternalError")

    asyncio.run(server.run(story, monkeypatch))
    assert [call for call, _ in server.calls] == [f"POST {JOBS}", *[f"PATCH {JOBS}/j1"] * 3]


def test_a_server_that_is_away_is_no_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(kube: Kube) -> None:
        kube.client.configuration.host = "http://127.0.0.1:1"
        with pytest.raises(ApiError, match="does not answer") as caught:
            await kube.ping()
        assert caught.value.status == 0

    asyncio.run(server.run(story, monkeypatch))


def test_a_job_that_is_there_is_taken_when_it_is_ours(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on(f"POST {JOBS}", (409, {"reason": "AlreadyExists"}))
    server.on(f"GET {JOBS}/j1", (200, job(5)))

    async def story(kube: Kube) -> None:
        kube.see("pipelinejobs", pipelinejob(), False)
        await kube.create_job("shop", job())
        assert [one["metadata"]["resourceVersion"] for one in kube.children("u1")] == ["5"]
        assert not kube.see("jobs", job(5), False)  # the watch tells what we know
        other = job()
        other["metadata"]["ownerReferences"][0]["uid"] = "u2"
        with pytest.raises(Foreign, match="shop/j1 is not ours"):
            await kube.create_job("shop", other)

    asyncio.run(server.run(story, monkeypatch))


def test_a_status_replaces_the_old_one_of_the_same_job_only(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on(f"PATCH {PIPELINEJOBS}/men/status", (200, pipelinejob(2, status={"phase": "Running"})), (422, {"reason": "Invalid"}))
    server.on(f"GET {PIPELINEJOBS}/men", (200, pipelinejob(3)), (200, pipelinejob(4, uid="u2")))

    async def story(kube: Kube) -> None:
        assert await kube.patch_status(*KEY, {}) is None  # nobody has seen it
        kube.see("pipelinejobs", pipelinejob(), False)
        await kube.patch_status(*KEY, {"phase": "Running"})
        seen = kube.job(KEY)
        assert seen is not None
        assert seen["status"] == {"phase": "Running"}
        with pytest.raises(ApiError):
            await kube.patch_status(*KEY, {"phase": 5})
        assert await kube.patch_status(*KEY, {"phase": "Running"}) is None

    asyncio.run(server.run(story, monkeypatch))
    patch = [{"op": "test", "path": "/metadata/uid", "value": "u1"}, {"op": "add", "path": "/status", "value": {"phase": "Running"}}]
    assert server.calls[0][1] == patch
    assert server.headers[0]["Content-Type"] == "application/json-patch+json"


def test_deleting_names_the_uid_and_takes_gone_for_an_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on(f"DELETE {JOBS}/j1", (404, {"reason": "NotFound"}), (409, {"reason": "Conflict"}))
    server.on(f"GET {JOBS}/j1", (200, job(uid="another")))

    async def story(kube: Kube) -> None:
        kube.see("pipelinejobs", pipelinejob(), False)
        for _ in range(2):
            kube.see("jobs", job(), False)
            await kube.delete_job("shop", "j1", "j1")
            assert kube.children("u1") == []  # not deleted again and again until the watch tells

    asyncio.run(server.run(story, monkeypatch))
    assert server.calls[0][1]["preconditions"] == {"uid": "j1"}
    assert server.calls[0][1]["propagationPolicy"] == "Foreground"


def test_a_deletion_that_was_overtaken_is_not_believed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on(f"DELETE {JOBS}/j1", (409, {"reason": "Conflict"}))
    server.on(f"GET {JOBS}/j1", (200, job()))

    async def story(kube: Kube) -> None:
        kube.see("pipelinejobs", pipelinejob(), False)
        kube.see("jobs", job(), False)
        with pytest.raises(ApiError, match="409"):
            await kube.delete_job("shop", "j1", "j1")
        assert len(kube.children("u1")) == 1

    asyncio.run(server.run(story, monkeypatch))


def test_refresh_finds_what_is_gone_but_an_older_list_takes_nothing_newer_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on(f"GET {PIPELINEJOBS}/men", (200, pipelinejob(20)))
    server.on(f"GET {JOBS}", (200, listed(20, job(11, "there"), more="next")), (200, listed(20)))
    server.on(f"GET {PODS}", (200, listed(20)))

    async def story(kube: Kube) -> None:
        kube.see("pipelinejobs", pipelinejob(1), False)
        kube.see("jobs", job(10, "gone"), False)
        kube.see("jobs", job(21, "just-created"), False)
        kube.see("pods", pod(10, "gone"), False)
        kube.see("pods", pod(10, "ended", "Succeeded"), False)  # is not asked for
        await kube.refresh(KEY, "u1")
        assert sorted(one["metadata"]["name"] for one in kube.children("u1")) == ["just-created", "there"]
        assert [one["metadata"]["name"] for one in kube.pods("u1")] == ["ended"]

    asyncio.run(server.run(story, monkeypatch))
    asked = [query for call, query in server.calls if call == f"GET {JOBS}"]
    assert [query.get("continue") for query in asked] == [None, "next"]
    assert all(query["labelSelector"] == "pipelinejob.dev/job,pipelinejob.dev/uid=u1" for query in asked)


def test_a_list_that_the_server_forgets_between_two_pages_is_asked_for_from_the_start(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten = (410, {"reason": "Expired", "message": "The provided continue parameter is too old"})
    pages = (
        (200, listed(20, job(1, "a"), more="next")),
        forgotten,
        (200, listed(30, job(1, "a"), more="more")),
        (200, listed(30, job(2, "b"))),
    )
    server.on(f"GET {JOBS}", *pages, forgotten)

    async def story(kube: Kube) -> None:
        found, version = await kube.client.list_all(JOBS)
        assert ([one["metadata"]["uid"] for one in found], version) == (["a", "b"], "30")
        with pytest.raises(ApiError, match="410 Expired"):
            await kube.client.list_all(JOBS)  # of a first page

    asyncio.run(server.run(story, monkeypatch))


@pytest.mark.parametrize(("since", "runs"), [("2999-01-01T00:00:00Z", True), ("2026-01-01T00:00:00Z", False)])
def test_what_a_deleted_pipelinejob_has_left_is_ended(server: Server, monkeypatch: pytest.MonkeyPatch, since: str, runs: bool) -> None:
    left, going, leaving = job(10, "left"), job(11, "going"), pod(10, "leaving")
    going["metadata"]["deletionTimestamp"] = leaving["metadata"]["deletionTimestamp"] = since
    server.on(f"GET {JOBS}", (200, listed(20, left, going)))
    server.on(f"GET {PODS}", (200, listed(20, leaving, pod(11, "ended", "Failed"))))
    server.on(f"DELETE {JOBS}/left", (200, {"kind": "Status"}))

    async def story(kube: Kube) -> None:
        assert await kube.end_leftovers("shop", "u1") is runs  # a minute after its end should have come, its node is lost

    asyncio.run(server.run(story, monkeypatch))
    assert [call for call, _ in server.calls if call.startswith("DELETE")] == [f"DELETE {JOBS}/left"]


def test_what_runs_at_a_start_is_known_before_anything_is_decided(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, forged = job(uid="ended", conditions=[{"type": "Complete", "status": "True"}]), job(uid="forged")
    forged["metadata"]["ownerReferences"] = []
    server.on("GET /apis/batch/v1/jobs", (200, listed(20, job(), ended, forged)))

    async def story(kube: Kube) -> None:
        assert await kube.list_runs() == {"u1": 2}

    asyncio.run(server.run(story, monkeypatch))


def test_what_a_deletion_answers_is_believed_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    going = job(2)
    going["metadata"]["deletionTimestamp"] = "2026-11-23T01:11:19Z"
    server.on(f"DELETE {JOBS}/j1", (200, {"kind": "Job", **going}))

    async def story(kube: Kube) -> None:
        kube.see("pipelinejobs", pipelinejob(), False)
        kube.see("jobs", job(1), False)
        await kube.delete_job("shop", "j1", "j1")
        assert "deletionTimestamp" in kube.children("u1")[0]["metadata"]

    asyncio.run(server.run(story, monkeypatch))


def test_a_job_that_is_gone_is_found_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on(f"GET {JOBS}", (200, listed(20)))
    server.on(f"GET {PODS}", (200, listed(20)))

    async def story(kube: Kube) -> None:
        kube.see("pipelinejobs", pipelinejob(), False)
        await kube.refresh(KEY, "u1")
        assert kube.job(KEY) is None

    asyncio.run(server.run(story, monkeypatch))


def test_ping_brings_to_light_what_the_watch_has_missed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on(f"GET {EVERYWHERE}", (200, listed(9, pipelinejob(7, "u2", "new"))), (500, {}))
    server.on(f"GET {PIPELINEJOBS}/new", (200, pipelinejob(7, "u2", "new")))

    async def story(kube: Kube) -> None:
        kube.see("pipelinejobs", pipelinejob(1), False)  # gone by now
        assert kube.watch_lag() == 0
        await kube.ping()
        assert kube.keys() == [("shop", "new")]
        assert kube.watch_lag() > 0
        kube.see("pipelinejobs", pipelinejob(7, "u2", "new"), False)
        assert kube.watch_lag() == 0

    asyncio.run(server.run(story, monkeypatch))


def test_an_outage_is_not_held_against_the_watch(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on(f"GET {PIPELINEJOBS}", (200, listed(9, pipelinejob(7))), (503, {}))
    server.on(f"GET {PIPELINEJOBS}/men", (200, pipelinejob(7)))

    async def story(kube: Kube) -> None:
        await kube.ping()
        assert kube.watch_lag() > 0
        with pytest.raises(ApiError):
            await kube.ping()
        assert kube.watch_lag() == 0

    asyncio.run(server.run(story, monkeypatch, namespaces=["shop"]))


def test_events_of_a_namespace_are_asked_for_once_for_all_jobs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [{"involvedObject": {"uid": uid}, "reason": "FailedMount"} for uid in ("p1", "p2", "p1")]
    server.on("GET /api/v1/namespaces/shop/events", (200, listed(1, *told)))

    async def story(kube: Kube) -> None:
        first, second = await asyncio.gather(kube.list_events("shop", ["p1"]), kube.list_events("shop", ["p2", "p3"]))
        assert (len(first), len(second)) == (2, 1)

    asyncio.run(server.run(story, monkeypatch))
    assert len(server.calls) == 1


def test_events_of_one_second_are_named_in_their_order(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on("POST /api/v1/namespaces/shop/events", *[(201, {})] * 3)

    async def story(kube: Kube) -> None:
        for reason in ("Planned", "Accepted", "Complete"):
            await kube.emit_event(pipelinejob(), "Normal", reason, "told")

    asyncio.run(server.run(story, monkeypatch))
    named = sorted((event["metadata"]["name"], event["reason"]) for _, event in server.calls)
    assert [reason for _, reason in named] == ["Planned", "Accepted", "Complete"] and all(name.startswith("men.") for name, _ in named)


def test_an_event_that_is_refused_does_no_harm(server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    server.on("POST /api/v1/namespaces/shop/events", (403, {"reason": "Forbidden", "message": "no"}))

    async def story(kube: Kube) -> None:
        await kube.emit_event(pipelinejob(), "Warning", "NodeLost", "ä" * 2000)

    asyncio.run(server.run(story, monkeypatch))
    event = server.calls[0][1]
    assert event["involvedObject"] == {
        "apiVersion": "pipelinejob.dev/v1alpha1",
        "kind": "PipelineJob",
        "namespace": "shop",
        "name": "men",
        "uid": "u1",
    }
    assert len(event["message"].encode()) == 1024
    assert "job=shop/men the Event NodeLost was not posted" in caplog.text
