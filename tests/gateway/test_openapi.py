"""The OpenAPI document, and requests that are made from it by the hundred: no answer is an error of the server's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gateway import Gateway, ask_by_the_hundred, serving
from support.project import Project

EXAMPLES = os.environ.get("API_EXAMPLES", "6")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    project = Project(tmp_path_factory.mktemp("openapi"), None)
    project.catalogue(6, without=[1])
    with serving(project) as served:
        served.create("men-fall-2010")  # the name in the examples
        served.ends("men-fall-2010")
        yield served


def test_every_route_has_a_summary_and_says_which_problems_it_answers(gateway: Gateway) -> None:
    document = gateway.get("/api/v1/openapi.json")
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            assert route["summary"], (method, path)
            assert all(
                status[0] == "2" or "application/problem+json" in answer["content"]
                for status, answer in route["responses"].items()
                if status != "422"
            )
            for parameter in route.get("parameters", []):
                assert parameter["in"] == "path" or parameter.get("description"), (method, path, parameter)


@pytest.mark.timeout(400)
def test_no_request_makes_an_error_of_the_server(gateway: Gateway, tmp_path: Path) -> None:
    ask_by_the_hundred(gateway.url, tmp_path, int(EXAMPLES))
    assert gateway.get("/healthz") == {"status": "ok"}
