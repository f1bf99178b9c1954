"""A pod's entry: `python -m pipelinejob plan|shard|finalize|check`, told everything else by its environment.

Its exit code says what the Job makes of it: 0 done, 42 this shard cannot be done, 43 the job cannot be done, 75
stopped (no fault of its own, not counted), anything else is tried again and counted. Why it failed goes to the
termination log, and to the ledger where no retry can help.
"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from pathlib import Path

from pipelinejob import logs, sandbox, traces
from pipelinejob.stopping import EXIT_STOPPED, Stop

EXIT_RETRY, EXIT_SHARD_FAILED, EXIT_JOB_FAILED = 1, 42, 43
TERMINATION_LOG = "/dev/termination-log"
MAX_TERMINATION = 4000  # bytes; Kubernetes keeps 4096


def main() -> int:
    """Runs one stage and returns the exit code."""
    if sys.argv[1:] == ["check"]:
        from pipelinejob import check  # noqa: PLC0415 - as below

        return check.main(_tell)
    stop = Stop()  # first of all: as process 1 of a container we would not hear a SIGTERM without
    sandbox.hide()  # children run users' code as the same user
    from pipelinejob import stages  # noqa: PLC0415 - the imports take longer than a pod may be deaf
    from pipelinejob.reachable import ReadyPort  # noqa: PLC0415
    from pipelinejob.reasons import JobError, JobReason  # noqa: PLC0415
    from pipelinejob.storage import IN_A_POD, Storage  # noqa: PLC0415
    from pipelinejob.store import Database, Store  # noqa: PLC0415
    from pipelinejob.workers import HopelessError  # noqa: PLC0415

    stage = sys.argv[1] if len(sys.argv) == 2 else ""
    if stage not in stages.STAGES:
        say(f"usage: python -m pipelinejob {'|'.join(stages.STAGES)}")
        return 2
    url = os.environ["PIPELINEJOB_DATABASE_URL"]
    port = os.environ.get("PIPELINEJOB_READY_PORT")
    database = Database(
        lambda: url,
        patience=math.inf,
        say=say,
        advice="look at the database, and at the operator's log",
        reaches=ReadyPort(int(port)).show if port else None,
    )
    stop.database = database
    store = Store(database, migrated=True)
    uid = os.environ["PIPELINEJOB_JOB"]
    try:
        traces.set_up("pipelinejob-worker", say)
        database.query("SELECT")  # from the first moment on, the pod shows whether it reaches its database
        storage = Storage(say, IN_A_POD)
        storage.patiently(lambda: stages.STAGES[stage](store, uid, stop, say, storage))
        store.close()
        return 0
    except stages.StoppedError as reason:
        say(f"stopped: {reason}")
        return EXIT_STOPPED
    except JobError as error:
        if stop.asked.is_set():
            return EXIT_STOPPED
        _explain(error.reason, error.message)
        if error.reason is JobReason.DATABASE_UNAVAILABLE:
            return EXIT_RETRY
        hopeless = isinstance(error, HopelessError)
        if error.reason is JobReason.SHARDS_FAILED and not hopeless:
            return EXIT_RETRY  # storage that failed, processes that died: elsewhere, or later, it may go well
        stop.at_once = True
        store.report(uid, stage, error.reason, error.message)
        return EXIT_SHARD_FAILED if hopeless else EXIT_JOB_FAILED
    except Exception as error:
        if stop.asked.is_set():
            return EXIT_STOPPED
        traceback.print_exc()
        _explain("PodFailed", f"{type(error).__name__}: {error}")
        return EXIT_RETRY


def say(message: str) -> None:
    """A line of the pod's log."""
    if logs.is_json(os.environ):
        message = logs.line("INFO", message, job_uid=os.environ.get("PIPELINEJOB_JOB"), stage=sys.argv[1] if len(sys.argv) > 1 else None)
    print(message, file=sys.stderr, flush=True)


def _explain(reason: str, message: str) -> None:
    """Says why in the log, and where Kubernetes shows it with the pod."""
    say(f"{reason}: {message}")
    text = json.dumps({"reason": str(reason), "message": message}, ensure_ascii=False)
    while len(text.encode()) > MAX_TERMINATION:
        message = message[: len(message) * 9 // 10]
        text = json.dumps({"reason": str(reason), "message": message + "…"}, ensure_ascii=False)
    _tell(text)


def _tell(text: str) -> None:
    try:
        Path(os.environ.get("PIPELINEJOB_TERMINATION_LOG", TERMINATION_LOG)).write_text(text, encoding="utf-8")
    except OSError as error:
        say(f"cannot write the termination log: {error}")


if __name__ == "__main__":
    code = main()
    traces.flush()
    sys.stderr.flush()
    os._exit(code)  # a commit that still waits for its database must not keep us
