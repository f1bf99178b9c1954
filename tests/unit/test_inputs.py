"""Reading images below the data root and nothing else, and the paths of a job below its roots."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelinejob import model
from pipelinejob.inputs import ImageReader
from pipelinejob.paths import csv_path, data_root, make_folder, output_path
from pipelinejob.reasons import JobError, JobReason, RowFailure, RowReason

LIMIT = 1000
SECRET = b"SECRET"


def make_tree(top: Path) -> Path:
    """A data root with files, links and odd things in it, and beside it what no row may see."""
    root = top / "root"
    (root / "img" / "deep").mkdir(parents=True)
    (top / "rootless").mkdir()
    for name in ("a.jpg", "img/a.jpg", "img/deep/a.jpg", "img/ä b.jpg", "img/...jpg"):
        (root / name).write_bytes(f"inside {name}".encode())
    (top / "secret.jpg").write_bytes(SECRET)
    (top / "rootless" / "secret.jpg").write_bytes(SECRET)  # beside the root, and its name begins like the root's
    for link, target in {
        "img/in.jpg": "../a.jpg",
        "img/in-absolute.jpg": str(root / "a.jpg"),
        "img/twice.jpg": "in.jpg",
        "folder-in": "img",
        "img/out.jpg": "../../secret.jpg",
        "img/out-twice.jpg": "out.jpg",
        "folder-out": "..",
        "folder-beside": "../rootless",
        "folder-twice": "folder-out",
        "img/out-and-in.jpg": "../../root/a.jpg",
        "img/loop.jpg": "loop.jpg",
        "loop": "loop",
        "img/gone.jpg": "nowhere.jpg",
        "img/to-folder": "deep",
        "img/zero": "/dev/zero",
    }.items():
        (root / link).symlink_to(target)
    os.mkfifo(root / "pipe.jpg")
    (root / "img" / "to-pipe.jpg").symlink_to("../pipe.jpg")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


def refusal(root: Path, path: str, limit: int = LIMIT) -> RowFailure:
    with pytest.raises(RowFailure) as caught:
        ImageReader(root, limit).read(path)
    assert caught.value.message.startswith(path) and caught.value.function == ""
    return caught.value


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("img//a.jpg", "img/a.jpg"),
        ("img/./deep/a.jpg", "img/deep/a.jpg"),
        ("img/ä b.jpg", "img/ä b.jpg"),
        ("img/...jpg", "img/...jpg"),
        ("img/../a.jpg", "a.jpg"),
        ("img/in.jpg", "a.jpg"),
        ("img/in-absolute.jpg", "a.jpg"),
        ("img/twice.jpg", "a.jpg"),
        ("folder-in/deep/a.jpg", "img/deep/a.jpg"),
        ("img/to-folder/a.jpg", "img/deep/a.jpg"),
    ],
)
def test_files_and_links_inside(root: Path, path: str, name: str) -> None:
    assert ImageReader(root, LIMIT).read(path) == f"inside {name}".encode()


@pytest.mark.parametrize(
    "path",
    [
        "../secret.jpg", "../rootless/secret.jpg", "img/../../secret.jpg", "./../secret.jpg", "..", "img/../..", "../", "/etc/passwd",
        "//etc/passwd",
        "/", "img/out.jpg", "img/out-twice.jpg", "img/zero", "folder-out/secret.jpg", "folder-twice/secret.jpg", "folder-beside/secret.jpg",
        "folder-in/../../secret.jpg", "../root/a.jpg", "img/../../root/a.jpg", "../gone.jpg", "/gone/gone.jpg", "folder-out/gone.jpg",
    ],
)  # fmt: skip
def test_ways_out(root: Path, path: str) -> None:
    failure = refusal(root, path)
    assert (failure.reason, failure.message) == (RowReason.IMAGE_NOT_FOUND, f"{path}: outside the data root")


def test_absolute_paths_are_refused_even_where_they_lead_inside(root: Path) -> None:
    """A row's outcome may not depend on where the data root is mounted."""
    assert refusal(root, f"{root}/a.jpg").message == f"{root}/a.jpg: outside the data root"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("gone.jpg", "no such file"),
        ("gone/gone.jpg", "no such file"),
        ("a.jpg/a.jpg", "no such file"),
        ("img/gone.jpg", "no such file"),
        ("x" * 300, "no such file: the name is too long"),
        ("img/" + "é" * 200 + ".jpg", "no such file: the name is too long"),
        ("x" * 300 + "/a.jpg", "no such file: the name is too long"),
        ("y/" * 3000 + "a.jpg", "no such file: the name is too long"),
        ("img/loop.jpg", "too many symbolic links"),
        ("loop/a.jpg", "too many symbolic links"),
        ("", "is a folder"),
        (".", "is a folder"),
        ("img", "is a folder"),
        ("img/", "is a folder"),
        ("img/..", "is a folder"),
        ("img/to-folder", "is a folder"),
        ("pipe.jpg", "is not a regular file"),
        ("img/to-pipe.jpg", "is not a regular file"),
        ("img\\a.jpg", "no such file"),
        ("http://host/a.jpg", "addresses are not supported yet, only files below the data root"),
        ("https://host/a.jpg", "addresses are not supported yet, only files below the data root"),
    ],
)
@pytest.mark.timeout(10)  # a named pipe would wait for a writer
def test_what_is_no_image_file(root: Path, path: str, why: str) -> None:
    failure = refusal(root, path)
    assert (failure.reason, failure.message) == (RowReason.IMAGE_NOT_FOUND, f"{path}: {why}")


def test_a_socket(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        assert refusal(root, "socket.jpg").message == "socket.jpg: is not a regular file"


def test_no_permission_is_the_rows_and_a_failing_storage_is_not(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_with(number: int) -> None:
        def fail(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "open", fail)

    for number in (errno.EACCES, errno.EPERM):  # root may read everything, so the system is made to say no
        fails_with(number)
        failure = refusal(root, "a.jpg")
        assert (failure.reason, failure.message) == (RowReason.IMAGE_NOT_FOUND, "a.jpg: no permission to read it")
    for number in (errno.EIO, errno.EMFILE, errno.ESTALE):
        fails_with(number)
        with pytest.raises(OSError):
            ImageReader(root, LIMIT).read("a.jpg")


def test_max_bytes_to_the_byte(root: Path) -> None:
    for size in (0, 1, LIMIT - 1, LIMIT):
        (root / "big.jpg").write_bytes(b"x" * size)
        assert ImageReader(root, LIMIT).read("big.jpg") == b"x" * size
    (root / "big.jpg").write_bytes(b"x" * (LIMIT + 1))
    failure = refusal(root, "big.jpg")
    assert (failure.reason, failure.message) == (RowReason.IMAGE_TOO_LARGE, "big.jpg: 1001 bytes, more than source.maxBytes 1000")
    (root / "img" / "big.jpg").symlink_to("../big.jpg")
    assert refusal(root, "img/big.jpg").reason is RowReason.IMAGE_TOO_LARGE


def test_short_reads_and_a_file_that_grows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: reads(descriptor, min(size, 3)))
    assert ImageReader(root, LIMIT).read("a.jpg") == b"inside a.jpg"

    def grow(descriptor: int, size: int) -> bytes:
        with open(root / "a.jpg", "ab") as file:
            file.write(b"x" * 400)
        return reads(descriptor, size)

    monkeypatch.setattr(os, "read", grow)
    failure = refusal(root, "a.jpg")
    assert (failure.reason, failure.message) == (RowReason.IMAGE_TOO_LARGE, "a.jpg: more than source.maxBytes 1000 bytes")


def test_no_descriptor_is_left_open(root: Path) -> None:
    reader = ImageReader(root, 5)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for path in ("a.jpg", "img", "pipe.jpg", "img/in.jpg", "gone.jpg", "img/out.jpg"):
        with pytest.raises(RowFailure):
            reader.read(path)
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)


def test_a_root_that_is_a_link_or_the_top(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("root")
    assert ImageReader(tmp_path / "link", LIMIT).read("img/in.jpg") == b"inside a.jpg"
    assert ImageReader(Path("/"), LIMIT).read(str(root / "a.jpg").lstrip("/")) == b"inside a.jpg"


parts = st.sampled_from(
    ["..", ".", "", "img", "deep", "a.jpg", "root", "rootless", "secret.jpg", "folder-in", "folder-out", "folder-beside", "folder-twice",
     "to-folder", "in.jpg", "out.jpg", "out-twice.jpg", "out-and-in.jpg", "loop", "gone.jpg", "pipe.jpg", "~", "*", "\ud7ff", "etc",
     "passwd"]
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(pieces=st.lists(parts, max_size=6), prefix=st.sampled_from(["", "", "", "/", "TOP/", "TOP/root/"]))
def test_no_path_reads_a_file_outside(tmp_path_factory: pytest.TempPathFactory, pieces: list[str], prefix: str) -> None:
    top = tmp_path_factory.getbasetemp() / "tree"
    if not top.exists():
        top.mkdir()
        make_tree(top)
    path = prefix.replace("TOP", str(top)) + "/".join(pieces)
    reader = ImageReader(top / "root", LIMIT)
    answers = []
    for _ in range(2):  # what a folder was found to be is remembered, and may not change the answer
        try:
            answers.append(reader.read(path))
        except RowFailure as failure:
            assert failure.reason is RowReason.IMAGE_NOT_FOUND
            answers.append(failure.message.encode())
        else:
            assert answers[-1].startswith(b"inside") and not prefix
    assert answers[0] == answers[1] and SECRET not in answers


# --- the CSV and the output folder ------------------------------------------------------------------------------------


def job(**changes: Any) -> model.PipelineJob:
    source = {"csv": changes.pop("csv", "rows.csv"), "images": changes.pop("images", None)}
    return model.parse(
        {
            "apiVersion": model.API_VERSION,
            "kind": model.KIND,
            "metadata": {"name": "job"},
            "spec": {"source": source, "output": {"path": changes.pop("output", None)}},
        }
    )


def error(call: Any, *arguments: object) -> JobError:
    with pytest.raises(JobError) as caught:
        call(*arguments)
    return caught.value


def test_data_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("root")
    assert data_root(str(tmp_path / "link")) == root.resolve()
    for name in ("gone", "secret.jpg", "x" * 300, "root/loop"):
        assert error(data_root, str(tmp_path / name)).reason is JobReason.INPUT_NOT_FOUND


def test_csv_path(root: Path) -> None:
    root = root.resolve()
    (root / "rows.csv").write_text("id\n")
    (root / "link.csv").symlink_to("img/a.jpg")
    for name in ("rows.csv", "./rows.csv", "link.csv", "img/in-absolute.jpg"):
        assert csv_path(job(csv=name), root).read_bytes()
    for name in ("folder-out/secret.jpg", "img/out.jpg", "folder-beside/secret.jpg"):
        refused = error(csv_path, job(csv=name), root)
        assert refused.reason is JobReason.INVALID_SPEC and "leads outside the data root" in refused.message
    for name in ("gone.csv", "img", "loop", "pipe.jpg", "x" * 300, "a.jpg/b", "loop/rows.csv", "y/" * 3000 + "z"):
        refused = error(csv_path, job(csv=name), root)
        assert refused.reason is JobReason.INPUT_NOT_FOUND and refused.message.startswith("spec.source.csv: ")


def test_output_path(root: Path) -> None:
    root = root.resolve()
    assert output_path(job(), root, root) == root / "output/default/job"
    assert output_path(job(output="./out//x/"), root, root) == root / "out/x"
    assert output_path(job(output="folder-in/out"), root, root) == root / "folder-in/out"
    for long in ("x" * 256, "é" * 128 + "/y", "x/" * 1900):
        assert "is too long" in error(output_path, job(output=long), root, root).message
    for wrong, why in [
        ("folder-out/x", "leads outside"),
        ("folder-beside", "leads outside"),
        (".", "is or holds the input"),
    ]:
        refused = error(output_path, job(output=wrong), root, root)
        assert refused.reason is JobReason.INVALID_SPEC and refused.message.startswith("spec.output.path: ") and why in refused.message
    for wrong in ("img", "img/deep", "img/deep/out", "folder-in/deep/out", "img/to-folder"):
        refused = error(output_path, job(output=wrong, images="img/deep/{id}.jpg"), root, root)
        assert refused.reason is JobReason.INVALID_SPEC and "is inside or above the input folder img/deep" in refused.message
    assert output_path(job(output="img/out", images="img/deep/{id}.jpg"), root, root) == root / "img/out"
    assert output_path(job(output="out", images="loop/{id}.jpg"), root, root) == root / "out"
    assert "is or holds the input" in error(output_path, job(output="folder-in", csv="img/in.csv"), root, root).message


def test_an_output_inside_another_jobs_output(root: Path) -> None:
    root = root.resolve()
    make_folder(root / "out", root)
    (root / "out" / ".pipelinejob" / "owner.json").write_text('{"namespace": "shop", "name": "other"}')
    assert output_path(job(output="out"), root, root) == root / "out"
    assert "is inside the output of the job shop/other" in error(output_path, job(output="out/x/y"), root, root).message


def test_make_folder(root: Path) -> None:
    make_folder(root / "out" / "x", root)
    make_folder(root / "out" / "x", root)
    assert os.listdir(root / "out" / "x") == [".pipelinejob"] and os.listdir(root / "out" / "x" / ".pipelinejob") == []
    for wrong in ("a.jpg", "a.jpg/x", "x" * 300, "loop"):
        refused = error(make_folder, root / wrong, root)
        assert refused.reason is JobReason.INVALID_SPEC and refused.message.startswith("spec.output.path: ")
