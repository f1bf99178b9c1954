"""The commands of the pages about clusters, run as they stand there; those that would change the cluster of all tests, as dry runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.plugin import Plugin
from support.shop import SLOW, Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(240)
ELSEWHERE = {  # commands of docs/install.md and README.md that other tests run, and which these are
    "kubectl apply --server-side -f manifests/install.yaml": "tests/e2e/test_chart.py: it is current, and what the chart renders is taken",
    "kubectl port-forward": "tests/e2e/test_gateway.py, tests/e2e/test_chart.py",
    "export PIPELINEJOB_URL": "tests/e2e/test_gateway.py",
    "curl -H": "tests/e2e/test_gateway.py",
    "kubectl -n pipelinejob-system port-forward": "as the other one",
    "kubectl -n pipelinejob-system get secret": "tests/e2e/test_chart.py looks at the Secrets",
    "password=$(openssl": "a variable for the next line",
    "make": "this very run",
    "kind": "no test: there is no Docker where tests run",
}


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    made = Shop(cluster, "docs")
    shutil.copytree(ROOT / "data/fashion", made.root / "fashion")
    made.project.catalogue(600)
    yield made
    made.close()


def test_the_page_of_the_plugin(shop: Shop, tmp_path: Path) -> None:
    plugin = Plugin(shop, tmp_path)
    shutil.copy(ROOT / "manifests/examples/fashion.yaml", tmp_path)
    shutil.copytree(ROOT / "data/fashion", tmp_path / "shop")
    text = (ROOT / "docs/kubectl.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^    \$ kubectl pipelinejob (.*)\n((?:    (?!\$ ).*\n)*)", text, re.MULTILINE)
    ran = []
    for command, expected in blocks:
        words = command.split()
        for name in {"slow", "big"} & set(words):
            if name not in shop.kubectl("get", "pipelinejobs", "-o", "name"):
                shop.slow_down()
                shop.apply(name, functions=[SLOW], parallelism=1, sharding={"rowsPerShard": 100, "batchRows": 10})
                shop.wait_phase("Running", name=name)
        found = plugin(*words)
        assert found.code == (2 if expected.strip().startswith("InvalidSpec") else 0), (command, found.err)
        if "--csv" in words:
            assert found.out == re.sub(r"^    ", "", expected, flags=re.MULTILINE)
        else:
            assert found.out or found.err
        ran.append(words[0])
    verbs = {
        "doctor",
        "plan",
        "run",
        "status",
        "list",
        "logs",
        "failures",
        "results",
        "upload",
        "redrive",
        "scale",
        "suspend",
        "resume",
        "cancel",
    }
    assert verbs | {"delete"} == set(ran)
    (claim,) = re.findall(r"<<'YAML'\n(.*?)\n    YAML", text, re.DOTALL)
    claim = re.sub(r"^    ", "", claim, flags=re.MULTILINE).replace("name: catalogue", "name: another")
    shop.kubectl("create", "--dry-run=server", "-f", "-", input=claim)


def logical(text: str) -> list[str]:
    """The commands of a page: indented lines, each with those that it is continued on, without their comments."""
    lines = re.findall(r"^    ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    known = ("kubectl ", "helm ", "kind ", "make ", "curl ", "export ", "password=", "docker ")
    return [re.sub(r"\\\n *", " ", re.sub(r"  +#.*", "", line)).strip().removesuffix(" &") for line in lines if line.startswith(known)]


def dry(command: str) -> str:
    """What shows that a command is right and changes nothing."""
    if command.startswith("helm install"):
        return re.sub(r"--create-namespace|--wait", "", command).replace("helm install", "helm template")
    if command.startswith("helm"):
        return command.replace("--wait", "") + (" --dry-run" if "uninstall" in command else " --dry-run=server")
    if " create " in command:  # what it makes may be there
        return command.replace('"$password"', "x").replace("$password", "x") + " --dry-run=client -o name"
    if " delete " in command:
        return command + " --dry-run=server"
    return command


@pytest.mark.parametrize("page", ["docs/install.md", "helm/pipelinejob/README.md"])
def test_pages_about_installing(cluster: Cluster, page: str) -> None:
    commands = logical((ROOT / page).read_text(encoding="utf-8"))
    tried = [command for command in commands if not command.startswith(tuple(ELSEWHERE))]
    assert len(tried) > 3
    failed = []
    for command in tried:
        if "helm test" in command:
            continue  # tests/e2e/test_chart.py
        try:
            _run(cluster, dry(command), page)
        except AssertionError as error:
            failed.append(str(error))
    assert not failed


def test_the_quick_start_of_the_readme(cluster: Cluster, shop: Shop) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Quick start on a cluster") : text.index("## A job")]
    in_shop = _run_in(cluster, shop.namespace)
    ran = []
    for command in logical(section):
        if command.startswith(tuple(ELSEWHERE)):
            continue
        if command.startswith("helm"):
            _run(cluster, dry(command), "README.md")
            continue
        in_shop(command)
        if " apply " in command:
            shop.wait_phase("Running", "Finalizing", "Complete", name="fashion")
        ran.append(command.split()[1])
    assert ran == ["apply", "get", "patch", "patch", "patch", "delete"]


def _run_in(cluster: Cluster, namespace: str) -> Callable[[str], None]:
    def run(command: str) -> None:
        program, *words = shlex.split(command)
        assert program == "kubectl"
        ran = subprocess.run(
            [str(cluster.bin / "kubectl"), "--kubeconfig", str(cluster.kubeconfig), "-n", namespace, *words],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ran.returncode == 0, (command, ran.stderr)

    return run


def _run(cluster: Cluster, command: str, page: str) -> None:
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "PATH": f"{cluster.bin}:/usr/bin:/bin", "HOME": str(cluster.kubeconfig.parent)}
    ran = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)
    assert ran.returncode == 0, (page, command, ran.stderr)
