"""A chunk's rows into Parquet parts, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from exporters.relational.layout import Typed
from exporters.relational.parquet import batches_of, open_part
from exporters.sqlite.catalog import Table
from exporters.sqlite.rows import Batch
from exporters.sqlite.typed import arrow_type, from_typed, to_typed
from exporters.sqlite.values import Column, tally_columns
from exporters.tally import Tally

READ_ERRORS: tuple[type[Exception], ...] = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)
"""What a damaged part can raise."""

_KIND, _EXACT_OF, _ROWID = b"moveout.kind", b"moveout.exact_of", b"moveout.rowid"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table lies in Parquet: a field for each selected column, and one for its side column."""

    fields: tuple[pa.Field, ...]
    sides: tuple[pa.Field, ...]
    kinds: tuple[str, ...]

    @staticmethod
    def of(table: Table, kinds: Sequence[str]) -> Layout:
        """Return the layout; no field's name is that of another column, whatever its case."""
        taken = {column.name.lower() for column in table.columns}
        fields = []
        if table.hidden_rowid:
            name = _free("$rowid", taken)
            fields.append(
                pa.field(name, pa.int64(), nullable=False, metadata={_KIND: b"integer", _ROWID: b"true"})
            )
        kinds_of_columns = kinds[len(fields) :]
        for column, kind in zip(table.columns, kinds_of_columns, strict=True):
            metadata = {_KIND: kind.encode(), b"moveout.type": column.declared.encode()}
            metadata |= {b"moveout.generated": b"true"} if column.generated else {}
            metadata |= {b"moveout.not_null": b"true"} if column.not_null else {}
            fields.append(pa.field(column.name, arrow_type(kind), metadata=metadata))
        sides = tuple(
            pa.field(_free(f"{one.name}$exact", taken), pa.string(), metadata={_EXACT_OF: one.name.encode()})
            for one in fields
        )
        return Layout(tuple(fields), sides, tuple(kinds))

    def schema(self, with_sides: frozenset[int]) -> pa.Schema:
        """Return the schema of a file with these side columns, each after its column."""
        fields = []
        for position, (main, side) in enumerate(zip(self.fields, self.sides, strict=True)):
            fields += [main, side] if position in with_sides else [main]
        return pa.schema(fields)

    def batch(self, typed: Typed, with_sides: frozenset[int]) -> pa.RecordBatch:
        """Return a record batch of that schema."""
        arrays = []
        for position, main in enumerate(typed.columns):
            arrays += [main, typed.side(position, pa.string())] if position in with_sides else [main]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema(with_sides))

    def typed(self, batch: Batch) -> Typed:
        """Return a batch of values as arrays."""
        pairs = [to_typed(column, kind) for column, kind in zip(batch.columns, self.kinds, strict=True)]
        sides = {i: side for i, (_, side) in enumerate(pairs) if side is not None}
        return Typed(tuple(main for main, _ in pairs), sides, batch.rows)


def _free(name: str, taken: set[str]) -> str:
    while name.lower() in taken:
        name += "$"
    taken.add(name.lower())
    return name


@dataclass(frozen=True, slots=True)
class PartRows:
    """Some rows of a part. ``names`` and ``generated`` go with ``columns``; the hidden rowid's name is ""."""

    rows: int
    names: tuple[str, ...]
    generated: tuple[bool, ...]
    columns: tuple[Column, ...]


def read_part(file: Any) -> Iterator[PartRows]:
    """Yield the rows of a part, a few thousand at a time. ``file`` is a path or a random-access file."""
    part = open_part(file)
    schema = part.schema_arrow
    names = schema.names
    sides = {one.metadata[_EXACT_OF].decode(): i for i, one in enumerate(schema) if _EXACT_OF in _of(one)}
    mains = [i for i, one in enumerate(schema) if _EXACT_OF not in _of(one)]
    fields = [schema.field(i) for i in mains]
    kinds = [one.metadata[_KIND].decode() for one in fields]
    shown = tuple("" if _ROWID in one.metadata else one.name for one in fields)
    generated = tuple(b"moveout.generated" in one.metadata for one in fields)
    for batch in batches_of(part):
        columns = tuple(
            from_typed(batch.column(i), batch.column(sides[names[i]]) if names[i] in sides else None, kind)
            for i, kind in zip(mains, kinds, strict=True)
        )
        yield PartRows(batch.num_rows, shown, generated, columns)


def column_names(file: Any) -> list[str]:
    """Return the names of a part's columns, side columns apart."""
    schema = open_part(file).schema_arrow
    return [one.name for one in schema if _EXACT_OF not in _of(one)]


def _of(one: pa.Field) -> dict[bytes, bytes]:
    return one.metadata or {}


def tally_part(file: Any) -> Tally:
    """Return rows and digest of one part, from its values. Raises what ``READ_ERRORS`` lists."""
    found = Tally()
    for some in read_part(file):
        found += tally_columns(some.columns, some.rows)
    return found
