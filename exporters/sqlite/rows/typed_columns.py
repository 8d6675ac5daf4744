"""How a column whose values may be of any class lies in Parquet, and how its values come back.

The column has the type of one class, its *kind*. A value of another class stands in the side column as text, its first
letter the class. ``i`` is digits, ``r`` the shortest decimal that gives the same bits, ``t`` the text, ``b``
hexadecimal bytes. ``x`` is the hexadecimal bytes of text that is not valid. Where the side column has a value, that is
the value. The typed column is NULL there, save one comfort for readers: an integer in a REAL column stands there too,
as the equal number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.sqlite.rows.value_text import ARROW, RawText, SqliteColumn, are_numbers

KINDS: dict[str, type] = {"integer": int, "real": float, "text": str, "blob": bytes}
"""By SQLite's own names of the classes (``typeof``)."""
_EXACT_IN_REAL = 2**53


def arrow_type(kind: str) -> pa.DataType:
    """Return the type of the typed column."""
    return ARROW[KINDS[kind]]


def to_typed(column: SqliteColumn, kind: str) -> tuple[pa.Array, pa.Array | None]:
    """Return the typed array and, where some value needs it, the side array."""
    value_class = KINDS[kind]
    if column.array is not None and column.of is value_class:
        return column.array, None
    if column.array is not None and column.of is None:
        return pa.nulls(len(column.array), ARROW[value_class]), None
    if column.texts is not None and value_class is float and are_numbers(column.texts):
        return _reals_beside_integers(column.texts)
    values = column.to_list()
    main = [value if type(value) is value_class else _near(value, value_class) for value in values]
    side = [None if value is None or type(value) is value_class else _exact(value) for value in values]
    return pa.array(main, ARROW[value_class]), pa.array(side, pa.string())


def _reals_beside_integers(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return what ``to_typed`` does, of the canonical texts of numbers."""
    nothing, texts = pa.scalar(None, pa.string()), texts.cast(pa.string())
    is_real = pc.starts_with(texts, "r")
    bits = pc.utf8_ltrim(pc.if_else(is_real, texts, nothing), "r")
    digits = pc.if_else(is_real, nothing, texts)
    integers = digits.cast(pa.int64())
    is_near = pc.and_(pc.greater_equal(integers, -_EXACT_IN_REAL), pc.less_equal(integers, _EXACT_IN_REAL))
    near = pc.if_else(is_near, integers, pa.scalar(None, pa.int64())).cast(pa.float64())
    reals = bits.cast(pa.int64()).view(pa.float64())
    return pc.coalesce(reals, near), pc.binary_join_element_wise("i", digits, "")


def from_typed(main: pa.Array, side: pa.Array | None, kind: str) -> SqliteColumn:
    """Return what ``to_typed`` was given. Raises ``ValueError`` for a side column that makes no sense."""
    if side is None or side.null_count == len(side):
        return SqliteColumn(KINDS[kind], main)
    values = main.to_pylist()
    for position, text in enumerate(side.to_pylist()):
        if text is not None:
            values[position] = _parse(text)
    return SqliteColumn.of_values(values)


def _near(value: Any, value_class: type) -> float | None:
    if value_class is float and type(value) is int and abs(value) <= _EXACT_IN_REAL:
        return float(value)
    return None


def _exact(value: Any) -> str:
    if type(value) is str:
        return "t" + value
    if type(value) is int:
        return f"i{value}"
    if type(value) is float:
        return f"r{value!r}"
    return ("x" if type(value) is RawText else "b") + bytes(value).hex()


def _parse(text: str) -> Any:
    kind, rest = text[:1], text[1:]
    if kind == "t":
        return rest
    if kind == "i":
        return int(rest)
    if kind == "r":
        return float(rest)
    if kind == "b":
        return bytes.fromhex(rest)
    if kind == "x":
        return RawText(bytes.fromhex(rest))
    raise ValueError(f"{text[:20]!r} begins with no class")


def dominating(classes: Sequence[str], affinity: str) -> str:
    """Return the kind for a column, from the classes of some of its values and its affinity."""
    counts = {kind: classes.count(kind) for kind in KINDS}
    if counts["real"] and counts["integer"] and affinity != "integer":
        counts["real"] += counts.pop("integer")
    best = max(counts, key=lambda kind: (counts[kind], kind == affinity))
    return best if counts[best] else affinity


def affinity_of(declared: str) -> str:
    """Return the class that a declared type leans to (https://sqlite.org/datatype3.html, 3.1); NUMERIC leans to real
    numbers only where values say so.
    """
    name = declared.upper()
    if "INT" in name:
        return "integer"
    if any(word in name for word in ("CHAR", "CLOB", "TEXT")):
        return "text"
    if not name or "BLOB" in name:
        return "blob"
    if any(word in name for word in ("REAL", "FLOA", "DOUB")):
        return "real"
    return "real" if any(word in name for word in ("NUM", "DEC")) else "text"
