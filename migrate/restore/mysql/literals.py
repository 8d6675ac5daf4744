"""Rows of Parquet as the value lists of INSERT, whole columns at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from exporters.relational.parquet import batches_of
from exporters.relational.render import CHARACTERS, EXACT_OF, GENERATED, KIND, exact_text

_NUMBERS = {"int", "decimal"}
_MARK = b"\\x"
_BYTES_IN_SIDE = "charset"


def columns_of(schema: pa.Schema) -> list[str]:
    """Return the columns that are written: neither side columns nor what the server computes."""
    return [field.name for field in schema if not _has(field, EXACT_OF) and not _has(field, GENERATED)]


def values_of(file: pq.ParquetFile) -> Iterator[list[bytes]]:
    """Yield the rows as ``(…,…)``, a few thousand at a time."""
    return map(_values, batches_of(file))


def _values(batch: pa.RecordBatch) -> list[bytes]:
    schema = batch.schema
    sides = {field.metadata[EXACT_OF]: i for i, field in enumerate(schema) if _has(field, EXACT_OF)}
    literals = []
    for i, field in enumerate(schema):
        if _has(field, EXACT_OF) or _has(field, GENERATED):
            continue
        side = sides.get(field.name.encode())
        literals.append(_literal(field, batch.column(i), None if side is None else batch.column(side)))
    if not literals:
        return [b"()"] * batch.num_rows
    joined = pc.binary_join_element_wise(*literals, b",", null_handling="replace", null_replacement=b"NULL")
    return list(pc.binary_join_element_wise(b"(", joined, b")", b"").to_pylist())


def _literal(field: pa.Field, values: pa.Array, side: pa.Array | None) -> pa.Array:
    kind = field.metadata[KIND].decode()
    if _has(field, CHARACTERS):
        text = _string(exact_text(field, values, None))
        return text if side is None else pc.coalesce(_side_bytes(kind, side), text)
    text = exact_text(field, values, side)
    if kind == "hex":
        digits = pc.replace_substring(text, pattern=_MARK, replacement=b"", max_replacements=1)
        return pc.binary_join_element_wise(b"X'", digits, b"'", b"")
    return text if kind in _NUMBERS else pc.binary_join_element_wise(b"'", text, b"'", b"")


def _string(text: pa.Array) -> pa.Array:
    """With NO_BACKSLASH_ESCAPES only the quote is special."""
    inner = pc.replace_substring(text, pattern=b"'", replacement=b"''")
    return pc.binary_join_element_wise(b"'", inner, b"'", b"")


def _side_bytes(kind: str, side: pa.Array) -> pa.Array:
    r"""Return what is no UTF-8 as binary literals: the bytes themselves, or those that ``\x…`` spells."""
    found: list[bytes | None] = []
    for value in side.cast(pa.binary()).to_pylist():
        if value is None:
            found.append(None)
        elif kind == _BYTES_IN_SIDE and value.startswith(_MARK):
            found.append(b"X'" + value[len(_MARK) :] + b"'")
        else:
            found.append(b"X'" + value.hex().encode() + b"'")
    return pa.array(found, pa.binary())


def _has(field: pa.Field, key: bytes) -> bool:
    return field.metadata is not None and key in field.metadata
