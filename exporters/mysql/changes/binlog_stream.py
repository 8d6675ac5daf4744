"""The stream of a binary log: one session sends it, a thread takes its events, ``receive`` makes messages of them."""

from __future__ import annotations

import re
import struct
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import pymysql
from msgspec import Struct
from pymysql.constants import COMMAND

from exporters.changes import BASE_AGAIN, Message, MessageKind, put_back_error
from exporters.errors import SourceError, SourceGoneError, SourceStateError
from exporters.mysql.changes.binlog_events import (
    CHECKSUM_BYTES,
    HEADER_BYTES,
    MARIADB_FLAGS_AT,
    MARIADB_STANDALONE,
    ROWS,
    STATEMENTS,
    WITHOUT_ROWS,
    EventType,
    end_of_event,
    event_type,
    has_checksums,
    is_alter_without_effect,
    is_ignorable,
    read_query,
    read_table_map,
    start_of_event,
    table_number,
    time_of,
    unpacked_transaction,
)
from exporters.mysql.changes.binlog_files import BinlogFiles, make_position, number_of, start_of
from exporters.mysql.changes.logged_statements import Names, plain_statement, read_statement
from exporters.mysql.connection import Connection, shut
from exporters.mysql.errors import DRIVER_ERRORS, translate
from exporters.mysql.sessions.prepared_transactions import name_of_prepared

FORMAT_TABLE = 0
"""Stands for a table: its shape is the format of all events."""
_DUMP = struct.Struct("<IHI")
_HEARTBEAT_NANOSECONDS = 10**9
_SILENCE_SECONDS = 60.0
"""After this time without a heartbeat the server is gone."""
_QUEUE_BYTES = 64 * 2**20
"""How much waits to be received; then the server waits."""
_BATCH_BYTES = 8 * 2**20
_FILES_KNOWN = 2
"""How many files have the time kept at which they were made: what was captured may end in the one before the last."""
_MADE_AT = re.compile(r"\d{1,10}:\d{1,10}", re.ASCII)
_SHOWN = 60
_PREPARE = (
    "SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum,"
    f" @master_heartbeat_period = {_HEARTBEAT_NANOSECONDS}, @source_heartbeat_period = {_HEARTBEAT_NANOSECONDS},"
    " @mariadb_slave_capability = 4"
)
"""What a replica says before it asks for the log: that it knows checksums, and MariaDB's numbers of transactions."""
_ONE_PHASE_AT = HEADER_BYTES
_XID = struct.Struct("<iII")
"""What follows for a transaction in two phases: the format of its name, the lengths of both parts of the name."""
_XA_COMMIT, _XA_ROLLBACK = "XA COMMIT ", "XA ROLLBACK "


class LogRequest(Struct, frozen=True):
    """What of a binary log is asked for: after a position the changes of the database of ``names``, but not those of
    the tables ``apart``. ``files``: those of the log. ``replica`` is the number of this reader at the server.
    ``origin``: what ``BinlogStream.origin`` was when the position was captured, "" where that is not known.
    ``prepared``: the transactions in two phases that had been prepared, and not ended, at the base; None where that is
    not known.
    """

    files: BinlogFiles
    names: Names
    apart: Collection[str]
    replica: int
    after: int
    origin: str = ""
    prepared: Collection[str] | None = None


def _parse_origin(origin: str) -> dict[int, int]:
    """Read what ``BinlogStream.origin`` has written. Raises ``SourceStateError`` where somebody has changed it."""
    if not all(_MADE_AT.fullmatch(word) for word in origin.split()):
        raise SourceStateError(
            f"what was kept of the log that is read is damaged: {origin[:_SHOWN]!r}", next_step=BASE_AGAIN
        )
    pairs = (word.partition(":") for word in origin.split())
    return {int(number): int(at) for number, _, at in pairs}


class BinlogStream:
    """See ``exporters.changes.ChangeStream``."""

    has_paused = False

    def __init__(self, connection: Connection, request: LogRequest) -> None:
        self._after = self.received = request.after
        self.is_continuous = False
        self._files_made = _parse_origin(request.origin)
        self._connection = connection
        self._source = connection.address.url
        self._files = request.files
        self._names = request.names
        self._apart = frozenset(request.apart)
        self._file, self._offset = start_of(request.after)
        self._checksum_bytes = 0
        self._begin: Message | None = None
        self._begun = False
        self._is_inside = self._has_no_effect = False
        self._maps: dict[int, bytes | None] = {}
        self._prepared: set[str] = set()
        self._prepared_before = request.prepared
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._ready = threading.Condition()
        self._failure: Exception | None = None
        self._closed = False
        connection.run(_PREPARE)
        raw = connection.raw
        raw._read_timeout = _SILENCE_SECONDS  # noqa: SLF001  there is no other way to set it later
        name = self._files.name(self._file)
        raw._execute_command(  # noqa: SLF001  the one way to send without reading
            COMMAND.COM_BINLOG_DUMP, _DUMP.pack(self._offset, 0, request.replica) + name.encode()
        )
        self._thread = threading.Thread(target=self._read, name="moveout-binlog", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        with suppress(OSError, AttributeError):  # it is closed already
            # A close alone does not wake the thread: it would wait for the next heartbeat.
            shut(self._connection.raw)
        self._connection.close()
        self._thread.join()

    @property
    def origin(self) -> str:
        """See ``ChangeStream``: when the last two files were made, as the first event of each says it. A server appends
        to no file that it has not made since its start; so a file that it writes anew is told by that.
        """
        return " ".join(f"{number}:{at}" for number, at in self._files_made.items())

    def receive(self, seconds: float) -> Sequence[Message]:
        """See ``ChangeStream``."""
        messages: list[Message] = []
        for event in self._events(seconds):
            messages += self._messages(event)
        return messages

    def acknowledge(self, position: int) -> None:
        """Do nothing: the server keeps its log for as long as its settings say."""

    def _read(self) -> None:
        """Take events until the connection ends."""
        raw: Any = self._connection.raw
        try:
            while not self._closed:
                packet = raw._read_packet()  # noqa: SLF001
                data = packet.get_all_data()
                if packet.is_eof_packet():
                    self._fail(EOFError("the server has ended the stream of its binary log"))
                    return
                with self._ready:
                    while self._queued_bytes > _QUEUE_BYTES and not self._closed:
                        self._ready.wait(1)
                    self._queue.append(data[1:])
                    self._queued_bytes += len(data)
                    self._ready.notify_all()
        except Exception as exc:
            self._fail(exc)

    def _fail(self, error: Exception) -> None:
        """Keep an error for who receives next."""
        with self._ready:
            self._failure = error
            self._ready.notify_all()

    def _events(self, seconds: float) -> Iterator[bytes]:
        """Yield what has arrived; wait for at most so long. Raises ``SourceError``."""
        deadline, size_bytes = time.monotonic() + seconds, 0
        with self._ready:
            while not self._queue and self._failure is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                self._ready.wait(left)
        while size_bytes < _BATCH_BYTES:
            with self._ready:
                if not self._queue:
                    break
                event = self._queue.popleft()
                self._queued_bytes -= len(event) + 1
                self._ready.notify_all()
            size_bytes += len(event)
            yield event
        if not size_bytes and self._failure is not None:
            raise self._error(self._failure)

    def _error(self, error: Exception) -> SourceError:
        if not isinstance(error, DRIVER_ERRORS):  # such as an attribute of a connection that is closed
            error = EOFError(str(error) or "the connection is closed")
        if isinstance(error, pymysql.Error) and error.args[:1] == (1236,):
            return SourceGoneError(
                f"the changes after {self._files.show(self._after)} cannot be read:"
                f" the server does not send its binary log on: {error.args[1]}",
                about=self._source,
                next_step=BASE_AGAIN,
            )
        return translate(error, self._source)

    def _messages(self, event: bytes) -> Iterator[Message]:
        """Yield what an event is to those who keep changes."""
        kind = event_type(event)
        if kind == EventType.FORMAT:
            self._checksum_bytes = CHECKSUM_BYTES if has_checksums(event) else 0
            self._require_same_file(time_of(event))
            self._require_whole_transaction()
            yield Message(MessageKind.SHAPE, self._position, event, (FORMAT_TABLE,))
            return
        if self._checksum_bytes:
            event = event[: -self._checksum_bytes]
        if kind == EventType.ROTATE:
            # The first one is of the file that was asked for, maybe with a checksum behind its name.
            if self.is_continuous:
                self._rotate(event)
            return  # the next event says when this file was made
        if kind in {EventType.HEARTBEAT, EventType.HEARTBEAT_LONG}:
            self._advance(event)
        else:
            end = self._end_of(event)
            if kind == EventType.TRANSACTION_PAYLOAD:
                for inner in unpacked_transaction(event):
                    yield from self._take(inner, end)
            else:
                yield from self._take(event, end)
            self._offset = end
        if not self._is_inside and self._begin is None:
            self.received = max(self.received, self._position)

    def _take(self, event: bytes, end: int) -> Iterator[Message]:
        kind = event_type(event)
        if kind in ROWS:
            yield from self._rows(event)
        elif kind == EventType.TABLE_MAP:
            yield from self._table(event)
        elif kind in STATEMENTS:
            yield from self._query(event, end)
        elif kind == EventType.XID:
            yield from self._end(event, end)
        elif kind in {EventType.GTID, EventType.ANONYMOUS_GTID, EventType.GTID_TAGGED}:
            self._open(event)
            self._is_inside = False  # BEGIN comes, or a statement by itself
        elif kind == EventType.MARIADB_GTID:
            self._open(event)
            self._is_inside = not event[MARIADB_FLAGS_AT] & MARIADB_STANDALONE
            self._has_no_effect = is_alter_without_effect(event)
        elif kind == EventType.XA_PREPARE:
            yield from self._prepare(event, end)
        elif kind not in WITHOUT_ROWS and not is_ignorable(event):
            place = self._files.show(self._start_of(event))
            problem = (
                f"the server has lost a part of its binary log at {place} (INCIDENT)"
                if kind == EventType.INCIDENT
                else f"the binary log has an event of the unknown type {kind} at {place}"
            )
            raise SourceGoneError(problem, about=self._source, next_step=BASE_AGAIN)

    def _rows(self, event: bytes) -> Iterator[Message]:
        number = table_number(event)
        if self._maps.get(number) is not None:
            yield from self._change(event, (FORMAT_TABLE, number))

    def _table(self, event: bytes) -> Iterator[Message]:
        """Yield the shape of a table where it is another one than before."""
        number, body = table_number(event), event[HEADER_BYTES:]
        if number in self._maps and self._maps[number] == body:
            return
        table = read_table_map(event)
        is_ours = table.database == self._names.database and table.name not in self._apart
        self._maps[number] = body if is_ours else None
        if is_ours:
            yield Message(MessageKind.SHAPE, self._position, event, (number,))

    def _query(self, event: bytes, end: int) -> Iterator[Message]:
        query = read_query(event)
        word = plain_statement(query).rstrip("; ").upper()
        if word in {"BEGIN", "START TRANSACTION"} or word.startswith(("XA START ", "XA BEGIN ")):
            if self._begin is None:
                self._open(event)
            self._is_inside = True
        elif word == "COMMIT":
            yield from self._end(event, end)
        elif word.startswith((_XA_COMMIT, _XA_ROLLBACK)):
            yield from self._end_of_prepared(word, event, end)
        elif word == "ROLLBACK":
            if self._begun:
                yield from self._change(event)
            yield from self._end(event, end)
        else:
            statement = None if self._has_no_effect else read_statement(query, self._names)
            is_alone = not self._is_inside
            if statement is not None and not self._is_apart(statement.tables):
                if self._begin is None:
                    self._open(event)
                yield from self._change(event, (FORMAT_TABLE,))
            if is_alone:
                yield from self._end(event, end)

    def _is_apart(self, tables: Collection[str]) -> bool:
        """Tell whether a statement names tables, and only such that are not followed."""
        return bool(tables) and self._apart.issuperset(tables)

    def _open(self, event: bytes) -> None:
        self._begin, self._begun = Message(MessageKind.BEGIN, self._position, event), False

    def _change(self, event: bytes, tables: tuple[int, ...] = ()) -> Iterator[Message]:
        """Yield a change, and before the first of a transaction its beginning."""
        if not self._begun and self._begin is not None:
            yield self._begin
            self._begun = True
        yield Message(MessageKind.CHANGE, self._start_of(event), event, tables)

    def _end(self, event: bytes, end: int) -> Iterator[Message]:
        if self._begun:
            yield Message(MessageKind.COMMIT, make_position(self._file, end), event)
        self._begin, self._begun, self._is_inside = None, False, False

    def _prepare(self, event: bytes, end: int) -> Iterator[Message]:
        if not event[_ONE_PHASE_AT]:
            number, first, second = _XID.unpack_from(event, _ONE_PHASE_AT + 1)
            self._prepared.add(
                name_of_prepared(event[_ONE_PHASE_AT + 1 + _XID.size :], first, second, number)
            )
            if self._begun:
                yield from self._change(event)
        yield from self._end(event, end)

    def _end_of_prepared(self, word: str, event: bytes, end: int) -> Iterator[Message]:
        """Yield the end of a transaction in two phases. Where its rows lie before the base, its commit is a change.
        Where they only lie before what this stream reads, another stream has read them.
        """
        name = word.removeprefix(_XA_COMMIT).removeprefix(_XA_ROLLBACK)
        is_seen = name in self._prepared or self._begun or name.endswith(" ONE PHASE")
        is_older = self._prepared_before is None or name in self._prepared_before
        self._prepared.discard(name)
        if word.startswith(_XA_COMMIT) and is_older and not is_seen:
            if self._begin is None:
                self._open(event)
            yield from self._change(event)
        yield from self._end(event, end)

    def _rotate(self, event: bytes) -> None:
        offset = int.from_bytes(event[HEADER_BYTES : HEADER_BYTES + 8], "little")
        name = event[HEADER_BYTES + 8 :].split(b"\0")[0].decode(errors="replace")
        number = number_of(name)
        if number > self._file:
            self._file, self._offset = number, offset
            self._maps.clear()

    def _require_same_file(self, made_at: int) -> None:
        """Keep when the file that is read was made. Raises ``SourceGoneError`` where it is another one than before."""
        known = self._files_made.pop(self._file, made_at)
        if known != made_at:
            captured, present = (
                f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC" for at in (known, made_at)
            )
            name = self._files.name(self._file)
            raise put_back_error(
                self._source, f"its file {name} was made at {present}, the captured one at {captured}"
            )
        self._files_made = dict([*self._files_made.items(), (self._file, made_at)][-_FILES_KNOWN:])
        self.is_continuous = True

    def _require_whole_transaction(self) -> None:
        """Raise ``SourceGoneError`` where a file of the log has ended within a transaction."""
        if self._begun:
            raise SourceGoneError(
                "the server has lost the end of a transaction of its binary log before"
                f" {self._files.show(self._position)}, as by a crash: nobody can say whether its rows are there",
                about=self._source,
                next_step=BASE_AGAIN,
            )
        self._begin, self._is_inside = None, False

    def _advance(self, event: bytes) -> None:
        if not self._is_inside and self._begin is None:
            self._offset = max(self._offset, end_of_event(event))

    def _end_of(self, event: bytes) -> int:
        """Return where an event ends. The log says so modulo 2**32."""
        end = end_of_event(event)
        if end == 0:  # the server has made it for us
            return self._offset
        end += self._offset >> 32 << 32
        return end + 2**32 if end < self._offset - 2**31 else max(end, self._offset)

    def _start_of(self, event: bytes) -> int:
        return make_position(self._file, start_of_event(event) or self._offset)

    @property
    def _position(self) -> int:
        return make_position(self._file, self._offset)
