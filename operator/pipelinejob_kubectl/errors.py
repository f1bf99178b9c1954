"""What goes wrong between here and the cluster, in one line each that says what to do."""

from __future__ import annotations

import json

INSTALL = "install it (docs/install.md), or ask whoever runs the cluster"
DOCTOR = "'kubectl pipelinejob doctor' says what is there"


class PluginError(Exception):
    """A command cannot go on.

    Args:
        reason: one word; InvalidSpec ends the command with exit code 2, all else with 1.
        message: what is wrong, and what to do.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message

    @property
    def code(self) -> int:
        """The exit code."""
        return 2 if self.reason == "InvalidSpec" else 1


class ApiError(PluginError):
    """The API server refused a call.

    Args:
        status: of HTTP.
        word: Kubernetes' own for it, such as AlreadyExists.
        reason: ours.
        message: what is wrong, and what to do.
    """

    def __init__(self, status: int, word: str, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.status, self.word = status, word


class NoAnswerError(PluginError):
    """The API server does not answer; it may do so later."""


def refused(status: int, body: bytes, path: str) -> ApiError:
    """What the API server said, in our words where they help more.

    Args:
        status: of HTTP.
        body: of its answer, mostly a Status.
        path: that was asked for.
    """
    try:
        told = json.loads(body)
        word, said = str(told.get("reason") or ""), " ".join(str(told["message"]).split())
    except (ValueError, KeyError, TypeError, AttributeError):
        word, said = "", body[:200].decode(errors="replace").strip() or f"status {status}"
    if status == 401:
        return ApiError(
            status, word, "Unauthorized", f"the cluster does not know who you are ({said}): log in again, or choose another --context"
        )
    if status == 403 and "cannot" in said:
        advice = "ask for the role 'edit' of the namespace ('view' to look on), or choose another with -n"
        return ApiError(status, word, "Forbidden", f"{said}: {advice}")
    if status == 404 and not word and "/pipelinejob.dev/" in path:
        return ApiError(status, "NoCRD", "NotInstalled", f"this cluster knows no PipelineJobs: {INSTALL}; {DOCTOR}")
    if status in (400, 422):
        return ApiError(status, word, "InvalidSpec", said)
    return ApiError(status, word, word or f"Status{status}", said)


def no_answer(host: str, error: Exception) -> PluginError:
    """Nobody answers at the address of the API server, or somebody whom the kubeconfig does not know."""
    cause = " ".join(str(getattr(error, "reason", None) or error).split())
    if "CERTIFICATE_VERIFY_FAILED" in cause:
        advice = "its kubeconfig may be of an older cluster: get it anew, or choose another --context"
        return PluginError("NoCluster", f"whoever answers at {host} has a certificate that the kubeconfig does not trust: {advice}")
    cause = cause.rpartition("] ")[2].rstrip("\"')") if "[Errno" in cause else cause[:200]
    return NoAnswerError(
        "NoCluster",
        f"the Kubernetes API at {host} does not answer ({cause}): is it up, are you in its network, is this the right --context?",
    )
