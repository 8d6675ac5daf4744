"""A proxy in front of a MinIO that keeps a copy of each bucket as it is before something is deleted from it."""

from __future__ import annotations

import http.client
import itertools
import select
import shutil
import ssl
import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self
from urllib.parse import parse_qs, unquote, urlsplit

from scripts.servers import S3Server

_HOP_BY_HOP = {"transfer-encoding", "connection", "expect"}
_LISTENER_SECONDS = 3.0
"""So long a client that listens for events waits for a MinIO, which may say nothing before there are some."""
_BLOCK_BYTES = 2**16
_LONGEST_NAME = 55
"""Of a bucket's name, so that a number has room behind it."""


@dataclass(slots=True)
class KeepingProxy:
    """``with KeepingProxy(server, directory) as proxy:`` for clients of ``proxy.netloc``. ``directory`` becomes the
    data directory of a MinIO that has a bucket for each copy. It speaks TLS where the server does.
    """

    server: S3Server
    directory: Path
    _changed: set[str] = field(default_factory=set)
    """Buckets that somebody wrote to after their last copy."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _http: ThreadingHTTPServer = field(init=False)

    def __enter__(self) -> Self:
        self._http = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        if certificate := self.server.ca_bundle:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate, certificate.with_name("private.key"))
            self._http.socket = tls.wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        settings = self.directory / ".minio.sys"
        settings.mkdir(parents=True)
        shutil.copy(self.server.directory / ".minio.sys/format.json", settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def netloc(self) -> str:
        """Return the host and port at which it listens."""
        return f"127.0.0.1:{self._http.server_address[1]}"

    def keep_all(self) -> None:
        """Copy the buckets that changed after their last copy."""
        for bucket in sorted(self._changed):
            self._keep(bucket)

    def _keep(self, bucket: str) -> None:
        with self._lock:
            if not bucket or bucket not in self._changed:  # none in requests of the whole server
                return
            self._changed.remove(bucket)
            name = bucket
            if (self.directory / bucket).exists():
                if self._has_policy(bucket):
                    return
                name = f"{bucket[:_LONGEST_NAME].rstrip('-.')}-{next(self._numbers)}"
            for parent in (Path(), Path(".minio.sys/buckets")):
                with suppress(OSError, shutil.Error):  # of what others delete meanwhile
                    shutil.copytree(
                        self.server.directory / parent / bucket,
                        self.directory / parent / name,
                        copy_function=_copy,
                    )

    def _has_policy(self, bucket: str) -> bool:
        """Tell whether a bucket has a policy: that names the bucket, so a MinIO takes no copy of another name."""
        settings = self.server.directory / ".minio.sys/buckets" / bucket / ".metadata.bin/xl.meta"
        return settings.exists() and b"arn:aws:s3:::" in settings.read_bytes()

    def _connection(self) -> http.client.HTTPConnection:
        netloc = urlsplit(self.server.endpoint).netloc
        if self.server.ca_bundle is None:
            return http.client.HTTPConnection(netloc)
        tls = ssl.create_default_context(cafile=str(self.server.ca_bundle))
        return http.client.HTTPSConnection(netloc, context=tls)

    def forward(self, request: _Handler) -> None:
        """Hand a request on; keep its bucket first if it deletes."""
        url = urlsplit(request.path)
        bucket, query = unquote(url.path).split("/")[1], parse_qs(url.query, keep_blank_values=True)
        deletes = request.command == "DELETE" or "delete" in query
        if deletes and "uploadId" not in query:
            self._keep(bucket)
        with closing(self._connection()) as connection:
            body = request.body()
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, text in request.headers.items():
                if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                    connection.putheader(name, text)
            if body or request.command in {"PUT", "POST"}:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            listens = request.command == "GET" and "events" in query
            if listens and not _answers(connection):
                request.end()
                return
            response = connection.getresponse()
            wrote = not deletes and request.command in {"PUT", "POST"}
            if wrote or "delete" in query or response.headers.get("x-amz-delete-marker"):
                self._changed.add(bucket)
            request.answer(response)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients go away as they like."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    proxy: ClassVar[KeepingProxy]
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Hand the request on."""
        self.proxy.forward(self)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names of http.server

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def handle_expect_100(self) -> bool:
        """Tell the client to send its body, at once."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def body(self) -> bytes:
        """Return the request's body."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size_bytes := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size_bytes))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def end(self) -> None:
        """Say that there is nothing more to come."""
        self.send_response_only(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.flush()

    def answer(self, response: http.client.HTTPResponse) -> None:
        """Hand the response on, while it arrives: some never end."""
        self.send_response_only(response.status, response.reason)
        for name, text in response.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, text)
        chunked = self.command != "HEAD" and response.headers.get("Transfer-Encoding") == "chunked"
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while block := response.read1(_BLOCK_BYTES):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n" if chunked else b"")
        self.wfile.flush()


def _answers(connection: http.client.HTTPConnection) -> bool:
    """Tell whether an answer begins in the time that a listener waits."""
    readable, _, _ = select.select([connection.sock], [], [], _LISTENER_SECONDS)
    return bool(readable)


def _copy(source: str, copy: str) -> None:
    """Link data, which MinIO never writes to again; copy everything else."""
    if Path(source).name.startswith("part."):
        Path(copy).hardlink_to(source)
    else:
        shutil.copy(source, copy)
