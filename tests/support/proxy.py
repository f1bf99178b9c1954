"""A proxy between a process and Postgres that cuts connections at statements of its choice.

It follows the protocol: a statement is a message Q of the client; the server has carried it out, and outside of BEGIN
committed it, when it says ReadyForQuery (Z). So both moments around a commit can be hit: before the server hears of
it, and after it has done it and before the client hears of that.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal
from urllib.parse import parse_qs, urlsplit, urlunsplit

Moment = Literal["before", "halfway", "after"]
Choice = Callable[[str], Moment | None]


class Proxy:
    """Listens on a port of this machine while it is entered.

    Args:
        url: the server's URL, with its socket's folder as `host`.
        choose: given a statement, says when to cut the connection it came by; None: not at all. One thread at a time.
    """

    def __init__(self, url: str, choose: Choice) -> None:
        self._parts, self._choose = urlsplit(url), choose
        self._socket = f"{parse_qs(self._parts.query)['host'][0]}/.s.PGSQL.5432"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.cuts: list[tuple[Moment, str]] = []

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def url(self, of: str | None = None) -> str:
        """The URL that leads through here, with the user and password of another one if given."""
        user = urlsplit(of).netloc.rpartition("@")[0] if of else self._parts.username
        port = self._listener.getsockname()[1]
        return urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{port}", query="sslmode=disable&gssencmode=disable"))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._socket)
            connection = _Connection(client, server, self._decide)
            threading.Thread(target=connection.serve, daemon=True).start()

    def _decide(self, statement: str) -> Moment | None:
        with self._lock:
            moment = self._choose(statement)
            if moment:
                self.cuts.append((moment, statement))
        return moment


class _Connection:
    """One client's connection and ours to the server."""

    def __init__(self, client: socket.socket, server: socket.socket, decide: Choice) -> None:
        self._client, self._server, self._decide = client, server, decide
        self._withheld = False  # the answer to the statement under way

    def serve(self) -> None:
        """Goes on until either side ends, or it is cut."""
        with self._client, self._server:
            answers = threading.Thread(target=self._back, daemon=True)
            answers.start()
            self._forth()
            answers.join()

    def _forth(self) -> None:
        """Takes what the client says to the server."""
        with suppress(OSError), self._client.makefile("rb") as messages:
            first = True
            while message := _message(messages, typed=not first):
                moment = self._decide(message[5:-1].decode(errors="replace")) if message[:1] == b"Q" and not first else None
                self._withheld = moment == "after"
                first = False
                if moment == "before":
                    break
                self._server.sendall(message[: len(message) // 2] if moment == "halfway" else message)
                if moment == "halfway":
                    break
        if not self._withheld:
            self._cut()

    def _back(self) -> None:
        """Takes what the server says to the client."""
        with suppress(OSError), self._server.makefile("rb") as messages:
            while message := _message(messages, typed=True):
                if self._withheld and message[:1] == b"Z":
                    break
                if not self._withheld:
                    self._client.sendall(message)
        self._cut()

    def _cut(self) -> None:
        for side in (self._client, self._server):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


def _message(stream: object, *, typed: bool) -> bytes:
    """The next message whole, b"" at the end; the very first one of a client has no letter for its type."""
    read = stream.read  # type: ignore[attr-defined]
    head: bytes = read(5 if typed else 4)
    if len(head) < (5 if typed else 4):
        return b""
    return head + bytes(read(int.from_bytes(head[-4:], "big") - 4))


def once_each(moment: Moment, *words: str) -> Choice:
    """Cuts at statements with one of these words, each the first time that it comes; a COMMIT is told apart by what it commits."""
    seen: set[str] = set()
    last = ""

    def choose(statement: str) -> Moment | None:
        nonlocal last
        kind, last = f"COMMIT of {last[:40]}" if statement == "COMMIT" else statement[:79], statement  # up to the number of a shard
        if kind in seen or not any(word in kind for word in words):
            return None
        seen.add(kind)
        return moment

    return choose


def at_random(seed: int, share: float, skip: int = 0) -> Choice:
    """Cuts at about that share of all statements but the first ones, at any of the moments."""
    rng, left = random.Random(seed), skip

    def choose(_: str) -> Moment | None:
        nonlocal left
        left -= 1
        return rng.choice(("before", "halfway", "after")) if left < 0 and rng.random() < share else None

    return choose
