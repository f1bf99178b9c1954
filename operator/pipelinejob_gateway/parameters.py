"""What routes take from a request: the jobs that its caller may see, and the parameters that several have."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Query, Request

from pipelinejob.model import NAME_PATTERN
from pipelinejob.resources import Page
from pipelinejob_gateway.backend import Jobs
from pipelinejob_gateway.problems import Refused

MAX_PAGE = 1_000


def jobs_of(request: Request) -> Jobs:
    """The jobs that the caller may see."""
    jobs: Jobs = request.app.state.jobs_of(request)
    return jobs


Backend = Annotated[Jobs, Depends(jobs_of)]
LABEL = f"^{NAME_PATTERN}$"
Name = Annotated[str, Path(max_length=63, pattern=LABEL, description="The job's name.", examples=["men-fall-2010"])]
Namespace = Annotated[str, Query(max_length=63, pattern=LABEL, description="The job's namespace.")]
Part = Annotated[str | None, Query(max_length=63, pattern="^[-a-z0-9]*$", description="Only with this in their name.")]
InNamespace = Annotated[str | None, Query(max_length=63, pattern=LABEL, description="Only of this namespace.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many at most.")]


def before(after: str | None) -> tuple[datetime, str] | None:
    """Where a page of jobs begins, from the `next` of the page before.

    Raises:
        Refused: 422, when no page gave that.
    """
    if after is None:
        return None
    at, _, uid = after.rpartition("_")
    try:
        return datetime.fromisoformat(at).astimezone(UTC), str(UUID(uid))
    except (ValueError, OverflowError):
        raise Refused(422, "after: is not what a page before this one gave", "Invalid") from None


def after_of(page: Page) -> str | None:
    """The `next` of a page of jobs."""
    return page.after and f"{page.after[0].isoformat()}_{page.after[1]}"
