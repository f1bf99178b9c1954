"""Who may ask: nothing that a foreign page makes a browser send, and with a token only who has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.gateway import Gateway, serving
from support.project import Project

JOBS = "/api/v1/pipelinejobs"
TOKEN = "a-secret-of-many-characters"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    project = Project(tmp_path_factory.mktemp("guard"), None)
    project.catalogue(3)
    with serving(project) as served:
        yield served


def post(gateway: Gateway, path: str = JOBS, **headers: str) -> httpx.Response:
    return gateway.client.post(
        path, json=gateway.document("mine"), headers={key.replace("_", "-"): value for key, value in headers.items()}
    )


FOREIGN = {
    "a foreign origin": ({"Origin": "https://evil.example"}, 403),
    "another port of this machine": ({"Origin": "http://127.0.0.1:1"}, 403),
    "a sandboxed frame": ({"Origin": "null"}, 403),
    "another site": ({"Sec-Fetch-Site": "cross-site"}, 403),
    "another port": ({"Sec-Fetch-Site": "same-site"}, 403),
    "a plain form": ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "a form of text": ({"Content-Type": "text/plain"}, 415),
    "a rebound name": ({"Host": "evil.example"}, 421),
    "a rebound name with the port": ({"Host": "evil.example:8080"}, 421),
    "a name that begins so": ({"Host": "localhost.evil.example"}, 421),
    "an empty host": ({"Host": ""}, 421),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_a_foreign_page_can_send_is_refused(gateway: Gateway, what: str) -> None:
    headers, status = FOREIGN[what]
    answer = post(gateway, **{key.replace("-", "_"): value for key, value in headers.items()})
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json", answer.text
    assert gateway.get(JOBS)["items"] == []


def test_a_rebound_name_reads_nothing(gateway: Gateway) -> None:
    for path in ("/", JOBS, "/api/v1/events", "/api/v1/openapi.json"):
        assert gateway.client.get(path, headers={"Host": "evil.example"}).status_code == 421


def test_a_body_without_end(gateway: Gateway) -> None:
    answer = gateway.client.post(JOBS, content=iter([b"{}"]), headers={"Content-Type": "application/json"})
    assert answer.status_code == 411


def test_a_foreign_page_deletes_nothing(gateway: Gateway) -> None:
    for verb in ("cancel", "resume", "suspend", "redrive"):
        assert gateway.client.post(f"{JOBS}/x/{verb}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert gateway.client.delete(f"{JOBS}/x", headers={"Origin": "https://evil.example"}).status_code == 403
    assert gateway.client.patch(f"{JOBS}/x", json={"spec": {}}, headers={"Origin": "https://evil.example"}).status_code == 403


def test_the_own_page_and_programs_may(gateway: Gateway) -> None:
    own: list[dict[str, str]] = [
        {"Origin": gateway.url},
        {"Host": gateway.url.removeprefix("http://").replace("127.0.0.1", "LOCALHOST")},
        {},
    ]
    for number, headers in enumerate(own):
        answer = gateway.client.post(JOBS, json=gateway.document(f"mine-{number}", suspend=True), headers=headers)
        assert answer.status_code == 201, answer.text


def test_an_answer_allows_no_other_site_to_read_it(gateway: Gateway) -> None:
    answer = gateway.client.get(JOBS, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_an_address_that_others_reach_wants_a_token(project: Project) -> None:
    for env, named in (({}, "PIPELINEJOB_SERVE_TOKEN"), ({"PIPELINEJOB_SERVE_TOKEN": "short"}, "at least 16")):
        ran = project.run("serve", "--host", "0.0.0.0", "--port", "0", env=env)
        assert ran.code == 2 and named in ran.err, ran


def test_a_token(project: Project) -> None:
    with serving(project, "--host", "0.0.0.0", env={"PIPELINEJOB_SERVE_TOKEN": TOKEN}) as gateway:
        url = gateway.url.replace("0.0.0.0", "127.0.0.1")
        wrong: list[dict[str, str]] = [
            {},
            {"Authorization": TOKEN},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": f"Bearer {TOKEN}x"},
        ]
        for headers in wrong:
            answer = httpx.get(url + JOBS, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.get(url + JOBS, headers={**right, "Host": "catalogue.example"}).status_code == 200
        assert httpx.post(url + JOBS, json={}, headers={**right, "Origin": "https://evil.example"}).status_code == 403


def test_a_port_that_is_taken(gateway: Gateway, project: Project) -> None:
    ran = project.run("serve", "--port", gateway.url.rpartition(":")[2])
    assert ran.code == 2 and "--port" in ran.err and "Traceback" not in ran.err


def test_a_data_root_that_is_not_there(project: Project, tmp_path: Path) -> None:
    ran: Any = project.run("serve", "--data", str(tmp_path / "none"))
    assert ran.code == 1 and "none" in ran.err
