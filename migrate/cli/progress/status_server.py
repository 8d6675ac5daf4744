"""Serves the status page: read-only, by default to this machine alone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

from migrate.errors import UsageError

_FRESH_SECONDS = 2.0
"""Locations are not asked more often, however many readers there are."""
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}

_READER_SECONDS = 10.0
"""How long a reader may take to ask, or to take the answer: each of them costs a thread."""

Answers = Callable[[], tuple[bytes, dict[str, Any]]]
"""Returns the page and the same as JSON."""


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``PORT`` or ``HOST:PORT``; without a host it is this machine. Raises ``UsageError``."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise UsageError(
            f"--serve {text!r} is not an address", next_step="write 127.0.0.1:8080, or only the port"
        )
    return host, int(port)


def is_local(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class StatusServer:
    """Answers ``/`` with the page and ``/status.json`` with the same as JSON. Raises ``UsageError`` where the address
    cannot be had.
    """

    def __init__(self, address: tuple[str, int], answers: Answers) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self._asked = 0.0
        self._last: tuple[bytes, dict[str, Any]] = (b"", {})
        try:
            self._server = ThreadingHTTPServer(address, self._handler(local=is_local(address[0])))
        except OSError as exc:
            raise UsageError(
                f"{address[0]}:{address[1]} cannot be served: {exc.strerror or exc}",
                next_step="name another port with --serve",
            ) from exc
        self.url = f"http://{address[0]}:{self._server.server_address[1]}/"

    def serve(self) -> None:
        """Serve until the command is interrupted."""
        with self._server:
            self._server.serve_forever()

    def fresh(self) -> tuple[bytes, dict[str, Any]]:
        """Return the answers, asked for not long ago."""
        with self._lock:
            if time.monotonic() - self._asked > _FRESH_SECONDS or not self._last[0]:
                self._last = self._answers()
                self._asked = time.monotonic()
            return self._last

    def _handler(self, *, local: bool) -> type[BaseHTTPRequestHandler]:
        fresh = self.fresh

        class Handler(BaseHTTPRequestHandler):
            """One request."""

            server_version, sys_version, timeout = "moveout", "", _READER_SECONDS

            def do_GET(self) -> None:
                """Answer with what is asked for."""
                # A page from elsewhere must not read this one by a name that leads here (DNS rebinding).
                if local and not is_local(self.headers.get("Host", "").rpartition(":")[0].strip("[]")):
                    self.send_error(HTTPStatus.FORBIDDEN)
                elif self.path == "/":
                    self._send("text/html; charset=utf-8", fresh()[0])
                elif self.path == "/status.json":
                    data = json.dumps(fresh()[1], default=str).encode()
                    self._send("application/json", data)
                else:
                    self.send_error(HTTPStatus.NOT_FOUND)

            do_HEAD = do_GET  # noqa: N815  the name that http.server calls

            def _send(self, content_type: str, data: bytes) -> None:
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(data)))
                for name, value in _HEADERS.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *_words: object) -> None:
                """Log nothing."""

        return Handler
