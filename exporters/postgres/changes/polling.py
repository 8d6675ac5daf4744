"""Changes by SQL, for servers and poolers that refuse the replication protocol.

``pg_logical_slot_peek_binary_changes`` returns the same messages, and leaves the slot where it is; only what was
acknowledged moves it (``pg_replication_slot_advance``). Each call decodes the log anew from the slot's ``restart_lsn``
on (PostgreSQL documentation, "Replication Management Functions"). So the reading goes in turns with rests between them.

The server writes the messages of a turn to its disk, and they are read one by one by ``COPY``. A transaction comes
whole, of whatever size, and needs no memory here.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

import psycopg
from msgspec import Struct
from psycopg.pq import ExecStatus

from exporters.changes import Message, MessageKind
from exporters.errors import SourceError
from exporters.postgres.changes.base_snapshot import BaseSnapshot
from exporters.postgres.changes.slot import OBJECT_IN_USE, in_use, lsn_text, parse_lsn, try_to_lock
from exporters.postgres.changes.transactions import Transactions
from exporters.postgres.errors import translate
from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.postgres.sessions.connection import session_changes, wait_for_server

_REST_SECONDS = 0.5
"""Two turns are so far apart, and as long as the server decodes for a turn and the moving of the slot: it does that for
half of the time at most.
"""
_TURN_BYTES = 128 * 2**20
"""How much of the log is one turn at least: it has as much that is new as is decoded again."""
_UNACKNOWLEDGED_SECONDS = 5.0
"""How long the next turn waits for the acknowledgement of what came before: without it all of that is decoded again."""
_NAP_SECONDS = 0.02
_BATCH_BYTES = 4 * 2**20
"""``receive`` returns about so many bytes at most."""
_CANCEL_SECONDS = 5

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER_BYTES = len(_SIGNATURE) + 8
"""PostgreSQL documentation, COPY, "Binary Format": the signature, flags, and the length of an extension."""
_ROW = struct.Struct(">hiQi")
"""Two fields: the length of a position and the position; the length of a message, which follows."""
_FIELDS = 2

_GUARDS = (
    ("client_connection_check_interval", "2s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "6"),
)
"""Settings by which a server soon sees that we are gone, and gives up the lock of this log."""
_PROBE = """
SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_current_wal_flush_lsn()::text,
  coalesce((SELECT restart_lsn::text FROM pg_catalog.pg_replication_slots WHERE slot_name = %s), '0/0')
"""
_PEEK = """SELECT pg_catalog.pg_backend_pid();
COPY (SELECT lsn, data FROM pg_catalog.pg_logical_slot_peek_binary_changes({slot}, '{upto}', NULL,
 'proto_version', '1', 'publication_names', {publication})) TO STDOUT (FORMAT binary)"""
_ADVANCE = """
SELECT pg_catalog.pg_replication_slot_advance(slot_name, %(position)s::pg_lsn) FROM pg_catalog.pg_replication_slots
WHERE slot_name = %(slot)s AND confirmed_flush_lsn < %(position)s::pg_lsn
"""


class _Step(Enum):
    """What the answer to a turn is at."""

    RESULTS = auto()
    ROWS = auto()


class _Turn(Struct):
    """One call of the function. ``upto``: all that was committed before this position comes. ``decoded``: when the
    first row came. The server has decoded all by then, and only sends what it has; that takes as long as we do.
    """

    upto: int
    began: float
    decoded: float = 0.0
    rows: int = 0
    step: _Step = _Step.RESULTS
    error: psycopg.Error | None = None


class PollingStream:
    """See ``exporters.changes.ChangeStream``. The context holds a lock of the server, which keeps two readers apart."""

    is_continuous, origin = True, ""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        source: str,
        slot: str,
        publication: str,
        after: int,
        base: BaseSnapshot | None,
    ) -> None:
        self._connection = connection
        self._wire = connection.pgconn
        self._source = source
        self._slot = slot
        self._publication = publication
        self._base = base
        self._transactions = Transactions(after, self._skips)
        self._returned = self._acknowledged = self._advanced = after
        self._returned_at = self._next_at = 0.0
        self._turn: _Turn | None = None
        try:
            self._process = self._begin()
        except psycopg.Error as exc:
            raise self._error(exc) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(psycopg.Error):
            if self._turn is not None:
                self._abandon()
            if self._turn is None:
                self._advance()

    def _abandon(self) -> None:
        """End the turn: a server sees only when it writes that nobody reads any more."""
        self._connection.cancel_safe(timeout=_CANCEL_SECONDS)
        deadline = time.monotonic() + _CANCEL_SECONDS
        with suppress(psycopg.errors.QueryCanceled):
            while self._turn is not None and time.monotonic() < deadline:
                self._read(self._turn, [])
                self._wait(_REST_SECONDS)

    @property
    def has_paused(self) -> bool:
        """See ``ChangeStream``."""
        return self._turn is None

    @property
    def received(self) -> int:
        """See ``ChangeStream``."""
        return self._transactions.received

    def receive(self, seconds: float) -> Sequence[Message]:
        """Return what has arrived."""
        messages: list[Message] = []
        deadline = time.monotonic() + seconds
        try:
            while True:
                if self._turn is None:
                    self._begin_turn()
                turn = self._turn
                if turn is not None:
                    self._read(turn, messages)
                left = deadline - time.monotonic()
                if messages or left <= 0 or self._turn is not turn:
                    break
                self._wait(left)
        except psycopg.Error as exc:
            raise self._error(exc) from exc
        ends = (message.position for message in reversed(messages) if message.kind is MessageKind.COMMIT)
        if (end := next(ends, 0)) > self._returned:
            self._returned, self._returned_at = end, time.monotonic()
        return messages

    def acknowledge(self, position: int) -> None:
        """Move the slot. While a turn is read that waits until it is over, or given up."""
        self._acknowledged = max(self._acknowledged, position)
        if self._turn is None:
            try:
                self._advance()
            except psycopg.Error as exc:
                raise self._error(exc) from exc

    def _begin(self) -> int:
        """Take the lock, and return the server's process. Raises ``SourceUnreachableError`` where another has it."""
        for name, value in _GUARDS:
            with suppress(psycopg.Error):  # older servers and some systems do not have all of them
                self._connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        if not try_to_lock(self._connection, self._slot):
            raise in_use(self._source, f"{self._slot} is locked")
        return self._probe()[0]

    def _probe(self) -> tuple[int, int, int]:
        """Return the server's process, how far the log is on its disk, and from where on it is decoded."""
        row = self._connection.execute(_PROBE, (self._slot,)).fetchone()
        assert row is not None
        return int(row[0]), parse_lsn(row[1]), parse_lsn(row[2])

    def _skips(self, committed_at: int, transaction: int) -> bool:
        """Leave out what was returned before, and what the base has."""
        if committed_at < self._transactions.received:
            return True
        return self._base is not None and self._base.shows(committed_at, transaction)

    def _begin_turn(self) -> None:
        """Ask for more, where there is more, and it is time to."""
        now = time.monotonic()
        is_waiting = self._returned > self._acknowledged and now - self._returned_at < _UNACKNOWLEDGED_SECONDS
        if now < self._next_at or is_waiting:
            return
        self._next_at = now + _REST_SECONDS
        process, flushed, restart = self._probe()
        self._require_same(process)
        if flushed <= self.received:
            return
        self._advance()
        upto = min(flushed, self.received + max(_TURN_BYTES, self.received - restart))
        names = {
            "slot": quote_literal(self._slot),
            "publication": quote_literal(quote_name(self._publication)),
        }
        statement = _PEEK.format(upto=lsn_text(upto), **names)
        self._wire.send_query(statement.encode())
        while self._wire.flush():
            self._wait(_REST_SECONDS)
        self._turn = _Turn(upto, now)

    def _advance(self) -> None:
        """Move the slot to what was acknowledged. It stays where it is where that was done before."""
        if self._acknowledged <= self._advanced:
            return
        began = time.monotonic()
        # This reads the log from the same position on as a turn does.
        self._connection.execute(_ADVANCE, {"position": lsn_text(self._acknowledged), "slot": self._slot})
        now = time.monotonic()
        self._advanced, self._next_at = self._acknowledged, max(self._next_at, 2 * now - began)

    def _read(self, turn: _Turn, messages: list[Message]) -> None:
        """Take what has arrived of a turn."""
        self._wire.consume_input()
        size = 0
        while size < _BATCH_BYTES:
            if turn.step is _Step.ROWS:
                length, data = self._wire.get_copy_data(1)
                if length > 0:
                    size += length
                    self._take_row(turn, data, messages)
                elif length < 0:
                    turn.step = _Step.RESULTS
                else:
                    return
            elif self._wire.is_busy():
                return
            elif not self._take_result(turn):
                self._end_turn(turn)
                return

    def _take_result(self, turn: _Turn) -> bool:
        """Take the result of a statement; tell whether there was one."""
        result = self._wire.get_result()
        if result is None:
            return False
        if result.status == ExecStatus.COPY_OUT:
            turn.step = _Step.ROWS
        elif result.status == ExecStatus.TUPLES_OK:
            self._require_same(int(result.get_value(0, 0) or 0))
        elif result.status != ExecStatus.COMMAND_OK:
            turn.error = psycopg.errors.error_from_result(result)
        return True

    def _take_row(self, turn: _Turn, data: memoryview, messages: list[Message]) -> None:
        start = _HEADER_BYTES if not turn.rows and bytes(data[: len(_SIGNATURE)]) == _SIGNATURE else 0
        if len(data) < start + _ROW.size:
            return  # the end of the rows
        fields, _, position, length = _ROW.unpack_from(data, start)
        assert fields == _FIELDS
        if not turn.rows:
            turn.decoded = time.monotonic()
        turn.rows += 1
        begin = start + _ROW.size
        self._transactions.take(position, bytes(data[begin : begin + length]), messages)

    def _end_turn(self, turn: _Turn) -> None:
        """Note how far it went, and when the next one begins."""
        self._turn = None
        if turn.error is not None:
            raise turn.error
        self._transactions.received = max(self.received, turn.upto)
        now = time.monotonic()
        self._next_at = now + max(_REST_SECONDS, (turn.decoded or now) - turn.began)

    def _wait(self, seconds: float) -> None:
        """Wait until the server has something to say, or for the next turn."""
        if self._turn is None:
            time.sleep(max(min(seconds, self._next_at - time.monotonic()), _NAP_SECONDS))
        else:
            wait_for_server(self._wire, seconds)

    def _require_same(self, process: int) -> None:
        """Raise where a pooler has given us another session: the settings are not those that pin the text of values."""
        if process != self._process:
            raise session_changes(self._source)

    def _error(self, error: psycopg.Error) -> SourceError:
        if error.sqlstate == OBJECT_IN_USE:
            return in_use(self._source, str(error).strip())
        return translate(error, self._source)
