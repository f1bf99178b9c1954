"""The pages, in a real browser: every button pressed, and nothing that a screen reader or a stranger's CSV stumbles on."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from support.browser import chromium, page_of, stumbles
from support.gateway import Gateway, serving, wait
from support.project import Project

pytestmark = pytest.mark.timeout(180)
SLOW = "import time\ndef slow(image, row):\n    time.sleep(2)\n    return {'kind': row['name'][:5]}\n"
MARK = (
    "def mark(image, row):\n    if row['id'] in ('1007', '1011'): raise ValueError('no price')\n    return image, {'size': image.width}\n"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def gateway(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A server over 60 rows, of which a job has done 55."""
    project = Project(tmp_path_factory.mktemp("pages"), None)
    project.catalogue(60, without=(3, 4), broken=(5,))
    project.write(SLOW, "slow.py")
    project.write(MARK, "mark.py")
    made = project.job("done", functions=[{"name": "mark", "file": "mark.py"}], sharding={"rowsPerShard": 20, "batchRows": 5})
    assert project.run("run", made).code == 0
    with serving(project) as served:
        yield served


@pytest.fixture
def page(browser: Browser, gateway: Gateway) -> Iterator[Page]:
    with page_of(browser, gateway.url) as opened:
        yield opened


def starts(gateway: Gateway, name: str) -> subprocess.Popen[str]:
    """A job of two minutes, however fast or slow a browser is at that moment."""
    small = {"rowsPerShard": 15, "batchRows": 1}
    job = gateway.project.job(name, functions=[{"name": "slow", "file": "slow.py"}], sharding=small, parallelism=1)
    process = gateway.project.start("run", job)
    wait(lambda: gateway.client.get(f"/jobs/default/{name}").status_code == 200, 20, f"{name} is there")
    return process


def press(page: Page, name: str, agree: bool = True) -> None:
    page.get_by_role("button", name=name, exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name=name if agree else "Back", exact=True).click()
    expect(dialog).not_to_be_visible()


def count(page: Page, name: str) -> int:
    return int(page.locator(f"dl.counts div:has(dt:text-is('{name}')) dd").inner_text().replace(",", ""))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_stumbles_on_a_page(browser: Browser, gateway: Gateway, scheme: str) -> None:
    with page_of(browser, gateway.url, scheme, expected=("404 (Not Found)",)) as page:
        for path in ("", "jobs/default/done", "new", "api/v1/docs", "jobs/default/nothing"):
            page.goto(f"/{path}")
            page.wait_for_load_state("networkidle") if path == "new" else page.wait_for_timeout(300)
            assert stumbles(page) == [], path
        for part in ("failures", "rows", "columns"):
            page.goto(f"/jobs/default/done/{part}")
            assert stumbles(page) == [], part


def test_a_job_that_is_done(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="done").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Complete")
    assert [count(page, name) for name in ("total", "succeeded", "failed", "pending")] == [60, 55, 5, 0]
    reasons = page.locator("#failures tbody tr").all_inner_texts()
    assert [re.split(r"\s", line)[:2] for line in reasons] == [["FunctionError", "2"], ["ImageNotFound", "2"], ["ImageInvalid", "1"]]
    assert page.locator(".heat li").count() == 3 and page.locator(".heat li.h10").count() == 3
    assert "20 of 20 rows done" in page.locator(".heat li").first.inner_text()
    expect(page.locator("#pictures img").nth(47)).to_be_attached()  # 24 pairs, filled in
    page.locator("#pictures img").first.scroll_into_view_if_needed()
    page.wait_for_function("() => [...document.querySelectorAll('#pictures img')].slice(0, 6).every(img => img.naturalWidth > 0)")
    titles = page.locator("#columns h2").all_inner_texts()
    assert titles[:2] == ["id", "gender"] and titles[-1] == "size"
    assert "Men" in page.locator("#columns li", has=page.get_by_text("gender", exact=True)).inner_text()


def test_the_failed_rows_with_their_images(page: Page) -> None:
    page.goto("/jobs/default/done")
    page.get_by_role("link", name="FunctionError").click()
    rows = page.locator("tbody tr")
    assert [row.split("\t")[2].strip() for row in rows.all_inner_texts()] == ["1007", "1011"]
    assert "ValueError: no price" in rows.first.inner_text()
    page.wait_for_function("() => [...document.querySelectorAll('tbody img')].every(img => img.naturalWidth == 30)")
    page.get_by_role("link", name="All reasons").click()
    assert rows.count() == 5


def test_a_running_job_moves_by_itself_and_obeys(page: Page, gateway: Gateway) -> None:
    process = starts(gateway, "slow")
    page.goto("/jobs/default/slow")
    page.wait_for_function("() => /Running/.test(document.querySelector('h1').innerText)")
    before = count(page, "succeeded")
    wait(lambda: (page.wait_for_timeout(200), count(page, "succeeded") > before)[1], 40, "rows come in")

    press(page, "Suspend", agree=False)
    assert gateway.get("/api/v1/pipelinejobs/slow")["spec"]["suspend"] is False
    press(page, "Suspend")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Suspended")
    process.communicate(timeout=60)
    assert process.returncode == 1

    press(page, "Resume")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Running")
    page.get_by_role("button", name="Scale").click()
    page.get_by_role("spinbutton").fill("2")
    page.get_by_role("dialog").get_by_role("button", name="Scale").click()
    expect(page.get_by_role("dialog")).not_to_be_visible()
    assert gateway.get("/api/v1/pipelinejobs/slow")["spec"]["parallelism"] == 2

    press(page, "Cancel")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Cancelled")
    assert 0 < count(page, "pending") < 60, page.locator("dl.counts").inner_text()
    press(page, "Delete")
    page.wait_for_url("**/")
    expect(page.get_by_role("link", name="done")).to_be_visible()
    assert gateway.client.get("/jobs/default/slow").status_code == 404


def test_a_change_that_is_refused_is_told_where_it_was_asked_for(browser: Browser, gateway: Gateway) -> None:
    with page_of(browser, gateway.url, expected=("404",)) as page:
        gateway.create("short", source={"where": {"gender": "Men"}})
        gateway.ends("short")
        page.goto("/jobs/default/short")
        assert gateway.client.delete("/api/v1/pipelinejobs/short").status_code == 204
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("there is no job 'short'")


def test_the_failed_rows_are_run_again(page: Page, gateway: Gateway) -> None:
    gateway.create("again", source={"where": {"year": {"lte": 2010}}})
    gateway.ends("again")
    page.goto("/jobs/default/again")
    failed = count(page, "failed")
    assert failed > 0
    press(page, "Redrive failed rows")
    page.wait_for_url("**/jobs/default/again-redrive-1")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Complete")
    assert count(page, "total") == failed


def test_a_job_is_made_from_a_csvs_columns(browser: Browser, gateway: Gateway) -> None:
    with page_of(browser, gateway.url, expected=("422",)) as page:
        make_a_job(page, gateway)


def make_a_job(page: Page, gateway: Gateway) -> None:
    page.goto("/")
    page.get_by_role("link", name="New job").click()
    page.get_by_label("CSV, below").fill("rows.csv")
    page.get_by_role("button", name="Look at the CSV").click()
    expect(page.locator("#previewed-told")).to_contain_text("Of 60 rows 60 match")
    assert page.locator("#columns option").evaluate_all("all => all.map(one => one.value)") == ["id", "gender", "season", "year", "name"]
    page.get_by_label("Name", exact=True).fill("made-here")
    page.get_by_label("Image of a row").fill("img/{id}.jpg")
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_label("Column", exact=True).fill("year")
    page.get_by_label("is").select_option("gte")
    page.get_by_label("Value").fill("2011")
    page.locator("#function").select_option("resize")
    page.get_by_role("button", name="Add", exact=True).click()
    page.locator("[data-param=width]").fill("wide")
    page.locator("[data-param=height]").fill("12")
    with page.expect_response("**/api/v1/plan") as answer:
        page.get_by_role("button", name="Preview").click()
    assert answer.value.status == 422
    expect(page.locator("#new-problem")).to_contain_text("spec.functions[0].params.width")
    assert stumbles(page) == []
    page.locator("[data-param=width]").fill("10")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#previewed-told")).to_contain_text("24 match")
    expect(page.locator("#previewed-rows")).to_contain_text("Shirt 3")
    page.get_by_label("Failed rows borne").fill("50")
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/jobs/default/made-here")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Complete")
    spec = gateway.get("/api/v1/pipelinejobs/made-here")["spec"]
    assert spec["source"]["where"] == {"year": {"gte": 2011}} and spec["functions"][0]["params"] == {"width": 10, "height": 12}


def test_the_list_is_filtered_paged_and_grows_by_itself(page: Page, gateway: Gateway) -> None:
    page.goto("/")
    gateway.create("later", suspend=True)
    expect(page.get_by_role("link", name="later")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("lat")
    page.get_by_label("Phase").select_option("Suspended")
    page.get_by_role("button", name="Show").click()
    assert page.locator("tbody tr").count() == 1
    page.goto("/?name=nothing-like-it")
    expect(page.get_by_text("No such jobs.")).to_be_visible()


def test_markup_in_a_csv_stays_text(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    project = Project(tmp_path_factory.mktemp("hostile"), None)
    evil = "<img src=x onerror=document.title='taken'>"
    rows = [("a'\"&<b>", evil), ("<script>document.title='taken'<", evil), ("missing", evil)]
    for id, _ in rows[:2]:
        project.image(f"img/{id}.jpg")
    project.write_csv(rows, ("id", f"{evil} column"))
    with serving(project) as served, page_of(browser, served.url) as page:
        served.create("hostile", functions=[])
        served.ends("hostile")
        for part in ("", "/rows", "/columns", "/failures"):
            page.goto(f"/jobs/default/hostile{part}")
            page.wait_for_timeout(400)
            assert "taken" not in page.title() and page.locator("img[src=x], main script, b").count() == 0, part
        page.goto("/jobs/default/hostile/rows")
        assert evil in page.inner_text("tbody")
        page.wait_for_function("() => [...document.querySelectorAll('#pictures img')].every(img => img.naturalWidth > 0)")


def test_signing_in_and_out(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    project = Project(tmp_path_factory.mktemp("locked"), None)
    project.catalogue(5)
    token = "a-secret-of-the-house"
    with (
        serving(project, "--host", "0.0.0.0", env={"PIPELINEJOB_SERVE_TOKEN": token}) as served,
        page_of(browser, served.url.replace("0.0.0.0", "127.0.0.1"), expected=("401",)) as page,
    ):
        page.goto("/jobs/default/any?x=1")
        page.wait_for_url("**/login?next=**")
        assert stumbles(page) == []
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("wants its token")
        page.goto("/login?next=//elsewhere.example/")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("No jobs yet.")).to_be_visible()
        cookie = next(one for one in page.context.cookies() if one["name"] == "pipelinejob-token")
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/login")
        page.goto("/")
        page.wait_for_url("**/login?next=**")
        with httpx.Client(base_url=served.url.replace("0.0.0.0", "127.0.0.1"), cookies={"pipelinejob-token": token}) as stranger:
            headers = {"Origin": "http://elsewhere.example", "Content-Type": "application/json"}
            assert stranger.post("/api/v1/pipelinejobs", headers=headers, content=json.dumps({})).status_code == 403
            assert stranger.delete("/api/v1/pipelinejobs/x", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


@pytest.mark.parametrize(
    "path", ["rows.csv", "img/../rows.csv", "../rows.csv", "/etc/passwd", "img/x/../../rows.csv.jpg", "img/link.jpg", "img/1005.jpg"]
)
def test_nothing_but_images_of_rows_is_shown(gateway: Gateway, path: str) -> None:
    link = gateway.project.root / "img/link.jpg"
    if not link.is_symlink():
        link.symlink_to("/etc/hostname")
    answer = gateway.client.get("/jobs/default/done/source", params={"path": path})
    assert answer.status_code in (404, 422) and answer.headers["content-type"] == "application/problem+json"
