"""`python -m pipelinejob_gateway gateway|reader`: what runs in their pods."""

from __future__ import annotations

import logging
import os
import sys

from kubernetes.config import ConfigException

from pipelinejob import logs, traces
from pipelinejob.reasons import JobError
from pipelinejob_gateway.gateway import serve_gateway, serve_reader
from pipelinejob_gateway.settings import SettingsError

_PROCESSES = {"gateway": serve_gateway, "reader": serve_reader}


def main() -> int:
    """Runs until SIGTERM; 0 then, 2 when a setting is wrong or missing."""
    logs.set_up("INFO")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    process = _PROCESSES.get(sys.argv[1]) if len(sys.argv) == 2 else None
    if process is None:
        print(f"usage: python -m pipelinejob_gateway {'|'.join(_PROCESSES)}", file=sys.stderr)
        return 2
    try:
        if process is serve_gateway:
            traces.set_up("pipelinejob-gateway", logging.getLogger("pipelinejob.gateway").warning)
        process(os.environ)
    except (SettingsError, JobError) as error:
        print(f"pipelinejob_gateway: {error}", file=sys.stderr)
        return 2
    except ConfigException as error:
        print(f"pipelinejob_gateway: neither a ServiceAccount nor a kubeconfig: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    code = main()
    traces.flush()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)  # threads may be waiting for an API server that does not answer
