"""The endpoints of the replaced system, as its clients call them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.gateway import Gateway, serving, wait
from support.project import Project

API = "/api/v1/svc_ml"
COLUMNS = ("id", "gender", "masterCategory", "subCategory", "articleType", "season", "year", "usage", "productDisplayName")
ROWS = [
    (1, "Men", "Apparel", "Topwear", "Shirts", "Fall", 2010, "Casual", "Shirt"),
    (2, "Men", "Apparel", "Topwear", "Shirts", "Winter", 2011, "Casual", "Shirt, long"),
    (3, "Women", "Footwear", "Shoes", "Heels", "Fall", 2010, "Formal", "Heels"),
    (4, "Men", "Footwear", "Shoes", "Boots", "Fall", 2010, "Casual", "Boots without a picture"),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    project = Project(tmp_path_factory.mktemp("svc"), None)
    project.write_csv(ROWS, COLUMNS, "styles.csv")
    with open(project.root / "styles.csv", "a") as file:
        file.write("5,Men,Apparel,Topwear,Shirts,Fall,2010,Casual,Name, with a comma\n")
    for row in (1, 2, 3):
        project.image(f"images/{row}.jpg", size=(60, 80))
    with serving(project) as served:
        for kind in ("query", "transformedquery"):
            assert served.client.post(f"{API}/{kind}", json={"gender": "Men"}).status_code == 409, "there is no catalogue yet"
        answer = served.client.post(f"{API}/insert2db", json={})
        assert (answer.status_code, answer.json()) == (200, {"rows": 5, "malformed": 1})
        yield served


def done(gateway: Gateway, kind: str, filters: dict[str, Any]) -> dict[str, Any]:
    """Asks as the old clients do: a task, then its result until it is there."""
    answer = gateway.client.post(f"{API}/{kind}", json=filters)
    assert answer.status_code == 202 and set(answer.json()) == {"task_id"}, answer.text
    task = answer.json()["task_id"]
    result: dict[str, Any] = {}

    def ended() -> bool:
        nonlocal result
        answer = gateway.client.get(f"{API}/result/{task}")
        result = answer.json()
        assert result["task_id"] == task
        assert answer.status_code == 200 or (answer.status_code == 202 and set(result) == {"task_id", "status"})
        return answer.status_code == 200

    wait(ended, 30, "the task ends")
    assert set(result) == {"task_id", "status", "path", "rows", "reason"}
    return result


def images(result: dict[str, Any]) -> dict[str, Path]:
    return {path.stem: path for path in Path(result["path"]).glob("images/*/*")}


def test_query_copies_images_byte_for_byte(gateway: Gateway) -> None:
    result = done(gateway, "query", {"gender": "Men", "season": ["Fall", "Winter"]})
    assert (result["status"], result["reason"]) == ("Complete", None)
    assert (result["rows"]["succeeded"], result["rows"]["filtered"], result["rows"]["failed"]) == (2, 1, 2)
    found = images(result)
    assert set(found) == {"1", "2"}
    for name, path in found.items():
        assert path.read_bytes() == (gateway.project.root / f"images/{name}.jpg").read_bytes()


def test_transformedquery_crops_and_resizes(gateway: Gateway) -> None:
    result = done(gateway, "transformedquery", {"gender": "Women", "year": 2010})
    (path,) = images(result).values()
    with Image.open(path) as image:
        assert image.size == (256, 256)


def test_a_year_as_text_and_as_a_number(gateway: Gateway) -> None:
    for year in (2011, "2011", [2011], ["2011"]):
        assert set(images(done(gateway, "query", {"year": year}))) == {"2"}, year


def test_no_filter_is_every_row(gateway: Gateway) -> None:
    assert done(gateway, "query", {})["rows"]["total"] == 5


WRONG: list[Any] = [
    {"colour": "red"},
    {"gender": True},
    {"gender": None},
    {"gender": {"ne": "Men"}},
    {"gender": [["Men"]]},
    [],
    "x",
    {"id": 1},
]


@pytest.mark.parametrize("filters", WRONG, ids=str)
def test_wrong_filters(gateway: Gateway, filters: Any) -> None:
    for kind in ("query", "transformedquery"):
        assert gateway.client.post(f"{API}/{kind}", json=filters).status_code == 422, filters


@pytest.mark.parametrize(
    "catalogue",
    [{"csv": "none.csv"}, {"csv": "../styles.csv"}, {"csv": "/etc/passwd"}, {"images": "{colour}.jpg"}, {"other": 1}, {"csv": 5}],
)
def test_a_wrong_catalogue_changes_nothing(gateway: Gateway, catalogue: dict[str, Any]) -> None:
    answer = gateway.client.post(f"{API}/insert2db", json=catalogue)
    assert answer.status_code == 422, answer.text
    assert gateway.client.post(f"{API}/query", json={"gender": "Nobody"}).status_code == 202


def test_unknown_tasks(gateway: Gateway) -> None:
    for task in ("none", "query-0000000000000000", "..%2f..", "1' OR 1=1"):
        assert gateway.client.get(f"{API}/result/{task}").status_code == 404


def test_pages(gateway: Gateway) -> None:
    assert gateway.client.get("/").status_code == 200
    page = gateway.client.get(f"{API}/docs")
    assert page.status_code == 200 and "insert2db" in page.text and "pipelinejobs/" not in page.text


def test_the_catalogue_stays_over_a_restart(gateway: Gateway) -> None:
    with serving(gateway.project) as again:
        assert set(images(done(again, "query", {"articleType": "Heels"}))) == {"3"}
