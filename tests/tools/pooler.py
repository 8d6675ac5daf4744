"""A pooler in front of a PostgreSQL: SQL goes through, and the replication protocol does not."""

import struct
from contextlib import suppress
from dataclasses import dataclass

from tests.tools.moving_address import MovingAddress

_TLS, _GSS, _CANCEL = 80877103, 80877104, 80877102
_WORD = b"replication\0"


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a pooler says no: as PgBouncer does, by closing the connection, or by passing over what it does not know."""

    answer: bytes = b""
    passes_over: bool = False


def _error(severity: bytes, state: bytes, message: bytes) -> bytes:
    """PostgreSQL documentation, "Message Formats": ErrorResponse."""
    fields = b"S%b\0C%b\0M%b\0\0" % (severity, state, message)
    return b"E" + struct.pack(">i", 4 + len(fields)) + fields


REFUSALS = {
    "error": Refusal(_error(b"FATAL", b"08P01", b"unsupported startup parameter: replication")),
    "silence": Refusal(),
    "passed over": Refusal(passes_over=True),
}


class Pooler(MovingAddress):
    """``with Pooler(server.port) as pooler:`` is at ``pooler.port`` of loopback. ``refused`` counts."""

    def __init__(self, target: int, refusal: str = "error") -> None:
        self.refused = 0
        self._refusal = REFUSALS[refusal]
        super().__init__(target)

    def url(self, url: str) -> str:
        """Return the URL of a database of the server, by way of the pooler."""
        return url.replace(f":{self._target}/", f":{self.port}/")

    def _connect(self, client, server):
        with client, server, suppress(OSError, EOFError):  # a client may be killed at any moment
            packet = self._startup(client)
            if _WORD in packet[8:]:
                self.refused += 1
                if not self._refusal.passes_over:
                    client.sendall(self._refusal.answer)
                    return
                packet = _without_replication(packet)
            server.sendall(packet)
            super()._connect(client, server)

    def _startup(self, client) -> bytes:
        """Return the packet with which a connection begins; encryption is declined before."""
        while True:
            head = _exactly(client, 8)
            length, code = struct.unpack(">ii", head)
            if code not in {_TLS, _GSS}:
                return head + _exactly(client, length - 8)
            client.sendall(b"N")


def _exactly(client, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _without_replication(packet: bytes) -> bytes:
    words = packet[8:].rstrip(b"\0").split(b"\0")
    pairs = zip(words[::2], words[1::2], strict=True)
    body = b"".join(b"%b\0%b\0" % pair for pair in pairs if pair[0] != _WORD[:-1]) + b"\0"
    return struct.pack(">i", 8 + len(body)) + packet[4:8] + body
