"""The REST API over a real server, a real ledger and real runs."""

from __future__ import annotations

import io
import json
import signal
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pandas as pd
import pytest
from PIL import Image

from support.gateway import ENDS, Gateway, serving, wait
from support.project import Project

JOBS = "/api/v1/pipelinejobs"
ROWS = 30


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    project = Project(tmp_path_factory.mktemp("gateway"), None)
    project.catalogue(ROWS, without=[3], broken=[5])
    with serving(project) as served:
        served.create("first", sharding={"batchRows": 7})
        served.ends("first")
        yield served


def problem(answer: Any, status: int, *named: str) -> dict[str, Any]:
    """That an answer is a problem that says all of these."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail"} <= set(body) and body["status"] == status
    for text in named:
        assert text in body["detail"], (text, body)
    return body


def test_a_job_from_its_creation_to_its_end(gateway: Gateway) -> None:
    created = gateway.create("whole")
    assert (created["kind"], created["metadata"]["name"], created["metadata"]["namespace"]) == ("PipelineJob", "whole", "default")
    assert created["status"]["phase"] not in ENDS
    status = gateway.ends("whole")
    assert (status["phase"], status["rows"]["succeeded"], status["rows"]["failed"]) == ("Complete", ROWS - 2, 2)
    shown = gateway.project.run("status", "whole", "--json").json
    assert shown["rows"] == status["rows"] and shown["output"] == status["output"]


def test_the_same_bytes_as_the_command_line(gateway: Gateway) -> None:
    gateway.create("served", seed=3)
    gateway.ends("served")
    assert gateway.project.run("run", gateway.project.job("typed", seed=3)).code == 0
    served, typed = gateway.project.tree("out/served"), gateway.project.tree("out/typed")
    assert {path: served[path] for path in served if path != "manifest.json"} == {
        path: typed[path] for path in typed if path != "manifest.json"
    }


WRONG = {
    "spec.source.csv": {"source": {"csv": "../rows.csv"}},
    "spec.functions[0].name": {"functions": [{"name": "cropp"}]},
    "spec.functions[0].params.width": {"functions": [{"name": "resize", "params": {"width": "wide", "height": 2}}]},
    "spec.functions[0].file": {"functions": [{"name": "mark", "file": "fn.py"}]},
    "spec.functions[0].module": {"functions": [{"name": "mark", "module": "os"}]},
    "spec.paralelism: unknown field; did you mean 'parallelism'": {"paralelism": 2},
    "spec.source.where.colour": {"source": {"where": {"colour": "red"}}},
    "spec.mode": {"mode": "plan"},
    "spec.source.failedRowsOf": {"source": {"failedRowsOf": {"name": "first"}}},
}


@pytest.mark.parametrize("named", WRONG)
def test_a_wrong_job_is_refused_by_its_field(gateway: Gateway, named: str) -> None:
    before = gateway.get(JOBS, limit=1000)["items"]
    problem(gateway.client.post(JOBS, json=gateway.document("wrong", **WRONG[named])), 422, named)
    assert gateway.get(JOBS, limit=1000)["items"] == before
    assert not (gateway.project.root / "out/wrong").exists()


def test_inputs_that_are_missing_or_invalid(gateway: Gateway) -> None:
    body = problem(gateway.client.post(JOBS, json=gateway.document("gone", source={"csv": "none.csv"})), 422, "none.csv")
    assert body["reason"] == "InputNotFound"
    gateway.project.file("open.csv", b'id,gender\n1,"never closed\n')
    gateway.create("open", source={"csv": "open.csv", "images": None})  # found by the pass over the whole file
    status = gateway.ends("open")
    assert (status["phase"], status["conditions"][-1]["reason"]) == ("Failed", "InputInvalid"), status
    assert "line 2" in status["conditions"][-1]["message"]


def test_names_are_taken_once(gateway: Gateway) -> None:
    assert problem(gateway.client.post(JOBS, json=gateway.document("first")), 409, "'first'")["reason"] == "AlreadyExists"
    problem(gateway.client.post(JOBS, json=gateway.document("other", output={"path": "out/first"})), 422, "out/first")


def test_bodies_that_are_no_jobs(gateway: Gateway) -> None:
    as_json = {"Content-Type": "application/json"}
    for body in (b"", b"{", b"[]", b"null", b'"x"', b"[" * 100_000, b'{"a":"\\ud800"}', b"\xff", b'{"kind":NaN}', b'{"\\u0000":1}'):
        problem(
            gateway.client.post(JOBS, content=body, headers=as_json), gateway.client.post(JOBS, content=body, headers=as_json).status_code
        )
        assert gateway.client.post(JOBS, content=body, headers=as_json).status_code in (400, 422), body[:20]
    problem(gateway.client.post(JOBS, content=b" " * (1 << 21), headers=as_json), 413)


def test_paging_and_filters(gateway: Gateway) -> None:
    project = gateway.project
    for number in range(5):
        document = gateway.document(f"page-{number}", suspend=True)
        document["metadata"]["namespace"] = "pages"
        assert gateway.client.post(JOBS, json=document).status_code == 201
    found: list[str] = []
    after = None
    while True:
        query = {"namespace": "pages", "limit": 2} | ({"after": after} if after else {})
        page = gateway.get(JOBS, **query)
        found += [item["metadata"]["name"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert found == [f"page-{number}" for number in (4, 3, 2, 1, 0)]
    assert [item["metadata"]["name"] for item in gateway.get(JOBS, name="ge-3")["items"]] == ["page-3"]
    assert len(gateway.get(JOBS, phase=["Suspended", "Cancelled"])["items"]) == 5
    assert gateway.get(JOBS, namespace="pages", phase="Complete")["items"] == []
    problem(gateway.client.get(JOBS, params={"after": "x"}), 422, "after")
    problem(gateway.client.get(JOBS, params={"limit": 0}), 422, "limit")
    problem(gateway.client.get(JOBS, params={"phase": "Done"}), 422, "phase")
    assert project.run("delete", "page-0", "-n", "pages", "--output").code == 0


INJECTIONS = ["x' OR '1'='1", "'; DROP TABLE pipelinejob.jobs; --", "%", "_", "\\", "\x00", "../x", "a" * 5000, "\ud7ff", "default\n"]


@pytest.mark.parametrize("text", INJECTIONS)
def test_injection_in_filters(gateway: Gateway, text: str) -> None:
    count = len(gateway.get(JOBS, limit=1000)["items"])
    for query in ({"namespace": text}, {"name": text}, {"phase": text}, {"after": text}):
        problem(gateway.client.get(JOBS, params=query), 422)
    problem(gateway.client.get(f"{JOBS}/first/failures", params={"reason": text}), 422, "reason")
    assert gateway.client.get(f"{JOBS}/first", params={"namespace": text}).status_code == 422
    assert len(gateway.get(JOBS, limit=1000)["items"]) == count


def test_unknown_jobs_and_places(gateway: Gateway) -> None:
    for path in ("none", "none/failures", "none/rows", "none/results/metadata", "none/results/images/000000000/1.jpg"):
        problem(gateway.client.get(f"{JOBS}/{path}"), 404, "'none'")
    problem(gateway.client.get(f"{JOBS}/first", params={"namespace": "other"}), 404)
    for verb in ("cancel", "resume", "suspend", "redrive"):
        problem(gateway.client.post(f"{JOBS}/none/{verb}", json={}), 404)
    problem(gateway.client.delete(f"{JOBS}/none"), 404)
    problem(gateway.client.get("/api/v2"), 404)
    problem(gateway.client.put(f"{JOBS}/first", json={}), 405)


def test_failures_in_pages(gateway: Gateway) -> None:
    first = gateway.get(f"{JOBS}/first/failures", limit=1)
    assert [row["row"] for row in first["items"]] == [3] and first["next"] == 3
    second = gateway.get(f"{JOBS}/first/failures", limit=1, after=first["next"])
    assert [(row["row"], row["reason"]) for row in second["items"]] == [(5, "ImageInvalid")] and second["next"] is None
    assert [row["row"] for row in gateway.get(f"{JOBS}/first/failures", reason="ImageNotFound")["items"]] == [3]


def test_rows_in_pages(gateway: Gateway) -> None:
    table = gateway.project.table("out/first/metadata.csv")
    found: list[dict[str, str]] = []
    after = None
    while True:
        page = gateway.get(f"{JOBS}/first/rows", **({"limit": 9} | ({"after": after} if after else {})))
        found += page["items"]
        after = page["next"]
        if after is None:
            break
    assert found == table
    for wrong in ("0-0", "zz", "1-99999999999999999999", "-1"):
        problem(gateway.client.get(f"{JOBS}/first/rows", params={"after": wrong}), 422, "after")


def test_rows_of_cells_that_hold_everything(gateway: Gateway) -> None:
    cells = [("1", 'a "quoted"\nline,\r\nand more'), ("2", "ü\u2028\u0085🙂"), ("3", "=1+1"), ("4", "")]
    gateway.project.write_csv(cells, ("id", "text"), "cells.csv")
    gateway.create("cells", source={"csv": "cells.csv", "images": None}, functions=[])
    gateway.ends("cells")
    pages, after = [], None
    for _ in cells:
        page = gateway.get(f"{JOBS}/cells/rows", **({"limit": 1} | ({"after": after} if after else {})))
        pages += page["items"]
        after = page["next"]
    assert [(row["id"], row["text"]) for row in pages] == cells and after is None
    for kind, read in (
        ("json", lambda data: json.loads(data.getvalue())),
        ("parquet", lambda data: pd.read_parquet(data).to_dict("records")),
    ):
        answer = gateway.client.get(f"{JOBS}/cells/results/metadata", params={"format": kind})
        assert [(row["id"], row["text"]) for row in read(io.BytesIO(answer.content))] == cells, kind


def test_metadata_in_three_formats(gateway: Gateway) -> None:
    output = gateway.project.root / "out/first"
    answer = gateway.client.get(f"{JOBS}/first/results/metadata")
    assert answer.content == (output / "metadata.csv").read_bytes() and answer.headers["content-type"].startswith("text/csv")
    table = gateway.project.table("out/first/metadata.csv")
    assert gateway.client.get(f"{JOBS}/first/results/metadata", params={"format": "json"}).json() == table
    parquet = gateway.client.get(f"{JOBS}/first/results/metadata", params={"format": "parquet"}).content
    assert pd.read_parquet(io.BytesIO(parquet)).to_dict("records") == table
    problem(gateway.client.get(f"{JOBS}/first/results/metadata", params={"format": "xml"}), 422, "format")
    for name in ("metadata.csv", "failures.csv", "manifest.json"):
        assert gateway.client.get(f"{JOBS}/first/results/{name}").content == (output / name).read_bytes()
    problem(gateway.client.get(f"{JOBS}/first/results/.pipelinejob"), 404)


def test_one_image_and_all(gateway: Gateway) -> None:
    output = gateway.project.root / "out/first"
    url = gateway.get(f"{JOBS}/first/rows", limit=1)["items"][0]["url"]
    answer = gateway.client.get(f"{JOBS}/first/results/{url}")
    assert answer.headers["content-type"] == "image/jpeg" and answer.content == (output / url).read_bytes()
    assert Image.open(io.BytesIO(answer.content)).size == (16, 16)
    archive = zipfile.ZipFile(io.BytesIO(gateway.client.get(f"{JOBS}/first/results/images.zip").content))
    images = {path: data for path, data in gateway.project.everything("out/first").items() if path.startswith("images/") and "." in path}
    assert archive.testzip() is None and len(archive.namelist()) == ROWS - 2 and set(archive.namelist()) == set(images)
    some = gateway.client.get(f"{JOBS}/first/results/images.zip", params={"first": 7, "rows": 7}).content
    assert {name.split("/")[1] for name in zipfile.ZipFile(io.BytesIO(some)).namelist()} == {"000000007"}
    problem(gateway.client.get(f"{JOBS}/first/results/images.zip", params={"first": 1000}), 404)


WAYS_OUT = [
    "images/000000000/..%2f..%2fmetadata.csv", "images/..%2f..%2f/secret.txt", "images/000000000/%2e%2e", "images/000000000/link.jpg",
    "images/000000009/1000.jpg", "images/000000000/%00", "..%2f..%2fsecret.txt", "images/000000000/folder.jpg",
    "images/.pipelinejob/owner.json", "..%2fsecret.txt", "%2fetc%2fpasswd", "images/000000000/%2fetc%2fpasswd",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_path_leaves_the_results(gateway: Gateway, way: str) -> None:
    root = gateway.project.root
    (root / "secret.txt").write_text("secret")
    images = root / "out/first/images"
    for link, target in ((images / "000000000/link.jpg", root / "secret.txt"), (images / "000000009", root / "img")):
        if not link.is_symlink():
            link.symlink_to(target)
    (images / "000000000/folder.jpg").mkdir(exist_ok=True)
    try:
        problem(gateway.client.get(f"{JOBS}/first/results/{way}"), 404)
    finally:
        (images / "000000000/link.jpg").unlink()
        (images / "000000009").unlink()
        (images / "000000000/folder.jpg").rmdir()


def test_results_before_the_end(gateway: Gateway) -> None:
    gateway.create("resting", suspend=True)
    for path in ("rows", "results/metadata", "results/manifest.json", "results/images.zip"):
        problem(gateway.client.get(f"{JOBS}/resting/{path}"), 404, "yet")
    assert gateway.get(f"{JOBS}/resting/failures") == {"items": [], "next": None}


def test_functions_and_plan(gateway: Gateway) -> None:
    assert {"resize", "random_crop"} <= {function["name"] for function in gateway.get("/api/v1/functions")["functions"]}
    document = gateway.document("planned", source={"where": {"gender": "Men"}})
    answer = gateway.client.post("/api/v1/plan", json=document, params={"count": True})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["phase"], answer.json()["rows"]["filtered"]) == ("Planned", ROWS // 2)
    assert answer.json()["first"][0] == {"row": 0, "cells": gateway.project.table("rows.csv")[0]}
    problem(gateway.client.get(f"{JOBS}/planned"), 404)


def test_redrive(gateway: Gateway) -> None:
    project = gateway.project
    gateway.create("again")
    gateway.ends("again")
    project.image("img/1003.jpg")
    try:
        answer = gateway.client.post(f"{JOBS}/again/redrive", json={"reasons": ["ImageNotFound"]})
        assert answer.status_code == 202, answer.text
        name = answer.json()["metadata"]["name"]
        assert name == "again-redrive-1" and gateway.ends(name)["rows"]["total"] == 1
        wait(lambda: gateway.get(f"{JOBS}/again")["status"]["rows"]["failed"] == 1, what="the counts of the job follow")
        assert [row["row"] for row in gateway.get(f"{JOBS}/again/failures")["items"]] == [5]
        assert gateway.client.post(f"{JOBS}/again/redrive", json={"reasons": ["ImageNotFound"]}).status_code == 204
        problem(gateway.client.post(f"{JOBS}/again/redrive", json={"reasons": ["Nonsense"]}), 422, "Nonsense")
        problem(gateway.client.post(f"{JOBS}/{name}/redrive", json={}), 409, "redrive")
        problem(gateway.client.post(f"{JOBS}/resting/redrive", json={}), 409, "not ended")
    finally:
        (project.root / "img/1003.jpg").unlink()


@pytest.mark.parametrize(("name", "query", "stays"), [("kept", {}, True), ("removed", {"output": True}, False)])
def test_delete(gateway: Gateway, name: str, query: dict[str, Any], stays: bool) -> None:
    gateway.create(name)
    gateway.ends(name)
    assert gateway.client.delete(f"{JOBS}/{name}", params=query).status_code == 204
    problem(gateway.client.get(f"{JOBS}/{name}"), 404)
    assert (gateway.project.root / f"out/{name}/metadata.csv").exists() is stays


def test_a_job_that_is_deleted_while_it_is_looked_at(gateway: Gateway) -> None:
    """Between two questions to the ledger, too: whoever looks is told that it is not there."""
    answers: set[int] = set()

    def look(path: str) -> None:
        with httpx.Client(base_url=gateway.url, timeout=30) as client:
            while (status := client.get(path).status_code) == 200:
                answers.add(status)
                time.sleep(0.01)
            answers.add(status)

    for number in range(5):
        name = f"gone-{number}"
        gateway.create(name)
        gateway.ends(name)
        with ThreadPoolExecutor() as threads:
            looks = [threads.submit(look, path) for path in (f"/jobs/default/{name}", f"{JOBS}/{name}")]
            time.sleep(0.2)
            assert gateway.client.delete(f"{JOBS}/{name}").status_code == 204
            for one in looks:
                one.result()
    assert answers == {200, 404}


def test_pages_for_people(gateway: Gateway) -> None:
    page = gateway.client.get("/")
    assert page.headers["content-type"].startswith("text/html") and "first" in page.text
    for path in ("/api/v1/docs", "/api/v1/svc_ml/docs"):
        answer = gateway.client.get(path)
        assert "POST" in answer.text and "//" not in answer.text  # nothing is fetched from elsewhere, which the policy forbids, too
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert gateway.get("/healthz") == {"status": "ok"}


def test_jobs_go_on_without_the_server_and_those_that_wait_begin_with_the_next(bare_project: Project) -> None:
    project = bare_project
    project.catalogue(40)
    with serving(project, "--jobs", "1") as gateway:
        for name in ("one", "two"):
            gateway.create(name, functions=[{"name": "resize", "params": {"width": 1500, "height": 1500}}], sharding={"batchRows": 2})
        wait(lambda: gateway.get(f"{JOBS}/one")["status"]["rows"]["succeeded"], what="the first runs")
        assert gateway.get(f"{JOBS}/two")["metadata"]["annotations"]["pipelinejob.dev/standing"] == "waiting"
        assert "go on" in gateway.close(signal.SIGINT)
    with serving(project, "--jobs", "1") as gateway:
        assert gateway.ends("one", 60)["phase"] == "Complete"
        assert gateway.ends("two", 60)["phase"] == "Complete"
