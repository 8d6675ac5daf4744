"""What is in a database file: its tables with their columns, and every entry of its schema."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from exporters.api import Gap, Loss
from exporters.errors import SourceUsageError
from exporters.sql.source_summary import of_a_restore
from exporters.sqlite.errors import is_damage
from exporters.sqlite.identifiers import SCHEMA, is_own, label, quote_name

OLDEST = (3, 37, 0)
"""From here on ``PRAGMA table_list`` distinguishes virtual tables from others (https://sqlite.org/changes.html)."""
PROGRESS_TABLE = "moveout_restore"
"""Where a restore keeps its place in the destination; never a part of the data."""
RECORD_SUFFIX = "-moveout.json"
"""The file next to a database that lists what its restore left out."""
_VIRTUAL, _STORED = 2, 3
_ROWID_NAMES = ("rowid", "_rowid_", "oid")
_NEW_PRAGMAS = {
    "encoding": "UTF-8",
    "page_size": 4096,
    "auto_vacuum": 0,
    "user_version": 0,
    "application_id": 0,
}
_FOREIGN_STATISTICS = ("sqlite_stat2", "sqlite_stat3", "sqlite_stat4")
"""Statistics that only libraries built for them can write; ANALYZE makes them again."""


class SchemaColumn(Struct, frozen=True):
    """A column as it is exported. ``declared`` is its type as written, maybe empty. ``virtual``: it is computed when it
    is read.
    """

    name: str
    declared: str
    not_null: bool
    generated: bool
    virtual: bool = False


class SqliteTable(Struct, frozen=True):
    """A table with rows in the file: ordinary, shadow or SQLite's own. ``rowid`` is a name by which its rowid can be
    had, "" where there is none; ``hidden_rowid`` says that no column holds it, so that it is exported next to them.
    ``shadow_of``: the virtual table whose rows it holds.
    """

    name: str
    sql: str
    rowid: str
    hidden_rowid: bool
    columns: tuple[SchemaColumn, ...]
    shadow_of: str = ""

    @property
    def schema(self) -> str:
        """What SQLite calls the file's own schema."""
        return SCHEMA

    @property
    def label(self) -> str:
        """The name for SQL and for people."""
        return label(SCHEMA, self.name)

    @property
    def selected(self) -> tuple[str, ...]:
        """The quoted names of what is selected, in the order of the row's text."""
        names = [quote_name(column.name) for column in self.columns]
        return (self.rowid, *names) if self.hidden_rowid else tuple(names)

    @property
    def fingerprint(self) -> str:
        """A hash of what a finished chunk depends on apart from its rows."""
        facts = [self.name, self.sql, self.hidden_rowid, [[c.name, c.generated] for c in self.columns]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


class SchemaEntry(Struct, frozen=True):
    """A row of ``sqlite_schema``; ``sql`` is None for indexes that a constraint makes."""

    number: int
    type: str
    name: str
    table: str
    sql: str | None


class Catalog(Struct, frozen=True):
    """Everything that is known before a row is read. ``tables`` in the order in which they are loaded again: SQLite's
    own last, because loading others changes them. ``gaps`` are of a damaged schema.
    """

    tables: Sequence[SqliteTable]
    entries: Sequence[SchemaEntry]
    pragmas: Mapping[str, Any]
    losses: Sequence[Loss]
    gaps: Sequence[Gap] = ()


def check_library() -> None:
    """Raise ``SourceUsageError`` where the SQLite library is too old."""
    if sqlite3.sqlite_version_info < OLDEST:
        raise SourceUsageError(
            f"Python's SQLite is {sqlite3.sqlite_version}, at least {'.'.join(map(str, OLDEST))} is needed",
            next_step="use a newer Python",
        )


class _Undecodable(str):
    """Text that is not UTF-8, with U+FFFD in place of what is none."""

    __slots__ = ()


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _Undecodable(data.decode(errors="replace"))


def read_catalog(connection: sqlite3.Connection) -> Catalog:
    """Read tables, schema and settings. Raises ``sqlite3.Error``."""
    text_factory, connection.text_factory = connection.text_factory, _decoded
    try:
        return _read_catalog(connection)
    finally:
        connection.text_factory = text_factory


def _read_catalog(connection: sqlite3.Connection) -> Catalog:
    entries, gaps = _read_entries(connection)
    kinds = {
        row[1]: (row[2], bool(row[4]))
        for row in connection.execute("PRAGMA table_list")
        if row[0] == SCHEMA and row[1] not in {"sqlite_schema", PROGRESS_TABLE}
    }
    tables, losses = [], []
    if any(entry.name == PROGRESS_TABLE for entry in entries):
        losses.append(of_a_restore(label(SCHEMA, PROGRESS_TABLE)))
    entries = [entry for entry in entries if PROGRESS_TABLE not in {entry.name, entry.table}]
    unreadable = [entry for entry in entries if not _is_readable(entry, kinds)]
    gaps += [Gap(f"{SCHEMA}.{entry.name}", "failed", "its definition cannot be read") for entry in unreadable]
    entries = [entry for entry in entries if entry not in unreadable]
    for entry in entries:
        if entry.type != "table" or entry.name in _FOREIGN_STATISTICS:
            continue
        kind, without_rowid = kinds.get(entry.name, ("virtual", False))
        if kind == "virtual":
            losses += _virtual_losses(entry, kinds)
            continue
        table, table_losses = _table(connection, entry, without_rowid=without_rowid)
        # https://sqlite.org/vtab.html#the_xshadowname_method: the name up to the last underscore
        owner = entry.name.rpartition("_")[0] if kind == "shadow" else ""
        tables.append(replace(table, shadow_of=owner))
        losses += table_losses
    losses += [
        Loss(
            entry.name,
            "statistics",
            "only some SQLite libraries can write them; run ANALYZE on the destination",
        )
        for entry in entries
        if entry.name in _FOREIGN_STATISTICS
    ]
    entries = [entry for entry in entries if entry.table not in _FOREIGN_STATISTICS]
    tables.sort(key=lambda table: (is_own(table.name), table.name))
    return Catalog(tables, entries, read_pragmas(connection), losses, gaps)


def nothing_of(damage: Exception | None) -> Catalog:
    """Return the catalog of a file of which nothing can be read."""
    return Catalog((), (), _NEW_PRAGMAS, (), [Gap(SCHEMA, "failed", str(damage))])


def _read_entries(connection: sqlite3.Connection) -> tuple[list[SchemaEntry], list[Gap]]:
    """Return the rows of ``sqlite_schema``; up to the first damaged page, and with a gap then."""
    entries: list[SchemaEntry] = []
    try:
        query = "SELECT rowid, type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid"
        entries.extend(SchemaEntry(*row) for row in connection.execute(query))
    except sqlite3.DatabaseError as exc:
        if not is_damage(exc):
            raise
        reason = f"after {len(entries)} definitions it cannot be read: {exc}"
        return entries, [Gap(f"{SCHEMA}.sqlite_schema", "failed", reason)]
    return entries, []


def _is_readable(entry: SchemaEntry, kinds: Mapping[str, tuple[str, bool]]) -> bool:
    """Tell whether a definition is text, and SQLite could read it where it is a table's."""
    texts = (entry.type, entry.name, entry.table, entry.sql or "")
    if not all(isinstance(text, str) and not isinstance(text, _Undecodable) for text in texts):
        return False
    is_virtual = (entry.sql or "").upper().startswith("CREATE VIRTUAL")
    return entry.type != "table" or is_virtual or entry.name in kinds


def read_pragmas(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return the settings that the file keeps, but for the journal mode: a copy has another."""
    return {name: (connection.execute(f"PRAGMA {name}").fetchone() or [None])[0] for name in _NEW_PRAGMAS}


def _table(
    connection: sqlite3.Connection, entry: SchemaEntry, *, without_rowid: bool
) -> tuple[SqliteTable, list[Loss]]:
    rows = connection.execute(f"PRAGMA table_xinfo({quote_name(entry.name)})").fetchall()
    columns = tuple(
        SchemaColumn(row[1], row[2], bool(row[3]), row[6] in {_VIRTUAL, _STORED}, row[6] == _VIRTUAL)
        for row in rows
    )
    keys = [row[1] for row in rows if row[5]]
    taken_names = {column.name.lower() for column in columns}
    rowid = "" if without_rowid else next((name for name in _ROWID_NAMES if name not in taken_names), "")
    alias = "" if without_rowid or len(keys) != 1 else _rowid_alias(connection, entry.name, keys[0])
    losses = []
    hidden = bool(rowid) and not alias
    if alias:
        rowid = quote_name(alias)
    elif hidden and len(columns) >= connection.getlimit(sqlite3.SQLITE_LIMIT_COLUMN):
        hidden = False
        losses.append(
            Loss(label(SCHEMA, entry.name), "rowids", "a table of so many columns has no room for them")
        )
    elif not rowid and not without_rowid:
        losses.append(
            Loss(
                label(SCHEMA, entry.name),
                "rowids",
                "its own columns take all names by which they could be read",
            )
        )
    table = SqliteTable(entry.name, entry.sql or "", rowid, hidden, columns)
    return _computable(connection, table, losses)


def _rowid_alias(connection: sqlite3.Connection, table: str, key: str) -> str:
    """Return the one key column if it is the rowid itself: then no index was made for it."""
    indexes = connection.execute(f"PRAGMA index_list({quote_name(table)})")
    return "" if any(row[3] == "pk" for row in indexes) else key


def _computable(
    connection: sqlite3.Connection, table: SqliteTable, losses: list[Loss]
) -> tuple[SqliteTable, list[Loss]]:
    """Leave out generated columns that only the application can compute, with functions of its own, and those that
    cannot be computed for some row: SQLite does not try when such a column is added.
    """
    generated = [column for column in table.columns if column.generated]
    refused: dict[str, str] = {}
    if _why_not_computed(connection, table, generated):
        reasons = {column.name: _why_not_computed(connection, table, [column]) for column in generated}
        refused = {name: reason for name, reason in reasons.items() if reason}
    if not refused:
        return table, losses
    reason = "; ".join(f"{quote_name(name)}: {reason}" for name, reason in refused.items())
    losses = [*losses, Loss(table.label, "values of generated columns", f"they cannot be computed: {reason}")]
    columns = tuple(column for column in table.columns if column.name not in refused)
    return replace(table, columns=columns), losses


def _why_not_computed(
    connection: sqlite3.Connection, table: SqliteTable, columns: Sequence[SchemaColumn]
) -> str:
    """Return the library's words; "" where it computes the columns, virtual ones for all rows."""

    def query(some: Sequence[SchemaColumn]) -> str:
        counts = ", ".join(f"count({quote_name(column.name)})" for column in some)
        return f"SELECT {counts} FROM {quote_name(table.name)} NOT INDEXED"

    virtual = [column for column in columns if column.virtual]
    try:
        if columns:
            connection.execute(f"EXPLAIN {query(columns)}").fetchall()
        if virtual:
            connection.execute(query(virtual)).fetchall()
    except sqlite3.DatabaseError as exc:
        if is_damage(exc):
            return ""  # what cannot be read is named with the rows
        if exc.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return str(exc)
    return ""


def _virtual_losses(entry: SchemaEntry, kinds: Mapping[str, tuple[str, bool]]) -> list[Loss]:
    """A virtual table's rows are in its shadow tables, or outside of the file."""
    if any(name.startswith(f"{entry.name}_") for name in kinds):
        return []
    reason = "they are not in this file; only the definition is exported"
    return [Loss(label(SCHEMA, entry.name), "rows of the virtual table", reason)]


def select(
    table: SqliteTable, bounds: tuple[int | None, int | None] = (None, None), *, raw_text: bool = False
) -> str:
    """Return the query for a chunk's rows. ``raw_text`` doubles every column: whether it is text, and its bytes."""
    names = table.selected
    if raw_text:
        names = tuple(
            f"typeof({name}) = 'text', CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END"
            for name in names
        )
    return f"SELECT {', '.join(names)} FROM {quote_name(table.name)} NOT INDEXED{where(table, bounds)}"


def where(table: SqliteTable, bounds: tuple[int | None, int | None]) -> str:
    """Return the condition for a half-open range of rowids, empty for the whole table."""
    first, last = bounds
    conditions = [f"{table.rowid} >= {first}"] if first is not None else []
    conditions += [f"{table.rowid} < {last}"] if last is not None else []
    return " WHERE " + " AND ".join(conditions) if conditions else ""
