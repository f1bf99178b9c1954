"""The chart on a real cluster: what it renders is accepted, and a release can be tested, upgraded, uninstalled and installed again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cluster import SYSTEM, Cluster
from cluster.images import POSTGRES
from support.shop import ENDS, SLOW, Shop

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/pipelinejob"
RELEASE = "pipelinejob"  # of the cluster under test, in SYSTEM
NAMESPACE = f"chart-{uuid.uuid4().hex[:5]}"
RENDERED = {
    "default": ["postgres.enabled=true"],
    "namespaced": ["postgres.enabled=true", f"watchNamespaces={{{NAMESPACE}}}", "postgres.persistence.enabled=false"],
    "external": ["database.existingSecret=ledger", "database.workerUrl=pool:6432/ledger", "worker.fsGroup=10001", "commonLabels.team=a"],
    "gateway": [
        "postgres.enabled=true",
        "gateway.enabled=true",
        "gateway.replicas=2",
        "tracing.endpoint=http://collector.observability.svc:4318",
        "gateway.ingress.enabled=true",
        "gateway.ingress.host=jobs.example",
        "gateway.ingress.tlsSecret=tls",
        "gateway.uploads.claim=uploads",
        "gateway.uploads.fsGroup=10001",
        f"gateway.dataNamespaces[0].namespace={NAMESPACE}",
        "gateway.dataNamespaces[0].claims={catalogue,photos}",
    ],
    "webhook": ["postgres.enabled=true", "webhook.enabled=true", f"watchNamespaces={{{NAMESPACE}}}"],
    "pgbouncer": ["postgres.enabled=true", "pgbouncer.enabled=true", "pgbouncer.image=pgbouncer", "imagePullSecrets[0].name=registry"],
    "pgadmin": ["postgres.enabled=true", "pgadmin.enabled=true", "pgadmin.email=anna@shop.example"],
}
REFUSED = {
    "postgres.enabled=false": "set postgres.enabled=true",
    "postgres.enabled=true,database.existingSecret=ledger": "not both",
    "database.existingSecret=ledger,pgbouncer.enabled=true": "database.workerUrl",
    "postgres.enabled=true,pgbouncer.enabled=true": "pgbouncer.image is needed",
    "postgres.enabled=true,pgadmin.enabled=true": "pgadmin.email",
    "postgres.enabled=true,postgres.enable=true": "'enable' not allowed",
    "postgres.enabled=true,database.maxWorkers=many": "want integer",
    "postgres.enabled=true,tracing.endpoint=collector:4318": "/tracing/endpoint",
    "postgres.enabled=true,gateway.dataNamespaces[0].namespace=shop": "claims",
    "postgres.enabled=true,gateway.dataNamespaces[0].namespace=shop,gateway.dataNamespaces[0].claims={a},"
    "gateway.dataNamespaces[1].namespace=shop,gateway.dataNamespaces[1].claims={b}": "stands twice",
}


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that takes restricted pods only."""
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    yield NAMESPACE
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def schemas(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this cluster's API server accepts, as kubeconform wants it: a file for each kind, unknown fields refused."""
    folder = tmp_path_factory.mktemp("schemas")
    definitions = json.loads(cluster.kubectl("get", "--raw", "/openapi/v2"))["definitions"]
    for definition in definitions.values():
        if "properties" in definition:
            definition.setdefault("additionalProperties", "x-kubernetes-preserve-unknown-fields" in definition)
    # Two that say less than they take: a number as well as a string.
    definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": ["string", "integer"]}
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["string", "number"]}
    (folder / "all.json").write_text(json.dumps({"definitions": definitions}))
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            group = f"{kind['group'].split('.')[0]}-" if kind["group"] else ""
            file = folder / f"{kind['kind'].lower()}-{group}{kind['version']}.json"
            file.write_text(json.dumps({"$ref": f"all.json#/definitions/{name}"}))
    return folder


def test_lint(cluster: Cluster) -> None:
    assert "0 chart(s) failed" in cluster.helm("lint", "--strict", str(CHART))


def test_install_yaml_is_current(cluster: Cluster) -> None:
    environment = {**os.environ, "HELM": str(cluster.bin / "helm")}
    done = subprocess.run([ROOT / "scripts/check-install.sh"], env=environment, capture_output=True, text=True)
    assert "is current" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("values", REFUSED)
def test_values_that_cannot_be_are_refused_with_what_to_do(cluster: Cluster, values: str) -> None:
    done = subprocess.run([str(cluster.bin / "helm"), "template", "x", str(CHART), "--set", values], capture_output=True, text=True)
    assert done.returncode != 0
    assert REFUSED[values] in done.stderr


@pytest.mark.parametrize("case", RENDERED)
def test_what_it_renders_is_accepted(cluster: Cluster, namespace: str, schemas: Path, case: str) -> None:
    rendered = _render(cluster, namespace, RENDERED[case])
    location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [str(cluster.bin / "kubeconform"), "-strict", "-summary", "-schema-location", location, "-"]
    done = subprocess.run(command, input=rendered, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", input=rendered)


@pytest.mark.parametrize("case", RENDERED)
def test_pods_are_admitted_where_only_restricted_ones_are(cluster: Cluster, namespace: str, case: str) -> None:
    pods = [_pod(body) for body in yaml.safe_load_all(_render(cluster, namespace, RENDERED[case])) if _pod(body) is not None]
    assert len(pods) == {"external": 2, "pgbouncer": 4, "pgadmin": 4, "gateway": 5}.get(case, 3)
    cluster.kubectl("create", "--dry-run=server", "-f", "-", input=yaml.safe_dump_all(pods))


def test_a_namespaced_release_has_nothing_for_the_whole_cluster(cluster: Cluster, namespace: str) -> None:
    bodies = list(yaml.safe_load_all(_render(cluster, namespace, [*RENDERED["namespaced"], "crds.install=false"])))
    kinds = {body["kind"] for body in bodies}
    assert {"Role", "RoleBinding"} <= kinds
    assert not {kind for kind in kinds if kind.startswith("Cluster")}
    assert {body["metadata"]["namespace"] for body in bodies} == {namespace}


def test_the_installed_release_tests_itself(cluster: Cluster) -> None:
    output = cluster.helm("test", RELEASE, "-n", SYSTEM, "--logs", "--timeout", "60s")
    assert "healthz: ok" in output
    assert "database: ok" in output


@pytest.fixture(scope="module")
def package(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as it is released."""
    folder = tmp_path_factory.mktemp("package")
    cluster.helm("package", str(CHART), "-d", str(folder))
    (archive,) = folder.glob("pipelinejob-*.tgz")
    return archive


@pytest.mark.timeout(180)
def test_the_job_of_the_notes_completes(cluster: Cluster) -> None:
    shop = Shop(cluster, "notes")
    cluster.add_claim(shop.namespace, "pipelinejob-try")
    notes = cluster.helm("get", "notes", RELEASE, "-n", SYSTEM)
    data, job = re.findall(r"<<'YAML'\n(.*?)^YAML$", notes, re.DOTALL | re.MULTILINE)
    bodies = [body for body in yaml.safe_load_all(data) if body["kind"] != "PersistentVolumeClaim"]  # made above: no provisioner here
    shop.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(bodies))
    shop.kubectl("wait", "--for=condition=complete", "--timeout=60s", "job/pipelinejob-try-data")
    shop.kubectl("apply", "-f", "-", input=job)
    rows = shop.wait_end("pipelinejob-try")["rows"]
    assert (rows["total"], rows["succeeded"], rows["filtered"]) == (90, 60, 30), shop.story()
    shop.close()


@pytest.mark.timeout(300)
def test_upgrade_uninstallation_and_installation_lose_nothing_of_a_running_job(cluster: Cluster, package: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    values.write_text(cluster.helm("get", "values", RELEASE, "-n", SYSTEM, "-o", "json"))
    install = ("upgrade", "--install", RELEASE, str(package), "-n", SYSTEM, "-f", str(values), "--wait", "--timeout", "90s")
    shop = Shop(cluster, "kept")
    shop.project.catalogue(700)
    shop.slow_down(0.5)
    shop.apply(functions=[SLOW], sharding={"rowsPerShard": 100, "batchRows": 10})
    secret = cluster.get("secret", "pipelinejob-postgres", SYSTEM)["data"]
    try:
        shop.wait(lambda: shop.status().get("rows", {}).get("succeeded"), 60, "the first rows")
        cluster.helm(*install, "--set", "operator.podAnnotations.again=yes")
        cluster.helm("uninstall", RELEASE, "-n", SYSTEM, "--wait", "--timeout", "60s")
        assert shop.phase() not in ENDS  # it goes on without an operator
        shop.speed_up()
        assert cluster.get("secret", "pipelinejob-postgres", SYSTEM)["data"] == secret
    finally:
        cluster.helm(*install)
    rows = shop.wait_end()["rows"]
    assert (rows["total"], rows["succeeded"]) == (700, 700), shop.story()
    assert len(shop.project.table("out/job/metadata.csv")) == 700
    shop.close()


@pytest.mark.timeout(300)
def test_pods_that_cannot_reach_the_database_say_so_and_go_on_when_they_can(cluster: Cluster, package: Path, tmp_path: Path) -> None:
    """The way of the pods goes through PgBouncer, the operator's does not."""
    values = tmp_path / "values.json"
    values.write_text(cluster.helm("get", "values", RELEASE, "-n", SYSTEM, "-o", "json"))
    upgrade = ("upgrade", RELEASE, str(package), "-n", SYSTEM, "-f", str(values), "--wait", "--timeout", "90s")
    scale = ("scale", "deployment/pipelinejob-pgbouncer", "-n", SYSTEM)
    shop = Shop(cluster, "pooled")
    shop.project.catalogue(40)
    try:
        cluster.helm(*upgrade, "--set", "pgbouncer.enabled=true", "--set", f"pgbouncer.image={POSTGRES}")
        shop.apply("first")
        assert shop.wait_end("first")["phase"] == "Complete", shop.story()

        cluster.kubectl(*scale, "--replicas=0")
        cluster.kubectl("wait", "pod", "-n", SYSTEM, "-l", "app.kubernetes.io/component=pgbouncer", "--for=delete", "--timeout=60s")
        shop.apply()
        shop.wait(lambda: shop.condition("Complete").get("reason") == "DatabaseUnavailable", 40, "the pods' trouble")
        assert "database.workerUrl" in shop.condition("Complete")["message"]
        assert ("Warning", "DatabaseUnavailable") in shop.events()

        cluster.kubectl(*scale, "--replicas=1")
        assert shop.wait_end()["phase"] == "Complete", shop.story()
        assert shop.project.table("out/job/metadata.csv") == shop.project.table("out/first/metadata.csv")
    finally:
        cluster.helm(*upgrade)
    shop.close()


class Second:
    """A release beside the first: rights in its own namespace alone, a Postgres on a volume, no CRD of its own."""

    def __init__(self, cluster: Cluster, namespace: str, package: Path, values: Path) -> None:
        self._cluster, self._namespace, self._package, self._values = cluster, namespace, package, values

    def helm(self, verb: str, *more: str) -> None:
        """install or upgrade, until all is ready."""
        common = ("--namespace", self._namespace, "--values", str(self._values), "--wait", "--timeout", "60s")
        self._cluster.helm(verb, "second", str(self._package), *common, *more)

    def uninstall(self) -> None:
        self._cluster.helm("uninstall", "second", "--namespace", self._namespace, "--ignore-not-found", "--wait", "--timeout", "60s")

    def test(self) -> str:
        return self._cluster.helm("test", "second", "--namespace", self._namespace, "--logs", "--timeout", "60s")

    def password(self) -> str:
        return self._get("secret/second-postgres", "{.data.password}")

    def database_pod(self) -> str:
        return self._get("pod/second-postgres-0", "{.metadata.uid}")

    def sql(self, statement: str) -> str:
        """The only value of the answer, asked as the database's owner."""
        psql = ("psql", "-U", "pipelinejob", "-tAqc", statement)
        return self._cluster.kubectl("exec", "second-postgres-0", "--namespace", self._namespace, "--", *psql).strip()

    def objects(self) -> str:
        kinds = "deployments,statefulsets,services,roles,rolebindings"
        return self._cluster.kubectl("get", kinds, "--namespace", self._namespace, "-o", "name")

    def _get(self, what: str, path: str) -> str:
        return self._cluster.kubectl("get", what, "--namespace", self._namespace, "-o", f"jsonpath={path}")


@pytest.fixture(scope="module")
def second(cluster: Cluster, namespace: str, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    values = json.loads(cluster.helm("get", "values", RELEASE, "-n", SYSTEM, "-o", "json"))
    values |= {"crds": {"install": False}, "watchNamespaces": [namespace]}
    file = tmp_path_factory.mktemp("second") / "values.json"
    file.write_text(json.dumps(values))
    cluster.add_claim(namespace, "data-second-postgres-0")
    made = Second(cluster, namespace, package, file)
    made.helm("install")
    yield made
    made.uninstall()


@pytest.mark.parametrize(
    ("verb", "resource", "where", "answer"),
    [
        ("create", "jobs", NAMESPACE, "yes"),
        ("delete", "pipelinejobs", NAMESPACE, "yes"),
        ("create", "secrets", NAMESPACE, "yes"),
        ("create", "networkpolicies", NAMESPACE, "yes"),
        ("get", "networkpolicies", NAMESPACE, "no"),
        ("get", "secrets", NAMESPACE, "no"),
        ("create", "pods", NAMESPACE, "no"),
        ("list", "pipelinejobs", "default", "no"),
        ("create", "jobs", "default", "no"),
    ],
)
def test_a_namespaced_operator_may_do_this(cluster: Cluster, second: Second, verb: str, resource: str, where: str, answer: str) -> None:
    user = f"system:serviceaccount:{NAMESPACE}:second-operator"
    assert cluster.kubectl("auth", "can-i", verb, resource, "--namespace", where, "--as", user, check=False).split()[-1] == answer


def test_an_upgrade_keeps_the_password_and_the_database_runs_on(second: Second) -> None:
    password, pod = second.password(), second.database_pod()
    second.helm("upgrade", "--set", "ledger.retentionDays=7")
    assert (second.password(), second.database_pod()) == (password, pod)
    assert "database: ok" in second.test()


def test_workers_can_go_through_pgbouncer(second: Second) -> None:
    second.helm("upgrade", "--set", "pgbouncer.enabled=true", "--set", f"pgbouncer.image={POSTGRES}")
    assert "pooler: ok" in second.test()


def test_an_installation_over_an_earlier_one_finds_its_password_and_its_data(second: Second) -> None:
    second.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    password = second.password()
    second.uninstall()
    assert second.objects() == ""
    second.helm("install")
    assert second.password() == password
    assert second.sql("SELECT answer FROM kept") == "42"


def _render(cluster: Cluster, namespace: str, values: list[str]) -> str:
    settings = [word for value in values for word in ("--set", value)]
    return cluster.helm("template", "x", str(CHART), "-n", namespace, *settings)


def _pod(body: dict[str, Any]) -> dict[str, Any] | None:
    """The pod that an object is or makes; without its ServiceAccount and its claim, which a dry run does not make."""
    if body["kind"] == "Pod":
        return body
    if body["kind"] not in ("Deployment", "StatefulSet"):
        return None
    metadata = {"name": body["metadata"]["name"], "namespace": body["metadata"]["namespace"]}
    spec = {**body["spec"]["template"]["spec"], "serviceAccountName": "default"}
    if "volumeClaimTemplates" in body["spec"]:
        spec["volumes"] = [*spec["volumes"], {"name": "data", "emptyDir": {}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
