"""The CRD on a real API server, through kubectl: what is refused, what is filled in, and what people see. Needs no operator."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pipelinejob.model import MUTABLE, parse
from pipelinejob.reasons import JobError
from pipelinejob_operator.crd import FIXED, immutable_fields

if TYPE_CHECKING:
    from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(120)

CLAIM = {"persistentVolumeClaim": {"claimName": "nothing"}}
BARE: dict[str, Any] = {"source": {"csv": "a.csv"}, "data": CLAIM, "suspend": True}
FULL: dict[str, Any] = {
    "source": {"csv": "a.csv", "images": "img/{id}.jpg", "where": {"gender": "Men", "year": {"gte": 2010}}},
    "functions": [{"name": "resize", "params": {"width": 8, "height": 8, "more": {"list": [1, {"deep": 1}]}}}],
    "output": {"path": "out/full", "format": "png"},
    "sharding": {"rowsPerShard": 400, "batchRows": 100},
    "parallelism": 4,
    "backoffLimitPerIndex": 1,
    "failurePolicy": {"maxFailedRows": 7},
    "seed": 9_223_372_036_854_775_807,
    "suspend": True,
    "mode": "plan",
    "incrementalOf": "earlier",
    "ttlSecondsAfterFinished": 900,
    "data": CLAIM,
    "worker": {
        "image": "localhost/nothing",
        "resources": {"requests": {"cpu": 1}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "pull"}],
        "priorityClassName": "low",
    },
}
OTHERS: dict[str, Any] = {
    "source": {"csv": "b.csv"},
    "functions": [{"name": "grayscale"}],
    "output": {"path": "out/other"},
    "sharding": {"batchRows": 150},
    "backoffLimitPerIndex": 2,
    "seed": 2,
    "mode": "run",
    "incrementalOf": "other",
    "data": {"persistentVolumeClaim": {"claimName": "other"}},
    "worker": {"image": "localhost/other"},
    "parallelism": 5,
    "suspend": False,
    "cancel": True,
    "failurePolicy": {"maxFailedRowsPercent": 12.5},
    "ttlSecondsAfterFinished": 5,
}
REQUIRED = ("source", "data")  # never without, so never added


class Jobs:
    """A namespace with the PipelineJobs `bare` and `full`, both suspended."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.namespace = f"crd-{uuid.uuid4().hex[:5]}"
        cluster.kubectl("create", "namespace", self.namespace)
        self.create(document("bare", BARE), document("full", FULL))

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, input=input, check=check)

    def create(self, *documents: dict[str, Any], dry: bool = False) -> str:
        """Creates them, or tries to, and returns what kubectl says; one that is refused does not keep it from the next."""
        text = "\n---\n".join(map(json.dumps, documents))
        return self.kubectl("create", "-f", "-", *(["--dry-run=server"] if dry else []), input=text, check=not dry)

    def patch(self, name: str, changes: object) -> str:
        """What kubectl says of a merge patch of the spec, or of a JSON patch when it is a list; nothing is changed."""
        kind, body = ("json", changes) if isinstance(changes, list) else ("merge", {"spec": changes})
        return self.kubectl("patch", "pipelinejob", name, "--dry-run=server", f"--type={kind}", "-p", json.dumps(body), check=False)

    def get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "pipelinejob", name, "-o", "json"))
        return found


@pytest.fixture(scope="module")
def jobs(cluster: Cluster) -> Iterator[Jobs]:
    made = Jobs(cluster)
    yield made
    cluster.kubectl("delete", "namespace", made.namespace, "--wait=false")


def document(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "pipelinejob.dev/v1alpha1", "kind": "PipelineJob", "metadata": {"name": name}, "spec": spec}


def changed(path: str, value: object) -> dict[str, Any]:
    """The bare spec with one field set; `...` takes it away."""
    spec = copy.deepcopy(BARE)
    *parents, last = path.split(".")
    place = spec
    for part in parents:
        place = place.setdefault(part, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return spec


def is_forbidden(answer: str, field: str) -> bool:
    return f"spec.{field}: Forbidden: {FIXED}" in answer


# --- what may change, and what may not --------------------------------------------------------------------------------


def test_every_field_is_tried() -> None:
    assert set(OTHERS) == {*immutable_fields(), *MUTABLE}
    assert set(FULL) == set(OTHERS) - {"cancel"}


@pytest.mark.parametrize("field", immutable_fields())
def test_a_field_that_may_not_change(jobs: Jobs, field: str) -> None:
    assert is_forbidden(jobs.patch("full", {field: OTHERS[field]}), field)
    removed = jobs.patch("full", {field: None})
    assert "spec.source: Required value" in removed if field == "source" else is_forbidden(removed, field)
    if field not in REQUIRED and field != "mode":  # run is what `mode` is by default
        assert is_forbidden(jobs.patch("bare", {field: OTHERS[field]}), field)
    assert "patched" in jobs.patch("full", {field: FULL[field]})


@pytest.mark.parametrize("field", MUTABLE)
def test_a_field_that_may_change(jobs: Jobs, field: str) -> None:
    for name in ("bare", "full"):
        assert "patched" in jobs.patch(name, {field: OTHERS[field]})
        assert "patched" in jobs.patch(name, {field: None})


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("source", {"op": "remove", "path": "/spec/source/images"}),
        ("source", {"op": "add", "path": "/spec/source/idColumn", "value": "sku"}),
        ("source", {"op": "remove", "path": "/spec/source/where/gender"}),
        ("source", {"op": "add", "path": "/spec/source/where/season", "value": "Fall"}),
        ("source", {"op": "move", "from": "/spec/source/where/gender", "path": "/spec/source/where/season"}),
        ("source", {"op": "move", "from": "/spec/source/where/year/gte", "path": "/spec/source/where/year/lte"}),
        ("functions", {"op": "add", "path": "/spec/functions/-", "value": {"name": "grayscale"}}),
        ("functions", {"op": "add", "path": "/spec/functions/0/module", "value": "pkg.mod"}),
        ("functions", {"op": "replace", "path": "/spec/functions/0/timeoutSeconds", "value": 9}),
        ("functions", {"op": "move", "from": "/spec/functions/0/params/width", "path": "/spec/functions/0/params/wide"}),
        ("functions", {"op": "replace", "path": "/spec/functions/0/params/more/list/1/deep", "value": 2}),
        ("output", {"op": "remove", "path": "/spec/output/path"}),
        ("sharding", {"op": "remove", "path": "/spec/sharding/rowsPerShard"}),
        ("worker", {"op": "move", "from": "/spec/worker/resources/requests", "path": "/spec/worker/resources/limits"}),
        ("worker", {"op": "move", "from": "/spec/worker/nodeSelector/disk", "path": "/spec/worker/nodeSelector/kind"}),
        ("worker", {"op": "move", "from": "/spec/worker/tolerations/0/key", "path": "/spec/worker/tolerations/0/value"}),
        ("worker", {"op": "remove", "path": "/spec/worker/imagePullSecrets"}),
    ],
)
def test_nothing_inside_it_may_change_either(jobs: Jobs, field: str, change: dict[str, Any]) -> None:
    assert is_forbidden(jobs.patch("full", [change]), field)


def test_cancel_cannot_be_taken_back(jobs: Jobs) -> None:
    jobs.create(document("cancelled", {**BARE, "cancel": True}))
    for value in (False, None):
        assert "spec.cancel: Forbidden: cannot be taken back" in jobs.patch("cancelled", {"cancel": value})
    assert "patched" in jobs.patch("cancelled", {"parallelism": 3})


# --- what is refused at creation --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("source", {}, "spec.source.csv: Required value", ""),
        ("source.csv", "/a.csv", "spec.source.csv: Invalid value", "must be relative to the data root"),
        (
            "source.images",
            "https://example.com/{id}",
            "spec.source.images: Invalid value",
            "addresses (http://, https://) are not supported yet",
        ),
        ("source.delimiter", "ab", "spec.source.delimiter: Invalid value", "must be one ASCII character that is no letter, digit or quote"),
        ("functions", [{"name": "mark", "file": "a.py", "module": "a"}], "spec.functions: Invalid value", "'module' stands beside 'file'"),
        ("output.path", "a/../../b", "spec.output.path: Invalid value", "must stay below the data root: '..' is not allowed"),
        (
            "data",
            ...,
            "spec.data: Required value",
            "name the claim with the CSV and the images in spec.data.persistentVolumeClaim.claimName",
        ),
        ("data", {}, "spec.data.persistentVolumeClaim: Required value", ""),
        ("paralelism", 3, 'unknown field "spec.paralelism"', ""),
        ("output.qualty", 3, 'unknown field "spec.output.qualty"', ""),
    ],
)
def test_a_job_that_is_refused_hears_which_field_and_why(jobs: Jobs, path: str, value: object, field: str, message: str) -> None:
    told = jobs.create(document("job", changed(path, value)), dry=True)
    assert field in told and message in told


VALUES: dict[str, Sequence[object]] = {
    "source.csv": [
        "a.csv",
        "a/b c/ü.csv",
        "..a/b..",
        "a/..",
        "..",
        "../a",
        "a/../b",
        "./a",
        "/a",
        "",
        " ",
        " a",
        "a ",
        "\u00a0a",
        "a//b",
        5,
        True,
    ],
    "source.images": ["{id}", "i/{id}.jpg", "http", "http:/x", "HTTPS://x/{id}", "x/http://", "{id}://x", "/{id}", "../{id}", "", 1],
    "source.idColumn": ["sku", "", 1],
    "source.where": [{}, {"a": "b", "c": [1, "x"], "d": {"gte": 1.5}}, []],
    "source.delimiter": ["", ",,", "ü", *map(chr, range(1, 128))],
    "source.maxPixels": [1, 0, 1.5, "1", True, 2**62],
    "functions": [[], [{"name": "resize"}], [{"name": ""}], [{}], {}, [{"name": "resize", "timeoutSeconds": 86_401}]],
    "output": [{}, [], {"format": "jpg"}, {"format": "webp"}, {"quality": 0}, {"quality": 101}, {"urlColumn": ""}, {"fsync": "always"}],
    "output.path": ["out", "/out", "a/../b", "", " "],
    "sharding": [{}, {"rowsPerShard": 0}, {"rowsPerShard": 1}, {"batchRows": 0}, {"batchRows": 100_000}, {"batchRows": 100_001}],
    "parallelism": [0, 1, 10_000, 10_001, "2"],
    "backoffLimitPerIndex": [-1, 0, 1_000, 1_001],
    "failurePolicy.maxFailedRowsPercent": [0, 0.5, 100, 100.5, -1, "5"],
    "failurePolicy.maxFailedRows": [0, -1, 1.5],
    "seed": [-(2**63), 2**63 - 1, 2**63, 2**64, -(2**63) - 2**12, 0.5],
    "suspend": [True, "true", 1],
    "mode": ["plan", "Run", ""],
    "ttlSecondsAfterFinished": [0, -1, 1.5],
    "data": [{"persistentVolumeClaim": {"claimName": ""}}, {"persistentVolumeClaim": {}}, []],
    "worker": [
        {},
        {"image": 1},
        {"resources": []},
        {"nodeSelector": {"a": 1}},
        {"tolerations": [1]},
        {"imagePullSecrets": [{"name": "a"}]},
    ],
}


def test_the_api_server_takes_what_the_model_takes(jobs: Jobs) -> None:
    tried = [(path, value) for path, values in VALUES.items() for value in values]
    documents = [document(f"job-{index}", changed(path, value)) for index, (path, value) in enumerate(tried)]
    lines = jobs.create(*documents, dry=True).splitlines()
    created = {line.split(" ")[0].rpartition("/")[2] for line in lines if " created" in line}
    differing = []
    for (path, value), doc in zip(tried, documents, strict=True):
        try:
            parse(doc)
            fits = True
        except JobError:
            fits = False
        if fits != (doc["metadata"]["name"] in created):
            differing.append((path, value, "the model takes it" if fits else "the API server takes it"))
    assert not differing


def test_names(jobs: Jobs) -> None:
    names = ["a", "1a", "a-b", "a" * 40, "a" * 41, "a.b", "a" * 20 + "." + "b" * 10]
    told = jobs.create(*(document(name, BARE) for name in names), dry=True)
    created = [name for name in names if f"pipelinejob.pipelinejob.dev/{name} created" in told]
    assert created == names[:4]
    assert told.count("metadata.name must be a DNS label (a-z, 0-9 and '-') of at most 40 characters") == 3


# --- what is filled in, kept and shown --------------------------------------------------------------------------------


def test_defaults_are_the_models(jobs: Jobs) -> None:
    resource = jobs.get("bare")
    assert resource["spec"]["output"] == {"format": "jpeg", "quality": 75, "background": "white", "urlColumn": "url", "fsync": "auto"}
    assert resource["spec"]["functions"] == []
    assert resource["spec"]["sharding"] == {"batchRows": 200} and resource["spec"]["failurePolicy"] == {"maxFailedRowsPercent": 5}
    for name, spec in (("bare", BARE), ("full", FULL)):
        stored = {key: value for key, value in jobs.get(name).items() if key != "status"}
        assert parse(stored).spec == parse(document(name, spec)).spec


def test_what_kubectl_prints(jobs: Jobs) -> None:
    standard = ["NAME", "PHASE", "PROGRESS", "FAILED", "RATE", "AGE"]
    for name in ("pipelinejobs", "pipelinejob", "plj"):
        assert jobs.kubectl("get", name).splitlines()[0].split() == standard
    assert jobs.kubectl("get", "plj", "-o", "wide").splitlines()[0].split() == [*standard, "SHARDS", "PARALLELISM", "OUTPUT", "ETA"]
    assert "pipelinejob.pipelinejob.dev/full" in jobs.kubectl("get", "all", "-o", "name")


def test_explain_has_the_words_of_the_model(jobs: Jobs) -> None:
    told = " ".join(jobs.kubectl("explain", "pipelinejob.spec.failurePolicy").split())
    assert "The failure budget" in told and "maxFailedRowsPercent" in told
    told = jobs.kubectl("explain", "plj.spec.output.format")
    assert all(name in told for name in ("jpeg", "png", "webp"))


def test_a_status_is_a_subresource_with_one_condition_of_each_type(jobs: Jobs) -> None:
    condition = {
        "type": "Complete",
        "status": "False",
        "reason": "Unschedulable",
        "message": "m",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }

    def patch(status: dict[str, Any], check: bool = False) -> str:
        body = json.dumps([{"op": "add", "path": "/status", "value": status}])
        how = ("--subresource=status", "--dry-run=server", "--type=json")
        return jobs.kubectl("patch", "plj", "full", *how, "-p", body, "-o", "json", check=check)

    status = {"phase": "Pending", "conditions": [condition]}
    assert json.loads(patch(status, check=True))["status"] == status
    assert "Duplicate value" in patch({"conditions": [condition, condition]})
    assert "Unsupported value" in patch({"phase": "Sleeping"})
