"""The generator of the sample catalogue: its layout, its bad rows, and that the committed sample is what it draws."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "data/generate.py"
SAMPLE = ROOT / "data/fashion"
COLUMNS = ["id", "gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage", "productDisplayName"]
BAD = ("--corrupt", "8", "--missing", "5", "--malformed", "4")


def run(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), "--out", str(out), *options], capture_output=True, text=True)


def made(out: Path, *options: str) -> Path:
    done = run(out, *options)
    assert done.returncode == 0, done.stderr
    return out


def records(folder: Path) -> list[list[str]]:
    with (folder / "styles.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == COLUMNS
    return rows


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return found


def ids(folder: Path, kind: str) -> set[str]:
    return {str(entry["id"]) for entry in expected(folder)[kind]}


def load(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        image.load()
        return image


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("catalogue") / "new", "--rows", "60", "--seed", "3", "--expected", *BAD)


def test_the_layout_is_kaggles(catalogue: Path) -> None:
    rows = records(catalogue)
    good = [row for row in rows if len(row) == len(COLUMNS)]
    assert len(rows) == 60
    assert {path.name for path in catalogue.iterdir()} == {"styles.csv", "images", "expected.json"}
    for row in good:
        assert row[6] in {"Summer", "Fall", "Winter", "Spring"}
        assert 2007 <= int(row[7]) <= 2018
        assert row[1] in row[9] and row[5] in row[9]


def test_ids_are_unique_with_gaps_and_in_no_order(catalogue: Path) -> None:
    numbers = [int(row[0]) for row in records(catalogue)]
    assert len(set(numbers)) == 60
    assert numbers != sorted(numbers)
    assert max(numbers) - min(numbers) > 600


def test_images_are_jpegs_of_the_size_asked_for(catalogue: Path) -> None:
    corrupt = ids(catalogue, "corrupt")
    for path in (catalogue / "images").iterdir():
        if path.stem not in corrupt:
            image = load(path.read_bytes())
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (60, 80))
            assert min(image.getpixel((0, 0))) > 235  # type: ignore[arg-type]


def test_the_totals_are_those_asked_for(catalogue: Path) -> None:
    totals = {"rows": 60, "images": 55, "corrupt": 8, "missing": 5, "malformed": 4, "good": 43}
    assert expected(catalogue)["totals"] == totals
    assert len(list((catalogue / "images").iterdir())) == 55


def test_the_kinds_of_bad_rows_are_disjoint_and_numbered_as_in_the_csv(catalogue: Path) -> None:
    entries = [entry for kind in ("corrupt", "missing", "malformed") for entry in expected(catalogue)[kind]]
    rows = records(catalogue)
    assert len({entry["row"] for entry in entries}) == len(entries)
    assert all(rows[entry["row"]][0] == str(entry["id"]) for entry in entries)


def test_corrupt_images_cannot_be_decoded_each_in_its_way(catalogue: Path) -> None:
    entries = expected(catalogue)["corrupt"]
    assert Counter(entry["how"] for entry in entries) == {"truncated": 2, "empty": 2, "text": 2, "header": 2}
    for entry in entries:
        data = (catalogue / f"images/{entry['id']}.jpg").read_bytes()
        assert (data == b"") == (entry["how"] == "empty")
        with pytest.raises(OSError):
            load(data)


def test_missing_images_are_missing_and_no_others(catalogue: Path) -> None:
    names = {path.stem for path in (catalogue / "images").iterdir()}
    assert {row[0] for row in records(catalogue)} - names == ids(catalogue, "missing")


def test_malformed_rows_have_eleven_fields_and_a_good_image(catalogue: Path) -> None:
    malformed = ids(catalogue, "malformed")
    assert {row[0] for row in records(catalogue) if len(row) != 10} == malformed
    assert all(len(row) == 11 for row in records(catalogue) if row[0] in malformed)
    for id in malformed:
        load((catalogue / f"images/{id}.jpg").read_bytes())


def test_the_same_options_give_the_same_bytes(catalogue: Path, tmp_path: Path) -> None:
    again = made(tmp_path / "again", "--rows", "60", "--seed", "3", "--expected", *BAD)
    assert contents(again) == contents(catalogue)


def test_another_seed_gives_another_catalogue(catalogue: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "other", "--rows", "60", "--seed", "4")
    assert records(other) != records(catalogue)
    assert not (other / "expected.json").exists()


def test_the_metadata_is_consistent(tmp_path: Path) -> None:
    folder = made(tmp_path / "many", "--rows", "1500", "--distinct", "1500", "--size", "16x16")
    rows = records(folder)
    places: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        places.setdefault(row[4], set()).add((row[2], row[3]))
    assert all(len(found) == 1 for found in places.values())
    assert {row[1] for row in rows if row[4] in {"Dresses", "Skirts"}} == {"Women", "Girls"}
    assert {row[1] for row in rows if row[4] == "Heels"} == {"Women"}
    assert len(places) >= 25
    assert max(Counter(row[9].split()[0] for row in rows).values()) < 300  # no brand has the whole shop


def test_distinct_images_are_linked_and_bad_ones_are_files_of_their_own(tmp_path: Path) -> None:
    folder = made(tmp_path / "linked", "--rows", "300", "--distinct", "5", "--corrupt", "1%", "--missing", "2", "--expected")
    assert expected(folder)["totals"]["corrupt"] == 3
    corrupt = ids(folder, "corrupt")
    paths = [path for path in (folder / "images").iterdir() if path.stem not in corrupt]
    assert len(paths) == 295
    assert len({path.read_bytes() for path in paths}) == 5
    assert len({path.stat().st_ino for path in paths}) == 5
    for id in corrupt:
        with pytest.raises(OSError):
            load((folder / f"images/{id}.jpg").read_bytes())


def test_photographs_are_large_files(tmp_path: Path) -> None:
    folder = made(tmp_path / "large", "--rows", "2", "--size", "1080x1440")
    for path in (folder / "images").iterdir():
        assert load(path.read_bytes()).size == (1080, 1440)
        assert 100_000 < path.stat().st_size < 400_000


def test_no_rows_give_a_header(tmp_path: Path) -> None:
    folder = made(tmp_path / "none", "--rows", "0")
    assert (folder / "styles.csv").read_text() == ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--corrupt", "500"], "--corrupt 500: more than the 300 rows"),
        (["--missing", "101%"], "--missing 101%: more than the 300 rows"),
        (["--corrupt", "200", "--malformed", "150"], "--corrupt 200 + --malformed 150: together more than the 300 rows"),
        (["--corrupt", "some"], "'some': expected a count as 20 or a share as 1%"),
        (["--corrupt", "1.5"], "'1.5': expected a count as 20 or a share as 1%"),
        (["--size", "60"], "'60': expected WIDTHxHEIGHT, each from 16 to 8000, as 60x80"),
        (["--distinct", "0"], "--distinct 0: at least one image must be drawn"),
        (["--seed", "-1"], "'-1': expected a whole number, 0 or more"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(options: list[str], sentence: str, tmp_path: Path) -> None:
    done = run(tmp_path / "out", "--rows", "300", *options)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_replaced_only_by_force(tmp_path: Path) -> None:
    made(tmp_path, "--rows", "9", "--seed", "1", "--distinct", "2", "--expected")
    (tmp_path / "mine.txt").write_text("mine")
    refused = run(tmp_path, "--rows", "6", "--seed", "2")
    assert refused.returncode == 2
    assert "is not empty; --force replaces the catalogue in it" in refused.stderr
    assert len(records(tmp_path)) == 9
    fresh = made(tmp_path / "fresh", "--rows", "6", "--seed", "2", "--missing", "1")
    wanted = contents(fresh)
    made(tmp_path, "--rows", "6", "--seed", "2", "--missing", "1", "--force")
    found = contents(tmp_path)
    assert {name: data for name, data in found.items() if not name.startswith("fresh/")} == {**wanted, "mine.txt": b"mine"}


def documented() -> list[str]:
    """The options that data/README.md gives for data/fashion."""
    found = re.search(r"python data/generate\.py --out data/fashion (.+)", (ROOT / "data/README.md").read_text(encoding="utf-8"))
    assert found is not None
    return shlex.split(found[1])


def test_the_committed_sample_is_what_the_documented_command_draws(tmp_path: Path) -> None:
    again = contents(made(tmp_path / "fashion", *documented()))
    sample = contents(SAMPLE)
    assert set(again) == set(sample)
    assert again["styles.csv"] == sample["styles.csv"]
    assert again["expected.json"] == sample["expected.json"]
    assert [name for name in sample if again[name] != sample[name]] == [], "drawn by another Pillow than the locked one?"


def test_the_committed_sample_is_small() -> None:
    assert sum(len(data) for data in contents(SAMPLE).values()) < 800_000


def test_the_sample_has_what_the_example_jobs_look_for() -> None:
    good = [row for row in records(SAMPLE) if len(row) == 10]
    men = [row for row in good if row[1] == "Men"]
    assert len([row for row in men if row[6] == "Fall" and row[7] == "2010"]) == 11
    picked = [row[0] for row in men if row[6] in {"Fall", "Winter"} and int(row[7]) >= 2010]
    assert len(picked) == 62
    failed = len(ids(SAMPLE, "malformed")) + len((ids(SAMPLE, "missing") | ids(SAMPLE, "corrupt")) & set(picked))
    assert failed == 3
    assert 100 * failed / (len(picked) + 2) <= 5  # the default failure budget
