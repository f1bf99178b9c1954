"""`pipelinejob function test`: one row through a function of one's own, before a job runs it."""

from __future__ import annotations

from PIL import Image

from support.project import Project

CODE = """
def _helper(image, row):
    return image

def mark(image, row, *, threshold: int = 128):
    if row.get("colour") == "none":
        return None
    brightness = image.convert("L").resize((1, 1)).getpixel((0, 0))
    return image.rotate(90, expand=True), {"bright": brightness > threshold, "who": row["id"]}
"""


def test_before_and_after(project: Project) -> None:
    project.write(CODE, "fn.py")
    Image.new("RGB", (60, 80), "white").save(project.root / "white.png")
    asked = ("function", "test", "fn.py", "--image", "white.png", "--row", "id=7", "--param", "threshold=100")
    ran = project.run(*asked, "--save", "sheet.png", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["name"] == "mark", "the only one that a job could name"
    assert ran.json["params"] == {"threshold": 100} and ran.json["columns"] == {"bright": True, "who": "7"}
    assert (ran.json["before"], ran.json["after"]) == (
        {"width": 60, "height": 80, "mode": "RGB"},
        {"width": 80, "height": 60, "mode": "RGB"},
    )
    with Image.open(project.root / "sheet.png") as sheet:
        colours = sheet.convert("RGB").getcolors(1 << 20)
    assert sheet.width == 960 and colours and len(colours) > 1
    shown = project.run(*asked)
    assert "60 × 80 RGB" in shown.out and "80 × 60 RGB" in shown.out and "bright" in shown.out

    skipped = project.run(*asked, "--row", "colour=none", "--json")
    assert skipped.code == 0 and skipped.json["skipped"] is True


def test_a_row_that_would_fail(project: Project) -> None:
    project.write(CODE, "fn.py")
    ran = project.run("function", "test", "fn.py", "--json")  # without an image
    assert ran.code == 1
    assert (ran.json["reason"], ran.json["function"]) == ("FunctionError", "mark")
    assert "fn.py" in ran.err and "brightness = image.convert" in ran.err, "the line that raised it"
    assert "give it one with --image FILE" in ran.err

    (project.root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    ran = project.run("function", "test", "fn.py", "--image", "broken.jpg", "--json")
    assert (ran.code, ran.json["reason"]) == (1, "ImageInvalid")


def test_what_a_job_would_refuse_is_refused_here(project: Project) -> None:
    project.write(CODE, "fn.py")
    project.write(CODE + "\nclass other:\n    def __call__(self, image, row):\n        return image\n", "two.py")
    project.write("def broken(:\n", "syntax.py")
    for arguments, message in (
        (("fn.py", "--param", "thresold=1"), "params.thresold: unknown parameter; did you mean 'threshold'?"),
        (("fn.py", "--param", "threshold=high"), "params.threshold: must be an integer, got 'high'"),
        (("fn.py", "--row", "colour"), "--row: expected NAME=VALUE, got 'colour'"),
        (("fn.py", "nobody"), "fn.py defines no function 'nobody'"),
        (("two.py",), "two.py defines mark, other: say which"),
        (("syntax.py",), "syntax.py, line 1: SyntaxError"),
        (("none.py",), "none.py: No such file or directory"),
    ):
        ran = project.run("function", "test", *arguments)
        assert ran.code == 2 and message in ran.err, ran.err
