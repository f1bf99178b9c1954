"""docs/benchmarks-functions.md: what functions of one's own, models and incremental jobs cost."""

from __future__ import annotations

import boundary
import incremental
import predicting
from report import Page, Sections, Target


def targets(sections: Sections) -> list[Target]:
    """What was asked for."""
    return [target for section in (boundary, predicting, incremental) for target in section.targets(sections)]


PAGE = Page(
    "benchmarks-functions.md",
    "Functions",
    'Written by `make bench ARGS="--only boundary predict incremental"`; do not edit.',
    targets,
    {
        "boundary": "A function of one's own beside built-in ones",
        "predict": "predict, in batches and one by one",
        "incremental": "Incremental jobs",
    },
    {"boundary": boundary.grid, "predict": predicting.grid, "incremental": incremental.grid},
    {
        "boundary": """Whole jobs of {rows:,} pictures of 60×80 on two processes, start-up, ledger and database included. The reference
chain of built-in functions takes short cuts that no other function can; with a sharpening before, neither does: then the difference is
the boundary. Medians; ratios are taken within a repeat, median (least–most).""",
        "predict": """{rows:,} pictures of 60×80, decoded before, through predict with data/models/garments.onnx on one thread of
onnxruntime {onnxruntime}, in this process; resizing, the network and what is told of each are in the time. Medians; ratios are taken
within a repeat, median (least–most).""",
        "incremental": """The reference chain over {rows:,} pictures of 60×80 on two processes, and then jobs that are each incremental of
the one before; whole commands, start-up included.""",
    },
    ("machine", "system", "Python", "pipelinejob", "pillow", "numpy"),
)
