"""An HTTP proxy in front of an S3 server that answers 503 to all requests beyond a few at once, or loses answers."""

import http.client
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class BusyProxy:
    """``with BusyProxy(server.endpoint, most=4) as proxy:`` for clients of ``proxy.endpoint``. ``refused`` counts the
    503s, with Retry-After; ``served`` the requests that went through. ``lose`` tells of which requests (method, path)
    the answer is lost: the server has done them, the client hears nothing; ``lost`` counts them.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        most: int = 1000,
        delay_seconds: float = 0.0,
        lose: Callable[[str, str], bool] | None = None,
    ) -> None:
        self._lose = lose
        self.lost = 0
        self._server = urlsplit(endpoint).netloc
        self.most, self.delay_seconds = most, delay_seconds
        self.refused = self.served = self._at_once = 0
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy._handle(self)

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names of http.server

            def version_string(self) -> str:
                return "MinIO"

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = False

            def process_request(self, request: socket.socket, client_address: object) -> None:
                proxy._connections.append(request)
                super().process_request(request, client_address)

        self._http = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._http.server_close()  # waits for the threads
        self._thread.join()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self._lock:
            busy = self._at_once >= self.most
            self._at_once += not busy
            self.refused += busy
            self.served += not busy
        if busy:
            request.send_response(503)
            request.send_header("Retry-After", "0.2")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        try:
            threading.Event().wait(self.delay_seconds)
            self._forward(request, body)
        finally:
            with self._lock:
                self._at_once -= 1

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        connection = http.client.HTTPConnection(self._server)
        try:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            data = answer.read()
            if self._lose is not None and self._lose(request.command, request.path):
                self.lost += 1
                request.close_connection = True
                return
            request.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in {"transfer-encoding", "date", "server", "connection"}:
                    request.send_header(name, value)
            if "Content-Length" not in answer.headers:
                request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data)
        finally:
            connection.close()
