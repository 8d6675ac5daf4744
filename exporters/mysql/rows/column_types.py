"""How each SQL type becomes an Arrow type, and the exact text of its values.

The server sends the text of every value by itself; the row's text is the CSV line of them: NULL is nothing, what may
need quotes always has them. Why the text of each kind determines the value, and the value the text (settings as in
``connection.PINNED``):

``int`` decimal digits (ZEROFILL and BIT by adding 0). So are the number of an ENUM and the bits of a SET where one of
the labels is empty or two are equal: then the text does not show which one it is. ``decimal`` exactly ``s`` digits
after the point. ``year`` four digits. ``datetime.n``, ``utc.n``, ``clock.n`` DATETIME, TIMESTAMP (in UTC) and TIME with
``n`` digits of a second. Zero and partial dates, and times outside of a day, fail to parse and go to the side.
``mysqlfloat``, ``mysqldouble`` the shortest digits that give the same double again: multiplied by 1e0, since a FLOAT
alone is printed with six digits. ``hex`` bytes: sent as they are, hexadecimal in the line. ``text``, ``json`` the
characters in UTF-8. ``charset`` characters of a charset that UTF-8 might not give back: compared in the server, and
bytes in hexadecimal where they would not come back.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping

import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

from exporters.mysql.identifiers import quote_literal
from exporters.mysql.rows.text_codec import CODECS
from exporters.sql.columns import MAX_DECIMAL_DIGITS, Kind

SAFE_CHARSETS = frozenset({"utf8", "utf8mb3", "utf8mb4", "latin1"})
"""All their characters are in Unicode, one to one, and none of their values holds anything else."""


class SqlType(Struct, frozen=True):
    """A column's type as information_schema prints it. ``full`` is COLUMN_TYPE; ``charset`` is empty for bytes."""

    name: str
    full: str
    precision: int
    scale: int
    fraction: int
    charset: str
    json: bool = False
    collation: str = ""

    @property
    def unsigned(self) -> bool:
        """Whether it has no negative values."""
        return "unsigned" in self.full or "zerofill" in self.full

    @property
    def geometry(self) -> bool:
        """Whether its values are shapes: four bytes of SRID, then WKB."""
        return self.name in GEOMETRIES


TOO_LONG = "\\x!"
"""What stands for a value whose text would be longer than the server's max_allowed_packet."""
_MARK = quote_literal("\\x")


def _plus_zero(column: str) -> str:
    return f"{column}+0"


def _times_one(column: str) -> str:
    return f"{column}*1e0"


def _checked(charset: str) -> Callable[[str], str]:
    """Characters where they come back as the same bytes, are UTF-8 and do not look like hexadecimal; else bytes. Where
    the server makes NULL of either, because it is too long, ``TOO_LONG``.
    """

    def expression(column: str) -> str:
        utf8 = f"CONVERT({column} USING utf8mb4)"
        converted_back = f"CONVERT({utf8} USING {charset})"
        is_lossless = (
            f"CAST({column} AS BINARY) <=> CAST({converted_back} AS BINARY) AND LEFT({utf8},2) <> {_MARK}"
        )
        no_surrogates = f" AND NOT ({_has_surrogates(utf8)})" if charset in _WIDE else ""
        text = f"IF({is_lossless}{no_surrogates},{utf8},CONCAT({_MARK},HEX({column})))"
        return f"IF({column} IS NULL,NULL,COALESCE({text},{quote_literal(TOO_LONG)}))"

    return expression


_WIDE = {"ucs2", "utf16", "utf16le", "utf32"}
"""Charsets that let half of a surrogate pair pass."""


def _has_surrogates(utf8: str) -> str:
    """Tell whether halves of surrogate pairs are in a text: the byte ED before one from A0 to BF. No pattern is asked
    for, since servers give patterns up in long texts; digits that only look so, across bytes, are looked at twice.
    """
    perhaps = " OR ".join(f"INSTR(HEX({utf8}),'{digits}')" for digits in ("EDA", "EDB"))
    surely = " OR ".join(f"LOCATE(X'ED{second:02X}',CAST({utf8} AS BINARY))" for second in range(0xA0, 0xC0))
    return f"({perhaps}) AND ({surely})"


_INTEGERS: Mapping[str, tuple[pa.DataType, pa.DataType]] = {
    "tinyint": (pa.int8(), pa.uint8()),
    "smallint": (pa.int16(), pa.uint16()),
    "mediumint": (pa.int32(), pa.uint32()),
    "int": (pa.int32(), pa.uint32()),
    "bigint": (pa.int64(), pa.uint64()),
}
_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"}
_BYTES = {
    *("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector"),
    *("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring"),
    *("multipolygon", "geometrycollection", "geomcollection"),
}
GEOMETRIES = frozenset(name for name in _BYTES if not name.endswith(("binary", "blob", "vector")))
_MICROSECONDS = pa.timestamp("us")
_UTC = pa.timestamp("us", "UTC")
LABEL = re.compile(r"'((?:[^'\\]|\\.|'')*)'", re.DOTALL)
"""A label of ENUM or SET as servers print it. Its text: see ``labels_of``."""
_ESCAPED = re.compile(r"''|\\(.)", re.DOTALL)
_ESCAPES = {"0": "\0", "n": "\n", "r": "\r"}
"""How servers print what is in a label (``append_unescaped`` in their sources)."""


def kind_of(sql_type: SqlType) -> Kind:
    """Return the kind of a column; what is not known is its text."""
    name = sql_type.name
    if name in _INTEGERS:
        stored = _INTEGERS[name][sql_type.unsigned]
        return Kind(
            CODECS["int"], stored, stored, expression=_plus_zero if "zerofill" in sql_type.full else str
        )
    if name in {"float", "double"}:
        stored = pa.float32() if name == "float" else pa.float64()
        return Kind(CODECS[f"mysql{name}"], pa.string(), stored, compared=True, expression=_times_one)
    if name in _BYTES:
        return Kind(CODECS["hex"], pa.string(), pa.binary(), direct=True)
    if name == "decimal":
        return _decimal(sql_type)
    if name == "enum" and not _labels_tell(sql_type):
        return Kind(CODECS["int"], pa.uint16(), pa.uint16(), expression=_plus_zero)
    if name == "set" and not _labels_tell(sql_type):
        return Kind(CODECS["int"], pa.uint64(), pa.uint64(), expression="CAST({} AS UNSIGNED)".format)
    if name in _TEXTS or name == "json":
        return _text(sql_type)
    return _moment(sql_type) or _unknown()


def labels_of(sql_type: str) -> list[str]:
    """Return the labels of an ENUM or SET. What is printed as question marks stays so: see ``unprintable_text``."""
    return [
        _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]) if match[1] else "'", label)
        for label in LABEL.findall(sql_type)
    ]


def _labels_tell(sql_type: SqlType) -> bool:
    """Tell whether labels say which one of an ENUM or SET it is. They do not where '' is one (it is also the error
    value, and the empty set), nor where two are equal, as a server without strict mode lets them be.
    """
    labels = labels_of(sql_type.full)
    if not sql_type.collation.endswith(("_bin", "binary")):  # others differ from flavour to flavour
        labels = list(map(_as_compared, labels))
    labels = [label.rstrip() for label in labels]
    return "" not in labels and len(set(labels)) == len(labels)


def _as_compared(label: str) -> str:
    """Return what collations look at, at the least: neither case nor marks on letters, nor characters of control; what
    is beyond the first 65,536 characters is the same to some of them.
    """
    plain = unicodedata.normalize("NFKD", label.casefold())
    return "".join(
        "\ufffd" if char > "\uffff" else char for char in plain if unicodedata.category(char)[0] not in "MC"
    )


def _decimal(sql_type: SqlType) -> Kind:
    expression = _plus_zero if "zerofill" in sql_type.full else str
    if sql_type.precision > MAX_DECIMAL_DIGITS:
        return _characters(expression)
    stored = pa.decimal128(sql_type.precision, sql_type.scale)
    return Kind(CODECS["decimal"], stored, stored, expression=expression)


def _text(sql_type: SqlType) -> Kind:
    charset = sql_type.charset or "utf8mb4"
    if sql_type.name == "json" or (sql_type.json and charset in SAFE_CHARSETS):
        stored = pa.json_(pa.string())
        return Kind(CODECS["json"], pa.string(), stored, plain=False, characters=True)
    if charset in SAFE_CHARSETS:
        return _characters()
    return replace(_characters(_checked(charset)), codec=CODECS["charset"], compared=True)


def _characters(expression: Callable[[str], str] = str) -> Kind:
    """What is kept as the server prints it."""
    return Kind(CODECS["text"], pa.string(), pa.string(), plain=False, characters=True, expression=expression)


def _moment(sql_type: SqlType) -> Kind | None:
    digits = sql_type.fraction
    if sql_type.name == "date":
        return Kind(CODECS["date"], pa.date32(), pa.date32())
    if sql_type.name == "datetime":
        return Kind(CODECS[f"datetime.{digits}"], _MICROSECONDS, _MICROSECONDS)
    if sql_type.name == "timestamp":
        return Kind(CODECS[f"utc.{digits}"], _MICROSECONDS, _UTC)
    if sql_type.name == "time":
        return Kind(CODECS[f"clock.{digits}"], pa.time64("us"), pa.time64("us"))
    if sql_type.name == "year" and "2" not in sql_type.full:
        return Kind(CODECS["year"], pa.int16(), pa.int16())
    if sql_type.name == "bit":
        return Kind(CODECS["int"], pa.uint64(), pa.uint64(), expression=_plus_zero)
    return None


def _unknown() -> Kind:
    """UUID, INET4, INET6 and whatever comes: as the server prints it."""
    return _characters("CONVERT({} USING utf8mb4)".format)
