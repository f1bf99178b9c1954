"""What Prometheus is told, and that alerts, dashboard, runbook and documentation speak of just that."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from pipelinejob import logs
from pipelinejob_gateway import metrics as of_gateway
from pipelinejob_operator import metrics as of_operator

ROOT = Path(__file__).parents[2]
FILES = ROOT / "helm/pipelinejob/files"
ALERTS = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"][0]["rules"]
JOBS = [
    {"namespace": "a", "phase": "Running", "jobs": 2, "succeeded": 10, "filtered": 1, "skipped": 2, "failed": 3, "pending": 4, "rate": 7.5},
    {"namespace": "a", "phase": "Complete", "jobs": 1, "succeeded": 5, "filtered": 0, "skipped": 0, "failed": 1, "pending": 0, "rate": 0.0},
]
LEDGER = of_operator.families(JOBS, [{"namespace": "a", "reason": "ImageNotFound", "rows": 4}], (7, 97))


def families() -> dict[str, Metric]:
    found = [*of_operator.REGISTRY.collect(), *of_gateway.REGISTRY.collect(), *LEDGER]
    return {family.name: family for family in found}


def names(text: str) -> set[str]:
    """The metrics of an expression, without what a histogram's series end with."""
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"\bpipelinejob_[a-z_]+", text)}


def test_the_ledgers_answers_as_metrics() -> None:
    class Once:
        def collect(self) -> list[Metric]:
            return LEDGER

    registry = CollectorRegistry()
    registry.register(Once())  # type: ignore[arg-type]
    told = generate_latest(registry).decode()
    assert 'pipelinejob_jobs{namespace="a",phase="Running"} 2.0' in told
    assert 'pipelinejob_rows{namespace="a",outcome="succeeded"} 15.0' in told and 'outcome="pending"} 4.0' in told
    assert 'pipelinejob_rows_per_second{namespace="a"} 7.5' in told
    assert 'pipelinejob_failed_rows{namespace="a",reason="ImageNotFound"} 4.0' in told
    assert "pipelinejob_database_connections 7.0" in told and "pipelinejob_database_up 1.0" in told


def test_alerts_and_dashboard_know_no_other_metrics() -> None:
    dashboard = json.loads((FILES / "grafana.json").read_text())
    expressions = [rule["expr"] for rule in ALERTS] + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 15
    for expression in expressions:
        assert names(expression) and names(expression) <= families().keys(), expression
        assert expression.count("(") == expression.count(")") and expression.count("{") == expression.count("}")
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_each_alert_has_its_lines_in_the_runbook() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert [rule["alert"] for rule in ALERTS] == headings
    assert all(rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}" for rule in ALERTS)


def test_the_documentation_has_each_metric_with_its_labels() -> None:
    page = (ROOT / "docs/observability.md").read_text()
    rows = dict(re.findall(r"^\| `(pipelinejob_\w+)` \|([^|]*)\|", page, re.MULTILINE))
    assert rows.keys() == families().keys()
    told = {"pipelinejob_reconcile_seconds": "outcome", "pipelinejob_gateway_request_seconds": "method, route, status"}
    told |= {family.name: ", ".join(family.samples[0].labels) for family in LEDGER}
    assert {name: labels.strip() for name, labels in rows.items()} == {name: told.get(name, "") for name in rows}


def test_a_line_of_json_says_what_it_is_about() -> None:
    found = json.loads(logs.line("INFO", "job=shop/men shard 3, row 1200: 800 done", logger="x"))
    assert (found["namespace"], found["job"], found["shard"], found["row"], found["level"]) == ("shop", "men", 3, 1200, "INFO")
    assert found["message"] == "shard 3, row 1200: 800 done" and found["time"].endswith("+00:00")
    assert "job" not in json.loads(logs.line("WARNING", "the ledger\nis away"))
    assert "\n" not in logs.line("WARNING", "the ledger\nis away")
