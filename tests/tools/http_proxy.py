"""An HTTP proxy in front of an S3 server, which may answer by itself, and change what passes."""

import http.client
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

_OWN = {"transfer-encoding", "date", "server", "connection", "content-length"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. ``path`` is as it was sent, without the query."""

    method: str
    destination: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def path(self) -> str:
        return self.destination.partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.destination.partition("?")[2], keep_blank_values=True)

    def header(self, name: str) -> str | None:
        return next((value for one, value in self.headers if one.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. ``size_bytes`` is what is announced of the body (of an answer to HEAD there is none), ``sent_bytes``
    how much of it is sent before the connection is closed, where not all. ``chunked``: nothing is announced.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    size_bytes: int | None = None
    sent_bytes: int | None = None
    chunked: bool = False

    def header(self, name: str) -> str | None:
        return next((value for one, value in self.headers if one.lower() == name.lower()), None)


def refusal(status: int, code: str, *headers: tuple[str, str]) -> Answer:
    """An error as S3 words it."""
    message = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>'
    return Answer(status, (("Content-Type", "application/xml"), *headers), message.encode())


@dataclass(slots=True)
class HttpProxy:
    """``with HttpProxy(server.endpoint) as proxy:`` for clients of ``proxy.endpoint``. Subclasses say in ``handle``
    what becomes of a request; it runs in several threads at once.
    """

    upstream: str
    endpoint: str = ""
    name: str = "MinIO"
    """What it calls itself: clients know servers by that."""
    _http: ThreadingHTTPServer = field(init=False, repr=False)
    _thread: threading.Thread = field(init=False, repr=False)
    _connections: list[socket.socket] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, tuple(self.headers.items()), body)
                _answer(self, proxy.handle(asked))

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names of http.server

            def version_string(self) -> str:
                return proxy.name

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = False

            def process_request(self, request: socket.socket, client_address: object) -> None:
                proxy._connections.append(request)
                super().process_request(request, client_address)

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients go away as they like

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

    def handle(self, asked: Asked) -> Answer | None:
        """Answer a request; None: the connection is closed without an answer."""
        return self.forward(asked)

    def forward(self, asked: Asked) -> Answer:
        """Hand a request on, return the server's answer."""
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc)
        try:
            connection.putrequest(asked.method, asked.destination, skip_host=True, skip_accept_encoding=True)
            for name, value in asked.headers:
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders(asked.body or None)
            answer = connection.getresponse()
            data = answer.read()
            announced = answer.headers.get("Content-Length")
            kept = tuple((name, value) for name, value in answer.headers.items() if name.lower() not in _OWN)
            return Answer(answer.status, kept, data, int(announced) if announced else len(data))
        finally:
            connection.close()


def _answer(request: BaseHTTPRequestHandler, answer: Answer | None) -> None:
    if answer is None:
        request.close_connection = True
        return
    request.send_response(answer.status)
    for name, value in answer.headers:
        request.send_header(name, value)
    if answer.chunked:
        _answer_in_chunks(request, answer)
        return
    if answer.status != http.HTTPStatus.NO_CONTENT:
        size_bytes = len(answer.body) if answer.size_bytes is None else answer.size_bytes
        request.send_header("Content-Length", str(size_bytes))
    request.end_headers()
    request.wfile.write(answer.body[: answer.sent_bytes])
    request.wfile.flush()
    request.close_connection = request.close_connection or answer.sent_bytes is not None


def _answer_in_chunks(request: BaseHTTPRequestHandler, answer: Answer) -> None:
    if request.command != "HEAD":
        request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    if request.command != "HEAD":
        sent = answer.body[: answer.sent_bytes]
        pieces = [sent[at : at + 2**16] for at in range(0, len(sent), 2**16)]
        for piece in pieces:
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if answer.sent_bytes is None:
            request.wfile.write(b"0\r\n\r\n")
    request.wfile.flush()
    request.close_connection = request.close_connection or answer.sent_bytes is not None
