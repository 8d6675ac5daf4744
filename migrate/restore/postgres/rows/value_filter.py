"""Values that the destination's types do not take: of types without an input function (pg_node_tree), with names of
objects and roles that are not there, infinite ones to an older server. A row comes with NULL in place of such a value;
where the column is NOT NULL it does not come. Two intervals that are finite in an older server are infinite in a newer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from exporters.postgres.identifiers import quote_literal
from exporters.postgres.part_reader import blocks_of
from exporters.postgres.rows.csv_rows import csv_fields, split_lines, unquoted
from exporters.sql.columns import OWN
from exporters.sql.parquet_read import ParquetPart
from exporters.sql.value_codec import is_utf8
from migrate.restore.postgres.definitions.refusals import first_line, is_refusal

_COLUMNS = """
SELECT attname, pg_catalog.format_type(atttypid, atttypmod), attnotnull FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass(%s) AND attnum > 0 AND NOT attisdropped
"""
_ALWAYS_TAKEN = re.compile(
    r"(smallint|integer|bigint|oid|boolean|real|double precision|text|character( varying)?|bytea|uuid|date|"
    r"json|jsonb|time(stamp)?(\(\d\))? with(out)? time zone)(\([\d,]+\))?"
)
"""Types that take whatever they once printed. Older servers have no infinite ``numeric`` and ``interval``."""
_INFINITE = {
    b"P178956970Y7M2147483647DT2562047788H54.775807S": b"infinity",
    b"P-178956970Y-8M-2147483648DT-2562047788H-54.775808S": b"-infinity",
}
_INFINITE_FROM = 170000
"""From this version on, these two intervals are infinite (INTERVAL_NOBEGIN, src/include/datatype/timestamp.h)."""
_NO_NULL = "the column is NOT NULL here"
_BATCH = 1000


class ValueFilter:
    """Takes out of rows what a table's columns do not take. ``values``: how many of which column; ``rows``: how many by
    the column that keeps them out; ``reasons`` by column. ``infinite``: how many of which column are infinite here. The
    connection is in a transaction.
    """

    def __init__(self, connection: psycopg.Connection[Any], label: str, names: Sequence[str]) -> None:
        self._connection = connection
        self._names = names
        columns = {name: (kind, not_null) for name, kind, not_null in connection.execute(_COLUMNS, (label,))}
        self._types = [columns.get(name, ("text", False))[0] for name in names]
        self._not_null = [columns.get(name, ("text", False))[1] for name in names]
        self._without_input: set[int] = set()
        self.values: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.infinite: Counter[str] = Counter()
        self._has_infinite = connection.info.server_version >= _INFINITE_FROM
        self.reasons: dict[str, str] = {}

    @property
    def doubtful(self) -> list[int]:
        """Return the numbers of the columns whose types may refuse a value."""
        return [number for number, kind in enumerate(self._types) if not _ALWAYS_TAKEN.fullmatch(kind)]

    def filtered(self, lines: Sequence[bytes]) -> list[bytes]:
        """Return CSV lines as the table takes them."""
        rows = [csv_fields(line) for line in lines]
        if self._has_infinite and any(text in line for line in lines for text in _INFINITE):
            for row in rows:
                self._make_infinite(row)
        refused = {number: self._refused(number, {row[number] for row in rows}) for number in self.doubtful}
        return [line for row in rows if (line := self._line(row, refused)) is not None]

    def _make_infinite(self, row: list[bytes]) -> None:
        for number in self.doubtful:
            for text, infinite in _INFINITE.items():
                if text in row[number]:
                    self.infinite[self._names[number]] += row[number].count(text)
                    row[number] = row[number].replace(text, infinite)

    def _line(self, row: list[bytes], refused: Mapping[int, set[bytes]]) -> bytes | None:
        numbers = [number for number, values in refused.items() if row[number] in values]
        for number, not_null in enumerate(self._not_null):
            if not_null and (number in numbers or not row[number]):
                self.rows[self._names[number]] += 1
                self.reasons.setdefault(self._names[number], _NO_NULL)
                return None
        for number in numbers:
            self.values[self._names[number]] += 1
            row[number] = b""
        return b",".join(row)

    def _refused(self, number: int, fields: set[bytes]) -> set[bytes]:
        """Return which values of a column the server refuses; those in an encoding of their own are not tried."""
        known = [
            value
            for value in sorted(fields)
            if value and not value.lstrip(b'"').startswith(OWN) and is_utf8(value)
        ]
        if number in self._without_input:
            return set(known)
        batches = (known[start : start + _BATCH] for start in range(0, len(known), _BATCH))
        return {value for batch in batches for value in self._halved(number, batch)}

    def _halved(self, number: int, fields: Sequence[bytes]) -> Iterator[bytes]:
        error = self._error(number, fields)
        if error is None:
            return
        if isinstance(error, psycopg.errors.FeatureNotSupported):
            self._without_input.add(number)
        if number in self._without_input or len(fields) == 1:
            self.reasons.setdefault(self._names[number], first_line(error))
            yield from fields
            return
        middle = len(fields) // 2
        yield from self._halved(number, fields[:middle])
        yield from self._halved(number, fields[middle:])

    def _error(self, number: int, fields: Sequence[bytes]) -> psycopg.Error | None:
        """Return why the server refuses one of these values; what violates a domain is not refused by the type."""
        texts = (quote_literal((unquoted(field) or b"").decode()) for field in fields)
        values = ", ".join(f"({text}::{self._types[number]})" for text in texts)
        try:
            with self._connection.transaction():
                self._connection.execute(f"SELECT FROM (VALUES {values}) AS u(v) LIMIT 1".encode())
        except psycopg.IntegrityError as exc:
            return exc if len(fields) > 1 else None
        except psycopg.Error as exc:
            if not is_refusal(exc, self._connection):
                raise
            return exc
        return None


def lines_of_part(file: ParquetPart, *, generated: bool) -> Iterator[list[bytes]]:
    """Yield the lines of a part, some thousand at a time; a long one alone."""
    pending = b""
    for block, rows in blocks_of(file, generated=generated):
        pending += block
        if rows:
            yield split_lines(pending)
            pending = b""
