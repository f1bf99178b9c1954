"""The OpenAPI document, and requests that are made from it by the hundred: no answer is an error of the server's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gateway import Gateway, serving
from support.project import Project

TOOL = str(Path(sys.executable).with_name("schemathesis"))
EXAMPLES = os.environ.get("API_EXAMPLES", "6")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


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
    ran = subprocess.run(
        [
            TOOL, "run", f"{gateway.url}/api/v1/openapi.json", "--checks", CHECKS, "--max-examples", EXAMPLES, "--seed", "6",
            "--exclude-path", "/api/v1/events", "--continue-on-failure", "--no-color", "--generation-database", "none",
            "--request-timeout", "60", "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all",
        ],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr
    assert gateway.get("/healthz") == {"status": "ok"}
