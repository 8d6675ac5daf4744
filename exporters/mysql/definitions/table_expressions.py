"""Expressions in tables of MySQL: defaults, computed columns, checks, keys.

SHOW CREATE TABLE takes their text for UTF-8 of three bytes a character, and prints question marks for what is none:
emojis, and literals of other charsets. information_schema has every byte, as a character of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from exporters.mysql.connection import Connection
from exporters.mysql.identifiers import quote_literal, quote_name

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
