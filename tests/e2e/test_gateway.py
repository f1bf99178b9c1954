"""The gateway as the chart installs it: what people do through it, what RBAC lets them, and what it does not do."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pandas as pd
import pytest

from cluster.cluster import SYSTEM
from pipelinejob import JobError, PipelineJob, StateError
from pipelinejob.remote import RemoteJobs
from support import notebook
from support.gateway import ask_by_the_hundred
from support.project import Project
from support.shop import ENDS, SLOW, Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(300)
CHART = Path(__file__).parents[2] / "helm/pipelinejob"
JOBS = "/api/v1/pipelinejobs"
GATEWAY = "app.kubernetes.io/component=gateway"
SMALL = {"sharding": {"batchRows": 5, "rowsPerShard": 20}}


class Front:
    """A release with a gateway that reads the results of one shop, and its users."""

    def __init__(self, cluster: Cluster, shop: Shop, uploads: Path) -> None:
        self.cluster, self.shop, self.uploads = cluster, shop, uploads
        self.url = ""

    def user(self, name: str, role: str | None = None, namespace: str | None = None) -> str:
        """A token of a new ServiceAccount with a role in a namespace; by default, both in the shop's."""
        at = ("-n", self.shop.namespace)
        self.cluster.kubectl("create", "serviceaccount", name, *at)
        if role is not None:
            binding = ("create", "rolebinding", f"{self.shop.namespace}-{name}", f"--clusterrole={role}")
            self.cluster.kubectl(*binding, f"--serviceaccount={self.shop.namespace}:{name}", "-n", namespace or self.shop.namespace)
        return self.cluster.kubectl("create", "token", name, *at, "--duration=1h").strip()

    def client(self, token: str | None) -> httpx.Client:
        """Requests with a token."""
        return httpx.Client(base_url=self.url, timeout=30, headers={"Authorization": f"Bearer {token}"} if token else {})


@pytest.fixture(scope="module")
def front(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    shop = Shop(cluster, "front")
    front = Front(cluster, shop, cluster.add_claim(SYSTEM, f"{shop.namespace}-uploads"))
    values = tmp_path_factory.mktemp("values") / "values.json"
    values.write_text(cluster.helm("get", "values", cluster.release, "-n", SYSTEM, "-o", "json"))
    upgrade = ("upgrade", cluster.release, str(CHART), "-n", SYSTEM, "-f", str(values), "--wait", "--timeout", "120s")
    gateway = {
        "gateway.enabled": "true",
        "metrics.enabled": "true",
        "gateway.uploads.claim": f"{shop.namespace}-uploads",
        "gateway.dataNamespaces[0].namespace": shop.namespace,
        "gateway.dataNamespaces[0].claims": "{catalogue}",
    }
    try:
        cluster.helm(*upgrade, *(word for name, value in gateway.items() for word in ("--set", f"{name}={value}")))
        with cluster.forward(f"service/{cluster.release}-gateway", 80) as port:
            front.url = f"http://127.0.0.1:{port}"
            yield front
    except BaseException:
        print(cluster.kubectl("describe", "pods", "-n", SYSTEM, "-l", GATEWAY, check=False))
        print(cluster.kubectl("logs", "-n", SYSTEM, "-l", GATEWAY, "--tail=40", check=False))
        raise
    finally:
        cluster.helm(*upgrade)
        shop.close()
    ours = ("-A", "-l", "app.kubernetes.io/component in (gateway,reader)", "-o", "name")
    everything = "pods,deployments,services,secrets,networkpolicies,serviceaccounts,clusterroles,clusterrolebindings"
    cluster.wait_for(lambda: not cluster.kubectl("get", everything, *ours).strip(), 60, "what the gateway needed goes with it")


@pytest.fixture(scope="module")
def editor(front: Front) -> str:
    return front.user("ann", "edit")


@pytest.fixture(scope="module")
def done(front: Front, editor: str) -> Iterator[PipelineJob]:
    """A job of 40 rows, two of which fail, made and waited for with the SDK."""
    front.shop.project.catalogue(40)
    for row in (3, 21):
        (front.shop.root / f"img/{1000 + row}.jpg").rename(front.shop.root / f"late-{row}")
    document = front.shop.document("done", **SMALL)
    document["metadata"]["namespace"] = front.shop.namespace
    jobs = RemoteJobs(front.url, editor)
    yield PipelineJob(document, on=jobs).submit().wait(timeout=100)
    jobs.close()


def test_the_sdk_sees_what_is_on_the_claim(front: Front, done: PipelineJob, editor: str) -> None:
    assert (done.phase, done.rows["succeeded"], done.rows["failed"]) == ("Complete", 38, 2)
    written = front.shop.root / "out/done"
    pd.testing.assert_frame_equal(done.metadata(), pd.read_csv(written / "metadata.csv", dtype={"id": str}, keep_default_na=False))
    assert [(one["row"], one["reason"]) for one in done.failures().to_dict("records")] == [(3, "ImageNotFound"), (21, "ImageNotFound")]
    assert [image.size for _, image in done.images(limit=3)] == [(16, 16)] * 3

    with front.client(editor) as client:
        at = {"namespace": front.shop.namespace}
        zipped = client.get(f"{JOBS}/done/results/images.zip", params=at)
        archive = zipfile.ZipFile(io.BytesIO(zipped.content))
        assert len(archive.namelist()) == 38 and all(archive.read(name) == (written / name).read_bytes() for name in archive.namelist()[:5])
        parquet = client.get(f"{JOBS}/done/results/metadata", params={**at, "format": "parquet"})
        assert len(pd.read_parquet(io.BytesIO(parquet.content))) == 38
        first = client.get(f"{JOBS}/done/rows", params={**at, "limit": 30}).json()
        second = client.get(f"{JOBS}/done/rows", params={**at, "limit": 30, "after": first["next"]}).json()
        assert (len(first["items"]), len(second["items"]), second["next"]) == (30, 8, None)
        assert client.get(f"{JOBS}/done/results/manifest.json", params=at).content == (written / "manifest.json").read_bytes()

    front.shop.apply("kubectls", **SMALL)
    front.shop.wait_end("kubectls")
    assert PipelineJob.get("kubectls", namespace=front.shop.namespace, on=done.on).rows["failed"] == 2


def test_the_pages_of_who_signed_in(front: Front, done: PipelineJob, editor: str) -> None:
    here = f"/jobs/{front.shop.namespace}/done"
    with httpx.Client(base_url=front.url, timeout=30, headers={"Accept": "text/html"}) as browser:
        assert browser.post("/login", json={"token": "wrong"}).status_code == 401
        assert browser.post("/login", json={"token": editor}).status_code == 204
        assert f'<a href="{here}">done</a>' in browser.get("/").text
        job = browser.get(here).text
        assert "ImageNotFound" in job and "shard 1: 20 of 20 rows done, 1 failed" in job and "Redrive failed rows" in job
        assert '<th scope="row" class="">Planned' in job, "the Events of the job"
        assert "1003" in browser.get(f"{here}/failures").text
        rows = browser.get(f"{here}/rows").text  # from the reader
        before, after = re.findall(r'<img src="([^"]+)"', rows)[:2]
        for picture in (before, after):
            answer = browser.get(html.unescape(picture))
            assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg") and answer.content.startswith(b"\xff\xd8")
        assert browser.get(f"{here}/source", params={"path": "rows.csv"}).status_code == 404
        assert "Of all 38 rows" in browser.get(f"{here}/columns").text
        assert "Claim with the data" in browser.get("/new").text
        assert browser.get("/jobs/elsewhere/done").status_code == 403
        browser.post("/logout", json={})
        assert browser.get(here).headers["location"].startswith("/login?next=")


def test_prometheus_is_told_what_the_ledger_has(front: Front, done: PipelineJob) -> None:
    namespace = front.shop.namespace
    pods = front.cluster.kubectl("get", "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "-o", "name").split()
    told = []
    for pod in pods:
        with front.cluster.forward(pod, 9090) as port:
            told.append(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text)
    (leader,) = [text for text in told if "pipelinejob_leading 1.0" in text]
    rows = {outcome: int(float(count)) for outcome, count in re.findall(rf'rows{{namespace="{namespace}",outcome="(\w+)"}} (\S+)', leader)}
    jobs = json.loads(front.shop.kubectl("get", "pipelinejobs", "-o", "json"))["items"]
    assert rows == {outcome: sum(job["status"]["rows"][outcome] for job in jobs) for outcome in rows} and len(rows) == 5
    assert f'pipelinejob_failed_rows{{namespace="{namespace}",reason="ImageNotFound"}} {2.0 * len(jobs)}' in leader
    front.shop.apply("timed", **SMALL)  # counted from the first look on
    front.shop.wait_end("timed")
    with front.cluster.forward(pods[told.index(leader)], 9090) as port:
        now = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    counted = dict(re.findall(rf'function_seconds_count{{function="([^"]+)",namespace="{namespace}"}} (\S+)', now))
    assert float(counted["(read)"]) >= 38 and "resize" in " ".join(counted), now
    assert f'pipelinejob_batch_seconds_bucket{{le="+Inf",namespace="{namespace}"}}' in now
    assert "pipelinejob_database_up 1.0" in leader and 'reconcile_seconds_count{outcome="done"}' in leader
    assert not any("pipelinejob_rows" in text for text in told if text is not leader), "only who leads asks the ledger"
    with front.cluster.forward(f"deployment/{front.cluster.release}-gateway", 9090) as port:
        assert 'route="/api/v1/pipelinejobs/{name}"' in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text


def test_failed_rows_run_again(front: Front, done: PipelineJob) -> None:
    for row in (3, 21):
        (front.shop.root / f"late-{row}").rename(front.shop.root / f"img/{1000 + row}.jpg")
    again = done.redrive(["ImageNotFound"])
    assert again is not None and again.name == "done-redrive-1"
    assert again.wait(timeout=100).rows["succeeded"] == 2
    front.shop.wait(lambda: done.rows["failed"] == 0, 20, "the root job counts them")
    assert len(done.metadata()) == 40
    assert done.redrive() is None, "nothing is left"


def test_a_job_is_suspended_resumed_changed_and_cancelled(front: Front, done: PipelineJob, editor: str) -> None:
    front.shop.slow_down()
    document = front.shop.document("long", functions=[SLOW], **SMALL)
    document["metadata"] |= {"namespace": front.shop.namespace, "labels": {"team": "shop"}}
    with front.client(editor) as client:
        created = client.post(JOBS, json=document)
        assert created.status_code == 201 and created.json()["metadata"]["labels"] == {"team": "shop"}
        assert client.post(JOBS, json=document).json()["reason"] == "AlreadyExists"
    job = PipelineJob.get("long", namespace=front.shop.namespace, on=done.on)
    job.suspend()
    with pytest.raises(StateError, match="suspended"):
        job.wait(timeout=60)
    job.resume().patch(parallelism=2)
    with pytest.raises(JobError, match=r"spec.source: may not change"):
        job.patch(source={"csv": "other.csv"})
    job.cancel().wait(timeout=60)
    assert job.phase == "Cancelled"
    with pytest.raises(StateError, match="has ended"):
        job.resume()
    job.delete()
    assert "long" not in front.shop.kubectl("get", "pipelinejobs", "-o", "name")


def test_what_the_operator_would_refuse_is_refused_at_once(front: Front, editor: str) -> None:
    wrong = front.shop.document("wrong", functions=[{"name": "resiz"}, {"name": "f", "file": "f.py"}])
    wrong["metadata"]["namespace"] = front.shop.namespace
    with front.client(editor) as client:
        answer = client.post(JOBS, json=wrong)
        assert answer.status_code == 422 and answer.headers["Content-Type"] == "application/problem+json"
        assert any("did you mean 'resize'" in line for line in answer.json()["errors"])
        assert any("spec.functions[1].file" in line for line in answer.json()["errors"])
        elsewhere = client.post("/api/v1/plan", json=front.shop.document("planned"))  # the namespace default is not the editor's
        assert elsewhere.status_code == 403
        kept = client.delete(f"{JOBS}/done", params={"namespace": front.shop.namespace, "output": True})
        assert kept.status_code == 501
    assert "wrong" not in front.shop.kubectl("get", "pipelinejobs", "-o", "name")


def test_a_plan_is_made_where_the_claim_can_be_read(front: Front, editor: str) -> None:
    document = front.shop.document("planned", source={"where": {"gender": "Men"}})
    document["metadata"]["namespace"] = front.shop.namespace
    own = {"name": "mine", "params": {"x": 1}}
    with front.client(editor) as client:
        plan = client.post("/api/v1/plan", json=document, params={"count": True})
        assert plan.status_code == 200, plan.text
        assert "gender" in plan.json()["columns"] and plan.json()["first"][0]["cells"]["gender"] == "Men"
        assert (
            plan.json()["rows"]["total"] == plan.json()["rows"]["filtered"] + plan.json()["rows"]["pending"] + plan.json()["rows"]["failed"]
        )
        document["spec"]["source"]["where"] = {"gendr": "Men"}
        wrong = client.post("/api/v1/plan", json=document)
        assert wrong.status_code == 422 and any("spec.source.where.gendr" in line for line in wrong.json()["errors"])
        document["spec"] |= {"functions": [own], "source": {"csv": "../../etc/passwd"}}
        assert client.post("/api/v1/plan", json=document).status_code == 422
        document["spec"]["data"]["persistentVolumeClaim"]["claimName"] = "another"
        document["spec"] |= {"functions": [], "source": {"csv": "rows.csv"}}
        unread = client.post("/api/v1/plan", json=document)
        assert unread.status_code == 501 and "dataNamespaces" in unread.json()["detail"]
    assert "planned" not in front.shop.kubectl("get", "pipelinejobs", "-o", "name")


def test_everybody_sees_and_does_what_rbac_lets_them(front: Front, done: PipelineJob, editor: str) -> None:
    namespace = front.shop.namespace
    at = {"namespace": namespace}
    questions = ("", "/rows", "/failures", "/results/metadata.csv", "/results/images.zip", "/results/metadata")
    with front.client(None) as nobody, front.client("wrong") as wrong:
        for client in (nobody, wrong):
            answer = client.get(f"{JOBS}/done", params=at)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert nobody.get("/").status_code == 401 and nobody.get("/api/v1/docs").status_code == 200
        page = nobody.get(f"/jobs/{namespace}/done", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["location"]) == (303, f"/login?next=%2Fjobs%2F{namespace}%2Fdone")
        assert nobody.get("/api/v1/events").status_code == 401

    with front.client(editor) as client:  # a page that somehow has a token
        foreign = client.post(f"{JOBS}/done/cancel", params=at, json={}, headers={"Origin": "http://evil.example"})
        assert foreign.status_code == 403 and client.post(f"{JOBS}/done/cancel", params=at, content="x=1").status_code == 415

    with front.client(front.user("eve")) as eve:  # knows the cluster, may nothing
        for question in questions:
            refused = [eve.get(f"{JOBS}/{name}{question}", params=at) for name in ("done", "none")]
            assert [answer.status_code for answer in refused] == [403, 403]
            assert refused[0].text.replace("done", "none") == refused[1].text, "it is not told whether there is one"
        assert eve.get(JOBS).json() == {"items": [], "next": None}
        assert eve.get(JOBS, params=at).status_code == eve.get("/api/v1/events", params=at).status_code == 403
        document = {**front.shop.document("eves"), "metadata": {"name": "eves", "namespace": namespace}}
        created = eve.post(JOBS, json=document)
        assert created.status_code == 403 and f"system:serviceaccount:{namespace}:eve" in created.json()["detail"], "in her own name"
        for method, path in (("POST", "done/cancel"), ("POST", "done/redrive"), ("PATCH", "done"), ("DELETE", "done")):
            assert eve.request(method, f"{JOBS}/{path}", params=at, json={"spec": {}} if method == "PATCH" else {}).status_code == 403

    with front.client(front.user("vic", "view")) as vic:  # may look
        assert [vic.get(f"{JOBS}/done{question}", params=at).status_code for question in questions] == [200] * len(questions)
        assert "done" in {job["metadata"]["name"] for job in vic.get(JOBS).json()["items"]}
        assert vic.delete(f"{JOBS}/done", params=at).status_code == vic.post(JOBS, json=document).status_code == 403

    other = Shop(front.cluster, "elsewhere")
    try:
        other.project.catalogue(5)
        other.apply("theirs")
        other.wait_end("theirs")
        with front.client(front.user("oscar", "view", other.namespace)) as oscar:  # may look elsewhere
            assert {job["metadata"]["namespace"] for job in oscar.get(JOBS).json()["items"]} == {other.namespace}
            assert oscar.get(f"{JOBS}/done", params=at).status_code == 403
            answer = oscar.get(f"{JOBS}/theirs/results/metadata.csv", params={"namespace": other.namespace})
            assert answer.status_code == 501 and f"kubectl pipelinejob results theirs -n {other.namespace}" in answer.json()["detail"]
    finally:
        other.close()


def test_a_reader_answers_the_gateway_alone_and_leaves_its_claim_for_nothing(front: Front, done: PipelineJob, editor: str) -> None:
    shop = front.shop
    (shop.root / "secret").mkdir()
    (shop.root / "secret/metadata.csv").write_text("id,url\n1,secret\n")
    for name, target in (("out/inside", "../secret"), ("out/outside", "/etc")):
        (shop.root / name).symlink_to(target)
    (shop.root / "out/done/images/000000000/link.jpg").symlink_to("/proc/self/environ")
    with front.client(editor) as client:
        at = {"namespace": shop.namespace}
        below = f"{JOBS}/done/results"
        for path in (
            "images/000000000/link.jpg",
            "images/000000000/..%2f..%2fmetadata.csv",
            "images/..%2f/metadata.csv",
            "..%2f..%2fsecret",
        ):
            assert client.get(f"{below}/{path}", params=at).status_code == 404, path
        sneaky = {"X-PipelineJob-Output": "catalogue/secret"}  # only the gateway says where
        assert b"secret" not in client.get(f"{below}/metadata.csv", params=at, headers=sneaky).content
    with front.cluster.forward(f"service/{front.cluster.release}-reader", 8080, shop.namespace) as port:
        url = f"http://127.0.0.1:{port}{JOBS}/x/results/metadata.csv"
        assert httpx.get(url, headers={"X-PipelineJob-Output": "catalogue/out/done"}).status_code == 401
        secret = front.cluster.get("secret", f"{front.cluster.release}-readers", shop.namespace)["data"]["token"]

        own = {"Authorization": f"Bearer {base64.b64decode(secret).decode()}"}
        for output, status in {
            "catalogue/out/done": 200,
            "catalogue/out/outside": 404,
            "catalogue/../../etc": 404,
            "catalogue/": 404,
            "../etc": 501,
            "other/out/done": 501,
            "": 501,
        }.items():
            assert httpx.get(url, headers={**own, "X-PipelineJob-Output": output}).status_code == status, output
    reader = front.cluster.get("deployment", f"{front.cluster.release}-reader", shop.namespace)["spec"]["template"]["spec"]
    assert reader["automountServiceAccountToken"] is False
    assert [mount["readOnly"] for mount in reader["containers"][0]["volumeMounts"] if mount["mountPath"].startswith("/data")] == [True]


def test_changes_are_told_as_they_come(front: Front, editor: str) -> None:
    told: list[tuple[str, str]] = []
    listening, over = threading.Event(), threading.Event()

    def listen() -> None:
        with front.client(editor) as client, client.stream("GET", "/api/v1/events") as stream:  # of what the editor may see
            listening.set()
            for line in stream.iter_lines():
                if line.startswith("data: ") and (change := json.loads(line[6:]))["name"] in ("told", "hidden"):
                    told.append((change["type"], change["phase"]) if change["name"] == "told" else ("LEAKED", ""))
                    if change["type"] == "DELETED":
                        over.set()
                        return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert listening.wait(10)
    hidden = {**front.shop.document("hidden", suspend=True), "metadata": {"name": "hidden", "namespace": "default"}}
    front.cluster.kubectl("apply", "-f", "-", input=json.dumps(hidden))  # not the editor's to see
    try:
        front.shop.apply("told", **SMALL)
        front.shop.wait_end("told")
    finally:
        front.cluster.kubectl("delete", "pipelinejob", "hidden", "-n", "default")
    front.shop.wait(lambda: told and told[-1][1] in ENDS, 10, "its end is told")
    front.shop.kubectl("delete", "pipelinejob", "told")
    assert over.wait(15)
    assert told[0][0] == "ADDED" and ("MODIFIED", "Complete") in told and ("LEAKED", "") not in told


def test_the_replaced_systems_endpoints_work_on_the_gateways_own_claim(front: Front) -> None:
    shutil.copytree(notebook.FASHION, front.uploads / "fashion", dirs_exist_ok=True)
    before = {path for path in front.uploads.rglob("*") if "uploads/uploads" not in str(path)}
    with front.client(front.user("olga", "edit", SYSTEM)) as client:
        assert client.post("/api/v1/svc_ml/query", json={}).status_code == 409
        inserted = client.post("/api/v1/svc_ml/insert2db", json={"csv": "fashion/styles.csv", "images": "fashion/images/{id}.jpg"})
        assert (inserted.status_code, inserted.json()) == (200, {"rows": 240, "malformed": 2}), inserted.text
        after = {path for path in front.uploads.rglob("*") if path not in before}
        assert {str(path.relative_to(front.uploads)) for path in after} == {"uploads", "uploads/svc_ml.json"}, "nothing else is written"
        assert client.post("/api/v1/svc_ml/query", json={"colour": "red"}).status_code == 422
        task = client.post("/api/v1/svc_ml/query", json={"gender": "Men", "season": "Fall"})
        assert task.status_code == 202
        where = f"/api/v1/svc_ml/result/{task.json()['task_id']}"
        assert client.get(where).status_code == 202
        front.shop.wait(lambda: client.get(where).status_code == 200, 60, "the task ends")
        result: dict[str, Any] = client.get(where).json()
        assert result["status"] == "Complete" and result["rows"]["succeeded"] > 0
        copies = list((front.uploads / result["path"] / "images").rglob("*.jpg"))
        assert len(copies) == result["rows"]["succeeded"]
        assert all(copy.read_bytes() == (front.uploads / "fashion/images" / copy.name).read_bytes() for copy in copies)
        front.cluster.kubectl("delete", "pipelinejob", task.json()["task_id"], "-n", SYSTEM)


def test_the_notebook_runs_behind_it(front: Front, editor: str, tmp_path: Path) -> None:
    shutil.copytree(notebook.FASHION, front.shop.root / "fashion")
    there = {"PIPELINEJOB_URL": front.url, "PIPELINEJOB_TOKEN": editor}
    there |= {"PIPELINEJOB_NAMESPACE": front.shop.namespace, "PIPELINEJOB_CLAIM": "catalogue"}
    notebook.check(notebook.execute(tmp_path, {**Project(tmp_path, None).environment, **there}))


@pytest.mark.timeout(400)
def test_no_request_makes_an_error_of_the_server(front: Front, tmp_path: Path) -> None:
    cluster = front.cluster
    before = set(cluster.kubectl("get", "pipelinejobs", "-n", "default", "-o", "name").split())
    token = front.user("fay", "edit", "default")
    try:
        ask_by_the_hundred(front.url, tmp_path, 3, token)
    finally:
        cluster.kubectl("delete", "rolebinding", f"{front.shop.namespace}-fay", "-n", "default")
        made = set(cluster.kubectl("get", "pipelinejobs", "-n", "default", "-o", "name").split()) - before
        if made:
            cluster.kubectl("delete", "-n", "default", *made, "--wait=false")


def test_its_own_rights_change_nothing(cluster: Cluster, front: Front) -> None:
    account = f"--as=system:serviceaccount:{SYSTEM}:{cluster.release}-gateway"
    may = {
        (verb, what): cluster.kubectl("auth", "can-i", verb, what, account, "-A", check=False).strip().endswith("yes")
        for verb in ("create", "patch", "delete", "list")
        for what in ("pipelinejobs.pipelinejob.dev", "secrets", "pods", "jobs.batch", "tokenreviews.authentication.k8s.io")
    }
    assert {question for question, yes in may.items() if yes} == {
        ("list", "pipelinejobs.pipelinejob.dev"),
        ("create", "tokenreviews.authentication.k8s.io"),
    }


def test_it_goes_on_when_the_api_server_was_away(front: Front, editor: str) -> None:
    if front.cluster.node is None:
        pytest.skip("only the processes of our own node can be stopped")
    (pod,) = json.loads(front.cluster.kubectl("get", "pods", "-n", SYSTEM, "-l", GATEWAY, "-o", "json"))["items"]
    front.url = f"http://{pod['status']['podIP']}:8080"  # what kubectl forwards goes through the API server
    with front.client(editor) as client:
        at = {"namespace": front.shop.namespace}
        assert client.get(JOBS, params=at).status_code == 200
        front.cluster.stop_process("kube-apiserver")
        try:
            away = client.get(f"{JOBS}/done", params=at)
            assert away.status_code == 503 and away.json()["detail"].startswith("the Kubernetes API does not answer")
        finally:
            front.cluster.start_process("kube-apiserver")
        front.shop.wait(lambda: client.get(f"{JOBS}/done", params=at).status_code == 200, 60, "it is back")
        front.shop.apply("later", source={"csv": "missing.csv"})
        front.shop.wait(
            lambda: "later" in {job["metadata"]["name"] for job in client.get(JOBS, params=at).json()["items"]}, 60, "the watch goes on"
        )
