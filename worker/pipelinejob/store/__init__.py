"""The ledger in Postgres: jobs, shards, recorded batches and failed rows."""

from pipelinejob.store.connection import Database, StaleEpoch, take_epoch
from pipelinejob.store.embedded import EmbeddedServer, prepare_home
from pipelinejob.store.ledger import Batch, BatchRow, FailedRow, GoneError, Job, Outline, ShardDone, ShardRow, Store, TimedBatch

__all__ = [
    "Batch",
    "BatchRow",
    "Database",
    "EmbeddedServer",
    "FailedRow",
    "GoneError",
    "Job",
    "Outline",
    "ShardDone",
    "ShardRow",
    "StaleEpoch",
    "Store",
    "TimedBatch",
    "prepare_home",
    "take_epoch",
]
