"""Two databases of MariaDB, compared object by object: definitions, rows, and the server's checksums of tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import pymysql
from pymysql.converters import encoders

from scripts.mariadb import MariadbServer

_MOST_ROWS = 300_000
_TABLES = "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema}"
_OTHERS = {
    "routines": "SELECT ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {schema}",
    "triggers": "SELECT TRIGGER_NAME, 'TRIGGER' FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {schema}",
    "events": "SELECT EVENT_NAME, 'EVENT' FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {schema}",
}
"""A server whose system tables are damaged lists some of them no longer."""
_COLUMNS = (
    "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {table}"
    " ORDER BY ORDINAL_POSITION"
)
_LEFT_OUT = "moveout_restore_left_out"
"""The list that a restore leaves in the destination."""
_MORE_THAN_ROWS = re.compile(rb"USING HASH| VIRTUAL\b")
"""Tables with hidden hashes or virtual columns: equal rows have different checksums, even on one server, by how they
were inserted (seen with MariaDB 10.11.19).
"""
_NO_ERROR = "IGNORE_BAD_TABLE_OPTIONS,ALLOW_INVALID_DATES"


@dataclass(frozen=True, slots=True)
class Item:
    """An object of a database, or one side of it: its definition or its rows."""

    kind: str
    name: str
    side: str

    def __str__(self) -> str:
        return f"{self.side} of {self.kind} {self.name}"


def differences(
    source: MariadbServer, destination: MariadbServer, database: str, copy: str = ""
) -> tuple[list[tuple[Item, str]], int]:
    """Return what differs, each with both sides, and how many objects there are."""
    left, right = describe(source, database), describe(destination, copy or database)
    item_differences = [
        (item, f"{_shown(left.get(item))} / {_shown(right.get(item))}")
        for item in sorted({*left, *right}, key=str)
        if left.get(item) != right.get(item)
    ]
    return item_differences, len({(item.kind, item.name) for item in left})


def _shown(value: bytes | None) -> str:
    return "nothing" if value is None else value.decode(errors="backslashreplace")[:1500]


def describe(server: MariadbServer, database: str) -> Mapping[Item, bytes]:
    """Return what is in a database."""
    with closing(server.connect(database, use_unicode=False, conv=encoders, charset="utf8mb4")) as connection:
        reader = _Reader(connection, database)
        return dict(reader.items())


class _Reader:
    """Reads one database through one session, every value as bytes."""

    def __init__(self, connection: pymysql.Connection, database: str) -> None:
        self._connection = connection
        self._schema = "'" + database.replace("'", "''") + "'"
        for statement in (
            f"SET sql_mode = '{_NO_ERROR}', time_zone = '+00:00', max_statement_time = 60, lock_wait_timeout = 20",
            "SET character_set_results = NULL",
        ):
            self._rows(statement)

    def items(self) -> Iterator[tuple[Item, bytes]]:
        yield (
            Item("database", "", "definition"),
            repr(self._rows("SHOW CREATE DATABASE " + self._own())).encode(),
        )
        for name, kind in self._names(_TABLES):
            if name == _LEFT_OUT:
                continue
            label = "`" + name.replace("`", "``") + "`"
            word = {"VIEW": "view", "SEQUENCE": "sequence"}.get(kind, "table")
            definition = self._created(word.upper(), label)
            yield Item(word, name, "definition"), definition
            if word == "sequence":
                yield Item(word, name, "rows"), repr(self._try(f"SELECT * FROM {label}")).encode()
            elif word == "table":
                yield (
                    Item(word, name, "rows"),
                    self._content(name, label, versioned=kind == "SYSTEM VERSIONED"),
                )
                if not _MORE_THAN_ROWS.search(definition):
                    yield Item(word, name, "checksum"), repr(self._try(f"CHECKSUM TABLE {label}")).encode()
        for kinds, query in _OTHERS.items():
            yield from self._others(kinds, query)

    def _others(self, kinds: str, query: str) -> Iterator[tuple[Item, bytes]]:
        try:
            names = self._names(query)
        except pymysql.Error as error:
            yield Item("catalog", kinds, "list"), _error(error).encode()
            return
        for name, kind in names:
            label = "`" + name.replace("`", "``") + "`"
            yield Item(kind.lower(), name, "definition"), self._created(kind, label)

    def _own(self) -> str:
        return "`" + self._schema[1:-1].replace("''", "'").replace("`", "``") + "`"

    def _names(self, query: str) -> list[tuple[str, str]]:
        rows = self._rows(query.format(schema=self._schema))
        return sorted((name.decode(), kind.decode()) for name, kind in rows)

    def _created(self, kind: str, label: str) -> bytes:
        rows = self._try(f"SHOW CREATE {kind} {label}")
        if isinstance(rows, str):
            return rows.encode()
        texts = [value or b"" for value in rows[0]]
        return b" | ".join(texts[:-1] if kind == "TRIGGER" else texts)  # the last one is when it was made

    def _content(self, name: str, label: str, *, versioned: bool) -> bytes:
        table = "'" + name.replace("\\", "\\\\").replace("'", "''") + "'"
        columns = [
            "`" + column.decode().replace("`", "``") + "`"
            for (column,) in self._rows(_COLUMNS.format(schema=self._schema, table=table))
        ]
        if versioned and not any("row_start" in column for column in columns):
            columns += ["row_start", "row_end"]
        every = f"{label} FOR SYSTEM_TIME ALL" if versioned else label
        rows = self._try(f"SELECT {', '.join(columns)} FROM {every} LIMIT {_MOST_ROWS}")
        if isinstance(rows, str):
            return rows.encode()
        digest = hashlib.sha256()
        for row in sorted(map(repr, rows)):
            digest.update(row.encode())
        shown = repr(sorted(map(repr, rows))[:3])[:600] if rows else ""
        return f"{len(rows)} rows {digest.hexdigest()} {shown}".encode()

    def _try(self, query: str) -> list[tuple[bytes, ...]] | str:
        """Return the rows, or what the server says of the statement."""
        try:
            return self._rows(query)
        except pymysql.Error as error:
            return _error(error)

    def _rows(self, query: str) -> list[tuple[bytes, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()]


def _error(error: pymysql.Error) -> str:
    return f"error {error.args[0] if error.args else error}"
