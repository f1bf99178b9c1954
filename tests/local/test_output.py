"""What lies in an output folder: names, folders, the three files, and the same bytes for the same input."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from support.project import Project

ODD_IDS = (
    "plain",
    "with space",
    "100%",
    "a%20b",
    "żółć 🎽",
    'quo"te',
    "com,ma",
    "it's",
    "#hash?",
    "a&b;c",
    "-dash",
    "dots.jpg",
    "~",
    "UPPER",
    "x" * 251,
)


def succeeds(project: Project, *arguments: str) -> None:
    ran = project.run("run", *arguments, "--json")
    assert (ran.code, ran.json["phase"]) == (0, "Complete"), ran.err


def test_nothing_else_is_in_the_output(project: Project) -> None:
    project.catalogue(25, without=[3], broken=[20, 21, 22, 23])
    job = project.job(sharding={"batchRows": 4, "rowsPerShard": 8}, source={"where": {"gender": "Men"}}, output={"path": "deep/er/out"})
    before = {name: digest for name, digest in project.everything().items() if not name.startswith((".pipelinejob", "deep"))}
    succeeds(project, job)

    output = project.root / "deep/er/out"
    assert sorted(path.name for path in output.iterdir()) == [".pipelinejob", "failures.csv", "images", "manifest.json", "metadata.csv"]
    rows = project.table("deep/er/out/metadata.csv")
    assert sorted(path.relative_to(output).as_posix() for path in (output / "images").rglob("*") if path.is_file()) == sorted(
        row["url"] for row in rows
    )
    folders = sorted(path.name for path in (output / "images").iterdir())
    assert folders == sorted({f"{(int(row['id']) - 1000) // 4 * 4:09d}" for row in rows})
    for row in rows:
        assert row["url"] == f"images/{(int(row['id']) - 1000) // 4 * 4:09d}/{row['id']}.jpg"
    after = {name: digest for name, digest in project.everything().items() if not name.startswith((".pipelinejob", "deep"))}
    assert after == before, "something outside the output was touched"
    assert not [path for path in (output / ".pipelinejob").rglob("open-*")]


def test_odd_ids_are_kept_as_they_are(project: Project) -> None:
    project.images(*ODD_IDS)
    project.write_csv([(id, f"n,{number}") for number, id in enumerate(ODD_IDS)], ("id", "name"))
    succeeds(project, project.job())
    rows = project.table("out/job/metadata.csv")
    assert [row["id"] for row in rows] == list(ODD_IDS)
    assert [row["url"] for row in rows] == [f"images/000000000/{id}.jpg" for id in ODD_IDS]
    for row in rows:
        with Image.open(project.root / "out/job" / row["url"]) as image:
            assert image.size == (16, 16)
    assert "%25" not in project.text("out/job/metadata.csv")


def minimally_quoted(cell: str) -> str:
    """A cell as RFC 4180 wants it: quotes only where they are needed."""
    quotes = any(char in cell for char in ',"\r\n')
    return '"' + cell.replace('"', '""') + '"' if quotes else cell


def test_metadata_is_in_the_order_of_the_csv_with_plain_bytes(project: Project) -> None:
    project.catalogue(40)
    rows = project.table("rows.csv")
    rows.reverse()
    rows[3]["name"] = 'a "quoted", name\r\nof two lines'
    rows[4]["name"] = " spaces "
    rows[5]["name"] = "cr\rinside"
    with open(project.root / "rows.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    succeeds(project, project.job(sharding={"batchRows": 3, "rowsPerShard": 6}, parallelism=3))

    data = (project.root / "out/job/metadata.csv").read_bytes()
    assert not data.startswith(b"\xef\xbb\xbf") and data.endswith(b"\n") and not data.endswith(b"\r\n")
    expected = [[*rows[0], "url"]]
    expected += [[*row.values(), f"images/{number // 3 * 3:09d}/{row['id']}.jpg"] for number, row in enumerate(rows)]
    assert list(csv.reader(io.StringIO(data.decode(), newline=""))) == expected
    assert data.decode() == "".join(",".join(map(minimally_quoted, cells)) + "\n" for cells in expected)


def test_rows_without_images(project: Project) -> None:
    project.write_csv([("a/b", "1"), ("", "2"), ("a/b", "3")], ("id", "name"))
    succeeds(project, project.job(source={"images": None}, functions=[]))
    assert project.text("out/job/metadata.csv") == "id,name,url\na/b,1,\n,2,\na/b,3,\n"
    assert [name for name in project.tree("out/job")] == ["failures.csv", "manifest.json", "metadata.csv"]
    manifest = json.loads(project.text("out/job/manifest.json"))
    assert [(batch["first"], batch["images"], batch["bytes"]) for batch in manifest["batches"]] == [(0, 0, 0)]


def test_no_functions_copy_the_bytes(project: Project) -> None:
    project.catalogue(5, broken=[2])
    project.file("img/1003.jpg", b"")
    succeeds(project, project.job(functions=[]))
    for row in project.table("out/job/metadata.csv"):
        assert (project.root / "out/job" / row["url"]).read_bytes() == (project.root / f"img/{row['id']}.jpg").read_bytes()
    assert {row: reason for row, (reason, _) in project.failed().items()} == {2: "ImageInvalid", 3: "ImageInvalid"}


@pytest.mark.parametrize(("format", "extension", "pillow"), [("jpeg", "jpg", "JPEG"), ("png", "png", "PNG"), ("webp", "webp", "WEBP")])
def test_output_formats(project: Project, format: str, extension: str, pillow: str) -> None:
    project.images("1")
    half = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    half.save(project.root / "img/2.png")
    half.save(project.root / "img/2.jpg", "PNG")
    project.write_csv([(1,), (2,)], ("id",))
    resize = [{"name": "resize", "params": {"width": 8, "height": 6}}]
    succeeds(project, project.job(functions=resize, output={"path": "out/job", "format": format, "background": "#ff0000"}))
    urls = [row["url"] for row in project.table("out/job/metadata.csv")]
    assert urls == [f"images/000000000/1.{extension}", f"images/000000000/2.{extension}"]
    for url in urls:
        with Image.open(project.root / "out/job" / url) as image:
            assert (image.format, image.size) == (pillow, (8, 6))
    with Image.open(project.root / "out/job" / urls[1]) as image:
        pixel = image.convert("RGBA").getpixel((3, 3))
    if format == "jpeg":
        assert pixel[0] > 240 and pixel[1] < 15 and pixel[2] < 15
    else:
        assert pixel[3] == 0


def test_the_manifest_has_what_is_promised(project: Project) -> None:
    project.catalogue(10, without=[1, 7])
    succeeds(project, project.job(seed=7, sharding={"batchRows": 5}))
    manifest = json.loads(project.text("out/job/manifest.json"))
    assert set(manifest) == {"job", "input", "functions", "seed", "counts", "files", "batches"}
    assert set(manifest["job"]) == {"name", "digest"} and manifest["job"]["name"] == "job"
    data = (project.root / "rows.csv").read_bytes()
    assert manifest["input"] == {"csv": "rows.csv", "rows": 10, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert [(function["name"], function["params"].get("ratio")) for function in manifest["functions"]] == [
        ("random_crop", 0.8),
        ("resize", None),
    ]
    assert all(function["digest"] for function in manifest["functions"])
    assert manifest["seed"] == 7
    assert manifest["counts"] == {"total": 10, "succeeded": 8, "filtered": 0, "skipped": 0, "failed": 2, "pending": 0}
    for name in ("metadata.csv", "failures.csv"):
        data = (project.root / "out/job" / name).read_bytes()
        assert manifest["files"][name] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for batch in manifest["batches"]:
        assert set(batch) == {"first", "images", "bytes", "imagesSha256", "inputsSha256"}
        folder = project.root / f"out/job/images/{batch['first']:09d}"
        assert batch["images"] == len(list(folder.iterdir()))
        assert batch["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    text = project.text("out/job/manifest.json")
    assert str(project.root) not in text and "T" + ":" not in text
    assert project.run("status", "job", "--json").json["uid"] not in text


def variant(project: Project, root: Path, number: int, **spec: object) -> dict[str, str]:
    """The output of the same job in a copy of the folder, under other circumstances."""
    copy = Project(root, project.environment.get("PIPELINEJOB_DATABASE_URL"))
    copy.environment = dict(project.environment)
    root.mkdir(parents=True)
    copy.catalogue(30, without=[3], broken=[8, 9])
    with open(copy.root / "rows.csv", "a") as file:
        file.write("1030,Men,Fall,2010,Shirt, with a comma\n1004,Men,Fall,2010,again\n")
    copy.write(
        "import os\ndef mark(image, row):\n    if row['id'] == '1011': raise OSError(2, 'no', os.getcwd() + '/x')\n"
        "    if row['id'] == '1012': open('/nowhere/' + os.path.basename(os.getcwd()) + '/x')\n"
        "    if row['id'] == '1013': raise ValueError(repr(object()))\n"
        "    return {'b': {3, }.pop(), 'a': row['name']} if row['year'] != '2009' else None\n",
        "fn.py",
    )
    chain = [
        {"name": "random_crop", "params": {"ratio": 0.7}},
        {"name": "mark", "file": "fn.py"},
        {"name": "resize", "params": {"width": 12, "height": 9}},
    ]
    environment = spec.pop("env", {})
    arguments = spec.pop("arguments", [])
    namespace = spec.pop("namespace", f"space-{number}")
    job = copy.job(functions=chain, **{"sharding": {"batchRows": 4}, **spec})
    path = copy.root / job
    path.write_text(path.read_text().replace("metadata:\n", f"metadata:\n  namespace: {namespace}\n"))
    ran = copy.run("run", job, "--json", *arguments, env=environment)  # type: ignore[misc, arg-type]
    assert ran.code == 0, ran.err
    assert ran.json["rows"]["failed"] == 7 and ran.json["rows"]["skipped"] == 5, ran.json
    return copy.tree(str(Path(ran.json["output"]).relative_to(copy.root)))


def test_same_input_same_bytes(project: Project) -> None:
    base = variant(project, project.root / "base", 0)
    assert len(base) > 15
    others = {
        "four workers, small shards": {"sharding": {"batchRows": 4, "rowsPerShard": 4}, "arguments": ["--workers", "4"]},
        "one worker": {"parallelism": 1, "failurePolicy": {"maxFailedRowsPercent": 50}},
        "another folder with a longer path": {"root": "some/where/else entirely with a long name"},
        "another home, time zone, locale and hash seed": {
            "env": {
                "PIPELINEJOB_HOME": str(project.root / "home"),
                "TZ": "Asia/Tokyo",
                "LC_ALL": "C",
                "PYTHONHASHSEED": "7",
                "PYTHONUTF8": "0",
            }
        },
        "durable": {"output": {"path": "out/job", "fsync": "auto"}, "ttlSecondsAfterFinished": 5, "backoffLimitPerIndex": 1},
    }
    for number, (name, spec) in enumerate(others.items(), 1):
        root = project.root / str(spec.pop("root", f"variant-{number}"))
        assert variant(project, root, number, **spec) == base, name


def test_another_seed_or_batch_size_is_another_output(project: Project) -> None:
    base = variant(project, project.root / "base", 0)
    seeded = variant(project, project.root / "seeded", 1, seed=1)
    assert seeded.keys() == base.keys() and seeded["metadata.csv"] == base["metadata.csv"]
    assert seeded["manifest.json"] != base["manifest.json"]
    changed = [name for name in base if name.startswith("images/") and seeded[name] != base[name]]
    assert len(changed) > 10


def test_the_default_output_folder(project: Project) -> None:
    project.catalogue(1)
    succeeds(project, project.job(output={}))
    assert (project.root / "output/default/job/metadata.csv").exists()


def test_a_template_over_several_columns(project: Project) -> None:
    project.image("a/x-1.jpg")
    project.image("{b}/x-2.jpg")
    project.write_csv([("k1", "a", "1"), ("k2", "{b}", "2"), ("k3", "a", "")], ("key", "dir", "n"))
    succeeds(project, project.job(source={"images": "{dir}/x-{n}.jpg", "idColumn": "key"}))
    assert [row["url"] for row in project.table("out/job/metadata.csv")] == ["images/000000000/k1.jpg", "images/000000000/k2.jpg"]
    assert project.failed() == {2: ("ImageNotFound", "the column 'n' is empty")}


@pytest.mark.parametrize(
    "template", ["img/{id", "img/id}", "{}", "/abs/{id}.jpg", "../{id}.jpg", "http://example.org/{id}.jpg", "https:{id}"]
)
def test_bad_templates_are_refused(project: Project, template: str) -> None:
    project.catalogue(1)
    ran = project.run("run", project.job(source={"images": template}), "--json")
    assert (ran.code, ran.json["reason"]) == (2, "InvalidSpec"), ran
    assert "spec.source.images" in ran.json["message"]
