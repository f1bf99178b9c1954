"""The functions a spec can name, and what each takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from pipelinejob.functions.errors import told
from pipelinejob.functions.params import Param, params_of

# The version of every built-in function, part of its digest: raise it when one's pixels change.
VERSION = 1


class Kind(StrEnum):
    """How a function is called."""

    GEOMETRY = "geometry"  # (window, **params), or (window, draws, **params) when random -> Window or Resample
    PIXELS = "pixels"  # (image, **params) -> image
    COLUMNS = "columns"  # (image, **params) -> columns; the picture stays as it is
    ROW = "row"  # (image, row, **params) -> what a user's function may return; batched: lists of all three
    CLASS = "class"  # (**params) -> what is called with (image, row) for each row; made once in each process


# What a user's function gets of a row beside its picture: the cells by column.
Row = Mapping[str, str]

# Problems of several parameters together, which no single annotation can say.
Rule = Callable[[Mapping[str, object]], list[tuple[str, str]]]

# From the parameters and the data root to a digest of the files that they name; a ValueError when there is none to take.
DigestOf = Callable[[Mapping[str, object], Path], str]


class Function:
    """A function by its name: how to call it, what it takes, and a digest of what it does.

    Args:
        name: the name in the spec.
        call: the Python function; its signature is the declaration of the parameters.
        kind: how `call` is called.
        digest: differs whenever the function may give another result.
        random: whether `call` takes random draws.
        batched: whether what is called takes a list of images and a list of rows, and returns a list; of ROW and CLASS alone.
        rule: a check of all parameters together.
        digest_of: the digest of what a function reads below the data root beside its row, such as a model.
    """

    def __init__(
        self,
        name: str,
        call: Callable[..., Any],
        kind: Kind,
        digest: str,
        *,
        random: bool = False,
        batched: bool = False,
        rule: Rule | None = None,
        digest_of: DigestOf | None = None,
    ) -> None:
        self.name = name
        self.call = call
        self.kind = kind
        self.digest = digest
        self.random = random
        self.batched = batched
        self._rule = rule
        self._digest_of = digest_of

    def bind(self, params: Mapping[str, object]) -> Callable[..., Any]:
        """What is called for each row, with the parameters in it; of a class, its one object in this process.

        Raises:
            ValueError: the class cannot be made with them.
        """
        if self.kind is not Kind.CLASS:
            return partial(self.call, **params)
        try:
            made: Callable[..., Any] = self.call(**params)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{self.name}.__init__: {told(error)}") from error
        return made

    def digest_with(self, params: Mapping[str, object], root: Path) -> str:
        """The digest of the function in a job: its own, and that of the files below the data root that it reads.

        Args:
            params: as `resolve` gives them.
            root: the data root.

        Raises:
            ValueError: a file is missing, or not to be read.
        """
        return f"{self.digest}+{self._digest_of(params, root)}" if self._digest_of else self.digest

    @property
    def version(self) -> str:
        """Of a built-in function its number, which rises when its pixels change; of a user's own its digest."""
        return self.digest.rpartition("@")[2]

    @property
    def doc(self) -> str:
        """The first line of the docstring."""
        return (self.call.__doc__ or "").strip().partition("\n")[0]

    @property
    def params(self) -> tuple[Param, ...]:
        """The parameters, in the order of the signature."""
        return self._signature[0]

    def described(self) -> dict[str, Any]:
        """What a user is to know of it: name, version, the first line of its docstring, and its params."""
        params = [
            {"name": param.name, "expected": param.expected, "required": param.required}
            | ({} if param.required else {"default": param.default})
            for param in self.params
        ]
        return {"name": self.name, "version": self.version, "doc": self.doc, "params": params}

    def check(self, params: Mapping[str, object]) -> list[tuple[str, str]]:
        """What is wrong with `params`, as (parameter, message); empty when they can be used."""
        known, open_ended = {each.name: each for each in self.params}, self._signature[1]
        problems = [(name, self._unknown(name)) for name in params if name not in known and not open_ended]
        for name, param in known.items():
            if name in params:
                if problem := param.problem(params[name]):
                    problems.append((name, problem))
            elif param.required:
                problems.append((name, f"is required: {param.expected}"))
        return problems or (self._rule(params) if self._rule else [])

    def resolve(self, params: Mapping[str, object]) -> dict[str, object]:
        """`params` with the defaults filled in, in the order of the signature."""
        known = {each.name: params.get(each.name, each.default) for each in self.params if not each.required or each.name in params}
        return known | dict(params)

    @cached_property
    def _signature(self) -> tuple[tuple[Param, ...], bool]:
        leading = {Kind.GEOMETRY: 2 if self.random else 1, Kind.PIXELS: 1, Kind.COLUMNS: 1, Kind.ROW: 2, Kind.CLASS: 0}
        return params_of(self.call, leading[self.kind])

    def _unknown(self, name: str) -> str:
        names = [each.name for each in self.params]
        return f"unknown parameter; {suggestion(name, names)}" if names else "unknown parameter; this function takes none"


F = TypeVar("F", bound=Callable[..., object])

BUILTINS: dict[str, Function] = {}


def geometry(*, random: bool = False, rule: Rule | None = None) -> Callable[[F], F]:
    """Register a built-in function that moves the window or resamples it."""
    return lambda call: _register(call, Kind.GEOMETRY, random=random, rule=rule)


def pixels(call: F) -> F:
    """Register a built-in function from picture to picture."""
    return _register(call, Kind.PIXELS)


def columns(call: F) -> F:
    """Register a built-in function that tells something of a picture."""
    return _register(call, Kind.COLUMNS)


def batched(*, rule: Rule | None = None, digest_of: DigestOf | None = None) -> Callable[[F], F]:
    """Register a built-in class whose objects are called with a list of images and a list of rows."""
    return lambda made: _register(made, Kind.CLASS, batched=True, rule=rule, digest_of=digest_of)


def suggestion(name: str, names: list[str]) -> str:
    """Such as "did you mean 'width'?" when a name is close, else all names."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for messages

    close = get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else "expected one of " + ", ".join(names)


def _register(call: F, kind: Kind, **options: Any) -> F:
    name = call.__name__
    BUILTINS[name] = Function(name, call, kind, f"builtin:{name}@{VERSION}", **options)
    return call
