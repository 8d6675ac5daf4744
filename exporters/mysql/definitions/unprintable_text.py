"""What SHOW CREATE TABLE prints as question marks: what is no UTF-8 of three bytes a character (emojis, and literals of
other charsets).

Of labels of ENUM and SET, MariaDB returns each by its number; of MySQL's only those are known that a row has.
Expressions of MySQL's tables (defaults, computed columns, checks, keys) have every byte in information_schema, as a
character of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pymysql

from exporters.api import Loss
from exporters.mysql.connection import Connection
from exporters.mysql.errors import is_about_the_thing
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.rows.column_types import LABEL

_COLUMNS = (
    "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME FROM information_schema.COLUMNS"
    " WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {table} AND DATA_TYPE IN ('enum', 'set')"
    " AND COLUMN_TYPE LIKE '%?%'"
)
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
        printed = [literal[0] for literal in LABEL.finditer(match[1])]
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


_QUERIES = (
    (
        (
            "SELECT COLUMN_NAME, COLUMN_DEFAULT FROM information_schema.COLUMNS"
            " WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {table} AND EXTRA LIKE '%DEFAULT\\_GENERATED%'"
        ),
        r"^  {name} .*? DEFAULT \(",
    ),
    (
        (
            "SELECT COLUMN_NAME, GENERATION_EXPRESSION FROM information_schema.COLUMNS"
            " WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {table}"
        ),
        r"^  {name} .*? GENERATED ALWAYS AS \(",
    ),
    (
        (
            "SELECT CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS"
            " JOIN information_schema.TABLE_CONSTRAINTS USING (CONSTRAINT_SCHEMA, CONSTRAINT_NAME)"
            " WHERE CONSTRAINT_SCHEMA = {schema} AND TABLE_NAME = {table}"
        ),
        r"^  CONSTRAINT {name} CHECK \(",
    ),
    (
        (
            "SELECT INDEX_NAME, EXPRESSION FROM information_schema.STATISTICS"
            " WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {table} AND EXPRESSION IS NOT NULL"
        ),
        r"^  (?:UNIQUE )?KEY {name} \(.*?\(",
    ),
)
_LITERAL = re.compile(rb"`(?:[^`]|``)*`|(_\w+)?('(?:[^'\\]|\\.|'')*')", re.DOTALL)
"""Or a name, in which a quote may stand."""
_ANY_LITERAL = r"(?:_\w+)?'(?:[^'\\]|\\.|'')*'"
_ESCAPED = re.compile(rb"\\(.)|''", re.DOTALL)
_ESCAPES = {b"0": b"\0", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"Z": b"\x1a"}


def with_expressions(connection: Connection, table: str, sql: str) -> str:
    """Return a table's definition with its expressions as they are. Raises the driver's errors."""
    if connection.is_mariadb or "?" not in sql:
        return sql
    names = {"schema": quote_literal(connection.address.database), "table": quote_literal(table)}
    for query, before in _QUERIES:
        for name, shown in connection.rows(query.format(**names)):
            if not shown or str(shown).isascii():
                continue
            skeleton, expression = _read(str(shown))
            begin = before.format(name=re.escape(quote_name(str(name))))
            pattern = re.compile(f"({begin}){skeleton}(?=\\))", re.DOTALL | re.MULTILINE)
            sql = pattern.sub(lambda match, put=expression: match[1] + put, sql, count=1)  # type: ignore[misc]
    return sql


def _read(shown: str) -> tuple[str, str]:
    """Return a pattern of what SHOW CREATE TABLE prints for an expression, and SQL for it."""
    text = re.sub(rb"\\(.)", rb"\1", shown.encode("latin-1", "replace"), flags=re.DOTALL)
    skeleton, expression, end = "", "", 0
    for match in _LITERAL.finditer(text):
        if match[2] is None:
            continue
        between = text[end : match.start()].decode(errors="replace")
        skeleton += re.escape(between) + _ANY_LITERAL
        expression += between + _literal(match[1] or b"", match[2])
        end = match.end()
    rest = text[end:].decode(errors="replace")
    return skeleton + re.escape(rest), expression + rest


def _literal(charset: bytes, quoted: bytes) -> str:
    """Return a literal that means the same in a UTF-8 connection."""
    if quoted.isascii() or charset in {b"", b"_utf8mb4", b"_utf8mb3"}:
        return (charset + quoted).decode(errors="replace")
    return f"{charset.decode()} X'{b''.join(_bytes(quoted[1:-1])).hex()}'"


def _bytes(inner: bytes) -> Iterator[bytes]:
    end = 0
    for match in _ESCAPED.finditer(inner):
        yield inner[end : match.start()]
        yield b"'" if match[1] is None else _ESCAPES.get(match[1], match[1])
        end = match.end()
    yield inner[end:]
