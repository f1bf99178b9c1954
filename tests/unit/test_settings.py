"""The operator's environment: defaults, errors that name the variable, and the URL with which pods log in."""

from __future__ import annotations

import json

import pytest

from pipelinejob_operator.manifests import Network
from pipelinejob_operator.settings import Settings, SettingsError

LEAST = {
    "PIPELINEJOB_DATABASE_URL": "postgresql://owner:pass@db.example:5432/ledger?sslmode=require",
    "PIPELINEJOB_WORKER_IMAGE": "worker:1",
}


def settings(**more: str) -> Settings:
    return Settings.from_environment({**LEAST, **more})


def test_two_variables_are_enough() -> None:
    assert settings() == Settings(
        database_url=LEAST["PIPELINEJOB_DATABASE_URL"],
        worker_database=None,
        worker_image="worker:1",
        pull_policy="IfNotPresent",
        resources={},
        fs_group=None,
        job_ttl=3600,
        namespaces=(),
        max_workers=80,
        retention_days=0,
        log_level="INFO",
        lease=None,
        probe_port=8080,
    )


def test_an_empty_variable_counts_as_unset() -> None:
    empty = dict.fromkeys(("WORKER_DATABASE", "WORKER_RESOURCES", "WORKER_FS_GROUP", "WATCH_NAMESPACES", "MAX_WORKERS", "LOG_LEVEL"), "")
    assert settings(**{f"PIPELINEJOB_{name}": value for name, value in empty.items()}) == settings()


def test_all_of_it_can_be_said() -> None:
    said = settings(
        PIPELINEJOB_WORKER_PULL_POLICY="Never",
        PIPELINEJOB_WORKER_RESOURCES='{"limits": {"memory": "1Gi"}}',
        PIPELINEJOB_WORKER_FS_GROUP="0",
        PIPELINEJOB_WATCH_NAMESPACES="a, b,,a",
        PIPELINEJOB_MAX_WORKERS="0",
        PIPELINEJOB_RETENTION_DAYS="30",
        PIPELINEJOB_JOB_TTL_SECONDS="60",
        PIPELINEJOB_LOG_LEVEL="debug",
    )
    assert (said.pull_policy, said.fs_group, said.namespaces, said.log_level) == ("Never", 0, ("a", "b"), "DEBUG")
    assert (said.resources, said.max_workers, said.retention_days, said.job_ttl) == ({"limits": {"memory": "1Gi"}}, 0, 30, 60)


@pytest.mark.parametrize("name", sorted(LEAST))
def test_what_has_no_default_is_asked_for_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        Settings.from_environment({**LEAST, name: ""})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_WORKERS", "many"),
        ("MAX_WORKERS", "-1"),
        ("RETENTION_DAYS", "1.5"),
        ("WORKER_FS_GROUP", "staff"),
        ("WORKER_RESOURCES", "{"),
        ("WORKER_RESOURCES", "[]"),
        ("WORKER_PULL_POLICY", "Sometimes"),
        ("LOG_LEVEL", "loud"),
        ("NETWORK_POLICY", '{"database": "postgres"}'),
        ("NETWORK_POLICY", "all"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**{f"PIPELINEJOB_{name}": value})
    assert f"PIPELINEJOB_{name} must be" in str(caught.value)
    assert repr(value) in str(caught.value) or repr(value.upper()) in str(caught.value)


def test_a_wrong_database_url_is_not_repeated_as_it_holds_a_password() -> None:
    with pytest.raises(SettingsError) as caught:
        settings(PIPELINEJOB_DATABASE_URL="host=db password=secret")
    assert "PIPELINEJOB_DATABASE_URL must be a URL" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_pods_log_in_as_themselves() -> None:
    assert settings().worker_url("plj_1", "a/b@c:d") == "postgresql://plj_1:a%2Fb%40c%3Ad@db.example:5432/ledger?sslmode=require"


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("pooler:6432", "postgresql://u:p@pooler:6432/ledger?sslmode=require"),
        ("pooler", "postgresql://u:p@pooler/ledger?sslmode=require"),
        ("pooler.ns.svc:6432/shared", "postgresql://u:p@pooler.ns.svc:6432/shared?sslmode=require"),
        ("[fd00::1]:6432/shared", "postgresql://u:p@[fd00::1]:6432/shared?sslmode=require"),
    ],
)
def test_pods_go_by_the_pooler(where: str, expected: str) -> None:
    assert settings(PIPELINEJOB_WORKER_DATABASE=where).worker_url("u", "p") == expected


def test_what_worker_pods_may_reach() -> None:
    labels = {"app.kubernetes.io/component": "postgres"}
    told = json.dumps({"database": {"namespace": "system", "labels": labels}, "egress": [{}]})
    assert settings(PIPELINEJOB_NETWORK_POLICY=told).defaults().network == Network({"namespace": "system", "labels": labels}, ({},))
    assert settings(PIPELINEJOB_NETWORK_POLICY='{"database": {}, "egress": []}').network == Network(None)
    assert settings().network is None


def test_the_owners_password_does_not_reach_a_pod_in_the_query() -> None:
    url = "postgres:///ledger?host=db&port=1&user=owner&password=secret&application_name=a%20b"
    assert settings(PIPELINEJOB_DATABASE_URL=url).worker_url("u", "p") == "postgres://u:p@/ledger?host=db&port=1&application_name=a%20b"
    there = settings(PIPELINEJOB_DATABASE_URL=url, PIPELINEJOB_WORKER_DATABASE="pooler:6432").worker_url("u", "p")
    assert there == "postgres://u:p@pooler:6432/ledger?application_name=a%20b"


ANYWHERE = {"ports": [{"protocol": "TCP", "port": 4318}]}
IN_SHOP = {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}]}


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://collector.shop.svc:4318", {**ANYWHERE, **IN_SHOP}),
        ("http://collector.shop.svc.cluster.local:4318/", {**ANYWHERE, **IN_SHOP}),
        ("http://collector.example:4318", ANYWHERE),
        ("http://10.0.0.7:4318", ANYWHERE),
        ("http://collector.shop.svc", {"ports": [{"protocol": "TCP", "port": 80}], **IN_SHOP}),
        ("https://collector.example/otlp", {"ports": [{"protocol": "TCP", "port": 443}]}),
    ],
)
def test_worker_pods_reach_the_collector_and_are_told_where_it_is(url: str, rule: dict[str, object]) -> None:
    told = settings(OTEL_EXPORTER_OTLP_ENDPOINT=url, PIPELINEJOB_NETWORK_POLICY='{"database": {}, "egress": [{}]}').defaults()
    assert told.collector == ("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    assert told.network == Network(None, ({}, rule))
    assert settings(OTEL_EXPORTER_OTLP_ENDPOINT=url).defaults().network is None


def test_traces_have_an_address_of_their_own_and_can_be_switched_off() -> None:
    both = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:2/v1/traces"}
    assert settings(**both).collector == ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:2/v1/traces")
    assert settings(**both, OTEL_SDK_DISABLED="True").collector is None
    assert settings(**both, OTEL_TRACES_EXPORTER="none").collector is None
    assert settings().collector is None


@pytest.mark.parametrize("url", ["collector:4318", "http://user:secret@:4318", "grpc://secret:4317", "http://secret:port"])
def test_an_address_of_a_collector_that_is_none_is_named_and_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL" in str(caught.value) and "secret" not in str(caught.value)
