"""Small parts as COPY takes them, made while the server is still busy with the definitions.

A part is prepared for a table that is as at the source. Whether it is shows only when the rows are written: where it is
not, the part is read anew.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from exporters.postgres.large_objects import NUMBER
from exporters.postgres.rows.parquet_read import blocks_of
from exporters.sql.columns import TYPE
from exporters.sql.parquet_read import READ_ERRORS, ParquetPart, column_names, open_part
from migrate.bundle.reader import BundleReader
from migrate.errors import MoveoutError
from migrate.restore.common.table_parts import PartFile
from migrate.restore.postgres.rows import copy_binary
from migrate.restore.postgres.rows.source_charset import encoding_of

BINARY = "FORMAT binary"
ENCODING = "UTF8"
CSV = f"FORMAT csv, ENCODING '{ENCODING}'"
_SMALL_BYTES = 256 * 2**10
_ALL_BYTES = 16 * 2**20
"""A part with no more text is prepared, and so much of all of them."""


@dataclass(frozen=True, slots=True)
class PreparedPart:
    """The rows of a part. ``types`` of its columns, by name, for which ``options`` of COPY hold; ``blocks``: what to
    send, and the number of rows in it.
    """

    types: Mapping[str, str]
    options: str
    blocks: Sequence[tuple[bytes, int]]

    def fits(self, types: Mapping[str, str], encoding: str) -> bool:
        """Tell whether a table with columns of these types takes it, where text is copied in ``encoding``."""
        same = all(types.get(name) == declared for name, declared in self.types.items())
        return encoding == ENCODING and (self.options == CSV or same)


class PreparedParts:
    """Parts that wait to be written, by name. Each is handed out once."""

    def __init__(self, reader: BundleReader) -> None:
        self._reader = reader
        self._parts: dict[str, PreparedPart] = {}
        self._stop = threading.Event()

    def take(self, part: PartFile) -> PreparedPart | None:
        """Return a part that is prepared, None for all others."""
        return self._parts.pop(part.name, None)

    @contextmanager
    def filled(self, parts: Sequence[PartFile]) -> Iterator[None]:
        """Prepare small ones of these parts by a thread, the smallest first, as long as the caller does something
        else.
        """
        small = [part for part in parts if part.size_bytes <= _SMALL_BYTES and part.table.number != NUMBER]
        small.sort(key=lambda part: part.size_bytes)
        thread = threading.Thread(target=self._fill, args=(small,), name="moveout-prepare")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _fill(self, parts: Sequence[PartFile]) -> None:
        size_bytes = 0
        for part in parts:
            size_bytes += part.size_bytes
            if self._stop.is_set() or size_bytes > _ALL_BYTES:
                return
            with suppress(*READ_ERRORS, MoveoutError):  # the writer reads it again, and reports the error
                prepared = _prepare(open_part(self._reader.open(part.key)))
                if prepared is not None:
                    self._parts[part.name] = prepared


def _prepare(file: ParquetPart) -> PreparedPart | None:
    """Return the rows of a file, None where more of the destination than its types must be known."""
    schema = file.schema_arrow
    names = column_names(file, generated=True)
    if not names or names != column_names(file, generated=False) or encoding_of(schema):
        return None
    types = {name: schema.field(name).metadata[TYPE].decode() for name in names}
    encode = copy_binary.encoder_of(schema, types)
    if encode is None:
        return PreparedPart(types, CSV, list(blocks_of(file, generated=False)))
    return PreparedPart(types, BINARY, list(copy_binary.blocks_of(file, encode)))
