"""What Prometheus is told, and that alerts, dashboard, runbook and documentation speak of just that."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from pipelinejob import logs
from pipelinejob.store import TimedBatch
from pipelinejob.timings import READ, WHOLE, Timing
from pipelinejob_gateway import metrics as of_gateway
from pipelinejob_operator import metrics as of_operator
from pipelinejob_operator.latencies import Latencies

ROOT = Path(__file__).parents[2]
FILES = ROOT / "helm/pipelinejob/files"
ALERTS = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"][0]["rules"]
JOBS = [
    {"namespace": "a", "phase": "Running", "jobs": 2, "succeeded": 10, "filtered": 1, "skipped": 2, "failed": 3, "pending": 4, "rate": 7.5},
    {"namespace": "a", "phase": "Complete", "jobs": 1, "succeeded": 5, "filtered": 0, "skipped": 0, "failed": 1, "pending": 0, "rate": 0.0},
]
LEDGER = of_operator.families(JOBS, [{"namespace": "a", "reason": "ImageNotFound", "rows": 4}], (7, 97))


def families() -> dict[str, Metric]:
    found = [*of_operator.REGISTRY.collect(), *of_gateway.REGISTRY.collect(), *LEDGER, *Latencies().families()]
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
    told |= {"pipelinejob_batch_seconds": "namespace", "pipelinejob_function_seconds": "namespace, function"}
    told |= {family.name: ", ".join(family.samples[0].labels) for family in LEDGER}
    assert {name: labels.strip() for name, labels in rows.items()} == {name: told.get(name, "") for name in rows}


def test_a_line_of_json_says_what_it_is_about() -> None:
    found = json.loads(logs.line("INFO", "job=shop/men shard 3, row 1200: 800 done", logger="x"))
    assert (found["namespace"], found["job"], found["shard"], found["row"], found["level"]) == ("shop", "men", 3, 1200, "INFO")
    assert found["message"] == "shard 3, row 1200: 800 done" and found["time"].endswith("+00:00")
    assert "job" not in json.loads(logs.line("WARNING", "the ledger\nis away"))
    assert "\n" not in logs.line("WARNING", "the ledger\nis away")


class Recorded:
    """A ledger to which batches are recorded while it is asked; it gives those since a time, as the real one does."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, tzinfo=UTC)
        self.batches: list[TimedBatch] = []

    def record(self, first_row: int, seconds_ago: float, *timings: Timing) -> None:
        at = self.now - timedelta(seconds=seconds_ago)
        self.batches.append(TimedBatch("u", first_row, at, "shop", ["crop"], list(timings)))

    def timings_since(self, since: datetime | None) -> tuple[datetime, list[TimedBatch]]:
        return self.now, [one for one in self.batches if one.recorded_at >= (since or self.now)]


def test_a_batch_is_counted_once_whenever_its_transaction_ends() -> None:
    ledger, latencies = Recorded(), Latencies()
    ledger.record(0, 5, Timing(0, 2, 7, 0.1))  # before the first look: of another process's time
    latencies.look(ledger)  # type: ignore[arg-type]
    ledger.now += timedelta(seconds=10)
    ledger.record(10, 3, Timing(0, 2, 7, 0.1), Timing(WHOLE, 11, 1, 300.0))
    latencies.look(ledger)  # type: ignore[arg-type]
    ledger.now += timedelta(seconds=10)
    ledger.record(20, 15, Timing(0, 3, 1, 0.3), Timing(READ, 0, 1, 0.0))  # began before the look that could not see it
    for _ in range(3):
        latencies.look(ledger)  # type: ignore[arg-type]
    series = {(one.name, *one.labels.values()): one.value for family in latencies.families() for one in family.samples}
    assert series["pipelinejob_function_seconds_count", "shop", "crop"] == 8
    assert series["pipelinejob_function_seconds_bucket", "shop", "crop", str(4.0**-4)] == 7
    assert series["pipelinejob_function_seconds_bucket", "shop", "crop", "+Inf"] == 8
    assert series["pipelinejob_function_seconds_sum", "shop", "crop"] == 0.4
    assert series["pipelinejob_batch_seconds_bucket", "shop", "256.0"] == 0 and series["pipelinejob_batch_seconds_count", "shop"] == 1
    assert series["pipelinejob_function_seconds_count", "shop", "(read)"] == 1
