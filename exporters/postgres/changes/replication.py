"""The replication protocol, by libpq's own functions (PostgreSQL documentation, "Streaming Replication Protocol").

psycopg opens the connection. From ``START_REPLICATION`` on it is in COPY_BOTH mode, which psycopg itself does not know,
so everything then goes by its wrapper of libpq.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.pq import ExecStatus

from exporters.changes import Message
from exporters.errors import SourceError, SourceUnreachableError
from exporters.postgres.changes.slot import lsn_text
from exporters.postgres.changes.transactions import Skip, Transactions
from exporters.postgres.errors import translate
from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.postgres.sessions.connection import wait_for_server

_FEEDBACK_SECONDS = 2.0
"""How often we answer the server at least: it ends a connection that is silent for ``wal_sender_timeout``."""
_PING_SECONDS, _SILENCE_SECONDS = 10.0, 120.0
"""A server that has sent nothing for so long is asked for an answer; one that gives none is cut off from us. A network
that drops packets without a word ends no connection. A server may be silent while it decodes what nobody publishes.
"""
_BATCH_BYTES = 4 * 2**20
"""``receive`` returns about so many bytes at most."""

_DATA, _KEEPALIVE = ord("w"), ord("k")
_DATA_BYTES = struct.calcsize(">cQQq")
"""What comes before a message of pgoutput: a letter, its position, the end of the log, the server's clock."""
_POSITION = struct.Struct(">Q")
_KEEPALIVE_BODY = struct.Struct(">cQq?")
_FEEDBACK = struct.Struct(">cQQQq?")
_EPOCH_SECONDS = 946_684_800
"""2000-01-01, from which the protocol counts microseconds."""


class ReplicationStream:
    """See ``exporters.changes.ChangeStream``. The context holds a thread that answers the server while nobody else
    does, as when a location is slow.
    """

    is_continuous, has_paused, origin = True, False, ""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        source: str,
        slot: str,
        publication: str,
        after: int,
        skip: Skip | None = None,
    ) -> None:
        self._transactions = Transactions(after, skip)
        self._acknowledged = after
        self._connection = connection.pgconn
        self._source = source
        self._lock = threading.Lock()
        self._answered = self._heard = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="moveout-feedback", daemon=True)
        try:
            self._start(slot, publication, after)
        except psycopg.Error as exc:
            raise self._error(exc) from exc

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def received(self) -> int:
        """See ``ChangeStream``."""
        return self._transactions.received

    def _start(self, slot: str, publication: str, after: int) -> None:
        statement = (
            f"START_REPLICATION SLOT {quote_name(slot)} LOGICAL {lsn_text(after)}"
            f" (proto_version '1', publication_names {quote_literal(quote_name(publication))})"
        )
        self._connection.send_query(statement.encode())
        while self._connection.flush() or self._connection.is_busy():
            self._wait(_FEEDBACK_SECONDS)
            self._connection.consume_input()
        result = self._connection.get_result()
        if result is None or result.status != ExecStatus.COPY_BOTH:
            error = psycopg.errors.error_from_result(result) if result else None
            raise self._error(error) from error

    def receive(self, seconds: float) -> Sequence[Message]:
        """Return what has arrived."""
        messages: list[Message] = []
        deadline = time.monotonic() + seconds
        try:
            while not self._read(messages):
                left = deadline - time.monotonic()
                if messages or left <= 0:
                    break
                self._wait(left)
        except psycopg.Error as exc:
            raise self._error(exc) from exc
        silence = time.monotonic() - self._heard
        if silence > _SILENCE_SECONDS:
            raise SourceUnreachableError(
                f"the server has sent nothing for {silence:.0f} s, not even an answer",
                about=self._source,
                next_step="check the network between here and there",
            )
        return messages

    def acknowledge(self, position: int) -> None:
        """Tell the server what is durable elsewhere."""
        try:
            with self._lock:
                self._acknowledged = max(self._acknowledged, position)
                self._answer()
        except psycopg.Error as exc:
            raise self._error(exc) from exc

    def _read(self, messages: list[Message]) -> bool:
        """Take what has arrived; return whether it is enough for once."""
        size, length = 0, 1
        get_copy_data, take = self._connection.get_copy_data, self._transactions.take
        with self._lock:
            self._connection.consume_input()
            while size < _BATCH_BYTES:
                length, data = get_copy_data(1)
                if length <= 0:
                    break
                size += length
                if data[0] == _DATA:
                    (position,) = _POSITION.unpack_from(data, 1)
                    take(position, bytes(data[_DATA_BYTES:]), messages)
                elif data[0] == _KEEPALIVE:
                    self._take_keepalive(data)
            if size:
                self._heard = time.monotonic()
            if length < 0:
                error = self._why_it_ended()
                raise self._error(error) from error
        return length > 0

    def _take_keepalive(self, data: memoryview) -> None:
        _, end, _, wants_answer = _KEEPALIVE_BODY.unpack(data)
        if not self._transactions.is_inside:
            self._transactions.received = max(self._transactions.received, end)
        if wants_answer:
            self._answer()

    def _keep_alive(self) -> None:
        while not self._stop.wait(_FEEDBACK_SECONDS / 2):
            try:
                with self._lock:
                    if time.monotonic() - self._answered >= _FEEDBACK_SECONDS / 2:
                        self._answer()
            except psycopg.Error:
                return  # the next ``receive`` or ``acknowledge`` raises it

    def _answer(self) -> None:
        """Send the status; the lock must be held."""
        position = self._acknowledged
        now = round((time.time() - _EPOCH_SECONDS) * 1_000_000)
        self._answered = time.monotonic()
        asks = self._answered - self._heard > _PING_SECONDS
        self._connection.put_copy_data(_FEEDBACK.pack(b"r", position, position, position, now, asks))
        self._connection.flush()

    def _wait(self, seconds: float) -> None:
        wait_for_server(self._connection, seconds)

    def _why_it_ended(self) -> psycopg.Error | None:
        result = self._connection.get_result()
        return psycopg.errors.error_from_result(result) if result and result.error_message else None

    def _error(self, error: psycopg.Error | None) -> SourceError:
        if error is None or not str(error).strip():
            return SourceUnreachableError(
                "the server has ended the stream of changes",
                about=self._source,
                next_step="its log says why. The same command goes on where it was",
            )
        return translate(error, self._source)
