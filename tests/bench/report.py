"""What was measured, as tables: on the terminal and in docs/benchmarks.md, each beside what was aimed at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from accounting import curve, growth
from chain import CONTENDERS, LABELS, noisy, note, rates, ratios
from common import Spread
from rich.console import Console
from rich.table import Table

Sections = Mapping[str, Mapping[str, Any]]  # by name: {date, about, load, quick, data}
MIB = 2**20

# (contenders of whom the fastest counts, start-up included, at least this on 60x80, on 1080x1440)
AIMS = (
    (("bare",), False, 0.9, 0.9),
    (("pillow",), False, 1.3, 1.8),
    (("daft",), True, 2.3, 3.0),
    (("ray", "ray_images"), True, 3.5, 6.0),
)
PLANNER_AIM, PLANNER_MEMORY, START_AIM, RESIDENT_AIM, FLAT = 0.6, 64 * MIB, 0.35, 90 * MIB, 1.1


class Target(NamedTuple):
    """One thing aimed at, and how it came out; `met` is None when it was not measured."""

    what: str
    wanted: str
    measured: str
    met: bool | None


class Grid(NamedTuple):
    """A table before it is drawn; columns from `numbers` on are numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 1


class Page(NamedTuple):
    """A page under docs/: its sections in their order, each with a title, a table and how it was measured.

    Args:
        file: its name.
        title, introduction: how it begins.
        targets: what was aimed at, from what was measured.
        titles, grids, explanations: by the section's name; an explanation is filled in with its numbers.
        versions: what of machine and versions it tells; none: all.
    """

    file: str
    title: str
    introduction: str
    targets: Callable[[Sections], list[Target]]
    titles: Mapping[str, str]
    grids: Mapping[str, Callable[[Mapping[str, Any]], Grid]]
    explanations: Mapping[str, str | Callable[[Mapping[str, Any]], str]]
    versions: Sequence[str] = ()


# --- Targets -----------------------------------------------------------------------------------------------------------


def targets(sections: Sections) -> list[Target]:
    """All that issue and design ask for, in their order."""
    found = []
    for position, size in enumerate(("60x80", "1080x1440")):
        runs = sections[size]["data"]["runs"] if size in sections else []
        found += [_chain_target(runs, size, *aim[:2], aim[2 + position]) for aim in AIMS]
    for name, each in (("planner", _planner_targets), ("start", _start_targets), ("ledger", _ledger_target), ("million", _million_targets)):
        found += each(sections[name]["data"] if name in sections else None)
    return found


def _chain_target(runs: Sequence[dict[str, Any]], size: str, others: Sequence[str], included: bool, aim: float) -> Target:
    key = "whole" if included else "inside"
    series = {other: values for other in others if (values := ratios(runs, other, key))}
    start = "start-up included" if included else "start-up excluded"
    if not series or noisy(runs, key):
        why = "too noisy to say" if noisy(runs, key) else note(runs, others[0])
        return Target(f"{size}, ours to {LABELS[others[0]]}, {start}", f"≥ {aim:g} ×", why, None)
    fastest = min(series, key=lambda other: Spread.of(series[other]).median)
    spread = Spread.of(series[fastest])
    return Target(f"{size}, ours to {LABELS[fastest]}, {start}", f"≥ {aim:g} ×", f"{_ratio(spread)} ×", spread.median >= aim)


def _planner_targets(data: Mapping[str, Any] | None) -> Iterator[Target]:
    if data is None:
        yield Target("planner to a bare counting loop", f"≥ {PLANNER_AIM:g} ×", "not run", None)
        return
    for kind, found in data["kinds"].items():
        spread = Spread.of(found["ratios"])
        yield Target(
            f"planner to a bare counting loop, {kind}", f"≥ {PLANNER_AIM:g} ×", f"{_ratio(spread)} ×", spread.median >= PLANNER_AIM
        )
    added = max(found["added"] for found in data["kinds"].values())
    yield Target("memory that planning adds", "< 64 MiB", f"{added / MIB:.1f} MiB", added < PLANNER_MEMORY)


def _start_targets(data: Mapping[str, Any] | None) -> Iterator[Target]:
    if data is None:
        yield Target("a worker's start to its first row", f"< {START_AIM:g} s", "not run", None)
        return
    spread = Spread.of(data["ours"])
    yield Target("a worker's start to its first row", f"< {START_AIM:g} s", f"{_seconds(spread)} s", spread.median < START_AIM)
    for size, found in data["memory"].items():
        if "peak" in found:
            yield Target(
                f"a worker's resident memory, {size}", "< 90 MiB", f"{found['peak'] / MIB:.0f} MiB at most", found["peak"] < RESIDENT_AIM
            )


def _ledger_target(data: Mapping[str, Any] | None) -> Iterator[Target]:
    wanted = "counts exact, failures.csv lists exactly the bad rows"
    if data is None:
        yield Target("44,000 rows with known bad ones", wanted, "not run", None)
        return
    met = bool(data["exact"] and data["adds_up"] and data["phase"] == "Complete")
    yield Target(f"{data['rows']['total']:,} rows with {data['rows']['failed']:,} bad ones", wanted, "exact" if met else "not exact", met)


def _million_targets(data: Mapping[str, Any] | None) -> Iterator[Target]:
    if data is None:
        yield Target("1,000,000 rows", "complete", "not run", None)
        return
    met = data["counts"]["succeeded"] == data["rows"] and data["phase"] == "Complete"
    rate = f"{data['phase']}, {data['rows'] / data['seconds']:,.0f} rows/s"
    yield Target(f"{data['rows']:,} rows", "complete", rate, met)
    grown, with_postgres = growth(data, "parent", "children"), growth(data, "parent", "children", "postgres")
    what = f"memory of parent and children, the most after {data['rows'] // 100:,} rows to then"
    yield Target(what, f"flat: ≤ {FLAT:g} ×", f"{grown:.2f} × ({with_postgres:.2f} × with Postgres)", grown <= FLAT)


# --- Tables of one section ---------------------------------------------------------------------------------------------


def chain_grid(data: Mapping[str, Any]) -> Grid:
    """The contenders of one size."""
    runs, rows = data["runs"], []
    for name in CONTENDERS:
        cells = [LABELS[name]]
        for key in ("inside", "whole"):
            rate, ratio = rates(runs, name, key), ratios(runs, name, key)
            cells += [f"{Spread.of(rate).median:,.0f}" if rate else "–", _ratio(Spread.of(ratio)) if ratio and name != "ours" else "–"]
        rows.append([*cells, note(runs, name)])
    return Grid(("", "rows/s, start-up excluded", "ours to it", "rows/s, start-up included", "ours to it", "how"), rows)


def planner_grid(data: Mapping[str, Any]) -> Grid:
    """The kinds of CSV."""
    rows = []
    for kind, found in data["kinds"].items():
        speeds = [f"{Spread.of(found[key]).median:,.0f}" for key in ("bare", "ours")]
        rows.append([kind, *speeds, _ratio(Spread.of(found["ratios"])), f"{found['added'] / MIB:.1f}", f"{found['base'] / MIB:.0f}"])
    return Grid(("CSV", "bare loop, MB/s", "planner, MB/s", "ratio", "adds, MiB", "without it, MiB"), rows)


def start_grid(data: Mapping[str, Any]) -> Grid:
    """Seconds and bytes."""
    rows = [["a worker, to its first row", f"{_seconds(Spread.of(data['ours']))} s"]]
    rows.append(["python -c 'import PIL.Image'", f"{_seconds(Spread.of(data['bare']))} s"])
    for size, found in data["memory"].items():
        if "peak" in found:
            held = f"{found['resident'] / MIB:.0f} MiB, at most {found['peak'] / MIB:.0f}"
            rows.append([f"a worker's memory after {found['rows']} rows of {size}", held])
    return Grid(("", "measured"), rows)


def million_grid(data: Mapping[str, Any]) -> Grid:
    """The memory curve."""
    rows = []
    for label, sample in curve(data):
        kinds = [sample[kind] / MIB for kind in ("parent", "children", "postgres")]
        rows.append([label, f"{sample['at']:,.0f}", *(f"{kind:,.0f}" for kind in kinds), f"{sum(kinds):,.0f}"])
    return Grid(("rows published", "seconds", "parent, MiB", "2 children, MiB", "Postgres, MiB", "sum, MiB"), rows)


def ledger_grid(data: Mapping[str, Any]) -> Grid:
    """The counts."""
    return Grid(tuple(data["rows"]), [[f"{value:,}" for value in data["rows"].values()]], 0)


TITLES = {
    "60x80": "The reference chain on 60×80 thumbnails",
    "1080x1440": "The reference chain on 1080×1440 photographs",
    "planner": "Planning a CSV",
    "start": "A worker's start and memory",
    "ledger": "Every row accounted for",
    "million": "A million rows",
}
GRIDS = {
    "60x80": chain_grid,
    "1080x1440": chain_grid,
    "planner": planner_grid,
    "start": start_grid,
    "ledger": ledger_grid,
    "million": million_grid,
}


CHAIN_EXPLANATION = """{rows:,} rows (hard links of {distinct:,} images), random crop to 0.8, resize to 256×256, JPEG of quality 75,
one file a row; 2 processes; {repeats} repeats in which all take turns. Medians; ratios are of rows/s within a repeat, median (least–most):
above 1 ours is faster. Start-up excluded: for ours the difference between all rows and a fifth of them (run before and after), for the
pools the time in a pool that is warm, for the engines the time after their imports and their own start. Start-up included: the whole
command to its end."""


def _about_million(data: Mapping[str, Any]) -> str:
    rate, whole = data["rows"] / (data["seconds"] - data["finalize_seconds"]), data["rows"] / data["seconds"]
    return (
        f"{data['rows']:,} rows of 60×80 images (hard links of 2,000) on 2 processes: {data['seconds']:,.0f} s, {whole:,.0f} rows/s;\n"
        f"{rate:,.0f} rows/s until the last batch was published, then {data['finalize_seconds']:.1f} s to write the three files and end.\n"
        f"The output takes {data['disk'] / 1e9:.1f} GB on disk. Memory is the sum of the processes' shares (PSS), looked at every 2 s."
    )


EXPLANATIONS = {
    "60x80": CHAIN_EXPLANATION,
    "1080x1440": CHAIN_EXPLANATION,
    "planner": """Files of {megabytes} MB in the page cache. The bare loop reads blocks of 1 MiB and counts line ends and quotes in each;
both take turns in one process. Memory: the peak of a fresh process with the scan, less that of one without.""",
    "start": """From the start of the process to the end of a batch of one row, in turn with a bare Python that imports Pillow; median
(least–most).""",
    "ledger": "1% corrupt images, 1% missing ones, 20 malformed rows; the whole command took {seconds:.1f} s on 2 processes.",
    "million": _about_million,
}

INTRODUCTION = """Written by `make bench`; do not edit. `make bench ARGS="--only planner start"` measures some sections anew,
`ARGS=--million` the million rows as well, which takes a while. Numbers of one machine: the ratios say more than the rates. PipelineJob runs
with its ledger and database on; none of the others keeps a record of rows."""

PAGE = Page("benchmarks.md", "Benchmarks", INTRODUCTION, targets, TITLES, GRIDS, EXPLANATIONS)


# --- Drawing -----------------------------------------------------------------------------------------------------------


def show(page: Page, sections: Sections, console: Console) -> None:
    """Everything, on the terminal."""
    for name in (each for each in page.grids if each in sections):
        _draw(console, page.titles[name], page.grids[name](sections[name]["data"]))
    shown = [each for each in page.targets(sections) if each.measured != "not run"]
    rows = [[each.what, each.wanted, each.measured, _met(each).strip("*")] for each in shown]
    if rows:
        _draw(console, "Ratios and limits", Grid(("", "wanted", "measured", ""), rows, 4))


def _draw(console: Console, title: str, grid: Grid) -> None:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(grid.columns):
        table.add_column(column, justify="right" if number >= grid.numbers and column != "how" else "left")
    for row in grid.rows:
        table.add_row(*row)
    console.print(table)


def markdown(page: Page, sections: Sections) -> str:
    """A page whose sections are all measured."""
    mine = {name: {**sections[name], "about": _told(page, sections[name]["about"])} for name in page.grids}
    newest = max(mine.values(), key=lambda section: str(section["date"]))
    parts = [f"# {page.title}", page.introduction, "## Machine and versions", _list(newest["about"])]
    rows = [[each.what, each.wanted, each.measured, _met(each)] for each in page.targets(mine)]
    parts += ["## Targets", _markdown_table(Grid(("", "wanted", "measured", ""), rows, 4))]
    for name, section in mine.items():
        shape = " With `--quick`: a try-out, no measurement." if section["quick"] else ""
        dated = f"Measured on {section['date']} with `{section['command']}`; load of the machine before: {section['load']:.1f}.{shape}"
        parts += [f"## {page.titles[name]}", dated]
        if section["about"] != newest["about"]:
            parts += ["Then it was:", _list(section["about"])]
        parts += [_explained(page.explanations[name], section["data"]), _markdown_table(page.grids[name](section["data"]))]
    return "\n\n".join(parts) + "\n"


def _told(page: Page, about: Mapping[str, str]) -> Mapping[str, str]:
    return {key: value for key, value in about.items() if not page.versions or key in page.versions}


def _explained(how: str | Callable[[Mapping[str, Any]], str], data: Mapping[str, Any]) -> str:
    """How a section was measured, and what its table leaves out."""
    return how(data) if callable(how) else how.format(**data, repeats=len(data.get("runs", ())))


def _markdown_table(grid: Grid) -> str:
    lines = [
        grid.columns,
        ["---:" if n >= grid.numbers and column != "how" else "---" for n, column in enumerate(grid.columns)],
        *grid.rows,
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(about: Mapping[str, str]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in about.items())


def _met(target: Target) -> str:
    return {True: "met", False: "**not met**", None: "not measured"}[target.met]


def _ratio(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f}–{spread.high:.2f})"


def _seconds(spread: Spread) -> str:
    return f"{spread.median:.3f} ({spread.low:.3f}–{spread.high:.3f})"
