"""How long the steps of a job's rows took, as the ledger has it after a real run."""

from __future__ import annotations

import psycopg2
from PIL import Image

from pipelinejob.store import Database, Store
from pipelinejob.timings import WHOLE, Share, Timing, shares
from support.project import Project

SLEEPS = "import time\ndef slow(image, row):\n    time.sleep(0.02)\n    return image\n"
LISTS = "def many(images: list, rows: list) -> list:\n    return [{'n': 1} for _ in rows]\n"


def timings(project: Project, name: str) -> list[Timing]:
    """All that is recorded of a job."""
    url = project.environment["PIPELINEJOB_DATABASE_URL"]
    store = Store(Database(lambda: url, patience=5, say=lambda _: None))
    try:
        job = store.find_job("default", name)
        assert job is not None
        return store.timings(job.uid)
    finally:
        store.close()


def by_step(project: Project, name: str, *functions: str) -> dict[str, Share]:
    return {one.step: one for one in shares(timings(project, name), functions)}


def test_each_step_of_each_row_is_counted(project: Project) -> None:
    project.catalogue(30, without=[3], broken=[7])
    (project.root / "fn.py").write_text(SLEEPS)
    functions = [{"name": "blur", "params": {"radius": 1}}, {"name": "slow", "file": "fn.py"}]
    assert project.run("run", project.job("men", functions=functions, sharding={"batchRows": 10})).code == 0
    found = by_step(project, "men", "blur", "slow")
    assert {step: one.calls for step, one in found.items()} == {"(read)": 30, "blur": 28, "slow": 28, "(write)": 28}
    assert 0.02 <= found["slow"].mean < 0.06 and found["slow"].share > 0.5
    batches = [one for one in timings(project, "men") if one.position == WHOLE]
    assert sum(one.calls for one in batches) == 3 and sum(one.seconds for one in batches) >= 28 * 0.02


def test_jpegs_through_all_functions_at_once_are_one_call_and_other_pictures_are_read_once(project: Project) -> None:
    project.catalogue(12)
    chain = [{"name": "random_crop", "params": {"ratio": 0.8}}, {"name": "resize", "params": {"width": 256, "height": 256}}]
    assert project.run("run", project.job("jpegs", functions=chain)).code == 0
    found = by_step(project, "jpegs", "random_crop", "resize")
    assert {step: one.calls for step, one in found.items()} == {"(read)": 12, "random_crop + resize": 12}
    for path in (project.root / "img").iterdir():  # they keep their names, but not what they are
        with Image.open(path) as image:
            image.convert("RGBA").save(path, "PNG")
    assert project.run("run", project.job("pngs", functions=chain)).code == 0
    found = by_step(project, "pngs", "random_crop", "resize")
    assert {step: one.calls for step, one in found.items()} == {"(read)": 12, "random_crop": 12, "resize": 12, "(write)": 12}


def test_a_function_that_takes_lists_is_a_call_a_list(project: Project) -> None:
    project.catalogue(20)
    (project.root / "fn.py").write_text(LISTS)
    functions = [{"name": "many", "file": "fn.py"}]
    assert project.run("run", project.job("lists", functions=functions, sharding={"batchRows": 20})).code == 0
    assert by_step(project, "lists", "many")["many"].calls == 1


def test_a_ledger_without_them_has_none(project: Project) -> None:
    project.catalogue(5)
    assert project.run("run", project.job("old")).code == 0
    connection = psycopg2.connect(project.environment["PIPELINEJOB_DATABASE_URL"])
    with connection, connection.cursor() as cursor:  # as workers before this version recorded them
        cursor.execute("UPDATE pipelinejob.batches SET timings = NULL")
    connection.close()
    assert timings(project, "old") == []
    assert project.run("report", "old").code == 0 and "Where the time went" not in project.text("old-report.html")
