"""A timestamp authority on this machine: openssl behind HTTP."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SETTINGS = """
[ext]
extendedKeyUsage = critical,timeStamping
[tsa]
default_tsa = one
[one]
serial = {directory}/serial
crypto_device = builtin
signer_cert = {directory}/tsa.pem
signer_key = {directory}/tsa.key
{certs}
signer_digest = {digest}
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""


class Authority:
    """``answers`` counts the tokens it gave."""

    def __init__(
        self, directory: Path, kind: str = "rsa:2048", digest: str = "sha256", *, sends_root: bool = True
    ) -> None:
        self.directory, self.answers, self.url = directory, 0, ""
        directory.mkdir(parents=True, exist_ok=True)
        self.settings = directory / "openssl.cnf"
        certs = f"certs = {directory}/ca.pem" if sends_root else ""
        self.settings.write_text(SETTINGS.format(directory=directory, digest=digest, certs=certs))
        key = (
            ["-newkey", "rsa:2048"]
            if kind.startswith("rsa")
            else ["-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{kind}"]
        )
        self.run(
            "req",
            "-x509",
            *key,
            "-nodes",
            "-subj",
            "/CN=Root",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "9",
        )
        self.run("req", *key, "-nodes", "-subj", "/CN=Timestamps", "-keyout", "tsa.key", "-out", "tsa.csr")
        self.run(
            *(
                "x509",
                "-req",
                "-in",
                "tsa.csr",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-out",
                "tsa.pem",
                "-days",
                "9",
            ),
            *("-extfile", "openssl.cnf", "-extensions", "ext"),
        )
        (directory / "serial").write_text("01\n")

    def run(self, *words: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["openssl", *map(str, words)], cwd=self.directory, capture_output=True, check=True
        )

    def answer(self, query: bytes) -> bytes:
        with tempfile.TemporaryDirectory() as scratch:
            asked, given = Path(scratch) / "query", Path(scratch) / "answer"
            asked.write_bytes(query)
            self.run(
                "ts",
                "-reply",
                "-config",
                self.settings,
                "-section",
                "one",
                "-queryfile",
                asked,
                "-out",
                given,
            )
            self.answers += 1
            return given.read_bytes()

    def verifies(self, token: bytes, data: bytes) -> bool:
        """Let ``openssl ts -verify`` judge."""
        (self.directory / "token").write_bytes(token)
        (self.directory / "data").write_bytes(data)
        argv = ["openssl", "ts", "-verify", "-in", "token", "-data", "data", "-CAfile", "ca.pem"]
        return subprocess.run(argv, cwd=self.directory, capture_output=True, check=False).returncode == 0


@contextmanager
def serving(authority: Authority) -> Iterator[Authority]:
    """Serve it on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            answer = authority.answer(query) if self.path == "/tsa" else b"not here"
            refused = {"/denied": 403, "/429": 429, "/500": 500, "/503": 503}
            self.send_response(refused.get(self.path, 200))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    authority.url = f"http://127.0.0.1:{server.server_port}/tsa"
    try:
        yield authority
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
