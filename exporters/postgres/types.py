"""How each SQL type becomes an Arrow type: one ``Kind`` a column.

A kind says what the CSV parser makes of the server's text (``parsed``), what stands in the Parquet file
(``stored``), and, by its name, how the text is made again (``render``). The rule for values that a type
cannot hold is one for all kinds: the typed column is NULL there and the exact text stands in a side column.

Why the text of each kind determines the value, and the value the text (settings as in ``connect.PINNED``):

``bool``  t or f. ``int``  canonical decimal digits. ``decimal``  numeric(p,s) with p <= 38 prints exactly s
digits after the point; NaN and infinities fail to parse and go to the side. ``text``  itself. ``date``,
``timestamp``, ``timestamptz``, ``time``  ISO 8601 with a fraction of up to six digits without trailing zeros;
years beyond four digits, BC, infinities and 24:00:00 fail to parse. ``uuid``, ``bytes``  hexadecimal, lower
case. These are parsed without being compared. ``float``  the shortest text that gives the same bits; two
shortest-digit algorithms may differ, so it is compared, value by value (a float4 is sent as float8, which
holds it exactly). ``interval`` and arrays of whole numbers are compared, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from exporters.relational import intervals, lists
from exporters.relational.types import MAX_DECIMAL_DIGITS, Kind


@dataclass(frozen=True, slots=True)
class SqlType:
    """A type after domains are resolved: its name, whether it is built in, and the type modifier (-1 for
    none).
    """

    name: str
    built_in: bool
    modifier: int


_TEXT = Kind("text", pa.string(), pa.string(), plain=False)
_BYTES_TEXT = Kind("text", pa.binary(), pa.binary(), plain=False)
_FLOAT4 = Kind("float4", pa.string(), pa.float32(), compared=True, expression="{}::pg_catalog.float8".format)

_SIMPLE: Mapping[str, Kind] = {
    "bool": Kind("bool", pa.bool_(), pa.bool_()),
    "int2": Kind("int", pa.int16(), pa.int16()),
    "int4": Kind("int", pa.int32(), pa.int32()),
    "int8": Kind("int", pa.int64(), pa.int64()),
    "oid": Kind("int", pa.uint32(), pa.uint32()),
    "float4": _FLOAT4,
    "float8": Kind("float8", pa.string(), pa.float64(), compared=True),
    "bytea": Kind("bytes", pa.string(), pa.binary()),
    "date": Kind("date", pa.date32(), pa.date32()),
    "timestamp": Kind("timestamp", pa.timestamp("us"), pa.timestamp("us")),
    "timestamptz": Kind("timestamptz", pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
    "time": Kind("time", pa.time64("us"), pa.time64("us")),
    "uuid": Kind("uuid", pa.string(), pa.uuid()),
    "interval": Kind("interval", pa.string(), intervals.STORED, compared=True),
    **{
        f"_{name}": Kind(f"{name}list", pa.string(), pa.list_(element), compared=True, plain=False)
        for name, element in lists.ELEMENTS.items()
    },
    "json": Kind("json", pa.string(), pa.json_(pa.string()), plain=False),
    "jsonb": Kind("json", pa.string(), pa.json_(pa.string()), plain=False),
}


def kind_of(sql_type: SqlType, *, utf8: bool = True) -> Kind:
    """Return the kind of a column. ``utf8`` is False for a database without an encoding, whose text is
    bytes.
    """
    if sql_type.built_in:
        if sql_type.name == "numeric":
            return _numeric(sql_type.modifier) or _TEXT
        found = _SIMPLE.get(sql_type.name)
        if found is not None and (utf8 or found.name != "json"):
            return found
    return _TEXT if utf8 else _BYTES_TEXT


def _numeric(modifier: int) -> Kind | None:
    """Return the DECIMAL kind of ``numeric(p, s)``, None where it has no precision or does not fit.

    The modifier is ((p << 16) | (s & 0x7ff)) + 4, s signed in 11 bits (src/backend/utils/adt/numeric.c).
    """
    if modifier < 4:
        return None
    precision = ((modifier - 4) >> 16) & 0xFFFF
    scale = (((modifier - 4) & 0x7FF) ^ 1024) - 1024
    if precision > MAX_DECIMAL_DIGITS or not 0 <= scale <= precision:
        return None
    decimal = pa.decimal128(precision, scale)
    return Kind("decimal", decimal, decimal)
