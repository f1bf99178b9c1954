"""Serving an application until this process is told to end."""

from __future__ import annotations

import ctypes
import signal
import socket
from contextlib import suppress
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from pipelinejob.reasons import JobError, JobReason
from pipelinejob_gateway.events import Feed

_M_ARENA_MAX = -8  # malloc.h
GRACE = 3  # seconds for requests that are under way


def run(app: ASGIApp, feed: Feed | None, listening: socket.socket) -> None:
    """Serves over a socket that listens; returns after SIGTERM or Ctrl-C, when streams are ended and answers given."""
    _share_heaps()
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE, lifespan="off", server_header=False
    )
    # The server raises the signal that ended it once more: after a SIGTERM, too, the caller is to have time to close what it holds.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        _Server(config, feed).run(sockets=[listening])


def _share_heaps() -> None:
    """Lets threads share two heaps: with glibc's one a thread, what forty of them free one after the other is never one free piece."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


class _Server(uvicorn.Server):
    """A server that ends its streams when it is told to end, and so need not wait for who listens."""

    def __init__(self, config: uvicorn.Config, feed: Feed | None) -> None:
        super().__init__(config)
        self._feed = feed

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._feed is not None:
            self._feed.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; without a host, on all addresses.

    Raises:
        JobError: InvalidSpec, when the address is taken or none of this machine.
    """
    try:
        if not host and socket.has_dualstack_ipv6():
            listening = socket.create_server(("", port), family=socket.AF_INET6, backlog=2048, dualstack_ipv6=True)
        else:
            listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
        # Connections take it over. Else all but the first answer of each wait 40 ms for the caller's acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise JobError(
            JobReason.INVALID_SPEC,
            f"cannot listen on {host}, port {port} ({error.strerror or error}): choose another with --host or --port",
        ) from None
