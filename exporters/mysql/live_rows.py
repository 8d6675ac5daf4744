"""The rows of a live database, one table at a time, to find the row that differs."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal

from exporters.engine import LiveTables, TablesRequest, Texts
from exporters.mysql.catalog import MysqlColumn, MysqlTable
from exporters.mysql.chunk_plan import row_select, selected_values
from exporters.mysql.connection import MysqlAddress, folds_names
from exporters.mysql.consistent_snapshot import MysqlSession, open_snapshot
from exporters.mysql.errors import has_ended
from exporters.mysql.identifiers import quote_name
from exporters.mysql.live_digests import digests_of
from exporters.mysql.rows.chunk_export import digest_query
from exporters.mysql.rows.row_feed import Feed
from exporters.row_digest import RowsDigest
from exporters.sql.row_blocks import LongRowText
from exporters.sql.snapshots import lost_with_sessions
from exporters.touched_rows import RowKey


class MysqlRows:
    """See ``exporters.engine.LocatedRows`` and ``KeyedRows``. Schemas are empty: databases' names are not compared."""

    def __init__(self, session: MysqlSession, tables: Sequence[MysqlTable]) -> None:
        self._session = session
        self._tables = {table.name: table for table in tables if not table.elsewhere}
        self._folds = folds_names(session.holder)

    def tables(self) -> Mapping[tuple[str, str], int]:
        """See ``LocatedRows``."""
        return {("", name): table.estimate for name, table in self._tables.items()}

    def table(self, name: str) -> MysqlTable:
        """Return what the catalog says of a table that is there, however its name is spelled where that is the same."""
        return self._tables[name.lower() if self._folds else name]

    def _is_there(self, name: str) -> bool:
        return (name.lower() if self._folds else name) in self._tables

    def columns(self, schema: str, name: str) -> Sequence[str] | None:
        """See ``LiveRows.columns``."""
        del schema
        return [column.name for column in self.table(name).columns] if self._is_there(name) else None

    def key(self, schema: str, name: str) -> Sequence[str]:
        """Return the primary key's columns; with a history the times, too, since a key may have held before."""
        del schema
        table = self.table(name)
        return list(dict.fromkeys((*table.key, *table.history))) if table.key else []

    def each(self, schema: str, name: str, take: Callable[[Texts], None]) -> None:
        """See ``LiveRows.each``."""
        del schema
        query = row_select(self.table(name))

        def read(feed: Feed) -> None:
            for rows in feed.rows(query):
                take([b"".join(rows.pieces)] if isinstance(rows, LongRowText) else rows)

        self._session.feeds.use(read)

    def each_located(self, schema: str, name: str, take: Callable[[Texts, Texts], None]) -> None:
        """See ``LocatedRows``: a row's values find it."""
        self.each(schema, name, lambda texts: take(texts, ()))

    def digests(self, request: TablesRequest) -> LiveTables:
        """See ``KeyedRows``."""
        tables = [table for name, table in self._tables.items() if ("", name) not in request.without]
        return LiveTables(digests_of(self._session, tables, workers=request.workers, advance=request.advance))

    def has_exact_keys(self, schema: str, name: str, columns: Sequence[str]) -> bool:
        """See ``KeyedRows``."""
        del schema
        return self._is_there(name) and has_exact_keys(self.table(name), columns)

    def digest_with_keys(
        self, schema: str, name: str, columns: Sequence[str], keys: Sequence[RowKey]
    ) -> RowsDigest:
        """See ``KeyedRows``."""
        del schema
        query = select_with_keys(self.table(name), columns, keys)
        return self._session.feeds.use(lambda feed: digest_query(feed, query))

    def key_text(self, schema: str, name: str, columns: Sequence[str], key: RowKey) -> str:
        """See ``KeyedRows``."""
        del schema
        return key_text(self.table(name), columns, key)


@contextmanager
def live_rows(address: MysqlAddress, *, readers: int = 1, is_one_moment: bool = True) -> Iterator[MysqlRows]:
    """Open the database for so many readers at once, under one snapshot, or each under one of its own. Raises
    ``SourceError``.
    """
    with (
        open_snapshot(address, workers=readers, is_one_moment=is_one_moment) as (session, tables),
        lost_with_sessions(address.url, has_ended),
    ):
        yield MysqlRows(session, tables)


Literal = Callable[[str, bytes], str]
"""Returns SQL for a value in the log, by the type of its column."""
_CHARSETS = frozenset({"utf8mb4", "utf8mb3", "utf8", "latin1", "ascii"})
_CHARACTERS = re.compile(r"(var)?char\(\d+\)|(tiny|medium|long)?text")
_DIGITS = 9
_DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""The bytes that hold a number of decimal digits, by that number."""
_DATETIME_ZERO = 1 << 39


def has_exact_keys(table: MysqlTable, columns: Sequence[str]) -> bool:
    """Tell whether a condition finds a table's rows by the values that the log has of some columns."""
    known = {column.name: column for column in table.columns}
    is_plain = not (table.elsewhere or table.versioned)
    return is_plain and all(name in known and _literal_of(known[name]) is not None for name in columns)


def select_with_keys(table: MysqlTable, columns: Sequence[str], keys: Sequence[RowKey]) -> str:
    """Return the query for the rows that have one of the keys. Characters that only a collation takes for the same are
    another key.
    """
    known = {column.name: column for column in table.columns}
    key = [known[name] for name in columns]
    condition = _is_one_of(
        [quote_name(column.name) for column in key], [_literals(key, values) for values in keys]
    )
    if any(map(_has_characters, key)):
        exact = [
            f"CAST({name} AS BINARY)" if _has_characters(column) else name
            for column in key
            for name in [quote_name(column.name)]
        ]
        condition += " AND " + _is_one_of(exact, [_literals(key, values, as_bytes=True) for values in keys])
    return f"SELECT {selected_values(table)} FROM {table.label} FORCE INDEX (PRIMARY) WHERE {condition}"


def key_text(table: MysqlTable, columns: Sequence[str], key: RowKey) -> str:
    """Return a key for people."""
    known = {column.name: column for column in table.columns}
    shown = [
        f"{name} = {value.decode(errors='replace') if _has_characters(known[name]) else literal}"
        for name, value, literal in zip(
            columns, key, _literals([known[name] for name in columns], key), strict=True
        )
    ]
    return ", ".join(shown)


def _is_one_of(values: Sequence[str], lists: Sequence[Sequence[str]]) -> str:
    listed = ",".join(f"({','.join(literals)})" if len(literals) > 1 else literals[0] for literals in lists)
    return f"({','.join(values)}) IN ({listed})"


def _literals(columns: Sequence[MysqlColumn], key: RowKey, *, as_bytes: bool = False) -> list[str]:
    literals = []
    for column, value in zip(columns, key, strict=True):
        literal = _literal_of(column)
        assert literal is not None
        is_plain = as_bytes or not _has_characters(column)
        literals.append(
            literal(column.sql_type, value) if is_plain else f"_{_charset(column)} X'{value.hex()}'"
        )
    return literals


def _literal_of(column: MysqlColumn) -> Literal | None:
    """Return what writes the values of a column. None for types of which the log's bytes do not say which row is meant:
    labels, bits, floating-point numbers, and others that not all servers have.
    """
    if _has_characters(column):
        return _bytes if _charset(column) in _CHARSETS else None
    return next((literal for pattern, literal in _LITERALS if pattern.fullmatch(column.sql_type)), None)


def _has_characters(column: MysqlColumn) -> bool:
    return _CHARACTERS.fullmatch(column.sql_type) is not None


def _charset(column: MysqlColumn) -> str:
    return column.collation.partition("_")[0]


def _integer(sql_type: str, value: bytes) -> str:
    is_unsigned = "unsigned" in sql_type or "zerofill" in sql_type
    return str(int.from_bytes(value, "little", signed=not is_unsigned))


def _bytes(sql_type: str, value: bytes) -> str:
    del sql_type
    return f"X'{value.hex()}'"


def _padded_bytes(sql_type: str, value: bytes) -> str:
    """BINARY: the log leaves zeros at the end out."""
    (size,) = map(int, re.findall(r"\d+", sql_type))
    return f"X'{value.ljust(size, bytes(1)).hex()}'"


def _decimal(sql_type: str, value: bytes) -> str:
    """Groups of nine digits, the shorter ones outside; the first bit is that of the sign (``strings/decimal.c``)."""
    precision, scale = map(int, re.findall(r"\d+", sql_type))
    is_negative = not value[0] & 0x80
    value = bytes([value[0] ^ 0x80]) + value[1:]
    if is_negative:
        value = bytes(byte ^ 0xFF for byte in value)
    (groups, first), (groups_after, last) = divmod(precision - scale, _DIGITS), divmod(scale, _DIGITS)
    digits, position = "", 0
    for count in (first, *[_DIGITS] * (groups + groups_after), last):
        size = _DIGIT_BYTES[count]
        digits += f"{int.from_bytes(value[position : position + size]):0{count}d}" if count else ""
        position += size
    number = Decimal(digits).scaleb(-scale)
    return f"{-number if is_negative else number:f}"


def _date(sql_type: str, value: bytes) -> str:
    del sql_type
    number = int.from_bytes(value, "little")
    return f"'{number >> 9:04d}-{number >> 5 & 15:02d}-{number & 31:02d}'"


def _datetime(sql_type: str, value: bytes) -> str:
    number = int.from_bytes(value[:5]) - _DATETIME_ZERO
    (year, month), day = divmod(number >> 22, 13), number >> 17 & 31
    hour, minute, second = number >> 12 & 31, number >> 6 & 63, number & 63
    return f"'{year:04d}-{month:02d}-{day:02d} {hour:02d}:{minute:02d}:{second:02d}{_fraction(sql_type, value[5:])}'"


def _timestamp(sql_type: str, value: bytes) -> str:
    seconds = int.from_bytes(value[:4])
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC) if seconds else None
    text = f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "0000-00-00 00:00:00"
    return f"'{text}{_fraction(sql_type, value[4:])}'"


def _fraction(sql_type: str, value: bytes) -> str:
    """Two digits a byte; of an odd number of digits the last one is a zero."""
    digits = int("".join(re.findall(r"\d+", sql_type)) or 0)
    return f".{int.from_bytes(value):0{2 * len(value)}d}"[: digits + 1] if digits else ""


_LITERALS: Sequence[tuple[re.Pattern[str], Literal]] = [
    (re.compile(pattern), literal)
    for pattern, literal in (
        (r"(tiny|small|medium|big)?int(\(\d+\))?( unsigned)?( zerofill)?", _integer),
        (r"decimal\(\d+,\d+\)( unsigned)?( zerofill)?", _decimal),
        (r"binary\(\d+\)", _padded_bytes),
        (r"varbinary\(\d+\)|(tiny|medium|long)?blob", _bytes),
        (r"date", _date),
        (r"datetime(\(\d\))?", _datetime),
        (r"timestamp(\(\d\))?", _timestamp),
    )
]
