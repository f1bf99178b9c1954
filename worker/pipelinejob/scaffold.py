"""A commented job file made from a CSV's header."""

from __future__ import annotations

import codecs
import csv as csv_
import re
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

from pipelinejob.header import read_header
from pipelinejob.model import MAX_NAME
from pipelinejob.reasons import JobError, JobReason

_LOOKED_AT, _ROWS_LOOKED_AT = 1 << 24, 20  # bytes, rows
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_IMAGE_COLUMNS = ("image", "image_path", "imagepath", "filename", "file_name", "file", "path", "img", "picture", "photo")


def write(csv: Path) -> Path:
    """Writes `<name>.yaml` into the current directory and returns its path.

    Raises:
        JobError: the CSV cannot be read, lies outside the current directory, or the file exists.
    """
    delimiter, encoding = _guess_delimiter(csv), _guess_encoding(csv)
    header = read_header(csv, delimiter=delimiter, encoding=encoding)
    here = Path.cwd()
    try:
        relative = csv.resolve().relative_to(here.resolve())
    except ValueError:
        raise JobError(
            JobReason.INVALID_SPEC, f"{csv} is not below {here}: change to a folder above it, which is the data root then"
        ) from None
    columns = header.columns
    id_column = next((name for wanted in ("id", "ID", "Id") for name in columns if name == wanted), None)
    id_column = id_column or next((name for name in columns if re.search(r"(^|_)(id|sku|key|code)$", name, re.I)), columns[0])
    name = re.sub(r"[^a-z0-9]+", "-", csv.stem.lower()).strip("-")[:MAX_NAME].strip("-") or "job"
    path = here / f"{name}.yaml"
    try:
        with open(path, "x", encoding="utf-8") as file:
            images = _guess_images(relative, columns, id_column, _first_rows(csv, delimiter, encoding))
            file.write(_text(name, relative, columns, id_column, images, delimiter, encoding))
    except FileExistsError:
        raise JobError(JobReason.INVALID_SPEC, f"{path} exists: remove it, or edit it") from None
    return Path(path.name)


def _guess_delimiter(csv: Path) -> str:
    try:
        with open(csv, encoding="utf-8", errors="replace") as file:
            line = file.readline(65_536)
    except OSError:
        return ","  # read_header says what is wrong with the file
    return max(",;\t|", key=line.count) if any(char in line for char in ",;\t|") else ","


def _guess_encoding(csv: Path) -> str:
    """utf-8 where the first 16 MiB are; else what a spreadsheet of Western Europe writes, or at least reads any byte."""
    try:
        with open(csv, "rb") as file:
            start = file.read(_LOOKED_AT)
    except OSError:
        return "utf-8"  # read_header says what is wrong with the file
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder(encoding)().decode(start)  # its last character may be cut
            return encoding
    return "latin-1"


def _first_rows(path: Path, delimiter: str, encoding: str) -> list[list[str]]:
    with open(path, encoding=encoding, errors="replace", newline="") as file, suppress(csv_.Error):
        return list(islice(csv_.reader(file, delimiter=delimiter), 1, 1 + _ROWS_LOOKED_AT))
    return []


def _guess_images(csv: Path, columns: tuple[str, ...], id_column: str, rows: list[list[str]]) -> str | None:
    """A column whose cells name images that are there; images/{id}.jpg where such a folder lies beside the CSV; a column that sounds so."""
    for index, name in enumerate(columns):
        cells = [row[index] for row in rows if len(row) == len(columns)]
        cells = [cell for cell in cells if cell.lower().endswith(_IMAGE_ENDINGS) and not cell.startswith("/")]
        if not _can_be_filled_in(name):
            continue
        for base in dict.fromkeys((csv.parent, Path())):
            if any((base / cell).is_file() for cell in cells):
                parent = base.as_posix()
                return f"{{{name}}}" if parent == "." else f"{_literal(parent)}/{{{name}}}"
    for folder in ("images", "imgs", "img", "photos", "pictures"):
        beside = csv.parent / folder
        if beside.is_dir() and _can_be_filled_in(id_column):
            found = next((item.suffix for item in beside.iterdir() if item.suffix.lower() in _IMAGE_ENDINGS), ".jpg")
            return f"{_literal(beside.as_posix())}/{{{id_column}}}{found}"
    column = next((name for name in columns if name.lower() in _IMAGE_COLUMNS), None)
    if column is None:
        return None
    parent = csv.parent.as_posix()
    return f"{{{column}}}" if parent == "." else f"{_literal(parent)}/{{{column}}}"


def _literal(folder: str) -> str:
    """A folder as a template has it."""
    return folder.replace("{", "{{").replace("}", "}}")


def _can_be_filled_in(column: str) -> bool:
    """Whether a template can name the column."""
    return bool(column) and "{" not in column and "}" not in column


def _text(name: str, csv: Path, columns: tuple[str, ...], id_column: str, images: str | None, delimiter: str, encoding: str) -> str:
    source = [f"    csv: {_yaml(csv.as_posix())}                # relative to the data root (--data, by default this folder)"]
    if images:
        source.append(f"    images: {_yaml(images)}                # one image a row; columns in braces")
    else:
        column = id_column if _can_be_filled_in(id_column) else "column"
        source.append(f"    # images: {_yaml(f'images/{{{column}}}.jpg')}    # one image a row; without it, rows have no images")
    source.append(f"    idColumn: {_yaml(id_column)}                # names the output files")
    if delimiter != ",":
        source.append(f"    delimiter: {_yaml(delimiter)}")
    if encoding != "utf-8":
        source.append(f"    encoding: {encoding}                # it is not UTF-8; look whether names come out right")
    example = next((column for column in columns if column != id_column), id_column)
    source.append(f"    # where: {{{_yaml(example)}: [some value, another]}}    # only these rows; also gte lte gt lt ne in notIn contains")
    chain = (
        "  functions:                   # in order; 'pipelinejob functions' lists them\n"
        "  - {name: random_crop, params: {ratio: 0.8}}\n"
        "  - {name: resize, params: {width: 256, height: 256}}\n"
        if images
        else "  functions: []                # in order; 'pipelinejob functions' lists them\n"
    )
    # A column `url` of the CSV's own leaves another name for ours.
    free = next(column for column in (f"image_url{'_' * number}" for number in count()) if column not in columns)
    url_column = f", urlColumn: {free}" if "url" in columns else ""
    return (
        f"# Columns of {_printable(csv.name)}: {', '.join(map(_printable, columns))}\n"
        "apiVersion: pipelinejob.dev/v1alpha1\n"
        "kind: PipelineJob\n"
        f"metadata: {{name: {_yaml(name)}}}\n"
        "spec:\n"
        "  source:\n" + "\n".join(source) + "\n" + chain + f"  output: {{path: out/{name}, format: jpeg, quality: 75{url_column}}}\n"
        "  # data: {persistentVolumeClaim: {claimName: catalogue}}    # in a cluster: the claim that holds the CSV and the images\n"
        "  parallelism: 2               # processes on a laptop, pods in a cluster\n"
        "  failurePolicy: {maxFailedRowsPercent: 5}    # above this the job is Failed\n"
    )


def _yaml(text: str) -> str:
    """A string as YAML: plain where nothing can be misread, else in quotes."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) and text.lower() not in (
        "y",
        "n",
        "yes",
        "no",
        "on",
        "off",
        "true",
        "false",
        "null",
    )
    return text if plain else '"' + _printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _printable(text: str) -> str:
    """The text with YAML's escapes for what cannot stand in a line of it."""
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)
