"""What can befall a run on the laptop: its processes, its storage, its database."""

from __future__ import annotations

import resource
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg2

from chaos import catalogue
from chaos.play import Act, NotNowError
from chaos.processes import children, pick, send
from chaos.schedule import Fault

if TYPE_CHECKING:
    from chaos.laptop import Laptop


def _parent(world: Laptop) -> int:
    assert world.process is not None
    if world.process.poll() is not None:
        raise NotNowError
    return world.process.pid


def _child(world: Laptop, fault: Fault) -> int:
    return pick(children(_parent(world)), fault.pick)


def _not_twice(world: Laptop, name: str) -> None:
    if world.undo.pending(name):
        raise NotNowError


def kill_a_child(world: Laptop, fault: Fault) -> str:
    pid = _child(world, fault)
    send([pid], signal.SIGKILL)
    return f"SIGKILL to {pid}"


def kill_the_parent(world: Laptop, fault: Fault) -> str:
    pid = _parent(world)
    send([pid], signal.SIGKILL)
    return f"SIGKILL to {pid}; the command again"


def kill_all_at_once(world: Laptop, fault: Fault) -> str:
    pid = _parent(world)
    pids = [pid, *children(pid)]
    send(pids, signal.SIGKILL)
    return f"SIGKILL to {', '.join(map(str, pids))}; the command again"


def terminate_the_parent(world: Laptop, fault: Fault) -> str:
    pid = _parent(world)
    send([pid], signal.SIGTERM)
    return f"SIGTERM to {pid}; the command again"


def stop_a_child(world: Laptop, fault: Fault) -> str:
    pid = _child(world, fault)
    send([pid], signal.SIGSTOP)
    world.undo.later(fault.lasts, f"stopped {pid}", lambda: send([pid], signal.SIGCONT))
    return f"SIGSTOP to {pid} for {fault.lasts} s"


def stop_the_parent(world: Laptop, fault: Fault) -> str:
    pid = _parent(world)
    send([pid], signal.SIGSTOP)
    world.undo.later(fault.lasts, f"stopped {pid}", lambda: send([pid], signal.SIGCONT))
    return f"SIGSTOP to {pid} for {fault.lasts} s"


def storage_fails(world: Laptop, fault: Fault) -> str:
    """As on a full disk: a child can write nothing any more. The job fails, with the results of what is done, and is run again."""
    pid = _child(world, fault)
    with suppress(ProcessLookupError):
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    return f"{pid} can write no file"


def _end_postgres(world: Laptop, fault: Fault, number: signal.Signals) -> str:
    _not_twice(world, "postgres")
    world.server.end(number)
    world.undo.later(fault.lasts, "postgres", world.server.start)
    return f"{number.name} to the server, started again after {fault.lasts} s"


def postgres_is_killed(world: Laptop, fault: Fault) -> str:
    return _end_postgres(world, fault, signal.SIGKILL)


def postgres_shuts_down_at_once(world: Laptop, fault: Fault) -> str:
    return _end_postgres(world, fault, signal.SIGQUIT)


def sessions_are_ended(world: Laptop, fault: Fault) -> str:
    _not_twice(world, "postgres")
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pipelinejob'"
    if not (count := world.server.execute(query)):
        raise NotNowError
    return f"pg_terminate_backend for {count} sessions"


def postgres_is_read_only(world: Laptop, fault: Fault) -> str:
    _not_twice(world, "postgres")
    _not_twice(world, "read-only")
    world.server.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")

    def end() -> None:
        world.server.start()
        world.server.execute("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")

    world.undo.later(fault.lasts, "read-only", end)
    return f"read-only for {fault.lasts} s"


def tables_are_locked(world: Laptop, fault: Fault) -> str:
    """As somebody does who looks at them in a transaction and goes for lunch."""
    for name in ("postgres", "read-only"):
        _not_twice(world, name)
    table = ("jobs", "shards", "batches", "failed_rows")[int(fault.pick * 4)]
    connection = psycopg2.connect(world.url, connect_timeout=5, options="-c lock_timeout=3s")

    def end() -> None:
        with suppress(psycopg2.Error):
            connection.close()

    try:
        connection.cursor().execute(f"LOCK TABLE pipelinejob.{table} IN ACCESS EXCLUSIVE MODE")
    except psycopg2.Error as error:
        end()
        raise NotNowError from error
    world.undo.later(fault.lasts, "lock", end)
    return f"a lock on {table} for {fault.lasts} s"


def suspend_and_resume(world: Laptop, fault: Fault) -> str:
    for name in ("postgres", "read-only", "lock"):
        _not_twice(world, name)
    _parent(world)
    world.cli("suspend", catalogue.NAME)
    world.resume_next()
    return "'pipelinejob suspend', then 'resume'"


def scale(world: Laptop, fault: Fault) -> str:
    for name in ("postgres", "read-only", "lock"):
        _not_twice(world, name)
    number = 1 + int(fault.pick * 4)
    world.cli("scale", catalogue.NAME, str(number))
    return f"'pipelinejob scale' to {number}"


FAULTS: dict[str, Act] = {
    one.__name__.replace("_", "-"): one
    for one in (
        kill_a_child,
        kill_the_parent,
        kill_all_at_once,
        terminate_the_parent,
        stop_a_child,
        stop_the_parent,
        storage_fails,
        postgres_is_killed,
        postgres_shuts_down_at_once,
        sessions_are_ended,
        postgres_is_read_only,
        tables_are_locked,
        suspend_and_resume,
        scale,
    )
}
