"""A Parquet file whose row groups are larger than what is held of their rows.

What is taken is encoded and compressed a piece at a time, and its pages wait for the end of the row group. A column
with a dictionary has one for the whole group, so there the values wait, in the smallest form. A file of one piece is
written by Arrow alone: to read footers and put them together costs more than all else of a small file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from exporters.sql.large_values.long_values import Spooled
from exporters.sql.large_values.parquet_footer import Chunk, groups_of, merged, order_of
from exporters.sql.large_values.parquet_splice import Sequential, SplicedFile
from exporters.sql.parquet_encoding import encoded, small_type, with_few_values
from exporters.sql.parquet_read import leaves_of

_LEAST_ROWS = 1_000
"""In a file of fewer rows a dictionary saves nothing that is worth the search for few values."""


class GroupedFile:
    """Writes one file. Whoever calls closes the stream, after ``finish``."""

    def __init__(self, stream: Sequential, schema: pa.Schema) -> None:
        self._stream = stream
        self._schema = schema
        self._single: pa.Table | None = None
        self._groups: _Groups | None = None

    @property
    def held_bytes(self) -> int:
        """What the row group that is open takes of memory."""
        if self._groups is not None:
            return self._groups.held_bytes
        return 0 if self._single is None else int(self._single.nbytes)

    def write(self, table: pa.Table) -> None:
        """Take rows into the row group that is open."""
        if not table.num_rows:
            return
        if self._single is None and self._groups is None:
            self._single = table
        else:
            self._grouped().write(table)

    def write_long(self, row: pa.Table, long: Mapping[str, Spooled]) -> None:
        """Write a row group of one row whose values of these columns are long, and empty in ``row``."""
        self._grouped().write_long(row, long)

    def end_group(self) -> None:
        """Write the row group, if there are rows; then another one is open."""
        self._grouped().end_group()

    def finish(self) -> None:
        """Write what is left, and the footer."""
        if self._groups is not None:
            self._groups.finish()
            return
        table = _empty(self._schema) if self._single is None else self._single
        few = with_few_values(table) if table.num_rows >= _LEAST_ROWS else []
        self._stream.write(encoded(table, dictionaries=few))

    def _grouped(self) -> _Groups:
        if self._groups is None:
            self._groups = _Groups(self._stream, self._schema)
            if self._single is not None:
                self._groups.write(self._single)
                self._single = None
        return self._groups


class _Groups:
    """Row groups that are put together from pieces."""

    def __init__(self, stream: Sequential, schema: pa.Schema) -> None:
        empty = encoded(_empty(schema))
        self._file = SplicedFile(stream, empty)
        self._schema = schema
        self._leaves = leaves_of(schema)
        columns = pq.ParquetFile(pa.BufferReader(empty)).schema
        self._orders = [order_of(columns.column(leaf)) for leaf in range(len(columns))]
        self._begin()

    def _begin(self) -> None:
        self._rows = 0
        self._many: list[str] = []
        self._pages: dict[int, list[Chunk]] = {}
        self._values: dict[str, pa.ChunkedArray] = {}
        self.held_bytes = 0

    def write(self, table: pa.Table) -> None:
        if not self._rows:
            few = with_few_values(table)
            self._many = [name for name in table.column_names if name not in few]
            self._values = {name: pa.chunked_array([], small_type(table.column(name).type)) for name in few}
        self._rows += table.num_rows
        for leaf, chunk in self._chunks(encoded(table.select(self._many)), self._many):
            self._pages.setdefault(leaf, []).append(chunk)
            self.held_bytes += sum(map(len, chunk.pages))
        for name, kept in self._values.items():
            values = table.column(name)
            small = values if values.type == kept.type else values.cast(kept.type)
            self._values[name] = pa.chunked_array([*kept.chunks, *small.chunks], kept.type)
            self.held_bytes += small.nbytes

    def write_long(self, row: pa.Table, long: Mapping[str, Spooled]) -> None:
        self.end_group()
        chunks = [chunk for _, chunk in self._chunks(encoded(row, plain=long), row.column_names)]
        self._file.add(1, chunks, {self._leaves[name][0]: value for name, value in long.items()})

    def end_group(self) -> None:
        if self._rows:
            chunks = {leaf: merged(pages, self._orders[leaf]) for leaf, pages in self._pages.items()}
            fields = [self._schema.field(name).with_type(kept.type) for name, kept in self._values.items()]
            few = pa.Table.from_arrays(list(self._values.values()), schema=pa.schema(fields))
            chunks |= self._chunks(encoded(few, dictionaries=few.column_names), self._values)
            self._file.add(self._rows, [chunks[leaf] for leaf in sorted(chunks)])
        self._begin()

    def _chunks(self, file: pa.Buffer, names: Iterable[str]) -> Iterable[tuple[int, Chunk]]:
        """Yield the chunks of a file of one row group, each with the number of its leaf in ours."""
        leaves = [leaf for name in names for leaf in self._leaves[name]]
        for _, chunks in groups_of(file):
            yield from zip(leaves, chunks, strict=True)

    def finish(self) -> None:
        self.end_group()
        self._file.finish()


def _empty(schema: pa.Schema) -> pa.Table:
    """Return a table without rows; ``Schema.empty_table`` refuses lists of extension types."""
    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
