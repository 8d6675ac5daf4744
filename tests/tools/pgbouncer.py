"""A real PgBouncer in front of a PostgreSQL; ``program()`` is None where none is installed."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from scripts.process import free_port
from tests.tools.waiting import eventually

_SETTINGS = """
[databases]
* = host=127.0.0.1 port={target} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
server_login_retry = 1
default_pool_size = 50
ignore_startup_parameters = {ignored}
logfile = {directory}/log
"""


def program() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


class PgBouncer:
    """``with PgBouncer(server.port, server.password) as pooler:`` is at ``pooler.port`` of loopback. It refuses a login
    with parameters that it neither keeps track of nor has among the ``ignored``.
    """

    def __init__(
        self,
        target: int,
        password: str,
        mode: str = "session",
        ignored: str = "extra_float_digits,options",
        user: str = "postgres",
    ) -> None:
        self.port, self._target = free_port(), target
        self._directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self._settings = self._directory / "pgbouncer.ini"
        self._settings.write_text(
            _SETTINGS.format(
                target=target,
                user=user,
                password=password,
                port=self.port,
                directory=self._directory,
                mode=mode,
                ignored=ignored,
            )
        )

    def __enter__(self) -> Self:
        own_program = program()
        assert own_program
        user = {}
        if os.geteuid() == 0:  # it refuses to run as root
            user = {"user": "nobody", "extra_groups": []}
            for path in (self._directory, self._settings):
                shutil.chown(path, "nobody")
        self._process = subprocess.Popen([own_program, "--quiet", str(self._settings)], **user)
        eventually(self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait()
        shutil.rmtree(self._directory)

    def url(self, url: str) -> str:
        """Return the URL of a database of the server, by way of the pooler."""
        return url.replace(f":{self._target}/", f":{self.port}/")

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._directory / "log").read_text()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0
