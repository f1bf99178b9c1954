"""The functions a spec can name, and what each takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cached_property, partial
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
    ROW = "row"  # (image, row, **params) -> what a user's function may return
    CLASS = "class"  # (**params) -> what is called with (image, row) for each row; made once in each process


# Problems of several parameters together, which no single annotation can say.
Rule = Callable[[Mapping[str, object]], list[tuple[str, str]]]


class Function:
    """A function by its name: how to call it, what it takes, and a digest of what it does.

    Args:
        name: the name in the spec.
        call: the Python function; its signature is the declaration of the parameters.
        kind: how `call` is called.
        digest: differs whenever the function may give another result.
        random: whether `call` takes random draws.
        rule: a check of all parameters together.
    """

    def __init__(
        self, name: str, call: Callable[..., Any], kind: Kind, digest: str, *, random: bool = False, rule: Rule | None = None
    ) -> None:
        self.name = name
        self.call = call
        self.kind = kind
        self.digest = digest
        self.random = random
        self._rule = rule

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


def suggestion(name: str, names: list[str]) -> str:
    """Such as "did you mean 'width'?" when a name is close, else all names."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for messages

    close = get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else "expected one of " + ", ".join(names)


def _register(call: F, kind: Kind, *, random: bool = False, rule: Rule | None = None) -> F:
    name = call.__name__
    BUILTINS[name] = Function(name, call, kind, f"builtin:{name}@{VERSION}", random=random, rule=rule)
    return call
