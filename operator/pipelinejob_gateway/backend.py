"""What the API needs to know and do: the same questions to the ledger of one machine and to a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from pipelinejob.insight import Insight
from pipelinejob.resources import Event, Output, Page
from pipelinejob.store import FailedRow


class Jobs(Protocol):
    """The jobs that a caller may see; pipelinejob.service.LocalJobs, and local.ServedJobs, say what each method does and raises."""

    def page(
        self,
        *,
        namespace: str | None = None,
        phases: Sequence[str] = (),
        name: str | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 50,
    ) -> Page: ...

    def get(self, namespace: str, name: str) -> dict[str, Any]: ...

    def output(self, namespace: str, name: str) -> Output: ...

    def failures(self, namespace: str, name: str, *, reason: str | None = None, after: int = -1, limit: int = 100) -> list[FailedRow]: ...

    def insight(self, namespace: str, name: str) -> Insight: ...

    def events(self, namespace: str, name: str) -> list[Event]: ...

    def watched(self, namespace: str | None) -> Callable[[str], bool] | None: ...

    def preview(self, document: object, *, whole: bool = False) -> dict[str, Any]: ...

    def submit(self, document: object) -> dict[str, Any]: ...

    def patch(self, namespace: str, name: str, changes: Mapping[str, Any]) -> dict[str, Any]: ...

    def cancel(self, namespace: str, name: str) -> dict[str, Any]: ...

    def suspend(self, namespace: str, name: str) -> dict[str, Any]: ...

    def resume(self, namespace: str, name: str) -> dict[str, Any]: ...

    def redrive(self, namespace: str, name: str, *, reasons: Sequence[str] = (), pending: bool = False) -> dict[str, Any] | None: ...

    def delete(self, namespace: str, name: str, *, output: bool = False) -> None: ...
