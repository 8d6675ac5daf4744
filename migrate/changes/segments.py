"""Segments: the files in which the changes of a source lie next to a bundle.

``changes/<source>/<base>/`` holds them, ``<base>`` being the position of the snapshot as 16 hex digits. A segment is a
file of messages, ``<number>-<hash>.zst``, and its commit record, ``<number>.json``; numbers count from 1. The record is
written last, so what has a record is whole. ``docs/FORMAT.md`` specifies both.

A transaction may go over several segments. Where the reading of the log broke off within one, the server sends that
transaction again from its beginning. So a record says after which message its own messages come (``after``): what lies
between does not count.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from exporters.changes import Message, MessageKind
from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout
from migrate.errors import DamageError, GoneError, MoveoutError, UnreachableError, decoding
from migrate.storage.api import Store

VERSION = 1
_IDLE = "idle"

_FRAME = struct.Struct("<BQI")
"""Kind, position, and length of the payload, which follows."""
_POSITIONS = 2**63
_KINDS = {int(kind): kind for kind in MessageKind}
_ZSTD_LEVEL = 1
_LARGEST_BYTES = 2**31 + 2**24
"""No segment has more: it ends with the first message after a few megabytes, and no server sends a larger one. So what
a changed file would grow to is never taken into memory.
"""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def is_time(text: str) -> bool:
    """Tell whether a text is a time as ``_now`` writes it, or "" for none."""
    try:
        return not text or datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


class Place(NamedTuple):
    """A message by the number of its segment and its own within it, both from 1. (0, 0) is before the first."""

    segment: int
    message: int


START = Place(0, 0)


class SegmentRecord(Struct, frozen=True):
    """The commit record of a segment.

    ``messages`` and ended ``transactions`` that it holds. ``position``: everything that was committed before it lies in
    this segment or those before. ``after``: the message before this segment's first. ``boundary``: the last message
    that ended a transaction. ``previous``: SHA-256 of the record before, "" for the first. ``written``: UTC, ISO 8601.
    """

    number: int
    messages: int
    transactions: int
    position: int
    after: Place
    boundary: Place
    size_bytes: int
    raw_bytes: int
    sha256: str
    previous: str
    written: str
    version: int = VERSION

    @property
    def is_possible(self) -> bool:
        """Whether its numbers and places fit together, as far as it says itself."""
        sizes = self.messages, self.transactions, self.size_bytes, self.raw_bytes
        places = self.after, self.boundary
        return (
            min(sizes) >= 0
            and max(self.size_bytes, self.raw_bytes) <= _LARGEST_BYTES
            and 0 <= self.position < _POSITIONS
            and all(START <= place <= Place(self.number, self.messages) for place in places)
            and self.after.segment < self.number
            and re.fullmatch("[0-9a-f]{64}", self.sha256) is not None
            and is_time(self.written)
        )


class _Idle(NamedTuple):
    """Up to which position nothing came after the newest segment, what the log is known by, and when that was so."""

    position: int = 0
    origin: str = ""
    written: str = ""


class StoredMessage(NamedTuple):
    """A message, and where it lies."""

    place: Place
    message: Message


_STEP_WITHOUT_FOLDER = (
    "mount it, or name the location to which the export went; where moveout clean --changes has removed it, moveout"
    " export --follow to another location begins anew"
)


class WithdrawnError(MoveoutError):
    """Messages that a reader has returned do not count any more: the transaction was interrupted, and comes again."""


class SegmentFolder:
    """The segments of one source after one base. One writer at a time; any number of readers."""

    def __init__(self, store: Store, source: str, base: int) -> None:
        self._store = store
        self._source = source
        self._prefix = f"{folder(source)}{base:016x}/"

    def begin(self) -> None:
        """Make the folder. Raises errors of the location."""
        self._put_idle(_Idle())

    def require_begun(self) -> None:
        """Raise ``UnreachableError`` where the folder is not at the location, as where a disk is not mounted: what was
        written there would be lost when the disk is back.
        """
        try:
            self._store.stat(self._prefix + _IDLE)
        except GoneError as exc:
            if next(iter(self._store.list(self._prefix)), None) is None:
                raise UnreachableError(
                    f"{self._store.location} has no folder {self._prefix}",
                    next_step=_STEP_WITHOUT_FOLDER,
                ) from exc

    def records(self, after: int = 0) -> Iterator[SegmentRecord]:
        """Yield the records of the segments after the number ``after``, in order. Raises ``DamageError`` for one that
        is not the successor of the one before.
        """
        previous = hashlib.sha256(self._needed(after)).hexdigest() if after else ""
        while (data := self._record_bytes(after + 1)) is not None:
            after += 1
            record = self._parse(after, data)
            if record.previous != previous:
                key = self._record_key(after)
                raise DamageError(
                    key, expected=f"the successor of {previous}", found=f"that of {record.previous}"
                )
            previous = hashlib.sha256(data).hexdigest()
            yield record

    def record(self, number: int) -> SegmentRecord:
        """Return the record of a segment that exists. Raises ``DamageError``."""
        return self._parse(number, self._needed(number))

    def last(self) -> SegmentRecord | None:
        """Return the newest record, None where there is none. Raises ``DamageError``, also where one before it is gone:
        readers would take that for the end.
        """
        keys = [info.key for info in self._store.list(self._prefix) if info.key.endswith(".json")]
        for number, key in enumerate(keys, 1):
            if key != self._record_key(number):
                raise self._no_record(number)
        return self._parse(len(keys), self._needed(len(keys))) if keys else None

    def read(self, record: SegmentRecord) -> Iterator[Message]:
        """Yield the messages of a segment. Raises ``DamageError``, ``GoneError``."""
        key = self._segment_key(record.number, record.sha256)
        try:
            data = self._store.read(key, 0, record.size_bytes + 1)
        except GoneError:
            self.require_begun()
            raise
        if (actual := hashlib.sha256(data).hexdigest()) != record.sha256:
            raise DamageError(key, expected=f"sha256 {record.sha256}", found=actual)
        try:
            raw = _codec().decompress(data, record.raw_bytes, asbytes=True)
        except (OSError, ValueError, MemoryError) as exc:
            raise DamageError(key, expected=f"{record.raw_bytes} bytes in zstd", found=str(exc)) from exc
        kinds, frame, frame_bytes, size_bytes, end = _KINDS, _FRAME.unpack_from, _FRAME.size, len(raw), 0
        count = 0
        while end < size_bytes:
            try:
                kind, position, length = frame(raw, end)
                message_kind = kinds[kind]
            except (struct.error, KeyError) as exc:
                raise DamageError(key, expected=f"a message at byte {end}", found="something else") from exc
            start = end + frame_bytes
            end = start + length
            if end > size_bytes:
                break
            count += 1
            yield Message(message_kind, position, raw[start:end])
        if count != record.messages or end != size_bytes:
            found = f"{count}, of which the last is cut off" if end != size_bytes else f"{count}"
            raise DamageError(key, expected=f"{record.messages} messages", found=found)

    def unreadable(self, number: int, error: Exception) -> DamageError:
        """Return the error for a segment whose messages are none of a log."""
        key = self._segment_key(number, self.record(number).sha256)
        found = str(error) if isinstance(error, MoveoutError) else f"something else ({error!r})"
        return DamageError(key, expected="messages of the source's log", found=found)

    def write(
        self, messages: Sequence[Message], last: SegmentRecord | None, after: Place, position: int
    ) -> SegmentRecord:
        """Write the segment that follows ``last``; durable when this returns. ``after`` and ``position`` are those of
        the record. Raises ``AlreadyExistsError`` where another writer was faster, ``UnreachableError`` where the folder
        is away.
        """
        if last is None:
            self.require_begun()
        number = last.number + 1 if last else 1
        raw = b"".join(
            _FRAME.pack(message.kind, message.position, len(message.payload)) + message.payload
            for message in messages
        )
        data = _codec().compress(raw, asbytes=True)
        ends = [index for index, message in enumerate(messages, 1) if message.kind is MessageKind.COMMIT]
        record = SegmentRecord(
            number=number,
            messages=len(messages),
            transactions=len(ends),
            position=position,
            after=after,
            boundary=Place(number, ends[-1]) if ends else (last.boundary if last else START),
            size_bytes=len(data),
            raw_bytes=len(raw),
            sha256=hashlib.sha256(data).hexdigest(),
            previous=hashlib.sha256(self._needed(last.number)).hexdigest() if last else "",
            written=_now(),
        )
        self._store.put(self._segment_key(number, record.sha256), data, sha256=record.sha256)
        encoded = canonical_json.encode(as_dict(record))
        self._store.create(self._record_key(number), encoded)
        self._require_written(last, record, encoded)
        return record

    def _require_written(self, last: SegmentRecord | None, record: SegmentRecord, encoded: bytes) -> None:
        """Raise ``UnreachableError`` where the folder was away while a segment was written: a directory is made anew
        then, and what lies there is lost when the disk is back. First what was there before is looked for, then what
        was written: a disk that has come back meanwhile lacks the latter.
        """
        try:
            self._store.stat(self._record_key(last.number) if last else self._prefix + _IDLE)
            if self._record_bytes(record.number) == encoded:
                return
        except GoneError:
            self._store.delete_all(
                [self._record_key(record.number), self._segment_key(record.number, record.sha256)]
            )
        raise self._away("written")

    def _away(self, done: str) -> UnreachableError:
        return UnreachableError(
            f"{self._store.location}: the folder {self._prefix} was away while a segment was {done}",
            next_step=_STEP_WITHOUT_FOLDER,
        )

    def idle_position(self) -> int:
        """Return up to which position nothing came after the newest segment, 0 where that was not written."""
        return self._idle().position

    def written(self) -> str:
        """Return when the capture last had all that the source had sent, UTC, ISO 8601; "" where that is not known."""
        last, idle = self.last(), self._idle()
        return max(last.written if last else "", idle.written)

    def origin(self) -> str:
        """See ``exporters.changes.CapturedChanges``. Raises ``UnreachableError`` where the folder is away: what was
        kept is not known then, and a log that is taken for the captured one may be another one.
        """
        origin = self._idle().origin
        if not origin:
            self.require_begun()
            origin = self._idle().origin
        return origin

    def begins(self, after: int, until: int) -> Iterator[Message]:
        """See ``exporters.changes.CapturedChanges``. Raises ``DamageError``, ``GoneError``; ``UnreachableError`` where
        the folder is away, before or meanwhile: what is not read then is not missing.
        """
        last = self.last()
        self.require_begun()
        number = last.number if last else 0
        while number and self.record(number).position > after:
            number -= 1
        begin: Message | None = None
        reader = SegmentReader(self, self.record(number).boundary if number else START)
        for stored in reader.read():
            message = stored.message
            if message.kind is MessageKind.BEGIN:
                begin = message
            elif message.kind is MessageKind.COMMIT and begin and after < message.position <= until:
                yield begin
        if last and reader.boundary < last.boundary:
            raise self._away("read")

    def write_idle_position(self, position: int, origin: str = "", *, is_all: bool = False) -> None:
        """Write that nothing came after the newest segment up to ``position``, and what the log is known by.
        ``is_all``: the source has sent no more until now. Raises ``UnreachableError`` where the folder is away.
        """
        self.require_begun()
        self._put_idle(_Idle(position, origin, _now() if is_all else ""))

    def _idle(self) -> _Idle:
        key = self._prefix + _IDLE
        try:
            value = canonical_json.decode(self._store.read(key), key)
        except GoneError:
            return _Idle()
        canonical_json.check_version(value, key, VERSION)
        position, texts = value.get("position"), [value.get(name, "") for name in ("origin", "written")]
        if (
            not isinstance(position, int)
            or not 0 <= position < _POSITIONS
            or not all(isinstance(text, str) for text in texts)
            or not is_time(texts[1])
        ):
            raise DamageError(key, expected="a position", found="something else")
        return _Idle(position, *texts)

    def _put_idle(self, idle: _Idle) -> None:
        texts = {name: text for name, text in (("origin", idle.origin), ("written", idle.written)) if text}
        value = {"version": VERSION, "position": idle.position} | texts
        self._store.put(self._prefix + _IDLE, canonical_json.encode(value))

    def remove_others(self) -> None:
        """Remove all segments of this source that came after other bases, the newest first."""
        keys = [
            info.key
            for info in self._store.list(folder(self._source))
            if not info.key.startswith(self._prefix)
        ]
        self._store.delete_all(keys[::-1])

    def _record_bytes(self, number: int) -> bytes | None:
        try:
            return self._store.read(self._record_key(number))
        except GoneError:
            return None

    def _needed(self, number: int) -> bytes:
        data = self._record_bytes(number)
        if data is None:
            self.require_begun()
            raise self._no_record(number)
        return data

    def _no_record(self, number: int) -> DamageError:
        return DamageError(self._record_key(number), expected="the record of a segment", found="nothing")

    def _parse(self, number: int, data: bytes) -> SegmentRecord:
        key = self._record_key(number)
        value: dict[str, Any] = canonical_json.decode(data, key)
        canonical_json.check_version(value, key, VERSION)
        with decoding(key, "the record of a segment"):
            record = msgspec.convert(value, SegmentRecord)
        if record.number != number:
            raise DamageError(
                key, expected=f"the record of segment {number}", found=f"that of {record.number}"
            )
        if not record.is_possible:
            raise DamageError(key, expected="numbers and places that fit together", found="others")
        return record

    def _segment_key(self, number: int, sha256: str) -> str:
        return f"{self._prefix}{number:010d}-{sha256[:16]}.zst"

    def _record_key(self, number: int) -> str:
        return f"{self._prefix}{number:010d}.json"


class SegmentReader:
    """Reads the messages of a folder in order, from a place between two transactions, as they are written.
    ``boundary``: the last message, as far as is known, that ends a transaction.
    """

    def __init__(self, folder: SegmentFolder, after: Place = START) -> None:
        self._folder = folder
        self._place = self.boundary = after
        self._loaded = max(after.segment - 1, 0)

    def read(self) -> Iterator[StoredMessage]:
        """Yield what lies there and was not returned yet, see ``read_segments``."""
        for segment, messages in self.read_segments():
            for number, message in messages:
                yield StoredMessage(Place(segment, number), message)

    def read_segments(self) -> Iterator[tuple[int, Iterator[tuple[int, Message]]]]:
        """Yield the number of each segment that lies there and was not returned yet, with its messages and their
        numbers. Shapes may come again. The last transaction may be unfinished. Raises ``WithdrawnError`` where messages
        that were returned do not count any more: then read again, by a new reader, from the last transaction that was
        kept; ``DamageError``, ``GoneError``.
        """
        fresh = list(self._folder.records(self._loaded))
        self._loaded += len(fresh)
        ends = _counted(fresh)
        if fresh:
            self.boundary = fresh[-1].boundary
        for record in fresh:
            if record.after < self._place and record.number > self._place.segment:
                raise WithdrawnError(f"segment {record.number} repeats a transaction from {record.after} on")
        for record in fresh:
            if Place(record.number, ends[record.number]) <= self._place:
                continue
            returned = self._place.message if record.number == self._place.segment else 0
            self._place = Place(record.number, ends[record.number])
            yield record.number, self._messages(record, returned)

    def _messages(self, record: SegmentRecord, returned: int) -> Iterator[tuple[int, Message]]:
        """Yield those messages of a segment that count and were not returned yet, and the shapes before them."""
        numbered = enumerate(islice(self._folder.read(record), self._place.message), 1)
        for number, message in islice(numbered, returned):
            if message.kind is MessageKind.SHAPE:
                yield number, message
        yield from numbered


def _counted(records: Sequence[SegmentRecord]) -> dict[int, int]:
    """Return how many messages of each segment count."""
    counted: dict[int, int] = {}
    for record in records:
        for number in [number for number in counted if number >= record.after.segment]:
            counted[number] = (
                min(counted[number], record.after.message) if number == record.after.segment else 0
            )
        counted[record.number] = record.messages
    return counted


def _codec() -> Any:
    import pyarrow as pa  # noqa: PLC0415  a third of a second of a start, and few commands follow

    return pa.Codec("zstd", compression_level=_ZSTD_LEVEL)


def folder(source: str) -> str:
    """Return the prefix of everything that is kept of a source's changes: ``changes/<source>/``."""
    return f"{layout.CHANGES}{source}/"
