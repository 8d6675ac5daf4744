"""From the server's CSV text to typed Arrow, and no value lost on the way.

The fast way types all columns while it parses. Where a block holds a value that its type cannot hold, the
slow way parses every column as text, finds exactly the values that do not survive being typed and rendered
again, and keeps their text in a side column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from exporters.sql import fixed_digit_kinds
from exporters.sql.arrow_to_text import text_of
from exporters.sql.column_layout import Layout, Typed
from exporters.sql.column_types import Kind
from exporters.sql.text_codec import (
    arrays,
    composites,
    hex_text,
    hstore,
    intervals,
    ranges,
    time_with_zone,
)
from exporters.sql.text_codec.nested_kinds import apart

_BOM = b"\xef\xbb\xbf"

_REGULAR: Mapping[str, str] = {
    "date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    "time": r"^([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$",
    "timestamp": r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$",
    "timestamptz": r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?\+00$",
    "decimal": r"^-?[0-9]+(\.[0-9]+)?$",
    "bool": r"^[tf]$",
    **fixed_digit_kinds.REGULAR,
}
"""What the text of a value that the type can hold looks like; for the kinds that can print others."""


def parse_block(block: bytes, layout: Layout, *, compare: bool = True) -> Typed:
    """Type one block of whole lines. Without ``compare`` no value is compared with its text, and one that its type
    cannot hold may be lost: only for who renders all rows back and compares these. Raises ``pa.ArrowInvalid`` where the
    block is not the CSV of these columns.
    """
    try:
        parsed = _read(block, [column.kind.parsed for column in layout.columns])
    except pa.ArrowInvalid:
        return parse_exactly(block, layout)
    columns: list[pa.Array] = []
    sides: dict[int, pa.Array] = {}
    for i, (column, values) in enumerate(zip(layout.columns, parsed, strict=True)):
        kind = column.kind
        if kind.compared and compare:
            typed, side = split(kind.name, kind.stored, values)
            if side is not None:
                sides[i] = side.cast(layout.sides[i].type)
        elif kind.compared:
            typed = _lenient(kind.name, kind.stored, values)
        else:
            typed = values if kind.parsed == kind.stored else convert(kind.name, kind.stored, values)
        columns.append(typed)
    return Typed(tuple(columns), sides, len(parsed[0]))


def parse_exactly(block: bytes, layout: Layout) -> Typed:
    """The slow way: compare every value of every column with its text."""
    texts = [_text_type(column.kind) for column in layout.columns]
    columns: list[pa.Array] = []
    sides: dict[int, pa.Array] = {}
    parsed = _read(block, texts)
    for i, (column, text) in enumerate(zip(layout.columns, parsed, strict=True)):
        typed, side = _typed(column.kind, text, exactly=True)
        columns.append(typed)
        if side is not None:
            sides[i] = side.cast(layout.sides[i].type)
    return Typed(tuple(columns), sides, len(parsed[0]))


def parse_columns(values: Sequence[pa.Array], layout: Layout, *, exactly: bool = False) -> Typed:
    """Type values that came by columns. Only a column with a value that its type cannot hold goes the slow
    way; all do where ``exactly`` says so.
    """
    columns: list[pa.Array] = []
    sides: dict[int, pa.Array] = {}
    for i, (column, raw) in enumerate(zip(layout.columns, values, strict=True)):
        typed, side = _typed(column.kind, raw, exactly=exactly)
        columns.append(typed)
        if side is not None:
            sides[i] = side.cast(layout.sides[i].type)
    return Typed(tuple(columns), sides, len(values[0]))


def _typed(kind: Kind, raw: pa.Array, *, exactly: bool) -> tuple[pa.Array, pa.Array | None]:
    if kind.direct:
        return raw, None
    as_bytes = pa.types.is_binary(raw.type) and not pa.types.is_binary(kind.parsed)
    text, bad = _characters(raw) if as_bytes else (raw, None)
    if bad is None and not kind.compared and not exactly:
        try:
            return convert(kind.name, kind.stored, text), None
        except pa.ArrowInvalid:
            pass
    typed, side = split(kind.name, kind.stored, text)
    if bad is None or side is None:
        return typed, side if bad is None else bad
    return typed, pc.coalesce(side.cast(bad.type), bad)


def _text_type(kind: Kind) -> pa.DataType:
    """Return what the text of a kind is parsed as, before it is typed."""
    if kind.encoding:
        return pa.binary()
    return kind.parsed if kind.name == "text" else pa.string()


def _characters(data: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Return what is valid UTF-8 as text, and, if some is not (servers let lone surrogates pass; ``render.OWN``), that
    as it is.
    """
    if _is_ascii(data):
        return data.view(pa.string()), None
    try:
        return data.cast(pa.string()), None
    except pa.ArrowInvalid:
        pass
    bad = pa.array([value is not None and not is_utf8(value) for value in data.to_pylist()])
    nothing = pa.scalar(None, pa.binary())
    return pc.if_else(bad, nothing, data).cast(pa.string()), pc.if_else(bad, data, nothing)


def _is_ascii(data: pa.Array) -> bool:
    """Tell it of all values at once, where it is so: much quicker than to look at one after the other."""
    buffer = data.buffers()[2]
    return buffer is None or buffer.to_pybytes().isascii()


def is_utf8(value: bytes) -> bool:
    """Tell whether bytes are text."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read(block: bytes, types: Sequence[pa.DataType]) -> list[pa.Array]:
    """Parse a block whole. The server writes NULL as nothing and the empty string as two quotes."""
    names = [str(i) for i in range(len(types))]
    if block.startswith(_BOM):  # Arrow drops one at the beginning of its input; here it would be a value's
        block = _BOM + block
    table = csv.read_csv(
        pa.BufferReader(block),
        read_options=csv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types=dict(zip(names, types, strict=True)),
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=not block.isascii(),
        ),
    )
    return [
        column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in table.columns
    ]


def split(kind: str, stored: pa.DataType, text: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Return typed values and, if some do not render to their text again, that text (NULL for all others).

    A value whose text is in the side column is NULL in the typed one, except for floats: there the typed value is
    right even where its text differs.
    """
    if kind == "text":
        return text, None
    typed = _lenient(kind, stored, text)
    wanted = text.cast(pa.binary())
    differs = pc.invert(pc.fill_null(pc.equal(text_of(kind, typed), wanted), fill_value=False))
    differs = pc.and_(differs, pc.is_valid(text))
    if not differs.true_count:
        return typed, None
    side = pc.if_else(differs, text, pa.scalar(None, text.type))
    if pa.types.is_floating(stored):
        return typed, side
    if pa.types.is_nested(stored) or isinstance(typed, pa.ExtensionArray):  # if_else takes not all of these
        return _lenient(kind, stored, pc.if_else(differs, pa.scalar(None, text.type), text)), side
    return pc.if_else(differs, pa.scalar(None, stored), typed), side


def _lenient(kind: str, stored: pa.DataType, text: pa.Array) -> pa.Array:
    """Convert what can be converted, NULL for the rest."""
    try:
        return convert(kind, stored, text)
    except pa.ArrowInvalid:
        pass
    pattern = _REGULAR.get(kind)
    if pattern is not None:
        regular = pc.match_substring_regex(text, pattern=pattern)
        kept = pc.if_else(regular, text, pa.scalar(None, text.type))
        try:
            return convert(kind, stored, kept)
        except pa.ArrowInvalid:
            text = kept
    return _one_by_one(kind, stored, text)


def _one_by_one(kind: str, stored: pa.DataType, text: pa.Array) -> pa.Array:
    """Convert by halves, so that a bad value costs itself only."""
    try:
        return convert(kind, stored, text)
    except pa.ArrowInvalid:
        if len(text) == 1:
            return convert(kind, stored, pa.nulls(1, text.type))
    half = len(text) // 2
    parts = [_one_by_one(kind, stored, part) for part in (text[:half], text[half:])]
    return pa.concat_arrays(parts)


def convert(kind: str, stored: pa.DataType, text: pa.Array) -> pa.Array:
    """Return the typed values of text. Raises ``pa.ArrowInvalid`` if one of them is not of the type."""
    special = _CONVERT.get(kind)
    if special is not None:
        return special(text)
    shape, inner = apart(kind)
    return _NESTED[shape](text, stored, inner) if inner else text.cast(stored)


def _list(text: pa.Array, stored: pa.DataType, inner: Sequence[str]) -> pa.Array:
    return arrays.parse(text, partial(_lenient, inner[0], stored.value_type))


def _range(text: pa.Array, stored: pa.DataType, inner: Sequence[str]) -> pa.Array:
    return ranges.parse(text, stored, partial(_lenient, inner[0], stored[0].type))


def _multirange(text: pa.Array, stored: pa.DataType, inner: Sequence[str]) -> pa.Array:
    return ranges.parse_several(text, stored, partial(_lenient, inner[0], stored.value_type[0].type))


def _struct(text: pa.Array, stored: pa.DataType, inner: Sequence[str]) -> pa.Array:
    elements = [partial(_lenient, kind, field.type) for kind, field in zip(inner, stored, strict=True)]
    return composites.parse(text, stored, elements)


_NESTED: Mapping[str, Callable[[pa.Array, pa.DataType, Sequence[str]], pa.Array]] = {
    "list": _list,
    "range": _range,
    "multirange": _multirange,
    "struct": _struct,
}
"""What a value within another cannot hold is NULL there; the whole is then compared with its text."""


def _bool(text: pa.Array) -> pa.Array:
    true, false = pc.equal(text, "t"), pc.equal(text, "f")
    if true.true_count + false.true_count + text.null_count < len(text):
        raise pa.ArrowInvalid("not a boolean")
    return true


def _json(text: pa.Array) -> pa.Array:
    return pa.json_(pa.string()).wrap_array(text)


def _time(text: pa.Array) -> pa.Array:
    """Arrow casts text to a timestamp, not to a time of day."""
    return pc.binary_join_element_wise("1970-01-01", text, " ").cast(pa.timestamp("us")).cast(pa.time64("us"))


_CONVERT: Mapping[str, Callable[[pa.Array], pa.Array]] = {
    "bool": _bool,
    "json": _json,
    "time": _time,
    "bytes": hex_text.parse_bytes,
    "uuid": hex_text.parse_uuid,
    "interval": intervals.parse,
    "timetz": time_with_zone.parse,
    "map": hstore.parse,
    **fixed_digit_kinds.CONVERT,
}
