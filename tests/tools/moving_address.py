"""An address that stays the same while the server behind it changes, as that of a cluster with a standby does."""

import contextlib
import socket
import threading
from typing import Self


class MovingAddress:
    """``with MovingAddress(port) as address:`` forwards ``address.port`` of loopback to a port; ``move`` chooses
    another one, and ends all connections. ``at``: its own port, of ``host``.
    """

    def __init__(self, target: int, at: int = 0, *, host: str = "127.0.0.1") -> None:
        self._target = target
        self._listener = socket.create_server((host, at))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which ends ``accept``
        self._listener.close()
        self._end_all()

    def move(self, target: int) -> None:
        """Forward to another port from now on."""
        self._target = target
        self._end_all()

    def _end_all(self) -> None:
        for one in list(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._connect, args=(client, server), daemon=True).start()

    def _connect(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            self._sockets |= {client, server}
            answers = threading.Thread(target=self._forward, args=(server, client), daemon=True)
            answers.start()
            self._forward(client, server)
            answers.join()
            self._sockets -= {client, server}

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
