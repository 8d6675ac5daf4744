"""A table's columns: their kinds, the fields that they become, what these say, and blocks of rows as arrays of them.

The rule for values that a type cannot hold is one for all kinds: the typed column is NULL there and the exact text
stands in a side column. What a column is stands in the metadata of its field, so a part is read without anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
from msgspec import Struct

from exporters import arrow_functions as pc
from exporters.row_digest import RowsDigest
from exporters.sql.value_codec import ValueCodec

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_DECIMAL_DIGITS = 38
SMALL_DECIMAL_DIGITS = 18
"""Decimals of so many digits fit 64 bits. The compiled core makes them like that, and Parquet keeps them so."""


def small_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which values take less memory and become the same Parquet."""
    if pa.types.is_decimal128(kind) and kind.precision <= SMALL_DECIMAL_DIGITS:
        return pa.decimal64(kind.precision, kind.scale)
    return kind


class Kind(Struct, frozen=True):
    """How a column's values are read. ``codec``: between their text and values of the type ``stored``; the text is
    ``parsed`` as another type before. ``expression`` makes the canonical SQL from a quoted column name. ``compared``:
    the text is parsed as a string first and every value rendered back. ``plain``: its text is ASCII and never needs
    quotes in CSV; ``characters``: it is characters, which need quotes in SQL and may come in bytes that are not UTF-8.
    ``direct``: values that come by columns are not their text but already what is stored. ``encoding``: the database's
    own, where values may come in that instead (``OWN``).
    """

    codec: ValueCodec
    parsed: pa.DataType
    stored: pa.DataType
    compared: bool = False
    plain: bool = True
    characters: bool = False
    direct: bool = False
    encoding: str = ""
    expression: Callable[[str], str] = str

    @property
    def name(self) -> str:
        """The metadata of the field."""
        return self.codec.name


TYPE = b"moveout.type"
KIND = b"moveout.kind"
GENERATED = b"moveout.generated"
EXACT_OF = b"moveout.exact_of"
PLAIN = b"moveout.plain"
CHARACTERS = b"moveout.characters"
ENCODING = b"moveout.encoding"
COLLATION = b"moveout.collation"
NOT_NULL = b"moveout.not_null"

OWN = b"\xff"
"""How the text of a value begins that stands in the database's own encoding: no UTF-8 has this byte."""


def sides_of(schema: pa.Schema) -> dict[str, str]:
    """Return the names of the side columns by those of their columns."""
    metadata = ((field.name, field.metadata or {}) for field in schema)
    return {entries[EXACT_OF].decode(): name for name, entries in metadata if EXACT_OF in entries}


def columns_in(schema: pa.Schema, *, generated: bool = True) -> Mapping[str, pa.Field]:
    """Return the fields of the table's own columns by name, in the order of the text; those that a server computes only
    with ``generated``.
    """
    left_out = {EXACT_OF} if generated else {EXACT_OF, GENERATED}
    return {field.name: field for field in schema if left_out.isdisjoint(field.metadata or ())}


class Column(Struct, frozen=True):
    """A column as it is exported, whichever engine it is of. ``sql_type`` is the server's own spelling of its type,
    domains by their name. ``generated``: the server computes it. ``collation`` may be nothing.
    """

    name: str
    sql_type: str
    kind: Kind
    not_null: bool
    generated: bool
    collation: str


class Layout(Struct, frozen=True):
    """The columns of a table and the fields that they become."""

    columns: tuple[Column, ...]
    fields: tuple[pa.Field, ...]
    sides: tuple[pa.Field, ...]

    @staticmethod
    def of(columns: Sequence[Column]) -> Layout:
        """Make the fields; a side column's name never meets a real column's."""
        taken_names = {column.name for column in columns}
        sides = []
        for column in columns:
            name = f"{column.name}$exact"
            while name in taken_names:
                name += "$"
            taken_names.add(name)
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

    def arrays(self, typed: Typed, with_sides: frozenset[int]) -> list[pa.Array]:
        """Return the columns of that schema, some of them in a smaller type: see ``Typed``."""
        return [*typed.columns, *(typed.side(i, self.sides[i].type) for i in sorted(with_sides))]

    def batch(self, typed: Typed) -> pa.RecordBatch:
        """Return a block as a record batch, with the side columns that it has."""
        with_sides = frozenset(typed.sides)
        schema = self.schema(with_sides)
        arrays = [
            as_type(field.type, values)
            for field, values in zip(schema, self.arrays(typed, with_sides), strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _field(column: Column) -> pa.Field:
    metadata = {KIND: column.kind.name, TYPE: column.sql_type}
    if column.kind.plain:
        metadata[PLAIN] = "1"
    if column.kind.characters:
        metadata[CHARACTERS] = "1"
    if column.generated:
        metadata[GENERATED] = "1"
    if column.collation:
        metadata[COLLATION] = column.collation
    if column.not_null:
        metadata[NOT_NULL] = "1"
    return pa.field(column.name, column.kind.stored, metadata=metadata)


class Typed(Struct, frozen=True):
    """A block as arrays, a column each; ``sides`` by their column's position, only where some value needs it. A column
    may have the ``small_type`` of its field's type.
    """

    columns: tuple[pa.Array, ...]
    sides: Mapping[int, pa.Array]
    rows: int

    def side(self, position: int, data_type: pa.DataType) -> pa.Array:
        """Return a column's side array, all NULL where no value needs it."""
        values = self.sides.get(position)
        return pa.nulls(self.rows, data_type) if values is None else values


class ParsedBlock(Struct, frozen=True):
    """A block, and what its text was: the digest of its rows, and their bytes."""

    typed: Typed
    digest: RowsDigest
    text_bytes: int


def as_type(data_type: pa.DataType, values: Any) -> Any:
    """Return values that may be of a smaller type as what their field says."""
    return values if values.type == data_type else pc.cast(values, data_type)


def typed_block(columns: Sequence[tuple[pa.Array, pa.Array | None]], layout: Layout, rows: int) -> Typed:
    """Return a block whose columns are given as values and, where there are some, the text of others."""
    sides = {
        number: pc.cast(side, layout.sides[number].type)
        for number, (_, side) in enumerate(columns)
        if side is not None
    }
    return Typed(tuple(values for values, _ in columns), sides, rows)


def array_of(
    data_type: pa.DataType,
    rows: int,
    buffers: Sequence[Buffer | None],
    nulls: int,
    *,
    children: list[pa.Array] | None = None,
) -> pa.Array:
    """Return the array of a column that the compiled core has filled: of validity, offsets and values, those that the
    type has; of lists with their items as ``children``.
    """
    validity, *data = buffers
    used = [pa.py_buffer(buffer) for buffer in data if buffer is not None]
    used.insert(0, None if validity is None else pa.py_buffer(validity))
    return pa.Array.from_buffers(data_type, rows, used, nulls, children=children)


Key = TypeVar("Key", bound=Hashable)
Pieces = Sequence[pa.Array | pa.Scalar]
"""What is computed of a column: arrays of its length, and scalars that hold for all of its values."""


def compute_by_key(
    columns: Sequence[tuple[Key, pa.Array]], compute: Callable[[Key, pa.Array], Pieces]
) -> list[Pieces]:
    """Return what ``compute`` makes of each column, by one call for all of the same key and type. A call
    of Arrow costs more than the values of a small table.
    """
    groups: dict[tuple[Key, pa.DataType], list[int]] = {}
    for position, (key, values) in enumerate(columns):
        groups.setdefault((key, values.type), []).append(position)
    results: list[Pieces] = [()] * len(columns)
    for (key, _), positions in groups.items():
        arrays = [columns[position][1] for position in positions]
        pieces = compute(key, arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays))
        start = 0
        for position, values in zip(positions, arrays, strict=True):
            results[position] = [
                piece if isinstance(piece, pa.Scalar) else piece.slice(start, len(values)) for piece in pieces
            ]
            start += len(values)
    return results
