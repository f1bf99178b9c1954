"""PipelineFunctions on a real cluster: applied, named by jobs, changed, broken, and looking for what they must not find."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cluster import network
from cluster.cluster import ClusterError
from support.shop import Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(300)
SYSTEM = "pipelinejob-system"


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    made = Shop(cluster, "functions")
    made.project.catalogue(40)
    yield made
    made.close()


def apply(shop: Shop, name: str, source: str | dict[str, Any], **spec: Any) -> None:
    given = {"inline": source} if isinstance(source, str) else source
    body = {"apiVersion": "pipelinejob.dev/v1alpha1", "kind": "PipelineFunction", "metadata": {"name": name}}
    shop.kubectl("apply", "-f", "-", input=yaml.safe_dump({**body, "spec": {"source": given, **spec}}))


def status(shop: Shop, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shop.kubectl("get", "pipelinefunction", name, "-o", "json"))
    return found.get("status", {}) if found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"] else {}


def ready(shop: Shop, name: str, truth: str = "True", seconds: float = 30) -> dict[str, Any]:
    """Its status, once Ready is that."""

    def answered() -> dict[str, Any] | None:
        found = status(shop, name)
        return found if found and found["conditions"][0]["status"] == truth else None

    found: dict[str, Any] = shop.wait(answered, seconds, f"Ready of {name} is {truth}")
    return found


def digests(shop: Shop, name: str) -> list[str]:
    manifest = json.loads((shop.root / f"out/{name}/manifest.json").read_text())
    return [function["digest"] for function in manifest["functions"]]


def columns(shop: Shop, name: str, column: str) -> set[str]:
    return {row[column] for row in shop.project.table(f"out/{name}/metadata.csv")}


def test_a_function_that_is_applied_with_its_job(shop: Shop, cluster: Cluster) -> None:
    code = "def how_bright(image: Image, row: Row, *, dark: int = 100):\n    'Tells how bright it is.'\n    return {'version': 1}\n"
    apply(shop, "how-bright", code)
    shop.apply("first", functions=[{"name": "how-bright", "params": {"dark": 7}}])
    shop.wait(lambda: shop.status("first").get("rows", {}).get("succeeded"), 30, "the first row")
    assert shop.wait_end("first")["rows"]["succeeded"] == 40
    told = ready(shop, "how-bright")
    assert told["doc"] == "Tells how bright it is." and told["digest"] == f"sha256:{hashlib.sha256(code.encode()).hexdigest()}"
    assert told["params"] == [{"name": "dark", "expected": "an integer", "default": 100, "required": False}]
    assert digests(shop, "first") == [told["digest"]]
    shown = shop.kubectl("get", "plf").splitlines()
    assert shown[0].split() == ["NAME", "READY", "REASON", "DOES", "AGE"] and "Tells how bright it is." in shown[1]
    shop.wait(lambda: "how-bright" not in shop.kubectl("get", "jobs", "-o", "name"), 20, "the Job that loaded it is gone")

    apply(shop, "how-bright", code.replace("1}", "2}"))
    shop.apply("second", functions=[{"name": "how-bright"}])
    assert shop.wait_end("second")["phase"] == "Complete"
    assert (columns(shop, "first", "version"), columns(shop, "second", "version")) == ({"1"}, {"2"})
    assert digests(shop, "second") == [ready(shop, "how-bright")["digest"]] != digests(shop, "first")


def test_a_running_job_keeps_the_code_that_it_was_accepted_with(shop: Shop) -> None:
    code = "import time\ndef slow(image, row):\n    time.sleep(0.1)\n    assert row['id'] != '1007', 'seven'\n    return {'version': 1}\n"
    apply(shop, "slow", code)
    small = {"batchRows": 4, "rowsPerShard": 40}
    shop.apply("keeps", functions=[{"name": "slow"}], parallelism=1, sharding=small)
    shop.wait(lambda: shop.status("keeps").get("rows", {}).get("succeeded"), 60)
    apply(shop, "slow", "def slow(image, row): return {'version': 2}\n")
    done = shop.wait_end("keeps")
    assert (done["rows"]["succeeded"], done["rows"]["failed"], done["topFailures"][0]["example"]) == (39, 1, "row 7: AssertionError: seven")
    assert columns(shop, "keeps", "version") == {"1"}
    again = {"source": {"failedRowsOf": {"name": "keeps"}}, "functions": [{"name": "slow"}], "output": {}, "sharding": small}
    shop.apply("mended", **again)
    assert shop.wait_end("mended")["rows"]["succeeded"] == 1
    assert columns(shop, "keeps", "version") == {"1", "2"}


BROKEN = {
    "syntax": ("def syntax(image, row)\n    return image\n", "syntax, line 1: SyntaxError: expected ':'"),
    "name-error": ("import os\n\nx = undefined\n", "name-error, line 3: NameError: name 'undefined' is not defined"),
    "ends": ("import os\nos._exit(3)\n", "exit code 3"),
}


def test_code_that_cannot_be_loaded_is_told_with_its_line(shop: Shop) -> None:
    for name, (code, _) in BROKEN.items():
        apply(shop, name, code)
    for name, (_, told) in BROKEN.items():
        assert told in ready(shop, name, "False")["conditions"][0]["message"]
    shop.apply("bad", functions=[{"name": "resize", "params": {"width": 4, "height": 4}}, {"name": "name-error"}])
    assert shop.wait_end("bad")["phase"] == "Failed"
    message = shop.condition("Accepted", "bad")["message"]
    assert message == "spec.functions[1].name: name-error, line 3: NameError: name 'undefined' is not defined"
    apply(shop, "name-error", "def name_error(image, row, *, strength: float): return image\n")
    for job, params, told in (
        ("mistyped", {"strength": "much"}, "spec.functions[0].params.strength: must be a number, got 'much'"),
        ("missing", {}, "spec.functions[0].params.strength: is required: a number"),
        ("unknown", {"strength": 1, "size": 2}, "spec.functions[0].params.size: unknown parameter"),
    ):
        shop.apply(job, functions=[{"name": "name-error", "params": params}])
        shop.wait_end(job)
        condition = shop.condition("Accepted", job)
        assert condition["status"] == "False" and told in condition["message"], condition
    shop.apply("nowhere", functions=[{"name": "nowhere"}])
    shop.wait_end("nowhere")
    assert "and no PipelineFunction of this namespace has that name" in shop.condition("Accepted", "nowhere")["message"]
    apply(shop, "resize", "def resize(image, row): return image\n")
    assert ready(shop, "resize", "False")["conditions"][0]["reason"] == "NameTaken"


def test_the_api_server_refuses_what_is_no_function(shop: Shop) -> None:
    for source in ({}, {"inline": "", "module": "a:b"}):
        with pytest.raises(Exception, match="must have one of inline, configMap and module"):
            apply(shop, "none", source)
    apply(shop, "unpinned", "def unpinned(image, row): ...\n", requirements=["numpy"])
    assert "spec.requirements: must be pinned with hashes" in ready(shop, "unpinned", "False")["conditions"][0]["message"]


def test_code_in_a_config_map_and_in_the_image(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "fn.py").write_text("def from_map(image, row): return {'from': 'map'}\ndef other(image, row): ...\n")
    apply(shop, "mapped", {"configMap": {"name": "code", "key": "fn.py"}}, entrypoint="from_map")
    assert "no ConfigMap 'code' with the key 'fn.py'" in ready(shop, "mapped", "False")["conditions"][0]["message"]
    shop.kubectl("create", "configmap", "code", f"--from-file={tmp_path / 'fn.py'}")
    apply(shop, "built-in", {"module": "pipelinejob.functions.draws:Draws"})
    assert "must take an image and a row" in ready(shop, "built-in", "False")["conditions"][0]["message"]
    apply(shop, "mapped", {"configMap": {"name": "code", "key": "fn.py"}}, entrypoint="from_map", timeoutSeconds=60)
    shop.apply("mapped", functions=[{"name": "mapped"}])
    assert shop.wait_end("mapped")["phase"] == "Complete"
    assert columns(shop, "mapped", "from") == {"map"}
    ready(shop, "mapped")


PROBE = """
import glob, os, socket

def attempt(work):
    try:
        return repr(work())[:300]
    except OSError as error:
        return type(error).__name__

def probe(image, row, *, host: str):
    import psycopg2
    parent = os.getppid()
    found = {
        "environ": attempt(lambda: open(f"/proc/{parent}/environ", "rb").read()),
        "memory": attempt(lambda: open(f"/proc/{parent}/mem", "rb").read(1)),
        "files": attempt(lambda: os.listdir(f"/proc/{parent}/fd")),
        "first": attempt(lambda: open("/proc/1/environ", "rb").read()),
        "account": attempt(lambda: os.listdir("/var/run/secrets/kubernetes.io/serviceaccount")),
        "own": sorted(key for key, value in os.environ.items() if "postgres" in value or "PASSWORD" in key or "TOKEN" in key),
        "write": attempt(lambda: open("/etc/passwd", "a")),
    }
    secrets = []
    for mount in open("/proc/self/mounts").read().splitlines():
        place = mount.split()[1]
        if place.startswith(("/data", "/tmp", "/run", "/var", "/etc", "/secret")):
            for path in ([place] if os.path.isfile(place) else glob.glob(place + "/**", recursive=True, include_hidden=True)):
                try:
                    if os.path.isfile(path) and b"postgresql://" in open(path, "rb").read(1 << 20):
                        secrets.append(path)
                except OSError:
                    pass
    found["secrets"] = secrets
    with socket.create_connection((host, 5432), 5):
        found["port"] = "open"
    for user in ("pipelinejob", "postgres", "plj_worker"):
        try:
            psycopg2.connect(host=host, user=user, dbname="pipelinejob", connect_timeout=5)
            found[user] = "let in"
        except psycopg2.OperationalError as error:
            found[user] = "refused"
    return found
"""


def test_what_a_function_finds_when_it_looks_around(shop: Shop) -> None:
    apply(shop, "probe", PROBE)
    source = {"where": {"id": 1003}}
    shop.apply("probe", functions=[{"name": "probe", "params": {"host": f"pipelinejob-postgres.{SYSTEM}.svc"}}], source=source)
    done = shop.wait_end("probe")
    assert done["rows"]["succeeded"] == 1, done
    (row,) = shop.project.table("out/probe/metadata.csv")
    assert {key: row[key] for key in ("environ", "memory", "files", "first")} == dict.fromkeys(
        ("environ", "memory", "files", "first"), "PermissionError"
    )
    assert (row["account"], row["own"], row["secrets"]) == ("FileNotFoundError", "[]", "[]")
    assert row["write"] in ("OSError", "PermissionError")
    assert (row["port"], row["pipelinejob"], row["postgres"], row["plj_worker"]) == ("open", "refused", "refused", "refused")


@pytest.fixture
def wheel(tmp_path: Path, cluster: Cluster) -> Iterator[str]:
    """The digest of a package that pods can install, and nothing else."""
    path = tmp_path / "wheels/tinyplj-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tinyplj.py", "NAME = 'tiny'\n")
        file.writestr("tinyplj-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinyplj\nVersion: 1.0\n")
        file.writestr("tinyplj-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("tinyplj-1.0.dist-info/RECORD", "")
    server = ThreadingHTTPServer(("", 0), partial(SimpleHTTPRequestHandler, directory=str(path.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = network.address()
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"http://{host}:{server.server_address[1]}/", "PIP_TRUSTED_HOST": host}
    _operator_with(cluster, f"PIPELINEJOB_PIP={json.dumps(pip)}")
    yield hashlib.sha256(path.read_bytes()).hexdigest()
    _operator_with(cluster, "PIPELINEJOB_PIP={}", "PIPELINEJOB_REQUIREMENTS=allow")
    server.shutdown()
    server.server_close()


def _operator_with(cluster: Cluster, *environment: str) -> None:
    cluster.kubectl("set", "env", "deployment/pipelinejob-operator", "-n", SYSTEM, *environment)
    cluster.kubectl("rollout", "status", "deployment/pipelinejob-operator", "-n", SYSTEM, "--timeout=90s")


def test_requirements_are_installed_once_by_their_hashes(shop: Shop, cluster: Cluster, wheel: str) -> None:
    code = "import tinyplj\ndef tiny(image, row): return {'tiny': tinyplj.NAME}\n"
    apply(shop, "tiny", code, requirements=[f"tinyplj==1.0 --hash=sha256:{'0' * 64}"])
    assert "DO NOT MATCH THE HASHES" in ready(shop, "tiny", "False", 60)["conditions"][0]["message"]
    apply(shop, "tiny", code, requirements=[f"tinyplj==1.0 --hash=sha256:{wheel}"])
    for job in ("tiny", "tiny-again"):
        shop.apply(job, functions=[{"name": "tiny"}])
        assert shop.wait_end(job)["phase"] == "Complete", shop.condition("Failed", job)
        assert columns(shop, job, "tiny") == {"tiny"}
    (folder,) = (shop.root / ".pipelinejob/packages").iterdir()
    assert (folder / "tinyplj.py").stat().st_mtime < (shop.root / "out/tiny-again/manifest.json").stat().st_mtime - 1

    _operator_with(cluster, "PIPELINEJOB_REQUIREMENTS=forbid")
    shop.apply("forbidden", functions=[{"name": "tiny"}])
    shop.wait_end("forbidden")
    assert "the operator's settings forbid them" in shop.condition("Accepted", "forbidden")["message"]


@pytest.fixture
def webhook(cluster: Cluster) -> Iterator[None]:
    """The release with its validating webhook; without it again at the end."""
    chart = str(Path(__file__).parents[2] / "helm/pipelinejob")
    upgrade = ("upgrade", cluster.release, chart, "-n", SYSTEM, "--reuse-values", "--wait", "--timeout", "90s")
    cluster.helm(*upgrade, "--set", "webhook.enabled=true")
    yield
    cluster.helm(*upgrade, "--set", "webhook.enabled=false")


def test_with_the_webhook_a_wrong_spec_is_refused_when_it_is_applied(shop: Shop, cluster: Cluster, webhook: None) -> None:
    apply(shop, "known", "def known(image, row): return image\n")
    wrong = yaml.safe_dump(shop.document("wrong", functions=[{"name": "resise"}]))

    def refuses() -> bool:
        try:
            shop.kubectl("apply", "--dry-run=server", "-f", "-", input=wrong)
        except ClusterError as error:
            return "denied the request" in str(error)
        return False

    shop.wait(refuses, 20, "the node knows the way to the webhook")
    bad: dict[str, dict[str, Any]] = {
        "spec.functions[0].params.width: must be a positive integer": {
            "functions": [{"name": "resize", "params": {"width": -1, "height": 4}}]
        },
        "spec.functions[0].params.with: unknown parameter; did you mean 'width'?": {
            "functions": [{"name": "resize", "params": {"with": 4, "width": 4, "height": 4}}]
        },
        "spec.functions[0].name: no built-in function 'resise'; did you mean 'resize'?": {"functions": [{"name": "resise"}]},
        "spec.source.where.year.gte: must be a string or a number": {"source": {"where": {"year": {"gte": True}}}},
    }
    for told, spec in bad.items():
        with pytest.raises(Exception, match="denied the request") as refused:
            shop.apply("refused", **spec)
        assert told in str(refused.value)
    with pytest.raises(Exception, match=r"spec\.requirements: must be pinned with hashes"):
        apply(shop, "unpinned-too", "def unpinned_too(image, row): ...\n", requirements=["numpy"])
    shop.apply("taken", functions=[{"name": "known"}])
    assert shop.wait_end("taken")["phase"] == "Complete"
    before = cluster.get("secret", "pipelinejob-webhook", SYSTEM)["data"]["tls.crt"]
    cluster.helm("upgrade", cluster.release, str(Path(__file__).parents[2] / "helm/pipelinejob"), "-n", SYSTEM, "--reuse-values")
    assert cluster.get("secret", "pipelinejob-webhook", SYSTEM)["data"]["tls.crt"] == before
