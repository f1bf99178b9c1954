"""`kubectl pipelinejob` on a real cluster: each verb through kubectl itself, which finds the executables on the PATH."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from support.plugin import Plugin
from support.project import Project
from support.shop import SLOW, Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    made = Shop(cluster, "plugin")
    made.project.catalogue(120, without=[7, 50], broken=[30])
    yield made
    made.close()


@pytest.fixture
def plugin(shop: Shop, tmp_path: Path) -> Plugin:
    return Plugin(shop, tmp_path)


def write(plugin: Plugin, name: str, **spec: object) -> str:
    """A job file in the current directory."""
    (plugin.folder / f"{name}.yaml").write_text(yaml.safe_dump(plugin.shop.document(name, **spec)))
    return f"{name}.yaml"


def test_a_job_from_its_file_to_results_on_this_machine(plugin: Plugin, shop: Shop) -> None:
    file = write(plugin, "job", sharding={"batchRows": 10, "rowsPerShard": 40})
    ran = plugin("run", file, "--json")
    assert (ran.code, ran.json["phase"], ran.json["rows"]["failed"], ran.json["shards"]["succeeded"]) == (0, "Complete", 3, 3), ran.err
    assert "Complete: 120/120 rows" in ran.err
    again = plugin("run", file)
    assert again.code == 0 and "Complete" in again.out  # there already: nothing is made anew
    other = plugin("run", write(plugin, "job", functions=[]))
    assert other.code == 2 and "spec.functions" in other.err and "another name" in other.err

    assert plugin("list").out.splitlines()[1].split()[:4] == ["job", "Complete", "120/120", "3"]
    assert [job["name"] for job in plugin("list", "-A", "--json").json["jobs"] if job["namespace"] == shop.namespace] == ["job"]
    shown = plugin("status", "job")
    assert shown.code == 0 and "ImageNotFound" in shown.out and "3 of 3 done" in shown.out
    assert plugin("status", "job", "--json").json["rows"] == ran.json["rows"]

    assert "shard 2 of job job, rows 80-119 begins" in plugin("logs", "job", "--shard", "2").out
    assert plugin("logs", "job", "--stage", "plan").out.startswith("planned job job: 120 rows")
    assert "3 shards, numbered from 0" in plugin("logs", "job", "--shard", "9").err

    failed = plugin("failures", "job", "--json").json["failures"]
    assert [(row["row"], row["reason"]) for row in failed] == [(7, "ImageNotFound"), (30, "ImageInvalid"), (50, "ImageNotFound")]
    lines = plugin("failures", "job", "--reason", "ImageInvalid", "--csv").out.splitlines()
    assert lines[0] == "row,id,reason,function,message,attempts" and len(lines) == 2 and lines[1].startswith("30,1030,")

    copied = plugin("results", "job", "--to", "here", "--json")
    assert copied.code == 0 and copied.json["files"] == 117 + 3, copied.err
    assert Project(plugin.folder, None).tree("here") == shop.project.tree("out/job")
    assert "is there already" in plugin("results", "job", "--to", "here").err
    assert plugin("results", "job", "--no-images").code == 0 and sorted(os.listdir(plugin.folder / "job-results")) == [
        "failures.csv", "manifest.json", "metadata.csv",
    ]  # fmt: skip
    assert not [name for name in os.listdir(plugin.folder) if name.endswith(".part")]
    ours = ["get", "pods", "-l", "app.kubernetes.io/name=pipelinejob-kubectl", "-o", "name"]
    shop.wait(lambda: not shop.kubectl(*ours).strip(), 20, "no pod of ours is left")

    shop.project.images(1007)
    ran = plugin("redrive", "job", "--reason", "ImageNotFound", "--json")
    assert (ran.code, ran.json["name"], ran.json["rows"]["total"], ran.json["rows"]["succeeded"]) == (0, "job-redrive-1", 2, 1), ran.err
    shop.wait(lambda: shop.status()["rows"]["failed"] == 2, 20, "the job follows")
    assert "is a redrive itself" in plugin("redrive", "job-redrive-1").err
    shop.kubectl("delete", "jobs", "--all")  # as an hour later: the image is the operator's then
    assert plugin("results", "job", "--to", "anew").code == 0  # each image as the new manifest says
    told = plugin("delete", "job-redrive-1")
    assert told.code == 0 and "stays on its claim" in told.out


def test_a_running_job_is_changed_followed_and_ended(plugin: Plugin, shop: Shop) -> None:
    shop.slow_down()
    file = write(plugin, "slow", functions=[SLOW], sharding={"batchRows": 10, "rowsPerShard": 20}, parallelism=1)
    assert plugin("run", file, "--no-wait").code == 0
    shop.wait(lambda: shop.status("slow").get("rows", {}).get("succeeded"), 60, "some rows are done")
    assert plugin("scale", "slow", "2").code == 0 and shop.get("slow")["spec"]["parallelism"] == 2
    early = plugin("failures", "slow", "--json")
    assert early.code == 0 and "has not ended" in early.json["message"]
    assert "has not ended" in plugin("results", "slow").err and "has not ended" in plugin("redrive", "slow").err

    assert plugin("suspend", "slow").code == 0
    shop.wait_phase("Suspended", name="slow", seconds=40)
    assert plugin("resume", "slow", "--json").json["name"] == "slow"
    with following(plugin, "status", "slow", "--watch") as process:
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "go on in the cluster" in err and "Traceback" not in out + err, err
    assert plugin("cancel", "slow").code == 0
    ended = plugin("status", "slow", "--watch", "--json")
    assert (ended.code, ended.json["phase"], ended.json["reason"]) == (1, "Cancelled", "Cancelled")
    assert "there is nothing to suspend" in plugin("suspend", "slow").err
    assert plugin("results", "slow", "--to", "part").code == 0
    assert len(Project(plugin.folder, None).table("part/metadata.csv")) == ended.json["rows"]["succeeded"]
    assert plugin("delete", "slow", "--output").code == 2
    assert plugin("delete", "slow", "--json").code == 0


def test_a_folder_gets_onto_a_claim_and_only_what_changed_is_sent_again(plugin: Plugin, shop: Shop) -> None:
    mine = plugin.folder / "mine"
    (mine / "img").mkdir(parents=True)
    (mine / "rows.csv").write_text("id\n1\n2\n")
    for name in ("1.jpg", "größe 2.jpg", ".hidden"):
        (mine / "img" / name).write_bytes(os.urandom(300_000))
    sent = plugin("upload", "mine", "--claim", "catalogue", "--json")
    assert sent.code == 0, sent.err
    assert sent.json == {"namespace": shop.namespace, "claim": "catalogue", "path": "mine", "files": 3, "bytes": 600_007, "kept": 0}
    for path in ("rows.csv", "img/1.jpg", "img/größe 2.jpg"):
        assert (shop.root / "mine" / path).read_bytes() == (mine / path).read_bytes()
    assert sorted(os.listdir(shop.root / "mine/img")) == ["1.jpg", "größe 2.jpg"]

    (mine / "img/1.jpg").write_bytes(b"mended")
    again = plugin("upload", "mine", "--claim", "catalogue")
    assert (again.code, again.out.strip()) == (0, "1 file, 6 bytes, in 'mine' of the claim catalogue; 2 were there"), again.err
    assert (shop.root / "mine/img/1.jpg").read_bytes() == b"mended"

    (shop.root / "mine/out").symlink_to("/tmp")  # a link on the claim leads nowhere else
    (mine / "out").mkdir()
    (mine / "out/x.txt").write_text("x")
    led = plugin("upload", "mine", "--claim", "catalogue")
    assert led.code == 1 and "outside the claim" in led.err
    none = plugin("upload", "mine", "--claim", "catalog")
    assert none.code == 2 and "it has catalogue" in none.err
    assert plugin("upload", "mine", "--claim", "catalogue", "--to", "../x").code == 2
    assert plugin("upload", "nothing", "--claim", "catalogue").code == 2


class following:
    """The command while it runs."""

    def __init__(self, plugin: Plugin, *words: str) -> None:
        self._plugin, self._words = plugin, words

    def __enter__(self) -> subprocess.Popen[str]:
        self.process = self._plugin.start(*self._words)
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_log_is_followed_to_the_end_of_the_job(plugin: Plugin) -> None:
    assert plugin("run", write(plugin, "told", sharding={"rowsPerShard": 40, "batchRows": 20}), "--no-wait").code == 0
    said = plugin("logs", "told", "--follow")
    assert said.code == 0, said.err
    assert all(f"shard {shard} of job told" in said.out for shard in range(3)) and "wrote the results of job told" in said.out


def test_a_plan_says_what_would_be_and_leaves_nothing(plugin: Plugin, shop: Shop) -> None:
    file = write(plugin, "planned", source={"where": {"gender": "Men"}}, suspend=True)
    before = shop.kubectl("get", "pipelinejobs", "-o", "name")
    ran = plugin("plan", file, "--json")
    assert (ran.code, ran.json["phase"], ran.json["rows"]["total"], ran.json["rows"]["filtered"]) == (0, "Planned", 120, 60), ran.err
    assert ran.json["sample"] == {"rows": 120, "exact": True, "matching": 60, "malformed": 0} and ran.json["estimatedSeconds"] >= 0
    assert shop.kubectl("get", "pipelinejobs", "-o", "name") == before and not (shop.root / "out/planned").exists()

    wrong = plugin("plan", write(plugin, "planned", source={"csv": "nothing.csv"}), "--json")
    assert (wrong.code, wrong.json["reason"]) == (1, "InputNotFound")
    wrong = plugin("plan", write(plugin, "planned", functions=[{"name": "resise", "params": {}}]))
    assert wrong.code == 2 and "spec.functions[0].name" in wrong.err and "resize" in wrong.err
    assert shop.kubectl("get", "pipelinejobs", "-o", "name") == before


def test_the_doctor_says_what_is_wrong_and_what_to_do(plugin: Plugin, shop: Shop) -> None:
    well = plugin("doctor", "--json")
    assert well.code == 0 and well.json["ok"], well.out
    assert {"cluster", "CRD", "operator", "operator's rights", "your rights", "database", "storage", "images", "jobs"} == {
        one["what"] for one in well.json["checks"]
    }
    shop.apply("stuck", worker={"image": "localhost/no-such-image:1"})
    shop.wait(lambda: shop.condition("Complete", "stuck").get("reason") == "ImagePullBackOff", 30)
    ill = plugin("doctor")
    assert ill.code == 1 and "problem images:" in ill.out and "no-such-image" in ill.out and "imagePullSecrets" in ill.out, ill.out
    assert "ImagePullBackOff" in plugin("status", "stuck").out
    assert plugin("delete", "stuck").code == 0


def test_who_may_nothing_is_told_so_in_one_line(plugin: Plugin, shop: Shop) -> None:
    shop.kubectl("create", "serviceaccount", "eve")
    config = yaml.safe_load(shop.cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": shop.kubectl("create", "token", "eve").strip()}
    config["contexts"][0]["context"]["namespace"] = shop.namespace
    (plugin.folder / "eve").write_text(yaml.safe_dump(config))
    for words in (["list"], ["functions"], ["run", write(plugin, "eves")], ["status", "job"]):
        ran = plugin.kubectl("pipelinejob", *words, "--kubeconfig", "eve")
        assert ran.code == 1 and ran.err.startswith("Forbidden: ") and len(ran.err.splitlines()) == 1, ran.err
    assert "you cannot see jobs in" in plugin.kubectl("pipelinejob", "doctor", "--kubeconfig", "eve").out
    shop.kubectl("create", "rolebinding", "eve", "--clusterrole=edit", f"--serviceaccount={shop.namespace}:eve")
    ran = plugin.kubectl("pipelinejob", "run", "--kubeconfig", "eve", write(plugin, "eves"), "--json")  # in the namespace of the context
    assert (ran.code, ran.json["namespace"]) == (0, shop.namespace), ran.err
    copied = plugin.kubectl("pipelinejob", "failures", "eves", "--kubeconfig", "eve", "--json")
    assert copied.code == 0 and copied.json["failures"], copied.err


def test_names_functions_versions_and_completion(plugin: Plugin, shop: Shop) -> None:
    shop.apply("men-fall", suspend=True)
    ran = plugin("status", "men-fal", "--json")
    assert ran.code == 2 and "did you mean men-fall?" in ran.err and ran.json["reason"] == "InvalidSpec"
    source = {"inline": 'def bright(image, row):\n    """Is it bright?"""\n    return image\n'}
    function = {
        "apiVersion": "pipelinejob.dev/v1alpha1",
        "kind": "PipelineFunction",
        "metadata": {"name": "bright"},
        "spec": {"source": source},
    }
    shop.kubectl("apply", "-f", "-", input=yaml.safe_dump(function))
    told = plugin("functions", "--json").json
    assert "resize" in [one["name"] for one in told["functions"]] and "bright" in [one["name"] for one in told["pipelineFunctions"]]
    assert plugin("version", "--json").json == {"client": "0.1.0", "operator": "0.1.0"}
    listed = plugin.kubectl("plugin", "list")
    assert "kubectl-pipelinejob" in listed.out
    for words, expected in (
        (["re"], ["results", "redrive", "resume"]),
        (["status", "-n", shop.namespace, "men"], ["men-fall"]),
        (["list", "-n", shop.namespace], [shop.namespace]),
        (["logs", "x", "--stage", ""], ["plan", "shard", "finalize"]),
    ):
        completed = plugin.kubectl("__complete", "pipelinejob", *words)
        assert completed.out.splitlines() == [*expected, ":4"], completed.err
    assert json.loads(shop.kubectl("get", "pipelinejob", "men-fall", "-o", "json"))["spec"]["suspend"]
