"""Definitions into the target: tables before the rows, everything else after them, all in the source's own order."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporters.sqlite import schema
from exporters.sqlite.catalog import Entry
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError, UsageError
from migrate.restore.sqlite.functions import Lent

_SEQUENCE, _STATISTICS = "sqlite_sequence", "sqlite_stat1"
_OF_THE_APPLICATION = ("no such collation", "no such function", "unknown function")


@dataclass(frozen=True, slots=True)
class Definitions:
    """The rows of the source's ``sqlite_schema``, and its settings."""

    entries: Sequence[Entry]
    pragmas: Mapping[str, Any]

    @staticmethod
    def read(reader: BundleReader, source: str, folder: str = "") -> Definitions:
        """Read them from the bundle, checked. ``folder``: of one of several files. Raises ``DamageError``."""
        files = {file.key: file for file in reader.source_files(source, f"{folder}schema/")}
        found = []
        for name in (schema.ENTRIES, schema.PRAGMAS):
            key = layout.source_file(source, folder + name)
            if key not in files:
                raise DamageError(key, expected="a file", found="none")
            found.append((key, reader.read_checked(files[key])))
        (key, entries), (_, pragmas) = found
        try:
            return Definitions(schema.parse_entries(entries), json.loads(pragmas))
        except (ValueError, TypeError) as exc:
            raise DamageError(key, expected="definitions", found=f"something else ({exc})") from exc


def is_virtual(entry: Entry) -> bool:
    """Tell whether an entry is a virtual table: it has no pages of its own."""
    return entry.type == "table" and (entry.sql or "").upper().startswith("CREATE VIRTUAL")


def make_tables(connection: sqlite3.Connection, entries: Sequence[Entry], lent: Lent) -> None:
    """Make all tables that hold rows, shadow tables as plain ones. Called within a transaction."""
    tables = [entry for entry in entries if entry.type == "table" and not is_virtual(entry)]
    for entry in tables:
        if not entry.name.startswith("sqlite_"):
            _run(connection, entry, lent)
    names = {entry.name for entry in tables}
    if _SEQUENCE in names:
        connection.execute("CREATE TABLE moveout_sequence (i INTEGER PRIMARY KEY AUTOINCREMENT)")
        connection.execute("DROP TABLE moveout_sequence")
    if _STATISTICS in names:
        connection.execute("ANALYZE sqlite_schema")


def _run(connection: sqlite3.Connection, entry: Entry, lent: Lent) -> None:
    try:
        lent.run(entry.name, lambda: connection.execute(entry.sql or ""))
    except sqlite3.OperationalError as exc:
        raise UsageError(
            f"SQLite {sqlite3.sqlite_version} cannot make the {entry.type} {entry.name}: {exc}",
            next_step="Its rows are whole in the bundle. If a function is missing, only the application can make it;"
            " else the source is of a newer SQLite: use a Python with a newer one.",
        ) from exc


def make_indexes(connection: sqlite3.Connection, entries: Sequence[Entry]) -> list[str]:
    """Make the indexes; return a sentence for each that only the application can make."""
    findings = []
    for entry in entries:
        if entry.type != "index" or entry.sql is None:
            continue
        try:
            connection.execute(entry.sql)
        except sqlite3.OperationalError as exc:
            if not str(exc).startswith(_OF_THE_APPLICATION):
                raise
            findings.append(
                f"the index {entry.name} could not be made: {exc}; the application has to: {entry.sql}"
            )
    return findings


def complete(connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """Add what has no pages (views, triggers, virtual tables) and give every entry its old place. Called within the
    last transaction of a connection, because SQLite does not notice (https://sqlite.org/pragma.html#pragma_writable_schema).
    """
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET rowid = -rowid")
    for entry in entries:
        if entry.type in {"view", "trigger"} or is_virtual(entry):
            connection.execute(
                "INSERT INTO sqlite_schema (rowid, type, name, tbl_name, rootpage, sql) VALUES (?, ?, ?, ?, 0, ?)",
                (entry.number, entry.type, entry.name, entry.table, entry.sql),
            )
        else:
            connection.execute(
                "UPDATE sqlite_schema SET rowid = ?, sql = ? WHERE type = ? AND name = ?",
                (entry.number, entry.sql, entry.type, entry.name),
            )


def schema_differences(wanted: Sequence[Entry], found: Sequence[Entry]) -> list[str]:
    """Return a sentence for every definition that is not as in the source."""
    expected = {(entry.type, entry.name): entry for entry in wanted}
    present = {(entry.type, entry.name): entry for entry in found}
    differences = [
        f"the {kind} {name} is missing in the target" for kind, name in expected.keys() - present.keys()
    ]
    differences += [
        f"the {kind} {name} is not in the bundle" for kind, name in present.keys() - expected.keys()
    ]
    differences += [
        f"the {kind} {name} has another definition"
        for kind, name in expected.keys() & present.keys()
        if expected[kind, name].sql != present[kind, name].sql
    ]
    return sorted(differences)
