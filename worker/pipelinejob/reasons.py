"""The words of the contract: phases, reasons, and the two exceptions that carry a reason.

Kept apart from model.py because the processes that run rows need these words and not pydantic, whose import
would be the largest part of their start-up.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a job stands, as people read it."""

    PENDING = "Pending"
    PLANNING = "Planning"
    RUNNING = "Running"
    FINALIZING = "Finalizing"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    CANCELLED = "Cancelled"


ENDS = (Phase.COMPLETE, Phase.FAILED, Phase.CANCELLED)  # nothing runs any more, and what is done is finalized


class RowReason(StrEnum):
    """Why a row failed, in the order in which the checks are made."""

    MALFORMED_ROW = "MalformedRow"
    INVALID_OUTPUT_NAME = "InvalidOutputName"
    DUPLICATE_ID = "DuplicateId"
    IMAGE_NOT_FOUND = "ImageNotFound"
    IMAGE_TOO_LARGE = "ImageTooLarge"
    IMAGE_INVALID = "ImageInvalid"
    FUNCTION_ERROR = "FunctionError"
    FUNCTION_TIMEOUT = "FunctionTimeout"
    OUTPUT_ERROR = "OutputError"


class JobReason(StrEnum):
    """Why a job failed, or was refused."""

    INVALID_SPEC = "InvalidSpec"
    INPUT_NOT_FOUND = "InputNotFound"
    INPUT_INVALID = "InputInvalid"
    INPUT_CHANGED = "InputChanged"
    FAILURE_BUDGET_EXCEEDED = "FailureBudgetExceeded"
    OUTPUT_CONFLICT = "OutputConflict"
    DATABASE_UNAVAILABLE = "DatabaseUnavailable"
    SHARDS_FAILED = "ShardsFailed"
    CANCELLED = "Cancelled"


class RowFailure(Exception):
    """One row cannot be done: data for the ledger, never an error of its shard.

    Args:
        reason: which check failed.
        message: one line in our words; no absolute path, no address.
        function: the name of the function at fault, or "" when the row never reached one.
    """

    def __init__(self, reason: RowReason, message: str, function: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.function = function


class JobError(Exception):
    """The job cannot be done, or cannot go on.

    Args:
        reason: what kind of trouble it is; InvalidSpec ends the command with exit code 2, all else with 1.
        message: says what is wrong, where, what was expected, and what to do.
    """

    def __init__(self, reason: JobReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
