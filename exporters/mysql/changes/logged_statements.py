"""Statements in the binary log: which of them concern a database, and what they do there.

With binlog_format=ROW these are definitions, TRUNCATE and savepoints. Other sessions may still write by statement.
"""

from __future__ import annotations

import re
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from exporters.mysql.changes.binlog_events import Query

_NAME = r"(?:`(?:[^`]|``)+`|[\w$\u0080-\uffff]+)"
_TABLE = rf"(?:(?P<{{0}}>{_NAME})\s*\.\s*)?(?P<{{1}}>{_NAME})"
_ONE_TABLE = re.compile(_TABLE.format("database", "table"))
_QUOTED = r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`]|``)*`"""
_COMMENT = r"/\*(?!M?!).*?\*/|--(?:[ \t][^\n]*)?(?:\n|$)|\#[^\n]*|/\*M?!\d*|\*/"
"""Of comments that servers execute only the marks."""
_TOKENS = re.compile(rf"(?P<quoted>{_QUOTED})|{_COMMENT}", re.DOTALL)
_IF = r"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"
_WAIT = r"(?:\s+(?:NOWAIT|WAIT\s+\d+))?"
_TRUNCATE = re.compile(r"TRUNCATE\s+(?:TABLE\s+)?", re.IGNORECASE)
_ON_ONE = re.compile(
    rf"(?:ALTER\s+(?:ONLINE\s+|OFFLINE\s+|IGNORE\s+)*TABLE\s+{_IF}"
    rf"|CREATE\s+(?:OR\s+REPLACE\s+)?TABLE\s+{_IF}"
    rf"|(?:CREATE|DROP)\s+(?:OR\s+REPLACE\s+)?(?:\w+\s+)*?INDEX\s+{_IF}{_NAME}\s+(?:USING\s+\w+\s+)?ON\s+)",
    re.IGNORECASE,
)
_ON_MANY = re.compile(rf"(?:DROP\s+TABLES?\s+{_IF}|RENAME\s+TABLES?\s+{_IF})", re.IGNORECASE)
_EXCHANGED = re.compile(rf"\bEXCHANGE\s+PARTITION\s+{_NAME}\s+WITH\s+TABLE\s+", re.IGNORECASE)
_SEPARATOR = re.compile(rf"{_WAIT}\s*(?:,|\bTO\b)\s*", re.IGNORECASE)
_SAVEPOINT = re.compile(r"(?:SAVEPOINT\s|ROLLBACK\s+(?:WORK\s+)?TO\s)", re.IGNORECASE)
_ROLLBACK = re.compile(r"ROLLBACK(?:\s+WORK)?\s*;?$", re.IGNORECASE)
_WRITES = re.compile(r"(?:INSERT|UPDATE|DELETE|REPLACE|LOAD|WITH|CALL|DO)\b", re.IGNORECASE)


class StatementKind(Enum):
    """What a statement does."""

    TRUNCATE = "truncate"
    DEFINITION = "definition"
    """Of tables."""
    SAVEPOINT = "savepoint"
    WRITE = "write"
    """Rows, by statement: the log does not say which. Or rows that were logged are taken back."""


class LoggedStatement(Struct, frozen=True):
    """A statement that concerns a database. ``tables`` of it are those it names."""

    kind: StatementKind
    tables: tuple[str, ...]
    text: str


def read_statement(query: Query, database: str) -> LoggedStatement | None:
    """Return what a statement does in a database; None where it does nothing there that concerns rows."""
    text = plain_statement(query.text)
    if _SAVEPOINT.match(text):
        return LoggedStatement(StatementKind.SAVEPOINT, (), text)
    if match := _TRUNCATE.match(text):
        return _about(StatementKind.TRUNCATE, text, match.end(), query, database)
    if match := _ON_ONE.match(text):
        one = _about(StatementKind.DEFINITION, text, match.end(), query, database)
        exchanged = _EXCHANGED.search(text, match.end())
        if exchanged is None:
            return one
        other = _about(StatementKind.DEFINITION, text, exchanged.end(), query, database)
        return replace(one, tables=one.tables + other.tables) if one and other else one or other
    if match := _ON_MANY.match(text):
        return _about(StatementKind.DEFINITION, text, match.end(), query, database, many=True)
    if _ROLLBACK.match(text):
        return LoggedStatement(StatementKind.WRITE, (), text)
    if _WRITES.match(text) and (query.database == database or database in text):
        return LoggedStatement(StatementKind.WRITE, (), text)
    return None


def plain_statement(text: str) -> str:
    """Return a statement without comments, and spaces before and after it."""
    return _TOKENS.sub(lambda match: match["quoted"] or " ", text).strip()


def _about(
    kind: StatementKind, text: str, start: int, query: Query, database: str, *, many: bool = False
) -> LoggedStatement | None:
    tables, begin = [], start
    while match := _ONE_TABLE.match(text, start):
        named = _unquoted(match["database"]) if match["database"] else query.database
        if named == database:
            tables.append(_unquoted(match["table"]))
        separator = _SEPARATOR.match(text, match.end()) if many else None
        if separator is None:
            break
        start = separator.end()
    if start == begin and not _ONE_TABLE.match(text, start):  # it cannot be read, so it may concern any table
        return LoggedStatement(StatementKind.WRITE, (), text)
    return LoggedStatement(kind, tuple(tables), text) if tables else None


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name
