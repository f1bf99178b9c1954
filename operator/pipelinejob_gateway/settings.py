"""What the chart tells a gateway or a reader, read from the environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class SettingsError(Exception):
    """A variable is missing or cannot be read; the message names it and says what is expected."""


class Settings(NamedTuple):
    """A gateway's settings.

    Args:
        database_url: of the ledger, which is only read.
        namespace: the gateway's own.
        readers: namespace → URL of the reader there.
        reader_token: what the readers want to see.
        uploads_claim: the claim of the replaced system's endpoints; None: there is none.
        data: where that claim is mounted, to be read; None: nowhere.
        uploads: its folder for what is written; None: nowhere.
        port: where requests are answered.
        metrics_port: where Prometheus is answered; None: nowhere.
    """

    database_url: str
    namespace: str
    readers: dict[str, str]
    reader_token: str
    uploads_claim: str | None
    data: Path | None
    uploads: Path | None
    port: int
    metrics_port: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Reads the variables; an empty one counts as unset.

        Raises:
            SettingsError: one is missing or cannot be read.
        """
        readers = _readers(environment.get("PIPELINEJOB_READERS") or "{}")
        claim = environment.get("PIPELINEJOB_UPLOADS_CLAIM") or None
        return cls(
            database_url=required(environment, "PIPELINEJOB_DATABASE_URL"),
            namespace=required(environment, "POD_NAMESPACE"),
            readers=readers,
            reader_token=required(environment, "PIPELINEJOB_READER_TOKEN") if readers else "",
            uploads_claim=claim,
            data=Path(environment.get("PIPELINEJOB_DATA") or "/data") if claim else None,
            uploads=Path(environment.get("PIPELINEJOB_UPLOADS") or "/uploads") if claim else None,
            port=port(environment),
            metrics_port=metrics_port(environment),
        )


def required(environment: Mapping[str, str], name: str) -> str:
    """A variable that must be set.

    Raises:
        SettingsError: it is not.
    """
    value = environment.get(name)
    if not value:
        raise SettingsError(f"{name} is not set: the chart sets it; outside a cluster, set it by hand")
    return value


def port(environment: Mapping[str, str]) -> int:
    """Where requests are answered: PIPELINEJOB_PORT, or 8080."""
    text = environment.get("PIPELINEJOB_PORT") or "8080"
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise SettingsError(f"PIPELINEJOB_PORT must be a port, got {text!r}")
    return int(text)


def metrics_port(environment: Mapping[str, str]) -> int | None:
    """Where Prometheus is answered: PIPELINEJOB_METRICS_PORT; None: nowhere."""
    text = environment.get("PIPELINEJOB_METRICS_PORT")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise SettingsError(f"PIPELINEJOB_METRICS_PORT must be a port, got {text!r}")
    return int(text)


def _readers(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"PIPELINEJOB_READERS must be JSON ({error}), got {text!r}") from None
    if not isinstance(value, dict) or not all(isinstance(url, str) and url.startswith("http") for url in value.values()):
        raise SettingsError(f"PIPELINEJOB_READERS must map namespaces to URLs, got {text!r}")
    return value
