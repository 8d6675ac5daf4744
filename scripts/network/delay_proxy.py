"""A proxy before an HTTP server that makes the way long: each byte arrives later, either way, and a new connection
takes a round trip to open. It notes when each request left and when its answer had come.

``depth`` says how many requests waited for each other: of requests that were under way at the same time it counts one.
"""

from __future__ import annotations

import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 2**18
_REQUEST = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r\n")


@dataclass(slots=True)
class Passed:
    """One request: when it left the client and when the last of its answer reached it, in seconds since the proxy
    began. ``is_first``: it had to wait for a new connection. ``end`` is 0 as long as there is no answer.
    """

    method: str
    target: str
    begin: float
    is_first: bool
    end: float = 0.0

    def __str__(self) -> str:
        new = " (new connection)" if self.is_first else ""
        return f"{self.begin:7.3f} {self.end:7.3f} {self.method} {self.target}{new}"


class DelayProxy:
    """``with DelayProxy(server.endpoint, delay_seconds=0.1) as proxy:`` for clients of ``proxy.endpoint``.
    ``delay_seconds`` is one way.
    """

    def __init__(self, upstream: str, delay_seconds: float) -> None:
        parts = urlsplit(upstream)
        self.delay_seconds = delay_seconds
        self.requests: list[Passed] = []
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()  # it starts no more
        with self._lock:
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def now(self) -> float:
        """Return the seconds since the proxy began."""
        return time.monotonic() - self._began

    def _start(self, target: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.add(client)
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            last: list[Passed] = []

            def sent(data: bytes) -> None:
                if request := _REQUEST.match(data):
                    last[:] = [
                        Passed(request[1].decode(), request[2].decode(), self.now(), is_first=not last)
                    ]
                    self.requests.append(last[0])

            def arrived() -> None:
                if last:
                    last[0].end = self.now()

            back = self._start(self._carry, server, client, lambda _: None, arrived, 0.0)
            self._carry(client, server, sent, lambda: None, 2 * self.delay_seconds)
            back.join()
            with self._lock:
                self._sockets -= {client, server}

    def _carry(
        self,
        source: socket.socket,
        sink: socket.socket,
        sent: Callable[[bytes], None],
        arrived: Callable[[], None],
        opening_seconds: float,
    ) -> None:
        """Hand on what comes, later; the first of it after the connection would be open."""
        waiting: queue.Queue[tuple[float, bytes]] = queue.Queue()
        opened = time.monotonic() + opening_seconds

        def deliver() -> None:
            with suppress(OSError):
                while True:
                    due, data = waiting.get()
                    time.sleep(max(0.0, due - time.monotonic()))
                    if not data:
                        break
                    sink.sendall(data)
                    arrived()
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

        delivery = self._start(deliver)
        data = b"."
        while data:
            try:
                data = source.recv(_CHUNK)
            except OSError:
                data = b""
            sent(data)
            waiting.put((max(time.monotonic(), opened) + self.delay_seconds, data))
        delivery.join()


def depth(requests: Iterable[Passed]) -> int:
    """Return how many requests, at least, were not under way at the same time: each waited for the one before."""
    count, end = 0, -1.0
    for request in sorted(requests, key=lambda request: request.end):
        if request.end and request.begin >= end:
            count, end = count + 1, request.end
    return count
