"""PyMySQL's connection, and what it has no word for: statements in pieces, and rows in bulk, for one prepared INSERT.

A client has to ask for rows in bulk at the login. A MariaDB that leaves the capability ``CLIENT_LONG_PASSWORD`` out of
its greeting has further ones, for which it looks where others have zeros (MariaDB, "Connecting": capabilities;
"COM_STMT_BULK_EXECUTE").
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pymysql.connections import Connection
from pymysql.constants import CLIENT, COMMAND

from exporters.mysql.errors import DRIVER_ERRORS, ClearPasswordError

FULL = 0xFFFFFF
"""A packet of this length goes on in the next one."""
_BULK_EXECUTE = 0xFA
_SENDS_TYPES = 128
_RESERVED = slice(9, 32)
"""Zeros of the packet by which a login begins, and of the one that asks for TLS."""
_FURTHER = slice(28, 32)
_BULK = (1 << 2).to_bytes(4, "little")
_IN_CLEAR = {b"mysql_clear_password", b"dialog"}


class DriverConnection(Connection):  # type: ignore[misc]  # PyMySQL has no types
    """A session. ``takes_bulk``: whether it is with a MariaDB that was asked to take rows in bulk.
    ``crosses_network``: whether others could read what it sends without TLS.
    """

    takes_bulk = False
    crosses_network = True

    def _request_authentication(self) -> None:
        self.takes_bulk = not self.server_capabilities & CLIENT.LONG_PASSWORD
        if not self.takes_bulk:
            super()._request_authentication()
            return
        self.client_flag &= ~CLIENT.LONG_PASSWORD
        self.write_packet = self._write_login
        try:
            super()._request_authentication()
        finally:
            del self.write_packet

    def _process_auth(self, plugin_name: bytes, auth_packet: Any, handler: Any = None) -> Any:
        """Answer what a server asks for at the login; PyMySQL would send the password in clear to whoever asks."""
        if plugin_name in _IN_CLEAR and self.crosses_network and not self._secure:
            raise ClearPasswordError
        return super()._process_auth(plugin_name, auth_packet, handler)

    def _write_login(self, payload: bytes) -> None:
        if payload[_RESERVED] == bytes(_RESERVED.stop - _RESERVED.start):
            payload = payload[: _FURTHER.start] + _BULK + payload[_FURTHER.stop :]
        super().write_packet(payload)


def send(raw: Any, pieces: Iterable[bytes | memoryview], *, command: int = COMMAND.COM_QUERY) -> None:
    """Run a statement that is never whole in memory, and read its answer. Raises PyMySQL's errors."""
    raw._next_seq_id = 0  # noqa: SLF001
    packet = bytearray([command])
    for piece in pieces:
        packet += piece
        while len(packet) >= FULL:
            raw.write_packet(bytes(packet[:FULL]))
            del packet[:FULL]
    raw.write_packet(bytes(packet))
    raw._affected_rows = raw._read_query_result()  # noqa: SLF001


class BulkInsert:
    """A prepared INSERT of one session. ``raw`` is PyMySQL's connection. It is prepared when rows come."""

    def __init__(self, raw: Any, sql: str) -> None:
        self._raw, self._sql = raw, sql
        self._number: int | None = None

    def run(self, types: bytes, rows: Iterable[bytes | memoryview]) -> None:
        """Insert rows; ``types`` are those of the columns, as the protocol has them. Raises PyMySQL's errors."""
        if self._number is None:
            self._number = self._prepare()
        head = struct.pack("<IH", self._number, _SENDS_TYPES) + types
        send(self._raw, [head, *rows], command=_BULK_EXECUTE)

    def _prepare(self) -> int:
        raw = self._raw
        raw._execute_command(COMMAND.COM_STMT_PREPARE, self._sql)  # noqa: SLF001  PyMySQL prepares nothing
        answer = raw._read_packet().get_all_data()  # noqa: SLF001
        number, columns, parameters = struct.unpack("<IHH", answer[1:9])
        for count in (parameters, columns):
            for _ in range(count + 1 if count else 0):  # their definitions, and an EOF
                raw._read_packet()  # noqa: SLF001
        return int(number)

    def close(self) -> None:
        """Let the server forget it."""
        if self._number is not None:
            number, self._number = self._number, None
            with suppress(*DRIVER_ERRORS):  # without a line it has forgotten it
                self._raw._execute_command(COMMAND.COM_STMT_CLOSE, struct.pack("<I", number))  # noqa: SLF001
