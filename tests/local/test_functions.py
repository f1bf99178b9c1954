"""Users' own functions by file, well-behaved and not: whatever they do costs their row alone."""

from __future__ import annotations

import json
import time

import pytest

from pipelinejob.functions.errors import NO_MEMORY
from support.project import Project, Ran


def runs(
    project: Project, code: str, *, ids: range = range(8), name: str = "mark", params: dict[str, object] | None = None, **spec: object
) -> Ran:
    """Runs a job of one user's function over small images, ids 0 to 7."""
    project.images(*ids)
    project.write_csv([(id, f"n{id}") for id in ids], ("id", "name"))
    project.write(code, "fn.py")
    entry: dict[str, object] = {"name": name, "file": "fn.py", "params": params or {}}
    entry |= spec.pop("entry", {})  # type: ignore[arg-type]
    job = project.job(functions=[entry], **{"sharding": {"batchRows": 4}, **spec})
    return project.run("run", job, "--json")


def fails_only(project: Project, ran: Ran, row: int, reason: str, message: str) -> None:
    """That every row but this one succeeded, and this one failed so."""
    assert ran.code == 0, ran.err
    assert {at: found[0] for at, found in project.failed().items()} == {row: reason}, ran.err
    assert message in project.failed()[row][1], project.failed()
    assert ran.json["rows"] == {"total": 8, "succeeded": 7, "filtered": 0, "skipped": 0, "failed": 1, "pending": 0}
    assert [item["id"] for item in project.table("out/job/metadata.csv")] == [str(id) for id in range(8) if id != row]
    failure = project.table("out/job/failures.csv")[0]
    assert (failure["function"], failure["attempts"], failure["id"]) == ("mark", "1", str(row))


DYING = {
    "os._exit(3)": "the process ended with exit code 3",
    "os._exit(0)": "the process ended with exit code 0",
    "ctypes.string_at(0)": "the process died with signal 11",
    "os.kill(os.getpid(), signal.SIGKILL)": "the process died with signal 9",
    "os.abort()": "the process died with signal 6",
    "os.kill(os.getpid(), signal.SIGTERM)": "the process died with signal 15",
}


@pytest.mark.parametrize(("deed", "message"), DYING.items(), ids=DYING.keys())
def test_a_row_that_kills_its_process_fails_alone(project: Project, deed: str, message: str) -> None:
    code = f"import ctypes, os, signal\ndef mark(image, row):\n    if row['id'] == '5':\n        {deed}\n    return image\n"
    ran = runs(project, code)
    fails_only(project, ran, 5, "FunctionError", message)


def test_several_killers_in_a_batch_fail_each_by_themselves(project: Project) -> None:
    code = "import os\ndef mark(image, row):\n    if row['id'] in '1346':\n        os._exit(9)\n    return image\n"
    ran = runs(project, code, parallelism=1)
    assert ran.code == 0, ran.err
    assert {row: reason for row, (reason, _) in project.failed().items()} == dict.fromkeys((1, 3, 4, 6), "FunctionError")
    assert [row["id"] for row in project.table("out/job/metadata.csv")] == ["0", "2", "5", "7"]


def test_a_row_that_hangs_overruns_its_time(project: Project) -> None:
    code = "import time\ndef mark(image, row):\n    while row['id'] == '2':\n        time.sleep(1)\n    return image\n"
    began = time.monotonic()
    ran = runs(project, code, entry={"timeoutSeconds": 1})
    fails_only(project, ran, 2, "FunctionTimeout", "1 s")
    assert time.monotonic() - began < 12


def test_a_row_that_hangs_without_letting_go_of_the_interpreter(project: Project) -> None:
    code = "def mark(image, row):\n    if row['id'] == '2':\n        10 ** (10 ** 9)\n    return image\n"
    ran = runs(project, code, entry={"timeoutSeconds": 1})
    fails_only(project, ran, 2, "FunctionTimeout", "1 s")


RAISING = {
    "raise ValueError('no such colour')": "ValueError: no such colour",
    "raise SystemExit(2)": "SystemExit: 2",
    "1 / 0": "ZeroDivisionError: division by zero",
    "row['nope']": "KeyError: 'nope'",
    "return 5": "returned int",
    "return 'text'": "returned str",
    "return [image]": "returned list",
    "return (image, 5)": "returned tuple",
    "return {'a': object()}": "object",
    "return {'a': b'bytes'}": "bytes",
    "return {5: 'a'}": "5",
    "return {'': 'a'}": "''",
    "return {'a': '\\ud800'}": "'a'",
    "raise Exception('two\\nlines')": "Exception: two",
    "raise Exception(f'at {object()}')": "0x…",
    "open(ROOT + '/nowhere/file.txt')": "file.txt",
    "raise Exception('x' * 2000)": "Exception: xxx",
    "raise RecursionError": "RecursionError",
    "raise MemoryError": f"MemoryError: {NO_MEMORY}",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise GeneratorExit": "GeneratorExit",
    "import sys; sys.exit('bye')": "SystemExit",
    "raise type('Own', (BaseException,), {})('own')": "own",
    "raise type('Bad', (Exception,), {'__str__': lambda self: 1 / 0})()": "Bad",
    "raise Exception('nul \\0 and \\x1b[31m')": "Exception: nul",
}


def test_whatever_a_function_raises_or_returns_is_its_rows_fault(project: Project) -> None:
    body = "".join(f"    if row['id'] == '{id}':\n        {deed}\n" for id, deed in enumerate(RAISING))
    code = f"ROOT = {str(project.root)!r}\ndef mark(image, row):\n{body}    return image\n"
    ran = runs(project, code, ids=range(len(RAISING) + 3))

    assert ran.code == 0, ran.err
    failed = project.failed()
    for row, (deed, message) in enumerate(RAISING.items()):
        assert failed.pop(row, ("", ""))[0] == "FunctionError", deed
        found = project.table("out/job/failures.csv")[row]
        assert message in found["message"], deed
        assert found["function"] == "mark" and len(found["message"]) <= 500 and found["message"].isprintable(), deed
        assert str(project.root) not in found["message"]
    assert not failed
    assert ran.json["rows"]["succeeded"] == 3


def test_what_a_function_may_return(project: Project) -> None:
    code = """
from PIL import Image
def mark(image, row):
    kinds = {
        0: image, 1: {"a": 1}, 2: (image, {"a": 2}), 3: None, 4: {}, 5: image.convert("L"),
        6: Image.new("1", (3, 4)), 7: (Image.new("CMYK", (5, 6)), {}),
    }
    return kinds[int(row["id"])]
"""
    ran = runs(project, code)
    assert ran.code == 0, ran.err
    assert ran.json["rows"] == {"total": 8, "succeeded": 7, "filtered": 0, "skipped": 1, "failed": 0, "pending": 0}
    assert {row["id"]: row["a"] for row in project.table("out/job/metadata.csv")} == {
        "0": "", "1": "1", "2": "2", "4": "", "5": "", "6": "", "7": "",
    }  # fmt: skip
    assert "images/000000000/3.jpg" not in project.tree("out/job")
    assert len([name for name in project.tree("out/job") if name.startswith("images/")]) == 7


def test_values_of_every_type_become_cells(project: Project) -> None:
    code = """
def mark(image, row):
    return {
        "str": 'a, "b"\\nc', "int": 10**20, "float": 0.1, "whole": 2.0, "big": 1e300, "yes": True, "no": False, "none": None,
        "list": [1, "é", None, 1.5], "dict": {"b": 1, "a": [True]}, "empty": "", "tuple": (1, 2), "minus": -0.0,
    }
"""
    ran = runs(project, code, ids=range(1))
    assert ran.code == 0, ran.err
    row = project.table("out/job/metadata.csv")[0]
    assert list(row) == ["id", "name", "url", *sorted(
        ["str", "int", "float", "whole", "big", "yes", "no", "none", "list", "dict", "empty", "tuple", "minus"]
    )]  # fmt: skip
    assert row == row | {
        "str": 'a, "b"\nc', "int": "100000000000000000000", "float": "0.1", "whole": "2.0", "big": "1e+300", "yes": "true",
        "no": "false", "none": "", "list": '[1, "é", null, 1.5]', "empty": "", "tuple": "[1, 2]", "minus": "-0.0",
    }  # fmt: skip
    assert json.loads(row["dict"]) == {"b": 1, "a": [True]}


def test_columns_that_clash_get_the_functions_name(project: Project) -> None:
    project.images(1, 2, 3)
    project.write_csv([(1, "one"), (2, "two"), (3, "three")], ("id", "name"))
    project.write("def mark(image, row):\n    return {'name': 'own', 'url': 'mine', 'z': 1, 'a': row['name']}\n", "one.py")
    project.write("def tag(image, row, word):\n    return {'a': word, 'b': 2} if row['id'] != '2' else {'late': 3}\n", "two.py")
    job = project.job(functions=[{"name": "mark", "file": "one.py"}, {"name": "tag", "file": "two.py", "params": {"word": "w"}}])
    ran = project.run("run", job, "--json")

    assert ran.code == 0, ran.err
    assert project.text("out/job/metadata.csv") == (
        "id,name,url,a,mark.name,mark.url,z,tag.a,b,late\n"
        "1,one,images/000000000/1.jpg,one,own,mine,1,w,2,\n"
        "2,two,images/000000000/2.jpg,two,own,mine,1,,,3\n"
        "3,three,images/000000000/3.jpg,three,own,mine,1,w,2,\n"
    )


def test_a_function_gets_the_row_and_cannot_change_it(project: Project) -> None:
    code = """
def mark(image, row):
    seen = dict(row)
    row["name"] = "changed"; row["new"] = "x"; del row["id"]
    return (image, {"seen": seen})
"""
    ran = runs(project, code, ids=range(2))
    assert ran.code == 0, ran.err
    rows = project.table("out/job/metadata.csv")
    assert [(row["id"], row["name"], json.loads(row["seen"])) for row in rows] == [
        ("0", "n0", {"id": "0", "name": "n0"}),
        ("1", "n1", {"id": "1", "name": "n1"}),
    ]


def test_a_row_without_image_reaches_users_functions_and_fails_in_built_in_ones(project: Project) -> None:
    project.write_csv([(1, "a"), (2, "b")], ("id", "name"))
    project.write("def mark(image, row):\n    return {'none': image is None}\n", "fn.py")
    ran = project.run("run", project.job(source={"images": None}, functions=[{"name": "mark", "file": "fn.py"}]), "--json")
    assert ran.code == 0, ran.err
    assert project.text("out/job/metadata.csv") == "id,name,url,none\n1,a,,true\n2,b,,true\n"

    ran = project.run("run", project.job("other", source={"images": None}), "--json")
    assert ran.json["rows"]["failed"] == 2
    assert project.failed("out/other")[0][0] == "FunctionError"


def test_a_function_may_draw_the_image_of_a_row_that_has_none(project: Project) -> None:
    project.write_csv([("1", "a"), ("../2", "b"), ("", "c"), ("1", "d")], ("id", "name"))
    project.write("from PIL import Image\ndef mark(image, row):\n    return Image.new('RGB', (4, 4))\n", "fn.py")
    ran = project.run("run", project.job(source={"images": None}, functions=[{"name": "mark", "file": "fn.py"}]), "--json")
    assert ran.code == 0, ran.err
    assert project.table("out/job/metadata.csv")[0]["url"] == "images/000000000/1.jpg"
    assert {row: reason for row, (reason, _) in project.failed().items()} == {
        1: "InvalidOutputName", 2: "InvalidOutputName", 3: "DuplicateId",
    }  # fmt: skip


def test_what_a_function_prints_disturbs_nothing(project: Project) -> None:
    code = """
import os, sys
print("at import")
def mark(image, row):
    print('{"done": 0}'); sys.stdout.flush(); os.write(1, b'{"done": 0}\\n'); os.write(2, b"to stderr\\n")
    sys.__stdout__.write("raw\\n"); sys.__stdout__.flush(); sys.stdin.read(); os.system("echo from a shell")
    print("x" * 200_000)
    return image
"""
    ran = runs(project, code)
    assert ran.code == 0, ran.err
    assert ran.json["rows"]["succeeded"] == 8
    assert len(ran.out.splitlines()) == 1


def test_a_function_finds_no_credentials(project: Project) -> None:
    code = """
import os
def mark(image, row):
    return {"found": [key for key in os.environ if key.startswith("PG") or "DATABASE" in key or "secret" in os.environ[key]],
            "open": [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
                     and "socket" in os.readlink(f"/proc/self/fd/{fd}")]}
"""
    project.environment |= {"PGPASSWORD": "secret", "PGUSER": "secret"}
    ran = runs(project, code, ids=range(1))
    assert ran.code == 0, ran.err
    row = project.table("out/job/metadata.csv")[0]
    assert (row["found"], row["open"]) == ("[]", "[]")


def test_a_function_sees_the_same_environment_of_python_whatever_it_imports(project: Project) -> None:
    """The job's folder and the current directory are not on the path: a file json.py beside the job must not be imported."""
    project.write("raise SystemExit('the wrong json')\n", "json.py")
    project.write("raise SystemExit('the wrong PIL')\n", "PIL.py")
    ran = runs(project, "import json\ndef mark(image, row):\n    return {'a': json.dumps([1])}\n", ids=range(1))
    assert ran.code == 0, ran.err
    assert project.table("out/job/metadata.csv")[0]["a"] == "[1]"
    assert not (project.root / "__pycache__").exists()


BAD_SPECS = [
    ([{"name": "resize", "params": {"width": "abc", "height": 8}}], "spec.functions[0].params.width", "'abc'"),
    ([{"name": "resize", "params": {"width": 8}}], "spec.functions[0].params.height", ""),
    ([{"name": "resize", "params": {"widht": 8, "height": 8, "width": 8}}], "spec.functions[0].params.widht", "width"),
    ([{"name": "resize", "params": {"width": True, "height": 8}}], "spec.functions[0].params.width", "True"),
    ([{"name": "resize", "params": {"width": 0, "height": 8}}], "spec.functions[0].params.width", "0"),
    ([{"name": "resize", "params": {"width": 8.5, "height": 8}}], "spec.functions[0].params.width", "8.5"),
    ([{"name": "resize", "params": None}], "spec.functions[0].params", ""),
    ([{"name": "grayscale"}, {"name": "resise"}], "spec.functions[1].name", "resize"),
    ([{"name": "grayscale", "prams": {}}], "spec.functions[0].prams", "params"),
    ([{"name": "grayscale", "timeoutSeconds": 0}], "spec.functions[0].timeoutSeconds", "0"),
    ([{"params": {}}], "spec.functions[0].name", ""),
    (["grayscale"], "spec.functions[0]", ""),
    ([{"name": "mark", "file": "nowhere.py"}], "spec.functions[0].file", "nowhere.py"),
    ([{"name": "marc", "file": "fn.py"}], "spec.functions[0].file", "mark"),
    ([{"name": "mark", "file": "fn.py", "params": {"worf": 1}}], "spec.functions[0].params.worf", "word"),
    ([{"name": "need", "file": "fn.py"}], "spec.functions[0].params.word", ""),
    ([{"name": "mark", "file": "broken.py"}], "spec.functions[0].file", "line 2"),
    ([{"name": "mark", "module": "no.such.module"}], "spec.functions[0].module", "no"),
    ([{"name": "mark", "file": "fn.py", "module": "fn"}], "spec.functions[0]", "file"),
]  # fmt: skip


def test_bad_functions_are_refused_with_their_path(project: Project) -> None:
    project.catalogue(1)
    project.write("def mark(image, row, word='x'):\n    return image\ndef need(image, row, word):\n    return image\n", "fn.py")
    project.write("x = 1\ndef mark(image row):\n", "broken.py")
    for number, (functions, path, named) in enumerate(BAD_SPECS):
        job = project.job(f"job-{number}", functions=functions)
        ran = project.run("run", job, "--json")
        assert (ran.code, ran.json["reason"]) == (2, "InvalidSpec"), (functions, ran)
        assert path in ran.json["message"] and named in ran.json["message"], (functions, ran.json["message"])
    assert not (project.root / "out").exists()


MODEL = """
import os
class mark:
    def __init__(self, *, weight: float = 1.0, label: str = "none"):
        with open(os.environ["MADE"], "a") as file:
            file.write(f"{os.getpid()}\\n")
        if label == "missing":
            open("/nowhere/model.bin")
        self.weight, self.label, self.seen = weight, label, 0
    def __call__(self, image, row):
        self.seen += 1
        return image, {"weight": self.weight, "label": self.label, "first": self.seen == 1}
"""


def test_a_class_is_made_once_in_each_process(project: Project) -> None:
    project.images(*range(40))
    project.write_csv([(id, f"n{id}") for id in range(40)], ("id", "name"))
    made = project.root / "made"
    project.write(MODEL.replace('os.environ["MADE"]', repr(str(made))), "fn.py")
    entry = {"name": "mark", "file": "fn.py", "params": {"weight": 2, "label": "warm"}}
    ran = project.run("run", project.job(functions=[entry], sharding={"batchRows": 4}, parallelism=2), "--json")
    assert ran.code == 0, ran.err
    processes = made.read_text().split()
    assert len(processes) == len(set(processes)) <= 2, "once in each"
    rows = project.table("out/job/metadata.csv")
    assert {(row["weight"], row["label"]) for row in rows} == {("2", "warm")}
    assert sum(row["first"] == "true" for row in rows) == len(processes), "and kept for all rows"


def test_a_class_that_cannot_be_made_says_why(project: Project) -> None:
    made = project.root / "made"
    ran = runs(project, MODEL.replace('os.environ["MADE"]', repr(str(made))), params={"label": "missing"})
    assert ran.code == 1
    assert "mark.__init__: FileNotFoundError" in ran.err and "model.bin" in ran.err, ran.err
    assert ran.json["phase"] == "Failed"


def test_a_class_that_never_gets_ready_ends_the_job(project: Project) -> None:
    code = "import time\nclass mark:\n    def __init__(self): time.sleep(600)\n    def __call__(self, image, row): return image\n"
    project.environment["PIPELINEJOB_START_TIMEOUT"] = "2"
    began = time.monotonic()
    ran = runs(project, code)
    assert ran.code == 1 and time.monotonic() - began < 20
    assert "has not loaded its functions after 2 s" in ran.err and "__init__" in ran.err, ran.err


def test_what_is_no_class_of_ours_is_refused_before_any_row(project: Project) -> None:
    for code, params, message in (
        ("class mark:\n    pass\n", {}, "expected def __call__(self, image, row) in class mark"),
        ("class mark:\n    def __call__(self, image): return image\n", {}, "expected def __call__(self, image, row) in class mark"),
        (MODEL, {"weight": "heavy"}, "spec.functions[0].params.weight: must be a number, got 'heavy'"),
        (MODEL, {"wait": 1}, "spec.functions[0].params.wait: unknown parameter; did you mean 'weight'?"),
    ):
        ran = runs(project, code, params=params)
        assert ran.code == 2 and message in ran.err, ran.err


def test_the_file_is_relative_to_the_job_file(project: Project) -> None:
    project.catalogue(2)
    (project.root / "jobs").mkdir()
    project.write("def mark(image, row):\n    return {'a': 1}\n", "jobs/fn.py")
    job = project.job(file="jobs/job.yaml", functions=[{"name": "mark", "file": "fn.py"}])
    assert job == "job.yaml"
    ran = project.run("run", "jobs/job.yaml", "--json")
    assert ran.code == 0, ran.err
    assert [row["a"] for row in project.table("out/job/metadata.csv")] == ["1", "1"]


def test_random_functions_depend_on_seed_id_and_position_alone(project: Project) -> None:
    project.catalogue(6)
    rows = project.table("rows.csv")
    cropped = [{"name": "random_crop", "params": {"ratio": 0.5}}]
    assert project.run("run", project.job(functions=cropped)).code == 0
    project.write_csv([list(row.values()) for row in reversed(rows)], list(rows[0]), name="back.csv")
    assert project.run("run", project.job("back", source={"csv": "back.csv"}, functions=cropped, sharding={"batchRows": 2})).code == 0
    assert project.run("run", project.job("seeded", seed=1, functions=cropped)).code == 0

    def by_id(output: str) -> dict[str, str]:
        return {name.rpartition("/")[2]: digest for name, digest in project.tree(output).items() if name.startswith("images/")}

    assert by_id("out/job") == by_id("out/back")
    assert by_id("out/job") != by_id("out/seeded")
