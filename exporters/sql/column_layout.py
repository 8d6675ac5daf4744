"""A table's columns, the fields that they become, and blocks of rows as arrays of these fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from exporters.sql.column_metadata import CHARACTERS, ENCODING, EXACT_OF, GENERATED, KIND, PLAIN, TYPE
from exporters.sql.column_types import Kind


class Column(Protocol):
    """What a layout needs to know of a column, whichever engine it is of."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def sql_type(self) -> str:
        """The server's own spelling of its type."""
        ...

    @property
    def kind(self) -> Kind:
        """How its text becomes values."""
        ...

    @property
    def not_null(self) -> bool:
        """Whether NULL is refused."""
        ...

    @property
    def generated(self) -> bool:
        """Whether the server computes it."""
        ...

    @property
    def collation(self) -> str:
        """Its collation, or nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a table and the fields that they become."""

    columns: tuple[Column, ...]
    fields: tuple[pa.Field, ...]
    sides: tuple[pa.Field, ...]

    @staticmethod
    def of(columns: Sequence[Column]) -> Layout:
        """Make the fields; a side column's name never meets a real column's."""
        taken = {column.name for column in columns}
        sides = []
        for column in columns:
            name = f"{column.name}$exact"
            while name in taken:
                name += "$"
            taken.add(name)
            kind = column.kind
            as_bytes = kind.characters or kind.encoding or pa.types.is_binary(kind.parsed)
            text = pa.binary() if as_bytes else pa.string()
            metadata = {EXACT_OF: column.name.encode()}
            if kind.encoding:
                metadata[ENCODING] = kind.encoding.encode()
            sides.append(pa.field(name, text, metadata=metadata))
        return Layout(tuple(columns), tuple(_field(column) for column in columns), tuple(sides))

    def schema(self, with_sides: frozenset[int]) -> pa.Schema:
        """Return the Arrow schema with the side columns of these positions."""
        return pa.schema([*self.fields, *(self.sides[i] for i in sorted(with_sides))])

    def batch(self, typed: Typed, with_sides: frozenset[int]) -> pa.RecordBatch:
        """Return a record batch that has exactly these side columns."""
        sides = [typed.side(i, self.sides[i].type) for i in sorted(with_sides)]
        return pa.RecordBatch.from_arrays([*typed.columns, *sides], schema=self.schema(with_sides))


def _field(column: Column) -> pa.Field:
    metadata = {KIND: column.kind.name, TYPE: column.sql_type}
    if column.kind.plain:
        metadata[PLAIN] = "1"
    if column.kind.characters:
        metadata[CHARACTERS] = "1"
    if column.generated:
        metadata[GENERATED] = "1"
    if column.collation:
        metadata[b"moveout.collation"] = column.collation
    if column.not_null:
        metadata[b"moveout.not_null"] = "1"
    return pa.field(column.name, column.kind.stored, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Typed:
    """A block as arrays, a column each; ``sides`` by their column's position, only where some value needs it."""

    columns: tuple[pa.Array, ...]
    sides: Mapping[int, pa.Array]
    rows: int

    def side(self, position: int, data_type: pa.DataType) -> pa.Array:
        """Return a column's side array, all NULL where no value needs it."""
        found = self.sides.get(position)
        return pa.nulls(self.rows, data_type) if found is None else found
