"""From an entry of spec.functions to a Function: built in, or a user's own from a file or a module."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

from PIL import Image

from pipelinejob.functions.builtin import BUILTINS
from pipelinejob.functions.errors import told
from pipelinejob.functions.registry import Function, Kind, Row, suggestion


def load(entry: Mapping[str, Any]) -> Function:
    """The function of a spec entry {name, file? | module? | source?}; `path`, when present, is where `file` really is.

    `source` is the text of a PipelineFunction, `entrypoint` what it calls the function, and `packages` a folder with what that needs.

    A user's file is run once, from the very bytes that the digest is of, and leaves no __pycache__. Its own folder is
    not searched for imports: what it needs beyond the one file is a module.

    Raises:
        ValueError: no such function, or the file or module cannot be run; the text says where and why.
    """
    name, entrypoint = str(entry["name"]), str(entry.get("entrypoint") or "")
    if (packages := entry.get("packages")) and packages not in sys.path:
        sys.path.append(str(packages))  # behind ours: what the worker itself runs on stays what it is
        importlib.invalidate_caches()
    if entry.get("file"):
        return _from_file(name, Path(str(entry.get("path") or entry["file"])), str(entry["file"]))
    if entry.get("module"):
        return _from_module(name, str(entry["module"]), entrypoint or name)
    if entry.get("source") is not None:
        return _from_source(name, str(entry["source"]), entrypoint, entry.get("requirements") or ())
    if name not in BUILTINS:
        raise ValueError(f"no built-in function '{name}'; {suggestion(name, list(BUILTINS))}")
    return BUILTINS[name]


def names_in(path: Path) -> list[str]:
    """What a spec is to name of a file: its own functions and classes that take an image and a row, but for those with a leading '_'.

    Raises:
        ValueError: the file cannot be run.
    """
    module, digest = _run(_bytes(path, path.name), str(path), path.name)
    names = []
    for name in (name for name in _own(module) if not name.startswith("_")):
        try:
            _function(name, name, module, path.name, digest)
        except ValueError:
            continue
        names.append(name)
    return names


def _from_file(name: str, path: Path, shown: str) -> Function:
    module, digest = _run(_bytes(path, shown), str(path), shown)
    return _function(name, name, module, shown, digest)


def _bytes(path: Path, shown: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{shown}: {error.strerror or 'cannot be read'}") from None


def _from_source(name: str, source: str, entrypoint: str, requirements: Sequence[str]) -> Function:
    module, digest = _run(source.encode(), f"<{name}>", name)
    if requirements:
        digest = f"sha256:{sha256(chr(10).join([digest, *requirements]).encode()).hexdigest()}"
    own = [each for each in _own(module) if not each.startswith("_")]
    same = name.replace("-", "_")
    return _function(name, entrypoint or (own[0] if len(own) == 1 and same not in own else same), module, name, digest)


def _run(source: bytes, path: str, shown: str) -> tuple[ModuleType, str]:
    """A file as a module, and its digest."""
    digest = sha256(source).hexdigest()
    module = ModuleType(f"pipelinejob_user_{digest[:16]}")
    module.__file__ = path
    vars(module).update(Image=Image.Image, Row=Row)  # for annotations; the file may mean something else by them
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up here
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ValueError(_trouble(shown, path, error)) from None
    return module, f"sha256:{digest}"


def _from_module(name: str, dotted: str, entrypoint: str) -> Function:
    try:
        module = importlib.import_module(dotted)
    except (Exception, SystemExit) as error:
        raise ValueError(_trouble(f"module {dotted}", "", error)) from None
    file = getattr(module, "__file__", None)
    digest = f"sha256:{sha256(Path(file).read_bytes()).hexdigest()}" if file else f"module:{dotted}"
    return _function(name, entrypoint, module, dotted, digest)


def _function(name: str, attribute: str, module: ModuleType, shown: str, digest: str) -> Function:
    call: Any = getattr(module, attribute, None)
    if not callable(call):
        own = _own(module)
        raise ValueError(f"{shown} defines no function '{attribute}'; {suggestion(attribute, own) if own else 'it defines none'}")
    import inspect  # noqa: PLC0415 - only where there are users' functions

    made = inspect.isclass(call)
    called: Any = next((vars(base)["__call__"] for base in call.__mro__ if "__call__" in vars(base)), None) if made else call
    try:
        signature = inspect.signature(called)
        signature.bind_partial(*(["self"] if made else []), "image", "row")
    except (TypeError, ValueError):
        wanted = f"def __call__(self, image, row) in class {attribute}" if made else f"def {attribute}(image, row, ...)"
        raise ValueError(f"{shown}: '{attribute}' must take an image and a row; expected {wanted}") from None
    batched = _takes_lists(list(signature.parameters.values())[made].annotation)
    return Function(name, call, Kind.CLASS if made else Kind.ROW, digest, batched=batched)


def _takes_lists(annotation: object) -> bool:
    """Whether an annotation says list[...]: that of a function that is called with many rows at once."""
    if isinstance(annotation, str):  # from __future__ import annotations
        return annotation.strip().partition("[")[0].rpartition(".")[2].lower() == "list"
    return annotation is list or get_origin(annotation) is list


def _own(module: ModuleType) -> list[str]:
    return [key for key, value in vars(module).items() if callable(value) and getattr(value, "__module__", "") == module.__name__]


def _trouble(shown: str, path: str, error: BaseException) -> str:
    """Why a user's code cannot be run, with the line of it at which Python gave up."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace and not isinstance(error, SyntaxError):
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    text = f"SyntaxError: {error.msg}" if isinstance(error, SyntaxError) else told(error)
    return f"{shown}, line {line}: {text}" if line else f"{shown}: {text}"
