"""200 clients at once against `pipelinejob serve`: a list of 10,000 jobs, a job of a million rows, and listeners that never read.

The server, its database and the clients share the machine: what a client waits for is the processors as much as the server.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml
from accounting import _proportional as share_of_memory
from common import CACHE, COMMAND, BenchError, environment

from pipelinejob.reasons import Phase
from pipelinejob.store import Database, EmbeddedServer, Store

CLIENTS, SECONDS = 200, 20.0
DEAF = 50  # listeners that never read
API = "/api/v1/pipelinejobs"
BIG = "million"


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Latencies, errors and memory, with and without listeners that never read."""
    jobs, rows, seconds = (500, 20_000, 4.0) if quick else (10_000, 1_000_000, SECONDS)
    folder = CACHE / "gateway"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    big_job(folder, rows, say)
    many_jobs(folder, jobs)
    found: dict[str, Any] = {"jobs": jobs, "rows": rows, "clients": CLIENTS, "deaf": DEAF, "seconds": seconds, "kinds": {}}
    with server(folder) as (url, process):
        found["resident_before"] = _memory(process)
        for kind, paths in _kinds(jobs, rows).items():
            found["kinds"][kind] = asyncio.run(_load(url, paths, seconds))
            say(f"gateway, {kind}: {found['kinds'][kind]}")
        mixed = [path for paths in _kinds(jobs, rows).values() for path in paths]
        found["pairs"] = []
        for _ in range(2 if quick else 4):
            with _changes(folder):
                alone = asyncio.run(_load(url, mixed, seconds))
                with _deaf_listeners(url):
                    beside = asyncio.run(_load(url, mixed, seconds))
            found["pairs"].append({"alone": alone, "beside": beside})
            found.setdefault("resident_after", _memory(process))  # everything was asked for once, also by listeners
            say(f"gateway, mixed: {alone}; beside {DEAF} listeners that never read: {beside}")
        found["resident_end"] = _memory(process)
        found["open_files"] = process.num_fds()
    shutil.rmtree(folder)
    return found


def _kinds(jobs: int, rows: int) -> dict[str, list[str]]:
    draw = random.Random(6)
    return {
        "a page of 50 jobs": [f"{API}?limit=50", f"{API}?limit=50&phase=Complete", f"{API}?limit=50&name=job-{draw.randrange(jobs // 10)}"],
        "one job": [f"{API}/job-{draw.randrange(jobs)}" for _ in range(200)] + [f"{API}/{BIG}"],
        "100 failed rows": [f"{API}/{BIG}/failures?limit=100&after={draw.randrange(rows)}" for _ in range(200)],
        "100 rows": [f"{API}/{BIG}/rows?limit=100"],
    }


def big_job(folder: Path, rows: int, say: Callable[[str], None]) -> None:
    """A real job over rows without images, one in a hundred of them malformed."""
    with open(folder / "rows.csv", "w", encoding="utf-8") as file:
        file.write("id,gender,season,year,name\n")
        for row in range(rows):
            file.write(f"{row},Men,Fall,2010,Shirt {row}{',too many' if row % 100 == 7 else ''}\n")
    spec = {"source": {"csv": "rows.csv"}, "output": {"path": "out"}, "failurePolicy": {"maxFailedRowsPercent": 100}}
    document = {"apiVersion": "pipelinejob.dev/v1alpha1", "kind": "PipelineJob", "metadata": {"name": BIG}, "spec": spec}
    (folder / "job.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [COMMAND, "run", "job.yaml", "--json"], cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(done.stderr)
    say(f"gateway: a job of {rows} rows is there")


def many_jobs(folder: Path, count: int) -> None:
    """Copies of the big job in the ledger, which never ran."""
    embedded = EmbeddedServer(folder / ".pipelinejob")
    store = Store(Database(embedded.url, patience=10, say=print))
    big = store.find_job("default", BIG)
    assert big is not None
    for number in range(count):
        store.insert_job(
            uid=str(uuid.uuid4()), namespace="default", name=f"job-{number}", phase=Phase.COMPLETE, spec=big.spec, functions=big.functions,
            digest=big.digest, data_root=big.data_root, output=f"out-{number}", output_root=big.output_root, status=big.status,
            rows_total=100, rows_succeeded=100,
        )  # fmt: skip
    store.close()
    embedded.close()


def _environment(folder: Path) -> dict[str, str]:
    return {**environment(), "PIPELINEJOB_HOME": str(folder / ".pipelinejob")}


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`pipelinejob serve` over a folder: its URL and its process."""
    log = CACHE / "logs/gateway.log"
    with open(log, "w") as errors:
        process = subprocess.Popen([COMMAND, "serve", "--port", "0"], cwd=folder, env=_environment(folder), stderr=errors)
    try:
        give_up = time.monotonic() + 60
        while not (match := re.search(r"on (http://\S+?)/ ", log.read_text())):
            if time.monotonic() > give_up or process.poll() is not None:
                raise BenchError(f"serve did not start, see {log}")
            time.sleep(0.1)
        yield match[1], psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def _load(url: str, paths: list[str], seconds: float) -> dict[str, Any]:
    """So many clients, each asking as soon as it was answered."""
    latencies: list[float] = []
    errors: list[str] = []
    end = time.monotonic() + seconds

    async def client(session: aiohttp.ClientSession, seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                async with session.get(url + draw.choice(paths)) as answer:
                    await answer.read()
                    if answer.status != 200:
                        errors.append(str(answer.status))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                errors.append(type(error).__name__)
            latencies.append(time.monotonic() - began)

    connector, timeout = aiohttp.TCPConnector(limit=CLIENTS), aiohttp.ClientTimeout(total=60)
    began = time.monotonic()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(client(session, seed) for seed in range(CLIENTS)))
    latencies.sort()
    return {
        "requests": len(latencies),
        "rate": round(len(latencies) / (time.monotonic() - began)),
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[int(len(latencies) * 0.99)],
        "errors": len(errors),
    }


@contextmanager
def _deaf_listeners(url: str) -> Iterator[None]:
    host, _, port = url.removeprefix("http://").partition(":")
    connections = []
    for _ in range(DEAF):
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connections.append(connection)
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def _changes(folder: Path) -> Iterator[None]:
    """Changes 200 jobs a second meanwhile, so that there is something to tell."""
    url = EmbeddedServer(folder / ".pipelinejob").url()
    process = subprocess.Popen([sys.executable, "-c", _CHANGE, url])
    try:
        yield
    finally:
        process.kill()
        process.wait()


_CHANGE = """
import sys, time, psycopg2
connection = psycopg2.connect(sys.argv[1]); connection.autocommit = True
number = 0
while True:
    number += 1
    connection.cursor().execute(
        "UPDATE pipelinejob.jobs SET rows_succeeded = %s"
        " WHERE name IN (SELECT 'job-' || (%s * 200 + i) %% 10000 FROM generate_series(1, 200) i)", (number, number))
    time.sleep(1)
"""


def _memory(process: psutil.Process) -> int:
    return share_of_memory(process.pid)
