"""`python -m pipelinejob_operator`: what runs in the operator's pod."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from kubernetes.aio.config import ConfigException

from pipelinejob import logs, traces
from pipelinejob.reasons import JobError
from pipelinejob_operator import metrics
from pipelinejob_operator.handlers import run
from pipelinejob_operator.settings import Settings, SettingsError

log = logging.getLogger("pipelinejob.operator")


def main() -> int:
    """Runs until SIGTERM; 0 then, 1 after a failure, 2 when a setting is wrong or missing."""
    try:
        settings = Settings.from_environment(os.environ)
        traces.set_up("pipelinejob-operator", log.warning)
    except (SettingsError, JobError) as error:
        print(f"pipelinejob_operator: {error}", file=sys.stderr)
        return 2
    logs.set_up(settings.log_level)
    for noisy in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # kopf has said before why a probe is red
    try:
        metrics.serve(settings.metrics_port, settings.database_url)
        asyncio.run(run(settings))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0
    except ConfigException as error:
        print(f"pipelinejob_operator: neither a ServiceAccount nor a kubeconfig: {error}", file=sys.stderr)
        return 2
    except Exception:
        log.exception("the operator ends; it is to be started again")
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    traces.flush()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)  # threads may be waiting for a database that does not answer: all they do can be done again
