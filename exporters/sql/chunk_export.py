"""One chunk of rows: each block is counted, measured and written into Parquet parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Self

import pyarrow as pa
from msgspec.structs import asdict

from exporters import arrow_functions as pc
from exporters.api import Json, Outcome, Sink
from exporters.errors import SourceError
from exporters.row_digest import RowsDigest, digest_empty_rows, digest_pieces
from exporters.sql.columns import Layout, ParsedBlock, Typed
from exporters.sql.large_values.long_values import LongRow, LongValue, Spool, TypedRow
from exporters.sql.parquet_write import PartWriter
from exporters.sql.row_blocks import LongRowText
from exporters.sql.value_codec import rows_changed

_MEASURED_BLOCKS = 8
"""The texts of so many blocks are measured together: a call of Arrow costs more than the texts of one block."""


def chunk_outcome(
    digest: RowsDigest, text_bytes: int, parts: PartWriter, octets: Mapping[str, int], facts: Json
) -> Outcome:
    """Write what is left of a chunk. Return what it came to: its rows, the bytes of their text, and its facts, which
    are its files, the columns that needed a side column, the bytes of the columns that are kept as text or bytes
    (``octets``, by column), and ``facts`` of the engine.
    """
    own = {
        "parts": [asdict(part) for part in parts.finish()],
        "exact": list(parts.exact),
        "octets": dict(octets),
    }
    return Outcome(digest.rows, text_bytes, digest.digest, facts={**facts, **own})


def stem(spec: Json) -> str:
    """Return how the names of a unit's files begin."""
    return f"{spec['directory']}/part-{spec['chunk']:06d}"


class Octets:
    """Adds up the bytes of every column that is kept as text or bytes. The server adds up the same under the same
    snapshot, without our stream of rows. So the comparison finds a reader that drops, cuts or doubles something.
    """

    def __init__(self, layout: Layout) -> None:
        self._columns = [
            (position, field.name, side.name)
            for position, (field, side) in enumerate(zip(layout.fields, layout.sides, strict=True))
            if pa.types.is_string(field.type) or pa.types.is_binary(field.type)
        ]
        self._by_name = {name: 0 for _, name, _ in self._columns}
        self._blocks: list[Typed] = []

    def add(self, typed: Typed, long: Mapping[str, LongValue] | None = None) -> None:
        """Take a block of rows, or one with these ``long`` values, by name of field."""
        self._blocks.append(typed)
        if len(self._blocks) == _MEASURED_BLOCKS:
            self._measure()
        if long:
            for _, name, side in self._columns:
                self._by_name[name] += sum(long[field].size_bytes for field in (name, side) if field in long)

    def _measure(self) -> None:
        """Add up the bytes. A column with NULLs may have bytes behind them, so its values are measured one by one."""
        for position, name, _ in self._columns:
            columns = [typed.columns[position] for typed in self._blocks]
            columns += [typed.sides[position] for typed in self._blocks if position in typed.sides]
            whole = [values for values in columns if not values.null_count]
            self._by_name[name] += sum(int(values.view(pa.binary()).total_values_length) for values in whole)
            if len(whole) < len(columns):
                nullable = [values.view(pa.binary()) for values in columns if values.null_count]
                self._by_name[name] += pc.sum(pc.binary_length(pa.chunked_array(nullable))).as_py() or 0
        self._blocks.clear()

    def by_name(self) -> Mapping[str, int]:
        """Return the bytes of each column, by its name."""
        self._measure()
        return self._by_name


class ChunkExport:
    """Takes the rows of one chunk, and writes them into ``<stem>.parquet`` (and ``<stem>-1.parquet`` … where a block
    needs a side column that the file has not). ``spec`` is that of the unit. The files are open until ``finish``, or
    the context ends.
    """

    def __init__(self, layout: Layout, sink: Sink, spec: Json) -> None:
        self._layout = layout
        self._parts = PartWriter(layout, sink, stem(spec))
        self._text_bytes = 0
        self._digest = RowsDigest()
        self._octets = Octets(layout)

    def add(self, block: ParsedBlock) -> None:
        """Take a block of rows. Raises ``SourceError`` where its rows are not as many as its lines."""
        typed, digest = block.typed, block.digest
        if typed.rows != digest.rows:
            raise SourceError(
                f"{digest.rows} lines were parsed as {typed.rows} rows",
                next_step="please report the table's definition",
            )
        self._text_bytes += block.text_bytes
        self._digest += digest
        self._octets.add(typed)
        self._parts.add(typed, block.text_bytes)

    def add_long(
        self,
        text: LongRowText,
        read: Callable[[Iterator[bytes], Layout, Spool], TypedRow],
        render: Callable[[LongRow], Iterator[bytes]],
    ) -> None:
        """Take a row with long values. ``read`` parses the pieces of its text, ``render`` returns them again. Raises
        ``SourceError`` unless both texts are the same.
        """
        with Spool() as spool:
            row = read(text.pieces, self._layout, spool)
            batch = self._layout.batch(row.typed)
            digest = digest_pieces(render(LongRow(batch, row.long)))
            if digest.digest != row.digest:
                raise rows_changed()
            self._text_bytes += row.text_bytes
            self._digest += digest
            self._octets.add(row.typed, row.long)
            self._parts.add_long(row.typed, row.long)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._parts.__exit__(kind, error, trace)

    def finish(self, facts: Json, sent_rows: int | None = None) -> Outcome:
        """Write what is left. Return what it came to, with more ``facts`` of its engine. Raises ``SourceError`` unless
        as many rows came as the server says it sent, where it says so. Rows without columns are only counted here.
        """
        if sent_rows is not None:
            if not self._layout.columns:
                self._parts.add_empty_rows(sent_rows)
                self._digest = digest_empty_rows(sent_rows)
            if self._digest.rows != sent_rows:
                raise SourceError(
                    f"{self._parts.stem}: the server sent {sent_rows} rows, {self._digest.rows} arrived",
                    next_step="run the same command again; if it stays so, please report it",
                )
        return chunk_outcome(self._digest, self._text_bytes, self._parts, self._octets.by_name(), facts)
