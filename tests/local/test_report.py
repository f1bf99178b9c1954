"""`pipelinejob report`: one HTML file that needs nothing else, with every number as the ledger has it, and nothing of users' texts run."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import psycopg2

from support.project import Project


class Page(HTMLParser):
    """What a browser would see: texts, tags, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("data:image/jpeg;")
        ]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_report(project: Project) -> None:
    project.catalogue(40, without=[3, 4, 5, 6, 7, 8, 9], broken=[12])
    job = project.job("men", source={"where": {"gender": "Men"}}, failurePolicy={"maxFailedRowsPercent": 100}, sharding={"batchRows": 5})
    ran = project.run("run", job, "--json")
    rows = ran.json["rows"]
    told = project.run("report", "men")
    assert (told.code, told.out) == (0, "men-report.html\n")
    text = project.text("men-report.html")
    page = Page(text)
    assert page.fetched == [] and not {"script", "link", "iframe", "object"} & set(page.tags)
    assert f"{rows['succeeded']:,} succeeded, {rows['filtered']} filtered, {rows['failed']} failed" in text
    assert "ImageNotFound: 3" in page.texts and "ImageInvalid: 1" in page.texts
    assert "1004" in page.texts and any("no such file" in each for each in page.texts)
    assert page.tags.count("img") == rows["succeeded"]
    assert "Where the time went" in page.texts and "resize" in page.texts and "(read)" in page.texts
    assert re.search(r"40 rows in .*: [\d,]+ rows/s\.", text) and "rect" not in page.tags  # too short for a chart
    assert not list(project.root.glob("*.part"))


def test_the_chart_of_a_longer_run(project: Project) -> None:
    project.catalogue(40)
    assert project.run("run", project.job("men", sharding={"batchRows": 1})).code == 0
    connection = psycopg2.connect(project.environment["PIPELINEJOB_DATABASE_URL"])
    with connection, connection.cursor() as cursor:  # as if a batch had been recorded every second, but for ten of them at once
        cursor.execute(
            "UPDATE pipelinejob.batches b SET recorded_at = j.started_at + greatest(10, first_row + 1) * interval '1 s'"
            " FROM pipelinejob.jobs j WHERE j.uid = b.job_uid"
        )
    connection.close()
    assert project.run("report", "men").code == 0
    text = project.text("men-report.html")
    assert "40 rows in 40.0 s: 1 rows/s, at most 6." in text
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)" fill', text)]
    assert len(heights) == 20 and heights[:5] == [0, 0, 0, 0, 0] and heights.index(20.0) == 5 and all(heights[6:])


def test_texts_of_users_are_texts(project: Project) -> None:
    evil = "<script>alert(1)</script>"
    project.image("img/a.jpg")
    project.write_csv([("a", evil), (evil, "b")], ("id", "name"))
    project.write("def mark(image, row): raise ValueError(row['name'] + '\"><img onerror=1 src=x>')\n", "fn.py")
    job = project.job("evil", functions=[{"name": "mark", "file": "fn.py"}], failurePolicy={"maxFailedRowsPercent": 100})
    assert project.run("run", job).code == 0
    told = project.run("report", "evil", "--out", "out.html", "--json")
    assert told.json == {"report": str(project.root / "out.html")}
    page = Page(project.text("out.html"))
    assert "script" not in page.tags and "img" not in page.tags
    assert any(evil in each for each in page.texts)


def test_what_cannot_be_written_or_is_not_there(project: Project) -> None:
    project.catalogue(2)
    assert project.run("run", project.job("men")).code == 0
    told = project.run("report", "men", "--out", "nowhere/report.html")
    assert told.code == 2 and "cannot write nowhere/report.html" in told.err
    told = project.run("report", "women")
    assert told.code == 2 and "women" in told.err
