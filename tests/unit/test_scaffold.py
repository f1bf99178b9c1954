"""`pipelinejob init`: whatever the header, the file that it writes can be planned as it stands."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelinejob import jobfile, scaffold
from pipelinejob.model import PipelineJob
from pipelinejob.plan import scan
from pipelinejob.planning import Request, inspect
from pipelinejob.reasons import JobError, JobReason


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_csv(path: Path, columns: list[str], delimiter: str = ",") -> Path:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([columns, [f"cell {number}" for number in range(len(columns))]])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue().encode())
    return path


def planned(path: Path, root: Path) -> PipelineJob:
    """Loads the file, checks it against the CSV and plans it, as `pipelinejob plan` does."""
    job, functions = jobfile.load(path)
    root = root.resolve()
    found, _, _ = inspect(Request(job, functions, root, root, root))
    assert scan(found, delimiter=job.spec.source.delimiter, encoding=job.spec.source.encoding).rows == 1
    return job


def init(here: Path, columns: list[str], name: str = "rows.csv", delimiter: str = ",") -> PipelineJob:
    return planned(scaffold.write(write_csv(here / name, columns, delimiter)), here)


def test_a_plain_header(here: Path) -> None:
    path = scaffold.write(write_csv(here / "Men Fall_2010.csv", ["id", "gender", "year"]))
    assert path == Path("men-fall-2010.yaml")  # as the user would type it
    text = path.read_text()
    assert text.startswith("# Columns of Men Fall_2010.csv: id, gender, year\napiVersion: pipelinejob.dev/v1alpha1\n")
    job = planned(path, here)
    assert (job.metadata.name, job.output_path, job.spec.source.id_column) == ("men-fall-2010", "out/men-fall-2010", "id")
    assert (job.spec.source.images, job.spec.source.where, job.spec.functions) == (None, {}, [])


@pytest.mark.parametrize(
    ("columns", "id_column"),
    [
        (["name", "id"], "id"),
        (["Id", "ID", "x"], "ID"),
        (["name", "product_id"], "product_id"),
        (["name", "SKU"], "SKU"),
        (["paid", "code"], "code"),
        (["paid", "valid"], "paid"),
        (["", "x"], ""),  # as pandas writes an index
        (["yes"], "yes"),
    ],
)
def test_the_column_of_ids(here: Path, columns: list[str], id_column: str) -> None:
    assert init(here, columns).spec.source.id_column == id_column


def test_images_beside_the_csv(here: Path) -> None:
    (here / "shop" / "images").mkdir(parents=True)
    assert init(here, ["id"], "shop/a.csv").spec.source.images == "shop/images/{id}.jpg"
    (here / "shop" / "images" / "1.PNG").touch()
    (here / "shop" / "images" / "notes.txt").touch()
    job = init(here, ["id"], "shop/b.csv")
    assert job.spec.source.images == "shop/images/{id}.PNG"
    assert [step.name for step in job.spec.functions] == ["random_crop", "resize"]


def test_a_column_that_names_files(here: Path) -> None:
    assert init(here, ["id", "Image"], "a.csv").spec.source.images == "{Image}"
    assert init(here, ["id", "filename", "path"], "shop/a{1}/b.csv").spec.source.images == "shop/a{{1}}/{filename}"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_guessed(here: Path, delimiter: str) -> None:
    assert init(here, ["id", "a b", "c"], delimiter=delimiter).spec.source.delimiter == delimiter


@pytest.mark.parametrize(
    ("name", "expected"),
    [("2010.csv", "2010"), ("yes.csv", "yes"), ("---.csv", "job"), ("表.csv", "job"), ("x" * 60 + ".csv", "x" * 40),
     ("x" * 39 + "-y.csv", "x" * 39),
     ("no", "no"), ("a'b\"c: #d.csv", "a-b-c-d"), ("a\nb.csv", "a-b")],
)  # fmt: skip
def test_the_name_of_the_job(here: Path, name: str, expected: str) -> None:
    assert init(here, ["id"], name).metadata.name == expected


@pytest.mark.parametrize(
    "columns",
    [
        ["id", "url"],
        ["id", "url", "image_url", "image_url_"],
        ["url"],
        ["id", "no", "on", "null", "~", "1", "1e3", "2010-01-01", "true"],
        ["id", "a: b", "#c", "- d", "{e}", "[f", "&g", "*h", "!i", "%j", "@k", "`l", "|", ">", "'m", '"n', "\\o", "p\\n"],
        ["a\nb", "c\r\nd: e", "f\tg"],
        ["{id}", "x"],
        ["}", "image"],
        ["\u2028", "\x85", "\ufeff", "\x7f", "\xa0", "\x01", "\x1b[31m", "😀", "\ue000", "\uffff", "e\u0301"],
        [" id ", "\tid"],
        ["%", "x" * 5000],
    ],
    ids=range(11),
)
@pytest.mark.parametrize("with_images", [True, False])
def test_odd_column_names(here: Path, columns: list[str], with_images: bool) -> None:
    for first in columns[:4]:  # each in turn is the one that the file speaks of
        if with_images:
            (here / "images").mkdir(exist_ok=True)
        others = [column for column in columns if column != first]
        job = init(here, [first, *others])
        assert job.spec.source.id_column in columns and job.spec.output.url_column not in columns
        assert job.spec.output.url_column == "url" or "url" in columns
        (here / "rows.yaml").unlink()


@settings(max_examples=100, deadline=None)
@given(
    columns=st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6), min_size=1, max_size=4, unique=True
    ),
    images=st.booleans(),
)
@example(["image\n", "url"], True)
def test_any_header(tmp_path_factory: pytest.TempPathFactory, columns: list[str], images: bool) -> None:
    folder = tmp_path_factory.mktemp("any")
    if images:
        (folder / "img").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(scaffold, "_guess_delimiter", lambda _: ",")  # a guess may be wrong
        init(folder, columns)


def test_what_is_there_is_not_written_over(here: Path) -> None:
    path = write_csv(here / "rows.csv", ["id"])
    (here / "rows.yaml").write_text("mine")
    with pytest.raises(JobError) as caught:
        scaffold.write(path)
    assert caught.value.reason is JobReason.INVALID_SPEC and "exists" in caught.value.message
    assert (here / "rows.yaml").read_text() == "mine"


def test_a_csv_that_cannot_be_used(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = write_csv(tmp_path_factory.mktemp("elsewhere") / "rows.csv", ["id"])
    (here / "link.csv").symlink_to(elsewhere)
    (here / "empty.csv").touch()
    for path, reason in [
        (here / "gone.csv", JobReason.INPUT_NOT_FOUND),
        (here, JobReason.INPUT_NOT_FOUND),
        (here / "empty.csv", JobReason.INPUT_INVALID),
        (elsewhere, JobReason.INVALID_SPEC),
        (here / "link.csv", JobReason.INVALID_SPEC),
    ]:
        with pytest.raises(JobError) as caught:
            scaffold.write(path)
        assert caught.value.reason is reason
    assert sorted(path.name for path in here.iterdir()) == ["empty.csv", "link.csv"]


def test_a_spreadsheets_csv(here: Path) -> None:
    (here / "fotos").mkdir()
    Image.new("RGB", (3, 4)).save(here / "fotos/A-1.JPG", "JPEG")
    text = "SKU;Bezeichnung;Bild\nA-0;Größe 38;fotos/A-0.JPG\nA-1;Größe 39;fotos/A-1.JPG\n"
    (here / "artikel.csv").write_bytes(text.encode("cp1252"))
    source = jobfile.load(scaffold.write(here / "artikel.csv"))[0].spec.source
    assert (source.id_column, source.delimiter, source.encoding, source.images) == ("SKU", ";", "cp1252", "{Bild}")
