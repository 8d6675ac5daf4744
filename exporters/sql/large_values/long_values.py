"""Values so long that they are never whole in memory: kept in pieces, compressed, in an unnamed temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Protocol, Self

import pyarrow as pa
from msgspec import Struct, field
from msgspec.structs import replace

from exporters.sql.columns import Layout, Typed

LONG_BYTES = 8 * 2**20
"""A row whose text is longer is read in pieces: whole, the text of a row is held several times over."""
SHORT_BYTES = 64 * 2**10
"""A value of such a row that is no longer is held as all others are."""
PIECE_BYTES = 2**20
CODEC = "zstd"


class LongValue(Protocol):
    """A value that can be read in pieces, any number of times."""

    @property
    def size_bytes(self) -> int:
        """Its length."""
        ...

    def pieces(self) -> Iterator[bytes]:
        """Yield it from the beginning."""
        ...


class LongRow(Struct, frozen=True):
    """A row. ``batch`` is this one row, with an empty value in place of each long one; ``long``: these, by the name of
    their field.
    """

    batch: pa.RecordBatch
    long: Mapping[str, LongValue]


def batch_of(rows: pa.RecordBatch | LongRow) -> pa.RecordBatch:
    """Return rows without long values."""
    return rows.batch if isinstance(rows, LongRow) else rows


class Spooled(Struct, frozen=True):
    """A value in a spool: its bytes, and where its frames lie there."""

    size_bytes: int
    _spool: Spool
    _frames: tuple[tuple[int, int, int], ...]

    def pieces(self) -> Iterator[bytes]:
        """See ``LongValue``."""
        codec = pa.Codec(CODEC)
        for (_, _, size), frame in zip(self._frames, self.frames(), strict=True):
            yield codec.decompress(frame, size, asbytes=True)

    def frames(self) -> Iterator[bytes]:
        """Yield it compressed: frames that may stand one after the other (RFC 8878, 3.1)."""
        for start, size, _ in self._frames:
            yield self._spool.read(start, size)

    @property
    def compressed_bytes(self) -> int:
        """The length of its frames."""
        return sum(size for _, size, _ in self._frames)


class TypedRow(Struct, frozen=True):
    """A row as it was read: typed, with an empty value in place of each long one; ``long`` by name of field; the digest
    of its text, and its length.
    """

    typed: Typed
    long: Mapping[str, Spooled]
    digest: int
    text_bytes: int


def typed_row(
    typed: Typed, layout: Layout, values: Iterable[tuple[Spooled | None, bool]], digest: int, text_bytes: int
) -> TypedRow:
    """Return a row of its typed short values, and of its long ones in the order of the columns (None: a short one).
    Each long one says whether it is exact text for the side column.
    """
    long: dict[str, Spooled] = {}
    sides = dict(typed.sides)
    for i, (spooled, is_side) in enumerate(values):
        if spooled is None:
            continue
        field = layout.fields[i]
        if is_side:
            field = layout.sides[i]
            sides[i] = pa.array([""]).cast(field.type)
        long[field.name] = spooled
    return TypedRow(replace(typed, sides=sides), long, digest, text_bytes)


class Spool:
    """The long values of one row, written one after the other. Closing it deletes them."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="moveout-")  # noqa: SIM115  closed by ``close``
        self._end = 0

    def read(self, start: int, size: int) -> bytes:
        """Return what lies there."""
        return os.pread(self._file.fileno(), size, start)

    def write(self, frame: bytes) -> int:
        """Add a frame; return where it begins."""
        start = self._end
        self._file.write(frame)
        self._end += len(frame)
        return start

    def keep(self, pieces: Iterable[bytes]) -> Spooled:
        """Take a value."""
        value = Writer(self)
        for piece in pieces:
            value.write(piece)
        return value.close()

    def close(self) -> None:
        """Free the room."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Writer(Struct):
    """Takes one value for a spool."""

    spool: Spool
    size_bytes: int = 0
    _pending: bytearray = field(default_factory=bytearray)
    _frames: list[tuple[int, int, int]] = field(default_factory=list)

    def write(self, piece: bytes | memoryview) -> None:
        """Take more of it."""
        self._pending += piece
        self.size_bytes += len(piece)
        if len(self._pending) >= PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        frame = pa.Codec(CODEC, 1).compress(self._pending, asbytes=True)
        self._frames.append((self.spool.write(frame), len(frame), len(self._pending)))
        self._pending = bytearray()

    def close(self) -> Spooled:
        """Return what was written."""
        if self._pending:
            self._flush()
        self.spool._file.flush()  # noqa: SLF001  it is read past the file object
        return Spooled(self.size_bytes, self.spool, tuple(self._frames))
