"""One HTML file about a job, for somebody who has neither the job nor this program: nothing in it is fetched from elsewhere."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image, ImageOps

from pipelinejob import contact_sheet
from pipelinejob.insight import rates
from pipelinejob.progress import duration
from pipelinejob.reasons import RowReason
from pipelinejob.report import WHAT_TO_DO

if TYPE_CHECKING:
    from pipelinejob.model import Rows, TopFailure
    from pipelinejob.store import FailedRow, Job
from pipelinejob.timings import Share

PICTURES, SIDE = 20, 160  # pixels
EXAMPLES = 5  # of each reason
_OUTCOMES = {"succeeded": "#2e7d32", "filtered": "#9e9e9e", "skipped": "#1976d2", "failed": "#c62828", "pending": "#f9a825"}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; vertical-align: top; text-align: left }
td { overflow-wrap: anywhere }
.number { text-align: right; font-variant-numeric: tabular-nums }
.bar { display: flex; height: 1.4rem; border-radius: .3rem; overflow: hidden; margin: .6rem 0 }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem; margin-right: .4rem }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .8rem }
figure { margin: 0 } img { max-width: 100% } figcaption, .small { font-size: .85rem; overflow-wrap: anywhere }
svg { width: 100%; height: 9rem }
"""


class Facts(NamedTuple):
    """What a report is made of."""

    job: Job
    rows: Rows
    top: Sequence[TopFailure]
    examples: Mapping[str, Sequence[FailedRow]]  # by reason
    done: Sequence[tuple[float, int]]  # (seconds since the start, rows) of the recorded batches
    shares: Sequence[Share]  # where the time of the processes went
    made: datetime


def write(facts: Facts, path: Path) -> None:
    """Writes the report; it appears whole.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(path.name + ".part")
    draft.write_text("\n".join(_page(facts)) + "\n", encoding="utf-8")
    draft.replace(path)


def _page(facts: Facts) -> Iterator[str]:
    job = facts.job
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    yield f"<title>{escape(job.name)}: {escape(job.phase)}</title><style>{_STYLE}</style></head><body><main>"
    reason = f" ({escape(job.reason)})" if job.reason else ""
    yield f"<h1>{escape(job.name)}</h1><p><strong>{escape(job.phase)}</strong>{reason}. {escape(job.message or '')}</p>"
    yield from _outcomes(facts.rows)
    yield from _failures(facts)
    yield from _throughput(facts)
    yield from _shares(facts)
    yield from _pictures(facts)
    yield from _spec(facts)
    yield f'<p class="small">Made by PipelineJob on {facts.made:%Y-%m-%d %H:%M} UTC.</p></main></body></html>'


def _outcomes(rows: Rows) -> Iterator[str]:
    counts = rows.counts()
    parts = {name: counts[name] for name in _OUTCOMES}
    told = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
    yield f"<h2>{counts['total']:,} rows</h2>"
    yield f'<div class="bar" role="img" aria-label="{told}">'
    for name, count in parts.items():
        if count:
            yield f'<span style="flex:{count};background:{_OUTCOMES[name]}"></span>'
    yield "</div><table><tbody>"
    for name, count in parts.items():
        share = f"{100 * count / counts['total']:.1f} %" if counts["total"] else ""
        key = f'<span class="key" style="background:{_OUTCOMES[name]}"></span>'
        yield f'<tr><th scope="row">{key}{name}<td class="number">{count:,}<td class="number">{share}</tr>'
    yield "</tbody></table>"
    if "reused" in counts:
        yield f"<p>{counts['reused']:,} of the succeeded rows were not run: their results are those of an earlier job.</p>"


def _failures(facts: Facts) -> Iterator[str]:
    if not facts.top:
        return
    yield "<h2>Failed rows</h2>"
    for one in facts.top:
        yield f"<h3>{escape(one.reason)}: {one.count:,}</h3><p>What to do: {escape(WHAT_TO_DO[RowReason(one.reason)])}.</p>"
        yield "<table><thead><tr><th>row<th>id<th>function<th>message</tr></thead><tbody>"
        for row in facts.examples.get(one.reason, ()):
            cells = "".join(f"<td>{escape(str(cell))}" for cell in (row.row, row.id, row.function, row.message))
            yield f"<tr>{cells}</tr>"
        yield "</tbody></table>"
        if one.count > EXAMPLES:
            yield f'<p class="small">The first {EXAMPLES}; failures.csv in the results has all.</p>'


def _throughput(facts: Facts) -> Iterator[str]:
    """Rows a second over the time of the run, as bars."""
    if not facts.done or facts.done[-1][0] <= 0:
        return
    length, whole = facts.done[-1][0], sum(rows for _, rows in facts.done)
    told = f"{whole:,} rows in {duration(length)}: {whole / length:,.0f} rows/s"
    bars = rates(facts.done)
    if not bars:
        yield f"<h2>Throughput</h2><p>{told}.</p>"
        return
    most = max(bars)
    yield f"<h2>Throughput</h2><p>{told}, at most {most:,.0f}.</p>"
    yield f'<svg viewBox="0 0 {len(bars)} 20" preserveAspectRatio="none" role="img" aria-label="Rows a second over {duration(length)}">'
    for index, bar in enumerate(bars):
        height = 20 * bar / most
        yield f'<rect x="{index}" y="{20 - height:.2f}" width=".9" height="{height:.2f}" fill="#1976d2"></rect>'
    yield "</svg>"


def _shares(facts: Facts) -> Iterator[str]:
    """What each step took of the time of the processes."""
    if not facts.shares:
        return
    yield "<h2>Where the time went</h2><table><thead><tr><th>step<th>share<th>calls<th>a call, on average</tr></thead><tbody>"
    for one in facts.shares:
        numbers = "".join(f'<td class="number">{text}' for text in (f"{one.share:.0%}", f"{one.calls:,}", f"{1000 * one.mean:,.1f} ms"))
        yield f"<tr><td>{escape(one.step)}{numbers}</tr>"
    yield "</tbody></table>"


def _pictures(facts: Facts) -> Iterator[str]:
    output = Path(facts.job.output_root) / facts.job.output
    urls = contact_sheet.choose(output, facts.job.spec["output"]["urlColumn"], PICTURES)
    if not urls:
        return
    yield '<h2>Some of the results</h2><div class="pictures">'
    for url in urls:
        name = escape(Path(url).stem)
        try:
            yield f'<figure><img alt="result of {name}" src="{_embedded(output / url)}"><figcaption>{name}</figcaption></figure>'
        except OSError:  # it was moved or damaged since
            yield f"<figure><figcaption>{name}: cannot be read</figcaption></figure>"
    yield "</div>"


def _embedded(path: Path) -> str:
    data = BytesIO()
    with Image.open(path) as image:
        ImageOps.contain(image.convert("RGB"), (SIDE, SIDE)).save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(data.getvalue()).decode()}"


def _spec(facts: Facts) -> Iterator[str]:
    job = facts.job
    planned: Mapping[str, Any] = job.input or {}
    lines = [
        ("CSV", f"{job.spec['source']['csv']}, {planned.get('rows', 0):,} rows, {planned.get('bytes', 0):,} bytes"),
        ("sha256 of the CSV", planned.get("sha256", "")),
        ("where", json.dumps(job.spec["source"]["where"], ensure_ascii=False) if job.spec["source"]["where"] else "all rows"),
        ("results", str(Path(job.output_root) / job.output)),
        ("began", f"{job.started_at:%Y-%m-%d %H:%M:%S %Z}" if job.started_at else "not yet"),
        ("ended", f"{job.ended_at:%Y-%m-%d %H:%M:%S %Z}" if job.ended_at else "not yet"),
        ("took", duration(job.seconds) if job.seconds else ""),
    ]
    yield "<h2>The job</h2><table><tbody>"
    yield from (f'<tr><th scope="row">{name}<td>{escape(str(value))}</tr>' for name, value in lines if value)
    yield "</tbody></table>"
    if job.functions:
        yield "<h3>Functions</h3><table><thead><tr><th>name<th>params<th>digest</tr></thead><tbody>"
        for step in job.functions:
            params = json.dumps(step["params"], ensure_ascii=False)
            yield f"<tr><td>{escape(step['name'])}<td>{escape(params)}<td>{escape(str(step.get('digest', '')))}</tr>"
        yield "</tbody></table>"
