"""`kubectl pipelinejob` without a cluster: its words, what it tells, what it takes from a tar, what its doctor concludes."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelinejob_kubectl import arguments, cli, completion, copying, doctor, errors, in_pod, jobs, planned, reading, upload, view, watch
from pipelinejob_kubectl.errors import PluginError
from pipelinejob_operator.crd import crd
from pipelinejob_operator.manifests import Defaults, Target, run_job
from support import plugin

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def job(phase: str | None = "Running", **status: Any) -> dict[str, Any]:
    """A PipelineJob as the API server has it."""
    spec = {"source": {"csv": "rows.csv"}, "data": {"persistentVolumeClaim": {"claimName": "catalogue"}}, "parallelism": 2}
    meta = {"name": "men", "namespace": "shop", "uid": "u1", "generation": 1, "creationTimestamp": "2026-11-24T11:59:00Z"}
    made: dict[str, Any] = {"metadata": meta, "spec": spec}
    if phase is not None:
        rows = {"total": 40, "succeeded": 28, "filtered": 0, "skipped": 0, "failed": 2, "pending": 10}
        made["status"] = {"phase": phase, "rows": rows, "progress": "30/40", "observedGeneration": 1, "output": "out/men", **status}
    return made


def waits(reason: str, message: str = "m", kind: str = "Complete", status: str = "False") -> dict[str, Any]:
    """conditions: with one of them."""
    return {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}


# ---- words


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("list -n shop", "--namespace shop list"),
        ("status men --namespace=shop -w", "--namespace shop status men -w"),
        ("--context a list -nshop --json", "--context a --namespace shop list --json"),
        ("logs men -- -n", "logs men -- -n"),
        ("list -n", "--namespace list"),
    ],
)
def test_options_of_kubectl_may_stand_anywhere(typed: str, read: str) -> None:
    assert arguments.hoist(typed.split()) == read.split()


def test_the_completion_knows_every_command_with_its_options() -> None:
    known = {}
    for command in cli.app.registered_commands:
        assert command.callback is not None
        group: Any = __import__("typer").main.get_command(cli.app)
        name = command.name or command.callback.__name__
        parameters = group.commands[name].params
        found = {word for one in parameters for word in (*one.opts, *one.secondary_opts) if word.startswith("--") and word != "--help"}
        known[name] = found
    assert {verb: set(options) for verb, (_, options) in completion.VERBS.items()} == known


@pytest.mark.parametrize(
    ("typed", "candidates", "directive"),
    [
        ("s", ["status", "suspend", "scale"], 4),
        ("status m", ["men", "men-2"], 4),
        ("status men ", [], 4),
        ("status men --w", ["--watch"], 4),
        ("-n shop status men-", ["men-2"], 4),
        ("status -n s", ["shop"], 4),
        ("failures men --reason ImageN", ["ImageNotFound"], 4),
        ("logs --stage f", ["finalize"], 4),
        ("logs --stage shard m", ["men", "men-2"], 4),
        ("run j", [], 0),
        ("results men --to ", [], 0),
        ("list ", [], 4),
        ("--context w", ["work"], 4),
    ],
)
def test_completion(typed: str, candidates: list[str], directive: int) -> None:
    asked = []

    def ask(words: Any) -> list[str]:
        asked.append(list(words))
        kinds = {"pipelinejobs.pipelinejob.dev": ["x/men", "x/men-2"], "namespaces": ["namespace/shop", "namespace/kube-system"]}
        return kinds[words[1]] if words[0] == "get" else ["work", "home"]

    assert completion.complete(typed.split(" "), ask) == (candidates, directive)
    if typed.startswith("-n shop"):
        assert asked[0][-2:] == ["--namespace", "shop"]


def test_a_kubeconfig_that_is_not_there_is_one_line_and_with_json_an_object(tmp_path: Path) -> None:
    ran = plugin.run(
        "-m",
        "pipelinejob_kubectl",
        "list",
        "--json",
        folder=tmp_path,
        environment={"KUBECONFIG": "/nowhere"},
        cwd=tmp_path,
        kubectl=sys.executable,
    )
    assert (ran.code, len(ran.err.splitlines())) == (1, 1) and "no kubeconfig" in ran.err and "/nowhere" in ran.err
    assert (ran.json["reason"], ran.json["phase"]) == ("NoKubeconfig", "Failed")


def test_a_cluster_that_does_not_answer_and_a_context_that_is_not_there(tmp_path: Path) -> None:
    context = {"name": "here", "context": {"cluster": "c", "user": "u"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [context],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "secret-token"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    words = ["-m", "pipelinejob_kubectl", "--kubeconfig", str(tmp_path / "config")]
    ran = plugin.run(*words, "list", folder=tmp_path, environment={}, cwd=tmp_path, kubectl=sys.executable)
    assert ran.code == 1 and "127.0.0.1:9 does not answer" in ran.err and "refused" in ran.err and "secret" not in ran.err
    assert len(ran.err.splitlines()) == 1
    ran = plugin.run(*words, "--context", "there", "list", folder=tmp_path, environment={}, cwd=tmp_path, kubectl=sys.executable)
    assert ran.code == 1 and "there" in ran.err and "--context" in ran.err and len(ran.err.splitlines()) == 1


def test_what_the_api_server_refuses_says_what_to_do() -> None:
    def status(reason: str, message: str) -> bytes:
        return json.dumps({"reason": reason, "message": message}).encode()

    forbidden = errors.refused(403, status("Forbidden", 'User "eve" cannot list resource "pipelinejobs"'), "/x")
    assert (forbidden.reason, forbidden.code) == ("Forbidden", 1) and "role 'edit'" in forbidden.message
    missing = errors.refused(404, b"404 page not found\n", "/apis/pipelinejob.dev/v1alpha1/namespaces/a/pipelinejobs")
    assert missing.reason == "NotInstalled" and "doctor" in missing.message
    invalid = errors.refused(422, status("Invalid", "spec.source: is fixed"), "/x")
    assert invalid.code == 2
    assert errors.refused(500, b"\xff", "/x").reason == "Status500"


# ---- what is told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (5, "5s"),
        (119, "119s"),
        (125, "2m5s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (12_000, "3h20m"),
        (172_800, "2d"),
        (63_072_000, "2y"),
    ],
)
def test_ages_are_those_of_kubectl(seconds: int, told: str) -> None:
    assert view.age(seconds) == told


def test_the_list_is_that_of_kubectl() -> None:
    text = view.job_list([job(rowsPerSecond=38.8), job(None)], everywhere=True, now=NOW)
    assert [line.split() for line in text.splitlines()] == [
        ["NAMESPACE", "NAME", "PHASE", "PROGRESS", "FAILED", "RATE", "AGE"],
        ["shop", "men", "Running", "30/40", "2", "38.8", "60s"],
        ["shop", "men", "Pending", "60s"],
    ]


def test_the_object_of_a_job_has_the_fields_of_pipelinejob_json() -> None:
    ended = job("Failed", **waits("FailureBudgetExceeded", "too many", "Failed", "True"), startTime="2026-11-24T11:59:00Z")
    ended["status"]["completionTime"] = "2026-11-24T11:59:02Z"
    told = jobs.summary(ended)
    assert list(told) == ["name", "namespace", "uid", "phase", "rows", "shards", "output", "seconds", "reason", "message"]
    assert (told["reason"], told["message"], told["seconds"], told["output"]) == ("FailureBudgetExceeded", "too many", 2.0, "out/men")
    assert jobs.summary(job(None))["phase"] == "Pending"


def test_an_end_counts_when_the_operator_has_seen_the_latest_change() -> None:
    assert jobs.has_ended(job("Complete")) and not jobs.has_ended(job("Running")) and not jobs.has_ended(job(None))
    resumed = job("Failed")
    resumed["metadata"]["generation"] = 2
    assert not jobs.has_ended(resumed)
    assert jobs.has_ended(job("Pending", **waits("PlanOnly")))


def test_what_keeps_a_job_is_told_and_that_it_runs_is_not() -> None:
    assert jobs.standing(job(**waits("ImagePullBackOff", "no image"))) == (None, "ImagePullBackOff: no image")
    assert jobs.standing(job(**waits("Running", "running the shards"))) == (None, None)
    assert "30/40 rows (75%)" in view.line(job()) and "2 failed" in view.line(job())


# ---- plans


def test_a_plan_is_the_job_of_the_file_under_a_name_of_its_own() -> None:
    name = "a" * 40
    made = planned.plan_of({"metadata": {"name": name, "namespace": "shop"}, "spec": {"suspend": True, "source": {}}}, "abc123")
    assert made["metadata"]["name"] == "a" * 28 + "-plan-abc123" and made["spec"] == {"source": {}, "mode": "plan"}


# ---- the pod beside the claim


def test_the_pod_that_reads_is_restricted_and_like_the_pods_of_the_job() -> None:
    spec = {**job()["spec"], "worker": {"imagePullSecrets": [{"name": "pull"}]}, "mode": "run", "backoffLimitPerIndex": 3}
    target = Target("shop", "men", "0a1b2c3d", spec, "example.com/worker:1", None, "postgresql://u:password@host/db")
    like = reading.like_job(run_job(target, 1, 1, 1, Defaults("Always", {}, 1000, 60), suspend=False))
    pod = reading.manifest(like, "reader-1", "shop", "catalogue", job=job("Complete"))
    text, container = json.dumps(pod), pod["spec"]["containers"][0]
    assert (container["image"], container["imagePullPolicy"]) == ("example.com/worker:1", "Always")
    assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}] and pod["spec"]["securityContext"]["fsGroup"] == 1000
    assert pod["spec"]["automountServiceAccountToken"] is False and pod["spec"]["activeDeadlineSeconds"] > 0
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]} and container["securityContext"]["readOnlyRootFilesystem"]
    assert container["volumeMounts"][0] == {"name": "data", "mountPath": "/data", "readOnly": True}
    assert "secretKeyRef" not in text and "DATABASE" not in text  # nothing to log in with
    assert "pipelinejob.dev/job" not in pod["metadata"]["labels"]  # none of the operator's


def test_without_the_jobs_the_image_is_that_of_the_spec_or_of_the_operator() -> None:
    plain = job("Complete")
    assert reading.like_spec(plain, {}) is None
    found = reading.like_spec(plain, {"PIPELINEJOB_WORKER_IMAGE": "worker:2", "PIPELINEJOB_WORKER_FS_GROUP": "7"})
    assert found is not None and found.image == "worker:2" and found.pod["securityContext"]["fsGroup"] == 7
    plain["spec"]["worker"] = {"image": "own:3", "nodeSelector": {"disk": "ssd"}}
    found = reading.like_spec(plain, {"PIPELINEJOB_WORKER_IMAGE": "worker:2"})
    assert found is not None and (found.image, found.pod) == ("own:3", {"nodeSelector": {"disk": "ssd"}})


# ---- results


class Results:
    """A results folder of two batches, as finalize writes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lines, batches = ["id,url"], []
        for first, ids in ((0, ("1", "2")), (200, ("é 3",))):
            digest, size = hashlib.sha256(), 0
            (folder / f"images/{first:09d}").mkdir(parents=True)
            for name in ids:
                data = f"picture {name}".encode() * 1000
                url = f"images/{first:09d}/{name}.jpg"
                (folder / url).write_bytes(data)
                digest.update(f"{hashlib.sha256(data).hexdigest()}  {name}.jpg\n".encode())
                size += len(data)
                lines.append(f"{name},{url}")
            batches.append({"first": first, "images": len(ids), "bytes": size, "imagesSha256": digest.hexdigest(), "inputsSha256": ""})
        (folder / "metadata.csv").write_text("\n".join([*lines, "4,"]) + "\n")
        (folder / "failures.csv").write_text("row,id,reason,function,message,attempts\n")
        files = {name: self._said(name) for name in ("metadata.csv", "failures.csv")}
        (folder / "manifest.json").write_text(json.dumps({"files": files, "batches": batches}))
        (folder / ".pipelinejob").mkdir()
        (folder / ".pipelinejob/owner.json").write_text("{}")
        (folder / "images/000000000/link.jpg").symlink_to("/etc/hostname")

    def _said(self, name: str) -> dict[str, object]:
        data = (self.folder / name).read_bytes()
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def tar(self, *, images: bool = True) -> io.BytesIO:
        """What the pod sends, by the very program that runs there."""
        words = ["pack", str(self.folder.parent), self.folder.name, "yes" if images else "no", *copying.FILES]
        ran = subprocess.run([sys.executable, "-I", "-c", Path(in_pod.__file__).read_text(), *words], capture_output=True, check=True)
        return io.BytesIO(ran.stdout)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    (tmp_path / "claim/out").mkdir(parents=True)
    return Results(tmp_path / "claim/out")


def test_results_arrive_whole_and_as_their_manifest_says(results: Results, tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []
    with copying.target(tmp_path / "here/results") as draft:
        copied = copying.unpack(results.tar(), draft, lambda size, manifest: seen.append((size, manifest is not None)))
        copying.verify(draft, "url")
    here = tmp_path / "here/results"
    assert sorted(path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()) == [
        "failures.csv", "images/000000000/1.jpg", "images/000000000/2.jpg", "images/000000200/é 3.jpg", "manifest.json", "metadata.csv",
    ]  # fmt: skip
    assert all((here / path).read_bytes() == (results.folder / path).read_bytes() for path in ("metadata.csv", "images/000000200/é 3.jpg"))
    manifest = copying.manifest_of(here)
    whole = copied.bytes - (here / "manifest.json").stat().st_size
    assert copied.files == 6 and seen[0][1] and whole == copying.expected_bytes(manifest, True)
    assert os.listdir(tmp_path / "here") == ["results"]


@pytest.mark.parametrize("broken", ["images/000000000/2.jpg", "images/000000200/é 3.jpg", "metadata.csv"])
def test_results_that_differ_from_their_manifest_leave_nothing(results: Results, tmp_path: Path, broken: str) -> None:
    data = (results.folder / broken).read_bytes()
    (results.folder / broken).write_bytes(data[:-1] + b"!")
    with pytest.raises(PluginError, match="does not agree"), copying.target(tmp_path / "here/results") as draft:
        copying.unpack(results.tar(), draft)
        copying.verify(draft, "url")
    assert os.listdir(tmp_path / "here") == []


def test_an_image_that_did_not_arrive_is_noticed(results: Results, tmp_path: Path) -> None:
    (results.folder / "images/000000200/é 3.jpg").unlink()
    copying.unpack(results.tar(), tmp_path / "draft")
    with pytest.raises(PluginError, match="é 3"):
        copying.verify(tmp_path / "draft", "url")


def test_without_images_only_the_tables_come(results: Results, tmp_path: Path) -> None:
    assert copying.unpack(results.tar(images=False), tmp_path / "draft").files == 3
    copying.verify(tmp_path / "draft", "url", images=False)


def test_a_folder_that_is_there_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/mine.txt").write_text("mine")
    with pytest.raises(PluginError, match="is there already"), copying.target(tmp_path / "results"):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PluginError, match="is there already"), copying.target(tmp_path / "link"):
        pass
    assert os.listdir(tmp_path / "results") == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../outside", tarfile.REGTYPE),
        ("/etc/outside", tarfile.REGTYPE),
        ("images/000000000/../../../outside", tarfile.REGTYPE),
        ("images/000000000/.hidden", tarfile.REGTYPE),
        ("images/000000000/a\\b.jpg", tarfile.REGTYPE),
        ("other.txt", tarfile.REGTYPE),
        ("metadata.csv", tarfile.SYMTYPE),
        ("metadata.csv", tarfile.LNKTYPE),
        ("metadata.csv", tarfile.FIFOTYPE),
        ("images", tarfile.DIRTYPE),
    ],
)
def test_no_member_of_a_tar_leaves_the_folder_or_is_no_file(tmp_path: Path, name: str, kind: bytes) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/hostname"
        tar.addfile(member)
    made.seek(0)
    (tmp_path / "here").mkdir()
    with pytest.raises(PluginError, match="no file of results"):
        copying.unpack(made, tmp_path / "here")
    assert os.listdir(tmp_path) == ["here"] and os.listdir(tmp_path / "here") == []


def test_an_output_outside_the_claim_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim/out").symlink_to(tmp_path)
    ran = subprocess.run(
        [sys.executable, in_pod.__file__, "pack", str(tmp_path / "claim"), "out", "no", "x"], capture_output=True, text=True
    )
    assert ran.returncode == 1 and "outside the claim" in ran.stderr and not ran.stdout


# ---- the doctor


def levels(findings: Any) -> list[str]:
    return [one.level for one in findings]


def deployment(ready: int = 1, **environment: str) -> dict[str, Any]:
    container = {"env": [{"name": name, "value": value} for name, value in environment.items()]}
    meta = {"name": "pipelinejob-operator", "namespace": "sys", "labels": {"app.kubernetes.io/version": cli.__version__}}
    spec = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    return {"metadata": meta, "spec": spec, "status": {"readyReplicas": ready}}


def test_the_doctor_knows_the_rights_that_the_chart_gives() -> None:
    install = yaml.safe_load_all((ROOT / "manifests/install.yaml").read_text())
    rules = next(one["rules"] for one in install if one["kind"] == "ClusterRole" and one["metadata"]["name"] == "pipelinejob-operator")
    given = {
        (group, resource, verb) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert given == {(group, resource, verb) for group, resource, verbs in doctor.OPERATOR_RIGHTS for verb in verbs.split()}


def test_the_doctor_on_crds() -> None:
    ours: dict[str, Any] = {**crd(), "status": {"conditions": [{"type": "Established", "status": "True"}]}}
    assert doctor.crd("x", ours, crd()).level == "ok"
    assert doctor.crd("x", None, crd()).level == "problem"
    old = copy.deepcopy(ours)
    del old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["incrementalOf"]
    found = doctor.crd("x", old, crd())
    assert found.level == "warning" and "lacks spec.incrementalOf" in found.message and "helm upgrade" in found.advice
    assert "is newer" in doctor.crd("x", ours, old).advice
    other = copy.deepcopy(ours)
    other["spec"]["versions"][0]["name"] = "v1"
    assert doctor.crd("x", other, crd()).level == "problem"
    assert doctor.crd("x", {**ours, "status": {}}, crd()).level == "problem"


def test_the_doctor_on_the_operator() -> None:
    assert levels(doctor.operator([], [], "shop")) == ["problem"]
    assert levels(doctor.operator([deployment()], [], "shop")) == ["ok"]
    down = list(doctor.operator([deployment(0)], ["no database", "bye"], "shop"))
    assert levels(down) == ["problem"] and "no database / bye" in down[0].message
    elsewhere = list(doctor.operator([deployment(PIPELINEJOB_WATCH_NAMESPACES="a,b")], [], "shop"))
    assert levels(elsewhere) == ["ok", "problem"] and "not at shop" in elsewhere[1].message
    assert levels(doctor.operator([deployment(PIPELINEJOB_WATCH_NAMESPACES="shop")], [], "shop")) == ["ok"]


def test_the_doctor_on_rights() -> None:
    assert doctor.operator_rights("sys/op", []).level == "ok" and doctor.operator_rights("sys/op", ["create jobs"]).level == "problem"
    assert levels(doctor.own_rights({"see jobs": [], "read logs": []}, "shop")) == ["ok"]
    assert levels(doctor.own_rights({"see jobs": ["list pipelinejobs"], "read logs": ["get pods/log"]}, "shop")) == ["problem", "warning"]


def test_the_doctor_on_database_storage_and_images() -> None:
    sets = {"metadata": {"name": "postgres", "namespace": "sys"}, "status": {"readyReplicas": 1}}
    assert levels(doctor.database([sets], [])) == ["ok"] and levels(doctor.database([], [])) == ["ok"]
    assert levels(doctor.database([{**sets, "status": {}}], [])) == ["problem"]
    assert levels(doctor.database([sets], [job(**waits("DatabaseUnavailable"))])) == ["problem"]

    claim = {"metadata": {"name": "catalogue"}, "status": {"phase": "Bound"}}
    assert levels(doctor.storage([claim], [job()], [], "shop")) == ["ok"]
    assert levels(doctor.storage([{**claim, "status": {"phase": "Pending"}}], [job()], [], "shop")) == ["problem"]
    assert levels(doctor.storage([], [job()], None, "shop")) == ["problem"]
    assert levels(doctor.storage([], [job("Complete")], [], "shop")) == ["warning"]
    default = {"metadata": {"name": "std", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}
    assert levels(doctor.storage([], [], [default], "shop")) == ["ok"]

    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    pod: dict[str, Any] = {"metadata": {"name": "p", "namespace": "shop"}, "spec": {"containers": [{"image": "i:1"}]}}
    stuck = {**pod, "status": {"phase": "Pending", "containerStatuses": [{"state": state}]}}
    assert levels(doctor.images([stuck])) == ["problem"] and levels(doctor.images([{**pod, "status": {"phase": "Running"}}])) == ["ok"]
    assert levels(doctor.waiting([job(**waits("Unschedulable")), job(None)])) == ["warning", "warning"]
    assert levels(doctor.waiting([job(**waits("Running"))])) == ["ok"]
    assert doctor.cluster({"major": "1", "minor": "32+"}, "h").level == "problem"
    assert doctor.cluster({"major": "1", "minor": "37"}, "h").level == "ok"


def test_a_forgotten_pod_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_pod, "ALIVE", str(tmp_path / "alive"))
    monkeypatch.setattr(in_pod, "WAITS", 0.01)
    began = datetime.now()
    in_pod.wait()
    assert datetime.now() - began < timedelta(seconds=30)


def test_the_entry_points_are_there(tmp_path: Path) -> None:
    plugin.install(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["kubectl-pipelinejob", "kubectl_complete-pipelinejob"]
    ran = plugin.run("re", folder=tmp_path, environment={}, cwd=tmp_path, kubectl=str(tmp_path / "kubectl_complete-pipelinejob"))
    assert (ran.code, ran.out) == (0, "results\nredrive\nresume\n:4\n")
    ran = plugin.run("version", "--client", folder=tmp_path, environment={}, cwd=tmp_path, kubectl=str(tmp_path / "kubectl-pipelinejob"))
    assert ran.code == 0 and cli.__version__ in ran.out


def test_without_its_packages_the_command_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "kubernetes.py").write_text("raise ModuleNotFoundError('gone', name='kubernetes')")
    python = os.pathsep.join([str(tmp_path), str(ROOT / "worker"), str(ROOT / "operator")])
    words = ["-m", "pipelinejob_kubectl", "list"]
    ran = plugin.run(*words, folder=tmp_path, environment={"PYTHONPATH": python}, cwd=tmp_path, kubectl=sys.executable)
    assert ran.code == 1 and ran.err == "NotInstalled: the package 'kubernetes' is not installed: pip install 'pipelinejob[kubectl]'\n"


def test_the_archive_of_krew_is_what_its_manifest_says_and_starts_the_command(tmp_path: Path) -> None:
    loaded = importlib.util.spec_from_file_location("krew", ROOT / "scripts/krew.py")
    assert loaded is not None and loaded.loader is not None
    krew = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(krew)
    made = krew.archive()
    manifest = yaml.safe_load((ROOT / "manifests/krew/pipelinejob.yaml").read_text())
    (platform,) = manifest["spec"]["platforms"]
    assert (manifest["metadata"]["name"], manifest["spec"]["version"]) == ("pipelinejob", f"v{cli.__version__}")
    assert platform["sha256"] == hashlib.sha256(made).hexdigest()
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert {one["from"] for one in platform["files"]} == set(archive.namelist()) and platform["bin"] in archive.namelist()
        archive.extractall(tmp_path)
    launcher = tmp_path / "kubectl-pipelinejob"
    launcher.chmod(archive.getinfo("kubectl-pipelinejob").external_attr >> 16)
    words: dict[str, Any] = {"folder": tmp_path, "cwd": tmp_path, "kubectl": str(launcher)}
    ran = plugin.run("version", "--client", environment={"PIPELINEJOB_PYTHON": sys.executable}, **words)
    assert ran.code == 0 and cli.__version__ in ran.out, ran.err
    (tmp_path / "poor").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "poor").chmod(0o755)
    ran = plugin.run("version", environment={"PIPELINEJOB_PYTHON": str(tmp_path / "poor")}, **words)
    assert ran.code == 1 and "pip install" in ran.err


class Clock:
    """A cluster and a time of its own: what each look at a job gives, an error or the job."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
        self.now, self.told, self.answers = 0.0, [], list(answers)
        monkeypatch.setattr(watch.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(watch.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def call(self, *_: Any) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def follow(self) -> Any:
        return watch.follow(self, "/pipelinejobs/men", "u1", lambda _: None, self.told.append)  # type: ignore[arg-type]


def test_a_watch_outlives_an_api_server_that_is_away_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    away = errors.NoAnswerError("NoCluster", "it does not answer")
    clock = Clock(monkeypatch, job(), *[away] * 5, errors.refused(503, b"", "/x"), job("Complete", **waits("Complete", status="True")))
    assert jobs.phase_of(clock.follow()) == "Complete"
    assert len(clock.told) == 1 and "does not answer" in clock.told[0]  # once, not at each try
    with pytest.raises(errors.NoAnswerError):
        Clock(monkeypatch, away).follow()


def test_a_watch_ends_with_a_job_that_is_deleted_or_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PluginError, match="was deleted"):
        Clock(monkeypatch, job(), errors.refused(404, b'{"reason": "NotFound", "message": "m"}', "/x")).follow()
    other = job("Complete")
    other["metadata"]["uid"] = "u2"
    with pytest.raises(PluginError, match="was deleted"):
        Clock(monkeypatch, other).follow()


def test_a_watch_says_when_no_operator_takes_the_job_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, *[job(None)] * 40, job("Complete"))
    clock.follow()
    assert len(clock.told) == 1 and "doctor" in clock.told[0]


# ---- upload


def test_plain_files_are_uploaded_hidden_ones_are_not(tmp_path: Path) -> None:
    for path in ("rows.csv", "img/1.jpg", "img/.2.jpg", ".git/config"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "img/3.jpg").symlink_to("1.jpg")
    (tmp_path / "img/4.jpg").symlink_to("nowhere")
    assert [(file.path, file.bytes) for file in upload.files_of(tmp_path)] == [("img/1.jpg", 9), ("img/3.jpg", 9), ("rows.csv", 8)]
    for folder in (tmp_path / "rows.csv", tmp_path / "none"):
        with pytest.raises(PluginError, match="expected the folder"):
            upload.files_of(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PluginError, match="no files in it"):
        upload.files_of(tmp_path / "empty")


def test_an_upload_goes_below_the_root_of_the_claim(tmp_path: Path) -> None:
    assert upload.place(None, tmp_path / "shop") == "shop" and upload.place("a/b", tmp_path) == "a/b" and upload.place(".", tmp_path) == "."
    for path in ("/etc", "../x", "a/../../x"):
        with pytest.raises(PluginError, match="not below the claim's root"):
            upload.place(path, tmp_path)


@pytest.mark.parametrize("name", ["../out.txt", "/etc/out.txt", "link/out.txt", "a/../../out.txt"])
def test_nothing_is_written_beside_the_folder_of_an_upload(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder/link").symlink_to(tmp_path)
    monkeypatch.setattr(in_pod, "touch", lambda: None)
    sent = io.BytesIO()
    with tarfile.open(fileobj=sent, mode="w|") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(SystemExit, match=r"outside the claim|no plain file"):
        in_pod.unpack(str(root), str(root / "folder"), io.BytesIO(sent.getvalue()))
    assert sorted(os.listdir(tmp_path)) == ["root"] and sorted(os.listdir(root)) == ["folder"]


def test_an_upload_that_breaks_off_leaves_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_pod, "touch", lambda: None)
    sent = io.BytesIO()
    with tarfile.open(fileobj=sent, mode="w|") as tar:
        for name in ("first", "second"):
            member = tarfile.TarInfo(name)
            member.size = 100_000
            tar.addfile(member, io.BytesIO(b"x" * 100_000))
    with pytest.raises((tarfile.TarError, EOFError, OSError)):
        in_pod.unpack(str(tmp_path), str(tmp_path), io.BytesIO(sent.getvalue()[:150_000]))
    assert (tmp_path / "first").stat().st_size == 100_000 and not (tmp_path / "second").exists()
