"""Lines of the processes' logs: text for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

VARIABLE = "PIPELINEJOB_LOG_FORMAT"  # text or json
_ABOUT = re.compile(r"(job|function)=([^/\s]+)/(\S+) ")  # what our messages are about stands first in them
_AT = re.compile(r"\bshard (\d+)\b(?:.*?\brow (\d+)\b)?")


def is_json(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for JSON."""
    return environment.get(VARIABLE) == "json"


def line(level: str, message: str, **fields: object) -> str:
    """One line of JSON: time, level, message, and what is known of namespace, job or function, shard and row."""
    found: dict[str, object] = {"time": datetime.now(UTC).isoformat(), "level": level, **fields}
    if about := _ABOUT.match(message):
        found |= {"namespace": about[2], about[1]: about[3]}
        message = message[about.end() :]
    if at := _AT.search(message):
        found |= {"shard": int(at[1])} | ({"row": int(at[2])} if at[2] else {})
    return json.dumps({**found, "message": message}, ensure_ascii=False)


def set_up(level: str | int) -> None:
    """Sends what is logged to standard error, as the environment wants it."""
    if is_json(os.environ):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Json())
        logging.basicConfig(level=level, handlers=[handler])
    else:
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {"logger": record.name} | ({"traceback": self.formatException(record.exc_info)} if record.exc_info else {})
        return line(record.levelname, record.getMessage(), **fields)
