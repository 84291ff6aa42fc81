"""Processes of gunicorn whose threads never wait for a client.

In gunicorn's own ``gthread`` a thread reads a request and sends its answer, so that as many clients as there are
threads stop a server if they send or read slowly.  Here the loop of the process collects a request until it is
complete, a thread then answers it, and the loop sends what the client does not take at once.  A slow client costs
memory, within limits, and no thread.  nginx in front of a server does the same.
"""

from __future__ import annotations

import errno
import json
import re
import resource
import selectors
import socket
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker

from cryotile.errors import InvalidValue

__all__ = ["LONGEST_BODY", "PROTECTION", "BufferedWorker"]

PROTECTION = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    # Not no-referrer: browsers then send the page's own form with "Origin: null".
    ("Referrer-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
"""Headers of every answer, which protect the browser of its reader."""

LONGEST_BODY = 4 * 2**20
"""Bytes of the longest body; a longer one is refused unread."""

# Bytes of the longest request line with its headers; gunicorn refuses a longer one.
_LONGEST_HEAD = 64 * 2**10

# Bytes of incomplete requests that a process keeps at most.
_KEPT = 128 * 2**20

# Bytes of answers that a client has not taken yet, after which it is disconnected.
_LONGEST_REST = 64 * 2**20

# Seconds for a request to arrive from its first byte to its last, and for the client to take the answer.
_REQUEST, _ANSWER = 60.0, 300.0

# Seconds for the client to close its end after the last answer; closing first could cut the answer.
_LINGER = 2.0

# Seconds between two looks for connections whose time is over.
_LOOK = 1.0

# Bytes of one read.
_PIECE = 64 * 2**10

# Files that a process needs beside its connections: databases, logs, listeners.
_FILES = 128

_LENGTH = re.compile(rb"\ncontent-length[ \t]*:[ \t]*([0-9]{1,18})[ \t]*\r", re.IGNORECASE)
_EXPECTS = re.compile(rb"\nexpect[ \t]*:[ \t]*100-continue", re.IGNORECASE)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Requests that do not reach the application, by the error of gunicorn's parser.
_REFUSALS = (
    (LimitRequestLine, "414 URI Too Long", "the request line is too long; shorten it"),
    (
        LimitRequestHeaders,
        "431 Request Header Fields Too Large",
        "the headers are too long; shorten them",
    ),
    (ParseException, "400 Bad Request", "the request is not HTTP/1.1; correct it"),
    (Exception, "500 Internal Server Error", "the server failed; see its log"),
)


class _Client:
    """A client of the server; to gunicorn's parser and response it is a socket that never blocks.

    Parameters
    ----------
    sock : socket
        The connection, in non-blocking mode.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        # Length of the request at hand, once its headers have arrived; its body may be left out.
        self.size: int | None = None
        # Whether its body is left out, since its headers alone make it refused.
        self.partial = False
        # What the client has not taken yet of its answer.
        self.rest = bytearray()
        # Whether the connection stays open for another request.
        self.stays = True
        # Bytes that were searched for the end of the headers.
        self._searched = 0

    def is_whole(self) -> bool:
        """Tell whether the next request has arrived, or as much of it as is needed to refuse it."""
        if self.size is None:
            end = self.received.find(b"\r\n\r\n", max(0, self._searched - 3))
            self._searched = len(self.received)
            if end >= 0:
                self._measure(end)
            elif len(self.received) > _LONGEST_HEAD:
                self.size, self.partial = len(self.received), True
        return self.size is not None and len(self.received) >= self.size

    def _measure(self, end: int) -> None:
        head = bytes(self.received[: end + 2])
        length = _LENGTH.search(head)
        body = int(length[1]) if length else 0
        # The application refuses the request, and the connection is closed, since the body would look like a request.
        self.partial = body > LONGEST_BODY or b"\ntransfer-encoding" in head.lower()
        self.size = end + 4 + (0 if self.partial else body)
        if len(self.received) < self.size and _EXPECTS.search(head):
            self.sendall(_CONTINUE)
            self.flush()

    def take(self) -> bytes:
        """Remove the request at hand from what has arrived, and return it."""
        request = bytes(self.received[: self.size])
        del self.received[: self.size]
        self.stays = not self.partial
        self.size, self._searched = None, 0
        return request

    def flush(self) -> None:
        """Send as much as the client takes now.

        Raises
        ------
        OSError
            The client is gone, or has left more than the limit.
        """
        if not self.rest:
            return
        try:
            sent = self.sock.send(self.rest)
        except BlockingIOError:
            sent = 0
        del self.rest[:sent]
        if len(self.rest) > _LONGEST_REST:
            raise BrokenPipeError(errno.EPIPE, "the client does not take its answer")

    # What gunicorn calls.

    def recv(self, size: int) -> bytes:  # noqa: ARG002 - the signature of a socket
        """Return nothing: the parser was given the whole request."""
        return b""

    def sendall(self, data: bytes) -> None:
        """Send data, at once or later; headers are sent together with what follows them."""
        self.rest += data
        if not data.startswith(b"HTTP/1."):
            self.flush()

    def send(self, data: bytes) -> int:
        """Ignore the invitation to continue, which the loop has sent already."""
        return len(data)

    def gettimeout(self) -> float:
        """Return 0: nothing blocks."""
        return 0.0

    def settimeout(self, seconds: float | None) -> None:
        """Ignore the timeout: nothing blocks."""

    def setblocking(self, blocks: bool) -> None:
        """Ignore the mode: nothing blocks."""

    def shutdown(self, how: int) -> None:
        """Ignore the call: the loop closes connections."""

    def close(self) -> None:
        """Ignore the call: the loop closes connections."""


class BufferedWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn is not annotated
    """A process of gunicorn that collects requests and sends answers in its loop; see the module.

    TLS must end in front of it.
    """

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        if self.cfg.is_ssl:
            raise InvalidValue("the server does not speak TLS itself; let nginx do so")
        # Connections that the loop waits for, with the time when it stops; the one that waits longest comes first.
        self._waiting: dict[TConn, float] = {}
        # Bytes of their incomplete requests.
        self._kept = 0
        self._looked = 0.0

    def init_process(self) -> None:
        """Allow as many open files as the connections need, then serve."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        if most != resource.RLIM_INFINITY:
            self.worker_connections = max(1, min(self.cfg.worker_connections, most - _FILES))
        # Sending a file would block.
        self.cfg.set("sendfile", False)
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        """Wait for the first request of a new connection."""
        if self.nr_conns >= self.worker_connections and self._waiting:
            # A client that opens connections and leaves them unused loses them first; others connect again.
            self._drop(next(iter(self._waiting)))
        conn.sock = _Client(conn.sock)
        self._wait(conn, self.cfg.keepalive, selectors.EVENT_READ)

    def finish_request(self, conn: TConn, future: Future[bool]) -> None:
        """Send the rest of an answer, then wait for the next request."""
        client: _Client = conn.sock
        client.stays = client.stays and future.exception() is None and bool(future.result())
        if client.rest:
            self._wait(conn, _ANSWER, selectors.EVENT_WRITE)
        else:
            self._go_on(conn)

    def handle(self, conn: TConn) -> bool:
        """Answer a request; runs in a thread."""
        stays = bool(super().handle(conn))
        try:
            conn.sock.flush()
        except OSError:
            conn.sock.rest.clear()
            return False
        return stays

    def handle_error(self, _req: Any, client: _Client, addr: Any, exc: Exception) -> None:
        """Answer a request that the parser refuses, as the application would; runs in a thread."""
        status, said = next((s, t) for kind, s, t in _REFUSALS if isinstance(exc, kind))
        # The error holds what the client sent; ascii() leaves no control character of it.
        self.log.warning(
            "request of %s: %s (%s)", addr[0] if addr else "-", status, ascii(str(exc))
        )
        body = json.dumps({"error": said}).encode()
        headers = [
            *PROTECTION,
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "", ""]
        client.sendall("\r\n".join(lines).encode() + body)

    def murder_keepalived(self, force: bool = False) -> None:
        """Close the connections whose time is over, or all."""
        now = time.monotonic()
        if now - self._looked < _LOOK and not force:
            return
        self._looked = now
        for conn in [conn for conn, end in self._waiting.items() if force or now > end]:
            self._drop(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """Wait for the next request of each connection until the process ends, and not longer."""
        for conn, end in self._waiting.items():
            self._waiting[conn] = min(end, deadline)

    def _wait(self, conn: TConn, seconds: float, event: int) -> None:
        self._waiting[conn] = time.monotonic() + seconds
        act = self._receive if event == selectors.EVENT_READ else self._send
        self.poller.register(conn.sock.sock, event, partial(act, conn))

    def _leave(self, conn: TConn) -> None:
        del self._waiting[conn]
        self.poller.unregister(conn.sock.sock)

    def _drop(self, conn: TConn) -> None:
        self._leave(conn)
        self._kept -= len(conn.sock.received)
        self.nr_conns -= 1
        conn.sock.sock.close()

    def _receive(self, conn: TConn, _file: object) -> None:
        """Read what a client has sent."""
        client: _Client = conn.sock
        try:
            data = client.sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or self._kept > _KEPT:
            self._drop(conn)
        elif client.stays:
            if not client.received:
                self._waiting[conn] = time.monotonic() + _REQUEST
            client.received += data
            self._kept += len(data)
            self._submit_whole(conn)

    def _submit_whole(self, conn: TConn) -> None:
        """Hand a request to a thread if it is complete."""
        client: _Client = conn.sock
        try:
            if not client.is_whole():
                return
        except OSError:
            self._drop(conn)
            return
        self._leave(conn)
        request = client.take()
        self._kept -= len(request)
        conn.data_ready = True
        conn.init()
        conn.parser.unreader.unread(request)
        super().enqueue_req(conn)

    def _send(self, conn: TConn, _file: object) -> None:
        """Send more of an answer."""
        try:
            conn.sock.flush()
        except OSError:
            self._drop(conn)
            return
        if not conn.sock.rest:
            self._leave(conn)
            self._go_on(conn)

    def _go_on(self, conn: TConn) -> None:
        """Wait for the next request, or for the client to close its end."""
        client: _Client = conn.sock
        if client.stays:
            self._wait(conn, self.cfg.keepalive, selectors.EVENT_READ)
            if client.received:
                self._submit_whole(conn)
            return
        # If the client is gone, the next read says so.
        with suppress(OSError):
            client.sock.shutdown(socket.SHUT_WR)
        self._wait(conn, _LINGER, selectors.EVENT_READ)
