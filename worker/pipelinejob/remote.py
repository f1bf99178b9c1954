"""The jobs behind a gateway, over its REST API; the same methods as those of this machine's jobs (service.LocalJobs)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import httpx
import stamina

from pipelinejob import __version__
from pipelinejob.admission import JobExistsError
from pipelinejob.model import PipelineJob
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.resources import NoJobError, StateError
from pipelinejob.store import FailedRow

PAGE = 1_000
IN_MEMORY = 1 << 24  # bytes of a table, beyond which it is kept in a temporary file
_KINDS: dict[str, type[JobError]] = {"NotFound": NoJobError, "AlreadyExists": JobExistsError, "Conflict": StateError}


class RemoteJobs:
    """The jobs behind a gateway.

    Args:
        url: of the gateway, as http://127.0.0.1:8080.
        token: sent as `Authorization: Bearer`; None: none.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._headers = {"User-Agent": f"pipelinejob/{__version__}"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._url = url
        self._open: httpx.Client | None = None

    @property
    def _client(self) -> httpx.Client:
        if self._open is None:
            self._open = httpx.Client(base_url=f"{self._url.rstrip('/')}/api/v1", headers=self._headers, timeout=60)
        return self._open

    def close(self) -> None:
        """Closes the connection, until something is asked again."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def get(self, namespace: str, name: str) -> dict[str, Any]:
        """A job as it stands now."""
        return self._json("GET", f"/pipelinejobs/{name}", namespace)

    def create(self, job: PipelineJob, folder: Path) -> dict[str, Any]:
        """Creates a job; files of functions, which `folder` is for on one machine, are refused by the gateway."""
        return self._json("POST", "/pipelinejobs", body=_as_written(job))

    def plan(self, job: PipelineJob, folder: Path, *, whole: bool = False) -> dict[str, Any]:
        """What a job would do."""
        return self._json("POST", "/plan", body=_as_written(job), count=whole)

    def patch(self, namespace: str, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Changes fields of a job's spec that may change."""
        return self._json("PATCH", f"/pipelinejobs/{name}", namespace, body={"spec": dict(changes)})

    def cancel(self, namespace: str, name: str) -> dict[str, Any]:
        """Cancels a job for good."""
        return self._json("POST", f"/pipelinejobs/{name}/cancel", namespace, body={})

    def suspend(self, namespace: str, name: str) -> dict[str, Any]:
        """Stops a job until it is resumed."""
        return self._json("POST", f"/pipelinejobs/{name}/suspend", namespace, body={})

    def resume(self, namespace: str, name: str) -> dict[str, Any]:
        """Goes on with a job."""
        return self._json("POST", f"/pipelinejobs/{name}/resume", namespace, body={})

    def redrive(self, namespace: str, name: str, *, reasons: Sequence[str] = (), pending: bool = False) -> dict[str, Any] | None:
        """Runs the failed rows of a job again; None when there is nothing to run again."""
        body = {"reasons": list(reasons), "pending": pending}
        return self._json("POST", f"/pipelinejobs/{name}/redrive", namespace, body=body) or None

    def delete(self, namespace: str, name: str, *, output: bool = False) -> None:
        """Deletes a job, and its output folder if asked to."""
        self._json("DELETE", f"/pipelinejobs/{name}", namespace, output=output)

    def all_failures(self, namespace: str, name: str) -> Iterator[FailedRow]:
        """The failed rows in the order of the CSV, read page by page."""
        after: int | None = -1
        while after is not None:
            page = self._json("GET", f"/pipelinejobs/{name}/failures", namespace, after=after, limit=PAGE)
            yield from (FailedRow(**item) for item in page["items"])
            after = page["next"]

    def open_result(self, namespace: str, name: str, file: str) -> IO[bytes]:
        """metadata.csv, failures.csv or manifest.json, to be read and closed."""
        query = {"namespace": namespace}
        with self._client.stream("GET", f"/pipelinejobs/{name}/results/{file}", params=query) as answer:
            if answer.is_error:
                answer.read()
                raise _error(answer)
            kept = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - the caller closes it
            try:
                for piece in answer.iter_bytes():
                    kept.write(piece)
            except BaseException:
                kept.close()
                raise
        kept.seek(0)
        return kept

    def image(self, namespace: str, name: str, url: str) -> bytes:
        """One image, by the `url` of its row."""
        return self._send("GET", f"/pipelinejobs/{name}/results/{url}", namespace).content

    def _json(self, method: str, path: str, namespace: str | None = None, *, body: object = None, **query: Any) -> dict[str, Any]:
        answer = self._send(method, path, namespace, body=body, **query)
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    def _send(self, method: str, path: str, namespace: str | None = None, *, body: object = None, **query: Any) -> httpx.Response:
        if namespace is not None:
            query["namespace"] = namespace
        try:
            for attempt in stamina.retry_context(on=_may_be_repeated(method), attempts=4, wait_initial=0.2, wait_max=2.0):
                with attempt:
                    answer = self._client.request(method, path, params=query, json=body)
        except httpx.TransportError as error:
            raise JobError(
                JobReason.DATABASE_UNAVAILABLE, f"no gateway at {self._url} ({error}): check the url, or PIPELINEJOB_URL"
            ) from None
        with closing(answer):
            if answer.is_error:
                raise _error(answer)
            return answer


def _may_be_repeated(method: str) -> tuple[type[Exception], ...]:
    """What is worth another attempt: a connection that was never made, and for questions any that broke."""
    return (httpx.TransportError,) if method == "GET" else (httpx.ConnectError,)


def _error(answer: httpx.Response) -> JobError:
    try:
        problem = answer.json()
        reason, detail = problem.get("reason"), problem["detail"]
    except (ValueError, KeyError, AttributeError):  # of a proxy in between
        reason, detail = None, f"{answer.request.url}: {answer.status_code} {answer.reason_phrase}"
    if kind := _KINDS.get(reason or ""):
        return kind(JobReason.INVALID_SPEC, detail)
    known = reason in list(JobReason)
    return JobError(JobReason(reason) if known else JobReason.INVALID_SPEC, detail)


def _as_written(job: PipelineJob) -> dict[str, Any]:
    """The resource without defaults."""
    return job.model_dump(mode="json", by_alias=True, exclude_unset=True)
