"""Small parts as COPY takes them, made while the server is still busy with the definitions.

A part is prepared for a table that is as at the source. Whether it is shows only when the rows are written: where it is
not, the part is read anew.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

import pyarrow as pa
from msgspec import Struct

from exporters.postgres.large_objects import NUMBER
from exporters.postgres.rows.csv_rows import blocks_together
from exporters.sql.columns import EXACT_OF, GENERATED, TYPE
from exporters.sql.large_values.long_values import LongRow
from exporters.sql.parquet_read import READ_ERRORS, ParquetPart, open_part, rows_of
from migrate.bundle.reader import BundleReader
from migrate.errors import MoveoutError
from migrate.restore.common.table_parts import PartFile, batches_of
from migrate.restore.postgres.rows import copy_binary

BINARY = "FORMAT binary"
ENCODING = "UTF8"
CSV = f"FORMAT csv, ENCODING '{ENCODING}'"
_SMALL_BYTES = 256 * 2**10
_ALL_BYTES = 16 * 2**20
"""A part with no more text is prepared, and so much of all of them."""
_TOGETHER = 64
"""How many parts at most, with no more text than one part may have, are made together."""


class PreparedPart(Struct, frozen=True):
    """What to send of a part, by ``options`` of COPY; it holds for columns of these ``types``, by name."""

    types: Mapping[str, str]
    options: str
    data: bytes
    rows: int


class PreparedParts:
    """Parts that wait to be written, by name. Each is handed out once."""

    def __init__(self, reader: BundleReader) -> None:
        self._reader = reader
        self._parts: dict[str, PreparedPart] = {}

    def take(self, part: PartFile, types: Mapping[str, str], encoding: str) -> PreparedPart | None:
        """Return a part prepared for columns of these types, where text is copied in ``encoding``; else None."""
        prepared = self._parts.pop(part.name, None)
        if prepared is None or encoding != ENCODING:
            return None
        same = all(types.get(name) == declared for name, declared in prepared.types.items())
        return prepared if same or prepared.options == CSV else None

    def prepare(self, parts: Sequence[PartFile]) -> None:
        """Prepare those parts that are small and not prepared yet. What cannot be read is left to the writer."""
        opened = {
            part.name: rows
            for part in parts
            if _is_small(part) and part.name not in self._parts and (rows := self._read(part)) is not None
        }
        with suppress(*READ_ERRORS):
            self._parts.update(zip(opened, _encoded(list(opened.values())), strict=True))

    def fill(self, parts: Sequence[PartFile], stop: threading.Event) -> None:
        """Prepare small ones of these parts, the smallest first, until ``stop`` is set."""
        small = sorted(filter(_is_small, parts), key=lambda part: part.size_bytes)
        size_bytes = 0
        for batch in batches_of(small, size_bytes=_SMALL_BYTES, count=_TOGETHER):
            size_bytes += sum(part.size_bytes for part in batch)
            if stop.is_set() or size_bytes > _ALL_BYTES:
                return
            self.prepare(batch)

    def _read(self, part: PartFile) -> _Rows | None:
        """Return the rows of a part; None where it cannot be read, or needs more than the destination's types."""
        with suppress(*READ_ERRORS, MoveoutError):
            return _rows_of(open_part(pa.BufferReader(self._reader.read(part.key))))
        return None


class _Rows(Struct, frozen=True):
    """The rows of a part with the types of its columns. ``encoder``: None where they go as CSV."""

    types: Mapping[str, str]
    encoder: copy_binary.Encoder | None
    batches: Sequence[pa.RecordBatch]


def _rows_of(file: ParquetPart) -> _Rows | None:
    schema = file.schema_arrow
    metadata = [field.metadata for field in schema]
    if not metadata or any(key in entries for entries in metadata for key in (EXACT_OF, GENERATED)):
        return None
    batches = list(rows_of(file))
    if any(isinstance(batch, LongRow) for batch in batches):
        return None
    types = {field.name: entries[TYPE].decode() for field, entries in zip(schema, metadata, strict=True)}
    return _Rows(types, copy_binary.encoder_of(schema, types), batches)


def _encoded(parts: Sequence[_Rows]) -> list[PreparedPart]:
    """Return the parts as COPY takes them, made together."""
    binary = [(rows.encoder, batch) for rows in parts if rows.encoder for batch in rows.batches]
    lines = [batch for rows in parts if rows.encoder is None for batch in rows.batches]
    in_binary, in_lines = iter(copy_binary.blocks_together(binary)), iter(blocks_together(lines))
    prepared = []
    for rows in parts:
        texts = [next(in_binary if rows.encoder else in_lines) for _ in rows.batches]
        count = sum(batch.num_rows for batch in rows.batches)
        if rows.encoder is None:
            prepared.append(PreparedPart(rows.types, CSV, b"".join(texts), count))
        else:
            prepared.append(PreparedPart(rows.types, BINARY, copy_binary.with_header(texts), count))
    return prepared


def _is_small(part: PartFile) -> bool:
    return part.size_bytes <= _SMALL_BYTES and part.table.number != NUMBER
