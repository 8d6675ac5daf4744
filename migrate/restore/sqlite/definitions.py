"""Definitions into the destination: tables before the rows, everything else after them, all in the source's own
order.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

from msgspec import Struct

from exporters.sqlite import definitions
from exporters.sqlite.catalog import SchemaEntry
from exporters.sqlite.errors import code_of
from exporters.sqlite.identifiers import is_own
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError, UsageError, decoding
from migrate.restore.sqlite.application_functions import StandIns

T = TypeVar("T")
_THE_INDEX = "the index "
SEQUENCE, _STATISTICS = "sqlite_sequence", "sqlite_stat1"
_OF_THE_APPLICATION = (
    "no such collation",
    "no such function",
    "unknown function",
    "non-deterministic functions",
)


_TOKEN = re.compile(
    r"""(?P<name>'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|[\w$]+)|--[^\n]*|/\*.*?(?:\*/|\Z)|[(),]""",
    re.DOTALL,
)
_MARKS = {"'": "'", '"': '"', "`": "`", "[": "]"}


class Definitions(Struct, frozen=True):
    """The rows of the source's ``sqlite_schema``, from the file ``key`` of the bundle, and its settings."""

    entries: Sequence[SchemaEntry]
    pragmas: Mapping[str, Any]
    key: str

    @staticmethod
    def read(reader: BundleReader, source: str, folder: str = "") -> Definitions:
        """Read them from the bundle, checked. ``folder``: of one of several files. Raises ``DamageError``."""
        files = {file.key: file for file in reader.source_files(source, f"{folder}schema/")}
        documents = []
        for name in (definitions.ENTRIES, definitions.PRAGMAS):
            key = layout.source_file(source, folder + name)
            if key not in files:
                raise DamageError(key, expected="a file", found="none")
            documents.append((key, reader.read_checked(files[key])))
        (key, entries), (pragmas_key, pragmas) = documents
        parsed_entries = _parsed(definitions.parse_entries, entries, key)
        return Definitions(parsed_entries, _parsed(definitions.parse_pragmas, pragmas, pragmas_key), key)


def _parsed(parse: Callable[[bytes], T], data: bytes, key: str) -> T:
    with decoding(key, "definitions"):
        return parse(data)


def is_virtual(entry: SchemaEntry) -> bool:
    """Tell whether an entry is a virtual table: it has no pages of its own."""
    return entry.type == "table" and (entry.sql or "").upper().startswith("CREATE VIRTUAL")


def select_entries(entries: Sequence[SchemaEntry], tables: AbstractSet[str]) -> list[SchemaEntry]:
    """Return what makes these tables, their indexes and triggers, and virtual tables over them, in order."""
    names = set(tables)
    for virtual in filter(is_virtual, entries):
        shadows = {other.name for other in shadows_of(virtual, entries)}
        names |= {virtual.name} if shadows and shadows <= tables else set()
    return [entry for entry in entries if entry.table in names]


def make_tables(
    connection: sqlite3.Connection, entries: Sequence[SchemaEntry], stand_ins: StandIns, *, empty: bool
) -> None:
    """Make all tables that hold rows, shadow tables as plain ones. Called within a transaction. ``empty``: no rows will
    come; then virtual tables are made by their modules, since none of them works over empty shadow tables.
    """
    tables = [entry for entry in entries if entry.type == "table" and not is_virtual(entry)]
    virtual = [entry for entry in entries if is_virtual(entry)] if empty else []
    made = {name for entry in virtual for name in _make_virtual(connection, entry, tables)}
    for entry in tables:
        if not is_own(entry.name) and entry.name not in made:
            _run(connection, entry, stand_ins)
    names = {entry.name for entry in tables}
    if SEQUENCE in names:
        connection.execute("CREATE TABLE moveout_sequence (i INTEGER PRIMARY KEY AUTOINCREMENT)")
        connection.execute("DROP TABLE moveout_sequence")
    if _STATISTICS in names:
        connection.execute("ANALYZE sqlite_schema")


def without_expressions(sql: str, columns: AbstractSet[str]) -> str:
    """Return a table's definition in which these generated columns are NULL."""
    depth, name, begin, before, spans = 0, "", 0, "", list[tuple[int, int]]()
    for match in _TOKEN.finditer(sql):
        if match["name"] is not None:
            name = name or (_unquoted(match[0]) if depth == 1 else "")
            before = match[0].upper()
        elif match[0] == "(":
            depth += 1
            begin = match.end() if (depth, before) == (2, "AS") and name in columns else begin
            before = ""
        elif match[0] == ")":
            spans += [(begin, match.start())] if depth == 2 and begin else []
            depth, begin = depth - 1, begin if depth > 2 else 0
        elif match[0] == "," and depth == 1:
            name = ""
    for first, last in reversed(spans):
        sql = f"{sql[:first]}NULL{sql[last:]}"
    return sql


def without_requirements(sql: str) -> str:
    """Return a table's definition without NOT NULL and STRICT, under which a row is stored that violates these: SQLite
    itself adds columns with a default of another type.
    """
    tokens = [match for match in _TOKEN.finditer(sql) if match["name"] is not None or match[0] in "(),"]
    words = [match[0].upper() for match in tokens]
    depth, spans, is_strict = 0, list[tuple[int, int, str]](), "STRICT" in words[_end_of_columns(words) :]
    for index, (match, word) in enumerate(zip(tokens, words, strict=True)):
        depth += {"(": 1, ")": -1}.get(word, 0)
        following = words[index + 1 : index + 4]
        if depth == 1 and (word, following[:1]) == ("NOT", ["NULL"]):
            last = index + (4 if following[1:] == ["ON", "CONFLICT"] else 1)
            spans.append((match.start(), tokens[last].end(), ""))
        elif depth == 1 and is_strict and word == "ANY" and words[index - 2] in {"(", ","}:
            spans.append((match.start(), match.end(), "BLOB"))  # else it would be a type of numbers
    if is_strict:
        end = _end_of_columns(words)
        spans.append((tokens[end - 1].end(), len(sql), " WITHOUT ROWID" if "ROWID" in words[end:] else ""))
    for first, last, text in reversed(spans):
        sql = f"{sql[:first]}{text}{sql[last:]}"
    return sql


def _end_of_columns(words: Sequence[str]) -> int:
    """Return the index behind the parenthesis that closes the list of columns."""
    return len(words) - [*reversed(words)].index(")") if ")" in words else len(words)


def _unquoted(word: str) -> str:
    end = _MARKS.get(word[0])
    return word if end is None else word[1:-1].replace(end * 2, end)


def set_definition(connection: sqlite3.Connection, table: str, sql: str) -> None:
    """Give a table another definition, under which its rows are stored alike."""
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = ? WHERE type = 'table' AND name = ?", (sql, table))
    connection.execute("PRAGMA writable_schema = RESET")
    # It is read while there are stand-ins of functions.
    connection.execute("SELECT 1 FROM sqlite_schema").fetchone()


def shadows_of(entry: SchemaEntry, tables: Sequence[SchemaEntry]) -> list[SchemaEntry]:
    """Return the tables that hold a virtual table's rows (https://sqlite.org/vtab.html#the_xshadowname_method)."""
    return [
        table for table in tables if table.type == "table" and table.name.rpartition("_")[0] == entry.name
    ]


def _make_virtual(
    connection: sqlite3.Connection, entry: SchemaEntry, tables: Sequence[SchemaEntry]
) -> list[str]:
    """Let the module make a virtual table; return the names of its shadow tables. None, and nothing is made, where the
    module is not there or makes others than the source has.
    """
    expected = {shadow.name: shadow.sql for shadow in shadows_of(entry, tables)}
    connection.execute("SAVEPOINT virtual")
    try:
        connection.execute(entry.sql or "")
        there = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
        same = {name: sql for name, sql in there if name in expected} == expected
    except sqlite3.OperationalError:
        same = False
    connection.execute("RELEASE virtual" if same else "ROLLBACK TO virtual")
    return list(expected) if same else []


def _run(connection: sqlite3.Connection, entry: SchemaEntry, stand_ins: StandIns) -> None:
    try:
        stand_ins.run(entry.name, lambda: connection.execute(entry.sql or ""))
    except (sqlite3.Error, sqlite3.Warning) as exc:
        raise _cannot_make(entry, exc) from exc


def _cannot_make(entry: SchemaEntry, exc: Exception) -> Exception:
    """Return what to say of a definition that SQLite does not take; the error itself where its SQL is not why."""
    if code_of(exc) not in {"", "SQLITE_ERROR"}:
        return exc
    return UsageError(
        f"SQLite {sqlite3.sqlite_version} cannot make the {entry.type} {entry.name}: {exc}",
        next_step="its rows are whole in the bundle. If a function is missing, only the application can make it;"
        " else the source is of a newer SQLite: use a Python with a newer one",
    )


def make_indexes(connection: sqlite3.Connection, entries: Sequence[SchemaEntry]) -> list[str]:
    """Make the indexes; return a sentence for each that the application must make, or that rows violate."""
    left_out = []
    for entry in entries:
        if entry.type != "index" or entry.sql is None:
            continue
        try:
            connection.execute(entry.sql)
        except sqlite3.IntegrityError as exc:
            left_out.append(f"{_left_out(entry)}{exc}: {entry.sql}")
        except (sqlite3.Error, sqlite3.Warning) as exc:
            if not str(exc).startswith(_OF_THE_APPLICATION):
                raise _cannot_make(entry, exc) from exc
            left_out.append(f"{_left_out(entry)}{exc}; the application has to: {entry.sql}")
    return left_out


def _left_out(entry: SchemaEntry) -> str:
    return f"{_THE_INDEX}{entry.name} could not be made: "


def is_about_an_index(sentence: str) -> bool:
    """Tell whether a sentence about what was left out is one of ``make_indexes``."""
    return sentence.startswith(_THE_INDEX)


def indexes_left_out(
    entries: Sequence[SchemaEntry], left_out: Sequence[str], present: Sequence[SchemaEntry]
) -> list[SchemaEntry]:
    """Return the indexes that ``make_indexes`` has left out, but for those that somebody has made since."""
    names = {entry.name for entry in present if entry.type == "index"}
    return [
        entry
        for entry in entries
        if entry.type == "index"
        and entry.name not in names
        and any(sentence.startswith(_left_out(entry)) for sentence in left_out)
    ]


def make_triggers(connection: sqlite3.Connection, entries: Sequence[SchemaEntry]) -> None:
    """Make the triggers among these entries."""
    for entry in entries:
        if entry.type == "trigger":
            connection.execute(entry.sql or "")


def add_virtual(connection: sqlite3.Connection, entries: Sequence[SchemaEntry]) -> None:
    """Add the virtual tables that are not there to what the schema has already. Called as ``complete`` is."""
    connection.execute("PRAGMA writable_schema = ON")
    connection.executemany(
        "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) SELECT ?1, ?2, ?3, 0, ?4"
        " WHERE NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?2)",
        [(entry.type, entry.name, entry.table, entry.sql) for entry in entries if is_virtual(entry)],
    )


def complete(connection: sqlite3.Connection, definitions: Definitions) -> None:
    """Add what has no pages (views, triggers, virtual tables) and give every entry its old location. Called within the
    last transaction of a connection, because SQLite does not notice
    (https://sqlite.org/pragma.html#pragma_writable_schema). Raises ``DamageError`` where SQLite cannot read the result.
    """
    try:
        _write_entries(connection, definitions.entries)
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.DatabaseError as exc:
        if any(words in str(exc) for words in _OF_THE_APPLICATION):
            return
        if not code_of(exc).startswith(("SQLITE_ERROR", "SQLITE_CORRUPT", "SQLITE_CONSTRAINT")):
            raise
        found = f"what SQLite {sqlite3.sqlite_version} cannot read ({exc})"
        raise DamageError(definitions.key, expected="definitions", found=found) from exc


def _write_entries(connection: sqlite3.Connection, entries: Sequence[SchemaEntry]) -> None:
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET rowid = -rowid")
    rows = connection.execute("SELECT rowid, type, name FROM sqlite_schema").fetchall()
    # A statement for each name would search the table from its start.
    rowids = {(kind, name): rowid for rowid, kind, name in rows}
    for entry in entries:
        if (rowid := rowids.get((entry.type, entry.name))) is not None:
            connection.execute(
                "UPDATE sqlite_schema SET rowid = ?, sql = ? WHERE rowid = ?",
                (entry.number, entry.sql, rowid),
            )
        elif entry.type in {"view", "trigger"} or is_virtual(entry):
            connection.execute(
                "INSERT INTO sqlite_schema (rowid, type, name, tbl_name, rootpage, sql) VALUES (?, ?, ?, ?, 0, ?)",
                (entry.number, entry.type, entry.name, entry.table, entry.sql),
            )


def schema_differences(
    source_entries: Sequence[SchemaEntry], destination_entries: Sequence[SchemaEntry]
) -> list[str]:
    """Return a sentence for every definition that is not as in the source."""
    expected = {(entry.type, entry.name): entry for entry in source_entries}
    present = {(entry.type, entry.name): entry for entry in destination_entries}
    differences = [
        f"the {kind} {name} is missing in the destination" for kind, name in expected.keys() - present.keys()
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
