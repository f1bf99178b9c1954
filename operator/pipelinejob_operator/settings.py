"""What the chart tells the operator, read from the environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from pipelinejob import logs, traces
from pipelinejob_operator.manifests import Defaults, Network, egress_to

SHORTEST_TTL = 60  # seconds: a Job that goes as soon as it ends may go before its end is seen
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class SettingsError(Exception):
    """A variable is missing or cannot be read; the message names it and says what is expected."""


@dataclass(frozen=True)
class Settings:
    """The operator's settings.

    Args:
        database_url: of the ledger, as its owner, who may make roles.
        worker_database: host[:port][/database] under which pods reach the database, if it is another one: a pooler.
        worker_image, pull_policy, resources, fs_group: of worker pods that do not say otherwise.
        job_ttl: seconds for which a finished child Job stays.
        namespaces: those to watch; none: all.
        max_workers: pods of all jobs that may be connected to the database at once; 0: no limit.
        retention_days: days for which the ledger keeps a deleted job; 0: for ever.
        log_level: one of LOG_LEVELS.
        lease: namespace/name of the Lease by which one of several operators leads; none: there is only this one.
        requirements: whether functions may have requirements.
        pip: variables PIP_* by which they are found, for the pods that install them.
        webhook: the folder with the certificate of the validating webhook; none: there is no webhook.
        metrics_port: where Prometheus is answered; None: nowhere.
        log_format: text or json, of the operator and of worker pods.
        network: what worker pods may reach; None: anything.
        collector: (variable, URL) by which traces are asked for, here and of worker pods; None: there are none.
        probe_port: where /healthz answers; another one than the chart's lets an operator run on a machine that has a use for it.
    """

    database_url: str
    worker_database: str | None
    worker_image: str
    pull_policy: str
    resources: dict[str, Any]
    fs_group: int | None
    job_ttl: int
    namespaces: tuple[str, ...]
    max_workers: int
    retention_days: int
    log_level: str
    lease: str | None
    probe_port: int
    requirements: bool = True
    pip: tuple[tuple[str, str], ...] = ()
    webhook: str | None = None
    network: Network | None = None
    metrics_port: int | None = None
    log_format: str = "text"
    collector: tuple[str, str] | None = None

    def defaults(self) -> Defaults:
        """What manifests take from here."""
        network = self.network
        if network is not None and self.collector is not None:
            network = replace(network, egress=(*network.egress, egress_to(self.collector[1])))
        return Defaults(self.pull_policy, self.resources, self.fs_group, self.job_ttl, self.pip, network, self.log_format, self.collector)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Reads the variables PIPELINEJOB_*; an empty one counts as unset.

        Raises:
            SettingsError: one is missing or cannot be read.
        """
        namespaces = (name.strip() for name in environment.get("PIPELINEJOB_WATCH_NAMESPACES", "").split(","))
        return cls(
            database_url=_database_url(environment),
            worker_database=environment.get("PIPELINEJOB_WORKER_DATABASE") or None,
            worker_image=_required(environment, "PIPELINEJOB_WORKER_IMAGE"),
            pull_policy=_one_of(environment, "PIPELINEJOB_WORKER_PULL_POLICY", ("IfNotPresent", "Always", "Never")),
            resources=_resources(environment),
            fs_group=_number(environment, "PIPELINEJOB_WORKER_FS_GROUP", 0) if environment.get("PIPELINEJOB_WORKER_FS_GROUP") else None,
            job_ttl=max(SHORTEST_TTL, _number(environment, "PIPELINEJOB_JOB_TTL_SECONDS", 3600)),
            namespaces=tuple(dict.fromkeys(name for name in namespaces if name)),
            max_workers=_number(environment, "PIPELINEJOB_MAX_WORKERS", 80),
            retention_days=_number(environment, "PIPELINEJOB_RETENTION_DAYS", 0),
            log_level=_one_of(environment, "PIPELINEJOB_LOG_LEVEL", ("INFO", *LOG_LEVELS), upper=True),
            lease=environment.get("PIPELINEJOB_LEASE") or None,
            probe_port=_number(environment, "PIPELINEJOB_PROBE_PORT", 8080),
            requirements=_one_of(environment, "PIPELINEJOB_REQUIREMENTS", ("allow", "forbid")) == "allow",
            pip=_pip(environment),
            webhook=environment.get("PIPELINEJOB_WEBHOOK_CERTIFICATES") or None,
            network=_network(environment),
            metrics_port=_number(environment, "PIPELINEJOB_METRICS_PORT", 0) or None,
            log_format=_one_of(environment, logs.VARIABLE, ("text", "json")),
            collector=_collector(environment),
        )

    def worker_url(self, user: str, password: str) -> str:
        """The URL with which a pod logs in: the operator's, as another user, and at the pooler if there is one."""
        own = urlsplit(self.database_url)
        address, _, database = (self.worker_database or "").partition("/")
        host = address or own.netloc.rpartition("@")[2]
        path = f"/{database}" if database else own.path
        # In the query, too, can be names and passwords, and they would win.
        ours = {"user", "password", "passfile"} | ({"host", "hostaddr", "port"} if address else set())
        query = urlencode([(name, value) for name, value in parse_qsl(own.query) if name not in ours], quote_via=quote)
        return urlunsplit((own.scheme, f"{quote(user, safe='')}:{quote(password, safe='')}@{host}", path, query, ""))


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise SettingsError(f"{name} is not set: the chart sets it; outside a cluster, set it by hand")
    return value


def _database_url(environment: Mapping[str, str]) -> str:
    url = _required(environment, "PIPELINEJOB_DATABASE_URL")
    if not url.startswith(("postgresql://", "postgres://")):  # the value holds a password: it is not repeated
        raise SettingsError("PIPELINEJOB_DATABASE_URL must be a URL, postgresql://user:password@host:port/database")
    if url.count("@") > 1 or "@" in urlsplit(url).path:  # the driver's errors would show the rest of the password as a host's name
        raise SettingsError("PIPELINEJOB_DATABASE_URL: a '@', '/' or ':' in the password must be written as %40, %2F, %3A")
    return url


def _one_of(environment: Mapping[str, str], name: str, values: tuple[str, ...], *, upper: bool = False) -> str:
    """One of `values`; the first is the default."""
    value = environment.get(name) or values[0]
    value = value.upper() if upper else value
    if value not in values:
        raise SettingsError(f"{name} must be one of {', '.join(dict.fromkeys(values))}, got {value!r}")
    return value


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        raise SettingsError(f"{name} must be a whole number, 0 or more, got {text!r}")
    return int(text)


def _pip(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    text = environment.get("PIPELINEJOB_PIP") or "{}"
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(name.startswith("PIP_") and isinstance(one, str) for name, one in value.items()):
        raise SettingsError(f"PIPELINEJOB_PIP must be a JSON mapping of variables PIP_* to texts, got {text!r}")
    return tuple(sorted(value.items()))


def _network(environment: Mapping[str, str]) -> Network | None:
    text = environment.get("PIPELINEJOB_NETWORK_POLICY")
    if not text:
        return None
    try:
        value = json.loads(text)
        database = value["database"] or None
        if database is not None:
            database = {"namespace": str(database["namespace"]), "labels": dict(database["labels"])}
        return Network(database, tuple(dict(rule) for rule in value.get("egress") or ()))
    except (ValueError, TypeError, KeyError):
        expected = '{"database": {"namespace": ..., "labels": {...}} or null, "egress": [...]}'
        raise SettingsError(f"PIPELINEJOB_NETWORK_POLICY must be JSON, {expected}, got {text!r}") from None


def _collector(environment: Mapping[str, str]) -> tuple[str, str] | None:
    found = traces.endpoint(environment)
    if found is not None:
        try:
            address = urlsplit(found[1])
            valid = address.scheme in ("http", "https") and address.hostname and address.port != 0
        except ValueError:
            valid = False
        if not valid:  # it may hold a password: it is not repeated
            raise SettingsError(f"{found[0]} must be a URL, http://host:4318")
    return found


def _resources(environment: Mapping[str, str]) -> dict[str, Any]:
    text = environment.get("PIPELINEJOB_WORKER_RESOURCES") or "{}"
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"PIPELINEJOB_WORKER_RESOURCES must be JSON ({error}), got {text!r}") from None
    if not isinstance(value, dict):
        raise SettingsError(f"PIPELINEJOB_WORKER_RESOURCES must be a mapping with requests and limits, got {text!r}")
    return value
