"""Labels of ENUM and SET that no server prints: those with bytes that are no UTF-8 of three bytes a character (emojis;
anything, in CHARACTER SET binary) are question marks in definitions. MariaDB returns each by its number;
of MySQL's only those are known that a row has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pymysql

from exporters.api import Loss
from exporters.mysql.connection import Connection
from exporters.mysql.errors import is_about_the_thing
from exporters.mysql.identifiers import quote_literal, quote_name

_COLUMNS = (
    "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME FROM information_schema.COLUMNS"
    " WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {table} AND DATA_TYPE IN ('enum', 'set')"
    " AND COLUMN_TYPE LIKE '%?%'"
)
_LABEL = re.compile(r"'((?:[^'\\]|\\.|'')*)'", re.DOTALL)
_PROPERTY = "labels"


def with_labels(connection: Connection, table: str, sql: str, losses: list[Loss]) -> str:
    """Return a table's definition with its labels as they are; ``losses`` gets a row for each column whose labels
    the server does not return. Raises the driver's errors.
    """
    if "?" not in sql:
        return sql
    schema, quoted = quote_literal(connection.address.database), quote_literal(table)
    for name, kind, shown, charset in connection.rows(_COLUMNS.format(schema=schema, table=quoted)):
        column = quote_name(str(name))
        begin = rf"^  {re.escape(column)} {kind}\("
        match = re.search(rf"{begin}((?:'(?:[^'\\]|\\.|'')*',?)+)\)", sql, re.DOTALL | re.MULTILINE)
        if match is None:
            continue
        printed = [literal[0] for literal in _LABEL.finditer(match[1])]
        doubtful = [number for number, label in enumerate(printed) if "?" in label]
        labels = dict(_asked(connection, quote_name(table), column, str(kind), doubtful))
        for number in doubtful:
            label = labels.get(number)
            if label is not None:
                printed[number] = _written(label, printed[number], str(charset))
        if len(labels) < len(doubtful):
            reason = f"some are printed with question marks ({shown}), and no row tells whether they are some"
            losses.append(Loss(f"{quote_name(table)}.{column}", _PROPERTY, reason))
        sql = sql[: match.start(1)] + ",".join(printed) + sql[match.end(1) :]
    return sql


def _written(label: bytes, printed: str, charset: str) -> str:
    """Return a label as SQL: as it is printed, if that is it, else its text, or its bytes where these are none."""
    if charset in {"utf8mb4", "utf8mb3"}:
        return quote_literal(label.decode(errors="surrogateescape"))
    return printed if label.isascii() and charset != "ucs2" else f"X'{label.hex().upper()}'"


def _asked(
    connection: Connection, table: str, column: str, kind: str, numbers: Sequence[int]
) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes of labels by their numbers, counted from 0, as far as the server returns them."""
    for number in numbers:
        value = number + 1 if kind == "enum" else 2**number
        if connection.is_mariadb:
            query = f"BEGIN NOT ATOMIC DECLARE one TYPE OF {table}.{column}; SET one = {value}; SELECT HEX(one); END"
        else:
            query = f"SELECT HEX({column}) FROM {table} WHERE {column} + 0 = {value} LIMIT 1"
        try:
            digits = connection.value(query)
        except pymysql.Error as exc:
            if not is_about_the_thing(exc):
                raise
            continue
        if digits is not None:
            yield number, bytes.fromhex(str(digits))
