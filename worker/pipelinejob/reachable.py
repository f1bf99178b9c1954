"""A pod's readiness: a port that is open while its database can be reached."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class ReadyPort:
    """The port that a pod's probe knocks at; the children that run users' code learn nothing from it.

    Args:
        port: of all addresses of the pod.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: socket.socket | None = None

    def show(self, reached: bool) -> None:
        """Opens the port, or closes it."""
        if reached and self._server is None:
            try:
                self._server = _listen(self._port)
            except OSError:  # taken: the pod then looks as if it had no database, which does less harm than to end it
                return
            threading.Thread(target=_answer, args=(self._server,), name="ready", daemon=True).start()
        elif not reached and self._server is not None:
            server, self._server = self._server, None
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # wakes the thread
            server.close()


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        with suppress(OSError):  # IPv6 can be compiled in and switched off
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _answer(server: socket.socket) -> None:
    """Takes whoever knocks, and hangs up."""
    with suppress(OSError):  # closed
        while True:
            server.accept()[0].close()
