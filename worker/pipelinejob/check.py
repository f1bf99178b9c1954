"""A PipelineFunction loaded once, in a pod that has neither credentials nor data, to see whether jobs can run it."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelinejob import packages
from pipelinejob.functions import load

VARIABLE = "PIPELINEJOB_FUNCTION"  # the environment variable with {name, source | module, entrypoint, requirements} as JSON in base64
MOST = 3600  # bytes of the answer; Kubernetes keeps 4096


def encode(entry: dict[str, Any]) -> str:
    """The value of the variable: as it stands, $(...) in it would be replaced."""
    return base64.b64encode(json.dumps(entry, ensure_ascii=False).encode()).decode()


def main(tell: Callable[[str], None]) -> int:
    """Loads the function and tells {digest, doc, params} or {error} as JSON; returns the exit code, 0 also for an error that was told."""
    entry = json.loads(base64.b64decode(os.environ[VARIABLE]))
    try:
        if entry.get("requirements"):
            entry["packages"] = str(packages.install(entry["requirements"], Path(tempfile.gettempdir()) / "packages"))
        function = load(entry)
        found = function.described()
        answer = {"digest": function.digest, "doc": found["doc"], "params": found["params"]}
    except ValueError as error:
        answer = {"error": str(error)[:MOST]}
    text = json.dumps(answer, ensure_ascii=False, default=repr)
    if len(text.encode()) > MOST:
        answer = {**answer, "doc": str(answer.get("doc") or "")[:200], "params": []}  # many: the code says what they are
        text = json.dumps(answer, ensure_ascii=False, default=repr)
    tell(text)
    print(text, flush=True)
    return 0
