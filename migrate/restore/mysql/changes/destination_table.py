"""A table as a destination has it: whether it has the shape of the rows in the log, whether a definition in the log was
made there, too, and what to say of a row that it refuses.

A server would take rows of another shape without a word, as long as the types of their first columns fit (MySQL manual,
"Replication with Differing Table Definitions on Source and Replica").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

import pymysql
from msgspec import Struct
from msgspec.structs import replace

from exporters.mysql.catalog import ELSEWHERE, TRANSACTIONAL
from exporters.mysql.changes.binlog_events import TableMap
from exporters.mysql.changes.logged_statements import Effect, LoggedStatement
from exporters.mysql.changes.row_events import Image, LoggedRow, value_text
from exporters.mysql.connection import Connection
from exporters.mysql.errors import DRIVER_ERRORS
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.rows.column_types import labels_of
from migrate.changes.apply import ChangeConflictError

_SEQUENCE = "SEQUENCE"
_IMPLICIT = ("row_start", "row_end")
"""The columns of a system-versioned table that names none itself; no catalog lists them."""
_HIDDEN, _HIDDEN_TYPE = re.compile(r"DB_ROW_HASH_\d+"), "hidden"
_TYPE = (
    "SELECT TABLE_TYPE, COALESCE(ENGINE, '') FROM information_schema.TABLES"
    " WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}"
)
_COLUMNS = """
SELECT COLUMN_NAME, COLUMN_TYPE, COALESCE(CHARACTER_SET_NAME, ''), IS_NULLABLE FROM information_schema.COLUMNS
WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION
"""
_KEY = """
SELECT COLUMN_NAME FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX
"""
_PRINTED_SO, _UNPRINTABLE = re.compile(r"\?+"), "[?0-9\ufffd\U00010000-\U0010ffff]+"
"""What the catalog prints for characters beyond the first 65,536, and how those read as UTF-8: in GB 18030 they have
digits.
"""
_PLAIN, _WIDE = (
    frozenset({"utf8mb4", "utf8mb3", "utf8", "ascii"}),
    frozenset({"ucs2", "utf16", "utf16le", "utf32"}),
)
"""Charsets in which labels have the bytes of UTF-8, and those in which not even ASCII has."""
_BINARY = "binary"
_NARROWER = {
    "utf8mb4": ("utf8mb3", "utf8", "ascii"),
    "utf8mb3": ("utf8", "ascii"),
    "utf8": ("utf8mb3", "ascii"),
    "latin1": ("ascii",),
}
"""Charsets whose bytes mean the same in another one."""
_NEXT = "then run the same command again: it goes on with this change"
_ACTING_KEYS = """
SELECT CONSTRAINT_NAME, REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS
WHERE CONSTRAINT_SCHEMA = {} AND TABLE_NAME = {}
  AND NOT (UPDATE_RULE IN ('RESTRICT', 'NO ACTION') AND DELETE_RULE IN ('RESTRICT', 'NO ACTION'))
"""
_PARTITION = """
SELECT 1 FROM information_schema.PARTITIONS
WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND {} IN (PARTITION_NAME, SUBPARTITION_NAME) LIMIT 1
"""
_ALL = "ALL"
_SHOWN_CHARACTERS = 60
_SHOWN_COLUMNS = 8
_NEXT_STEP = (
    "somebody else wrote to the destination, or the restore left something out: moveout resync reads the table again"
    " (or make its row as it was at the source); then run the same command again"
)


class DestinationTable(Struct, frozen=True):
    """A table. ``types`` are the columns' as declared; ``filled`` those that may not be NULL; ``key`` the indexes of
    those of the primary key. ``charset_of``: the charset of each collation of the server, by its number.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    charsets: tuple[str, ...]
    filled: frozenset[str]
    key: tuple[int, ...]
    is_sequence: bool
    engine: str
    charset_of: Mapping[int, str]
    is_mariadb: bool

    @property
    def label(self) -> str:
        """The quoted name."""
        return quote_name(self.name)

    @property
    def has_own_rows(self) -> bool:
        """Whether rows are written to it: those of others would be written to another server or table a second time."""
        return not (self.is_sequence or self.engine.upper() in ELSEWHERE)

    @property
    def labels(self) -> list[list[str] | None]:
        """The labels of the columns of type ENUM, then of those of type SET; None where they cannot be compared."""
        return [
            labels_of(sql_type)
            if charset in _PLAIN or (charset not in _WIDE and sql_type.isascii())
            else None
            for word in ("enum(", "set(")
            for sql_type, charset in zip(self.types, self.charsets, strict=True)
            if sql_type.lower().startswith(word)
        ]


def read_table(connection: Connection, name: str) -> DestinationTable | None:
    """Return a table of the session's database, None where there is none. Raises the driver's errors."""
    where = quote_literal(connection.address.database), quote_literal(name)
    listed = connection.rows(_TYPE.format(*where))
    if not listed:
        return None
    kind, engine = map(_text, listed[0])
    columns = [tuple(map(_text, row)) for row in connection.rows(_COLUMNS.format(*where))]
    names = [column[0] for column in columns]
    key = tuple(names.index(_text(row[0])) for row in connection.rows(_KEY.format(*where)) if row[0] in names)
    is_versioned_silently = kind == "SYSTEM VERSIONED" and not {*_IMPLICIT} & {*names}
    extra = _IMPLICIT if is_versioned_silently and _has_implicit_times(connection, name) else ()
    return DestinationTable(
        name=name,
        columns=(*names, *extra),
        types=(*(column[1] for column in columns), *("timestamp(6)" for _ in extra)),
        charsets=(*(column[2] for column in columns), *("" for _ in extra)),
        filled=frozenset(column[0] for column in columns if column[3] == "NO"),
        key=key,
        is_sequence=kind == _SEQUENCE,
        engine=engine,
        charset_of=_read_collations(connection),
        is_mariadb=connection.is_mariadb,
    )


def _read_collations(connection: Connection) -> dict[int, str]:
    """Return the charset of each collation by its number, as far as it has one. Raises the driver's errors."""
    views = ["COLLATION_CHARACTER_SET_APPLICABILITY"] if connection.is_mariadb else []
    for view in [*views, "COLLATIONS"]:
        # Older servers have no numbers there.
        with suppress(pymysql.ProgrammingError, pymysql.OperationalError):
            rows = connection.rows(f"SELECT ID, CHARACTER_SET_NAME FROM information_schema.{view}")
            return {int(number): _text(charset) for number, charset in rows if number and charset}
    return {}


def require_same_shape(
    table: DestinationTable | None, logged: TableMap, where: str, earlier_statements: Sequence[str]
) -> DestinationTable:
    """Return the table, which has the shape of the rows in the log at ``where``. ``earlier_statements`` are the
    definitions of that table that came before in the log. Raises ``ChangeConflictError`` where the table is missing, or
    has another shape.
    """
    label = quote_name(logged.name)
    table = _with_hidden(table, logged) if table else None
    if table is None:
        problem = "the destination has no such table: it was made after the snapshot"
    elif logged.columns and (difference := _difference(table, logged)):
        problem = difference
    elif len(table.columns) != len(logged.types):
        problem = f"rows have {len(logged.types)} columns, and the destination's table {len(table.columns)}"
    elif table.has_own_rows and table.engine.upper() not in TRANSACTIONAL:
        raise ChangeConflictError(
            f"{label} has the engine {table.engine} at the destination, which has no transactions: a change could be"
            " applied twice",
            next_step=f"at the destination: ALTER TABLE {label} ENGINE = InnoDB; {_NEXT}",
        )
    else:
        return table
    statements = "; ".join(earlier_statements)
    step = (
        f"run at the destination: {statements}; {_NEXT}"
        if statements
        else f"make {label} at the destination as SHOW CREATE TABLE {label} prints it at the source; {_NEXT}."
        " Where it is so already, let moveout resync read it again: older changes are left out then"
    )
    raise ChangeConflictError(f"{label} has changed at {where}: {problem}", next_step=step)


def _with_hidden(table: DestinationTable, logged: TableMap) -> DestinationTable:
    """Return a table with the columns that MariaDB hides: those of keys over long texts."""
    hidden = tuple(name for name in logged.columns if _HIDDEN.fullmatch(name) and name not in table.columns)
    return replace(
        table,
        columns=table.columns + hidden,
        types=table.types + (_HIDDEN_TYPE,) * len(hidden),
        charsets=table.charsets + ("",) * len(hidden),
    )


def _difference(table: DestinationTable, logged: TableMap) -> str:
    names = [name.lower() for name in table.columns]
    logged_names = [name.lower() for name in logged.columns]
    if missing := [name for name in logged.columns if name.lower() not in names]:
        return f"the destination lacks the column {', '.join(map(quote_name, missing))}"
    if surplus := [name for name in table.columns if name.lower() not in logged_names]:
        return f"rows no longer have the column {', '.join(map(quote_name, surplus))}"
    if names != logged_names:
        return f"the columns are in another order: {', '.join(map(quote_name, logged.columns))}"
    return _type_difference(table, logged) or _label_difference(table, logged)


def _type_difference(table: DestinationTable, logged: TableMap) -> str:
    """Return how columns read the same bytes otherwise; differences of the bytes the server itself refuses."""
    unsigned, collations = logged.unsigned, logged.collations(is_mariadb=table.is_mariadb)
    for index, name in enumerate(table.columns):
        label, sql_type = quote_name(name), table.types[index].lower()
        if sql_type == _HIDDEN_TYPE:
            continue
        if logged.may_be_null(index) and name in table.filled:
            return f"{label} may be NULL in these rows, and not at the destination"
        if (is_unsigned := unsigned.get(index)) is not None and is_unsigned != ("unsigned" in sql_type):
            return f"{label} is {'' if is_unsigned else 'not '}UNSIGNED in these rows"
        theirs = table.charset_of.get(collations.get(index, 0), "")
        ours = table.charsets[index] or _BINARY
        if theirs not in {"", ours} and theirs not in _NARROWER.get(ours, ()):
            return f"{label} has the charset {theirs} in these rows, and {ours} at the destination"
    return ""


def _label_difference(table: DestinationTable, logged: TableMap) -> str:
    if not logged.labels:
        return ""
    for ours, theirs in zip(table.labels, logged.labels, strict=False):
        if ours is not None and not (len(ours) == len(theirs) and all(map(_is_printed_as, theirs, ours))):
            shown = ", ".join(quote_literal(label.decode(errors="replace")) for label in theirs)
            return f"a column of type ENUM or SET has the labels {shown}"
    return ""


def _is_printed_as(label: bytes, printed: str) -> bool:
    """Tell whether the catalog may print a label so."""
    pattern = _UNPRINTABLE.join(map(re.escape, _PRINTED_SO.split(printed)))
    return re.fullmatch(pattern, label.decode(errors="replace")) is not None


def _has_implicit_times(connection: Connection, name: str) -> bool:
    """Tell whether a system-versioned table names its times not itself."""
    definition = str(connection.named(f"SHOW CREATE TABLE {quote_name(name)}")[0]["create table"])
    return " GENERATED ALWAYS AS ROW START" not in definition.upper()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def is_done(connection: Connection, statement: LoggedStatement) -> bool:
    """Tell whether the destination looks as it does after a definition, as far as that can be seen."""
    effect, (name, *_) = statement.effect, statement.tables
    return (
        not effect.replaced
        and not any(_has(connection, table) for table in effect.gone)
        and all(_has(connection, table) for table in effect.made)
        and not any(_has_rows(connection, table) for table in effect.emptied)
        and {*effect.columns_gone}.isdisjoint(_columns(connection, name) if effect.columns_gone else ())
        and not any(_has_part(connection, name, part) for part in effect.parts_gone)
        and not any(_has_rows(connection, name, part) for part in effect.parts_emptied)
        and _has_keys(connection, name, effect)
    )


def _has_keys(connection: Connection, table: str, effect: Effect) -> bool:
    """Tell whether those foreign keys of a table that change rows are as they are after a definition."""
    where = map(quote_literal, (connection.address.database, table))
    acting = connection.rows(_ACTING_KEYS.format(*where)) if effect.keys_made or effect.keys_gone else []
    parents, names = {str(parent) for _, parent in acting}, {str(key).lower() for key, _ in acting}
    return parents.issuperset(effect.keys_made) and names.isdisjoint(effect.keys_gone)


def _columns(connection: Connection, table: str) -> list[str]:
    """Return the names of a table's columns, in small letters; none where there is no such table."""
    described = read_table(connection, table)
    return [column.lower() for column in described.columns] if described else []


def _has_part(connection: Connection, table: str, part: str) -> bool:
    where = (connection.address.database, table, part)
    return connection.value(_PARTITION.format(*map(quote_literal, where))) is not None


def _has_rows(connection: Connection, table: str, part: str = "") -> bool:
    """Tell whether a table has rows, or a partition of it; one that is not there has none."""
    if not _has(connection, table) or (
        part and part.upper() != _ALL and not _has_part(connection, table, part)
    ):
        return False
    within = f" PARTITION ({quote_name(part)})" if part and part.upper() != _ALL else ""
    return connection.value(f"SELECT 1 FROM {quote_name(table)}{within} LIMIT 1") is not None


def _has(connection: Connection, name: str) -> bool:
    return read_table(connection, name) is not None


def conflict(
    connection: Connection,
    table: DestinationTable,
    logged: TableMap,
    row: LoggedRow,
    problem: str,
    earlier_statements: Sequence[str],
) -> ChangeConflictError:
    """Return the error for a row that the server has refused. ``problem``: where it was logged, and why.
    ``earlier_statements``: the definitions of the table that came before in the log.
    """
    words = [f"{row.verb} of {table.label} at {problem}"]
    before = row.old or row.new
    if before is not None:
        if table.key:
            words.append(f"key {_shown(table, logged, before, table.key)}")
        words.append(f"the source's row {_shown(table, logged, row.new or before)}")
        words.append(_present(connection, table, logged, before))
    step = (
        f"run at the destination what it lacks of: {'; '.join(earlier_statements)}; or "
        if earlier_statements
        else ""
    )
    return ChangeConflictError("; ".join(word for word in words if word), next_step=step + _NEXT_STEP)


def _present(connection: Connection, table: DestinationTable, logged: TableMap, row: Image) -> str:
    """Return the destination's row with the same key in words; "" where it cannot be asked for."""
    if not table.key or any(index not in row for index in table.key):
        return ""
    condition = " AND ".join(
        f"{quote_name(table.columns[index])} = {_literal(table, logged, row, index)}" for index in table.key
    )
    try:
        rows = connection.rows(f"SELECT * FROM {table.label} WHERE {condition} LIMIT 1")
    except DRIVER_ERRORS:
        return ""
    if not rows:
        return "the destination has no such row"
    pairs = [f"{name} = {_cut(value)}" for name, value in zip(table.columns, rows[0], strict=False)]
    return f"the destination's row ({_listed(pairs)})"


def _shown(table: DestinationTable, logged: TableMap, row: Image, indexes: tuple[int, ...] = ()) -> str:
    """Return values for people, long ones shortened: ``(id = 5, name = 'x')``."""
    chosen = indexes or tuple(sorted(row))
    return f"({_listed([f'{table.columns[i]} = {_cut(_literal(table, logged, row, i))}' for i in chosen if i in row])})"


def _literal(table: DestinationTable, logged: TableMap, row: Image, index: int) -> str:
    return value_text(row[index], logged.types[index], unsigned="unsigned" in table.types[index])


def _listed(pairs: list[str]) -> str:
    more = [f"{len(pairs) - _SHOWN_COLUMNS} more columns"] if len(pairs) > _SHOWN_COLUMNS else []
    return ", ".join([*pairs[:_SHOWN_COLUMNS], *more])


def _cut(value: object) -> str:
    text = "NULL" if value is None else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
