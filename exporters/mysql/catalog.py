"""What is in a database: its tables with their columns, as information_schema lists them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pymysql
from msgspec import Struct

from exporters.mysql.connection import Connection
from exporters.mysql.control_tables import find_control_tables
from exporters.mysql.errors import is_about_the_thing
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.rows.column_types import SqlType, kind_of
from exporters.sql.columns import Column

ELSEWHERE = frozenset({"FEDERATED", "CONNECT", "SPIDER", "MRG_MYISAM", "S3", "OQGRAPH", "SPHINX"})
"""Engines whose rows lie in other tables or on other servers."""
TRANSACTIONAL = frozenset({"INNODB", "ROCKSDB", "TOKUDB", "NDBCLUSTER"})
"""Engines whose rows a consistent snapshot shows as they were."""

_TABLES = """
SELECT TABLE_NAME AS name, TABLE_TYPE AS type, ENGINE AS engine, {sizes}
FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema} AND TABLE_TYPE NOT IN ('VIEW', 'SYSTEM VIEW', 'SEQUENCE')
"""
_SIZES = "TABLE_ROWS AS estimate, DATA_LENGTH AS data_bytes"
_NO_SIZES = "NULL AS estimate, NULL AS data_bytes"
_COLUMNS = """
SELECT TABLE_NAME AS table_name, COLUMN_NAME AS name, DATA_TYPE AS type, COLUMN_TYPE AS full, IS_NULLABLE AS nullable,
  NUMERIC_PRECISION AS digits, NUMERIC_SCALE AS scale, DATETIME_PRECISION AS fraction, CHARACTER_SET_NAME AS charset,
  COLLATION_NAME AS collation, EXTRA AS extra, GENERATION_EXPRESSION AS expression
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {schema} ORDER BY TABLE_NAME, ORDINAL_POSITION
"""
_SEQUENCES = """
SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema} AND TABLE_TYPE = 'SEQUENCE' ORDER BY 1
"""
_KEYS = """
SELECT TABLE_NAME AS table_name, COLUMN_NAME AS name FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = {schema} AND INDEX_NAME = 'PRIMARY' ORDER BY TABLE_NAME, SEQ_IN_INDEX
"""

_ROW_TIMES = ("ROW START", "ROW END")
_IMPLICIT = ("row_start", "row_end")
"""The columns of a table that is WITH SYSTEM VERSIONING and names none itself; no catalog lists them."""
_ROW_TIME: Mapping[str, Any] = {
    "type": "timestamp",
    "full": "timestamp(6)",
    "fraction": 6,
    "nullable": "NO",
    "extra": "INVISIBLE",
    **dict.fromkeys(("digits", "scale", "charset", "collation", "expression")),
}
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`]|``)*`", re.DOTALL)
_OF_THE_SESSION = re.compile(
    r"\b(?:rand|uuid|uuid_short|uuid_v4|uuid_v7|sys_guid|encrypt|current_timestamp|sysdate|curdate|curtime|utc_date"
    r"|utc_time|utc_timestamp|connection_id|user|current_user|current_role|database|version)\(|\bunix_timestamp\(\)|@",
    re.IGNORECASE,
)
"""What a virtual column of MariaDB may call that is another thing each time, as the server prints it."""
_GENERATED, _DEFAULT = "GENERATED", "DEFAULT_GENERATED"
_MEASURED = (
    *("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"),
    *("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"),
)


NOT_COUNTED = 10**18
"""Stands for the length of a text that is too long for the server to convert it."""


class MysqlColumn(Column, frozen=True):
    """A column as it is exported."""

    extra: str
    geometry: bool

    @property
    def value(self) -> str:
        """SQL for the value as it is sent."""
        return self.kind.expression(quote_name(self.name))

    @property
    def octets(self) -> str:
        """SQL for the number of bytes that leave of a value; nothing where the server does not count them."""
        if not self.sql_type.startswith(_MEASURED) or self.geometry:
            return ""
        name = quote_name(self.name)
        if self.kind.name == "hex" or (self.kind.name == "text" and self.collation.startswith("utf8")):
            return f"LENGTH({name})"
        if self.kind.name == "text":
            return f"COALESCE(LENGTH(CONVERT({name} USING utf8mb4)),IF({name} IS NULL,0,{NOT_COUNTED}))"
        return f"LENGTH({self.value})" if self.kind.name == "charset" else ""

    @property
    def has_octets(self) -> bool:
        """Whether its values leave as text or bytes."""
        return self.kind.characters or self.kind.name == "hex"


class MysqlTable(Struct, frozen=True):
    """A base table. ``hidden``: columns that a server sets by itself and no statement can set (transaction numbers of
    row versions), or computes anew each time. ``history``: the two columns that say from when to when a row held; then
    all rows that ever held are rows of the table.
    """

    name: str
    engine: str
    estimate: int
    size_bytes: int
    columns: tuple[MysqlColumn, ...]
    key: tuple[str, ...]
    versioned: bool
    hidden: tuple[str, ...]
    history: tuple[str, ...] = ()

    @property
    def schema(self) -> str:
        """Nothing: a MySQL schema is a database of its own."""
        return ""

    @property
    def label(self) -> str:
        """The quoted name, for SQL and for people."""
        return quote_name(self.name)

    @property
    def source(self) -> str:
        """What stands behind FROM to have all its rows."""
        return f"{self.label} FOR SYSTEM_TIME ALL" if self.history else self.label

    @property
    def generated(self) -> list[str]:
        """The columns that the server computes."""
        return [column.name for column in self.columns if column.generated]

    @property
    def written(self) -> list[str]:
        """The columns that statements can set."""
        return [column.name for column in self.columns if not column.generated]

    @property
    def elsewhere(self) -> bool:
        """Whether its rows are not its own."""
        return self.engine.upper() in ELSEWHERE

    @property
    def transactional(self) -> bool:
        """Whether the snapshot includes its rows."""
        return self.engine.upper() in TRANSACTIONAL

    @property
    def fingerprint(self) -> str:
        """A hash of what a finished chunk depends on apart from its rows."""
        facts: list[Any] = [self.name, list(self.key)]
        facts += [[c.name, c.sql_type, c.kind.name, str(c.kind.stored), c.generated] for c in self.columns]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def read_tables(connection: Connection) -> list[MysqlTable]:
    """Return all base tables of the session's database, by name. Raises the driver's errors."""
    schema = quote_literal(connection.address.database)
    columns: dict[str, list[Mapping[str, Any]]] = {}
    json_columns = _json_columns(connection, schema)
    control, _ = find_control_tables(connection)
    for row in connection.named(_COLUMNS.format(schema=schema)):
        columns.setdefault(row["table_name"], []).append(row)
    keys: dict[str, list[str]] = {}
    for row in connection.named(_KEYS.format(schema=schema)):
        keys.setdefault(row["table_name"], []).append(row["name"])
    tables = [
        _table(row, columns.get(row["name"], []), keys.get(row["name"], []), json_columns)
        for row in _list(connection, schema)
        if row["name"] not in control
    ]
    return sorted(tables, key=lambda table: table.name)


def read_sequences(connection: Connection) -> list[str]:
    """Return the names of MariaDB's sequences in the session's database. Raises the driver's errors."""
    if not connection.is_mariadb:
        return []
    query = _SEQUENCES.format(schema=quote_literal(connection.address.database))
    return [str(name) for (name,) in connection.rows(query)]


def _list(connection: Connection, schema: str) -> list[dict[str, Any]]:
    """Return the names of all tables and about how large they are. A table of another server that does not answer
    would keep all from being listed: then each is asked alone.
    """
    try:
        return connection.named(_TABLES.format(sizes=_SIZES, schema=schema))
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
    return [
        _sized(connection, row, schema)
        for row in connection.named(_TABLES.format(sizes=_NO_SIZES, schema=schema))
    ]


def _sized(connection: Connection, row: dict[str, Any], schema: str) -> dict[str, Any]:
    query = _TABLES.format(sizes=_SIZES, schema=schema)
    try:
        return connection.named(f"{query} AND TABLE_NAME = {quote_literal(row['name'])}")[0]
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        return row


def _table(
    row: Mapping[str, Any],
    columns: list[Mapping[str, Any]],
    key: list[str],
    json_columns: frozenset[tuple[str, str]],
) -> MysqlTable:
    versioned = row["type"] == "SYSTEM VERSIONED"
    times = tuple(c["name"] for c in columns if str(c["expression"] or "").upper() in _ROW_TIMES)
    if versioned and not times:
        columns = [*columns, *({**_ROW_TIME, "name": name} for name in _IMPLICIT)]
        times = _IMPLICIT
    by_number = any(c["name"] in times and c["type"].lower() != "timestamp" for c in columns)
    hidden = (*(times if by_number else ()), *_computed_anew(columns))
    shown = tuple(
        _column(c, json=(row["name"], c["name"]) in json_columns, is_time=c["name"] in times)
        for c in columns
        if c["name"] not in hidden
    )
    return MysqlTable(
        name=row["name"],
        engine=row["engine"] or "",
        estimate=int(row["estimate"] or 0),
        size_bytes=int(row["data_bytes"] or 0),
        columns=shown,
        key=tuple(name for name in key if name not in hidden),
        versioned=versioned,
        hidden=hidden,
        history=() if by_number else times,
    )


def _computed_anew(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the virtual columns that have another value each time they are read, as of a random number or the session,
    and those behind them that are computed from such. None where a table has nothing else.
    """
    names: list[str] = []
    for column in columns:
        expression = _text(column["expression"] or "")
        if _OF_THE_SESSION.search(_QUOTED.sub("", expression)) or any(
            quote_name(name) in expression for name in names
        ):
            names.append(column["name"])
    return names if len(names) < len(columns) else []


def _column(row: Mapping[str, Any], *, json: bool, is_time: bool) -> MysqlColumn:
    sql_type = SqlType(
        name=row["type"].lower(),
        full=_text(row["full"]),
        precision=int(row["digits"] or 0),
        scale=int(row["scale"] or 0),
        fraction=int(row["fraction"] or 0),
        charset=row["charset"] or "",
        collation=row["collation"] or "",
        json=json,
    )
    extra = _text(row["extra"] or "")
    return MysqlColumn(
        name=row["name"],
        sql_type=sql_type.full,
        kind=kind_of(sql_type),
        not_null=row["nullable"] == "NO",
        generated=not is_time
        and (bool(row["expression"]) or _GENERATED in extra.upper().replace(_DEFAULT, "")),
        collation=row["collation"] or "",
        extra=extra,
        geometry=sql_type.geometry,
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _json_columns(connection: Connection, schema: str) -> frozenset[tuple[str, str]]:
    """Return MariaDB's JSON columns: LONGTEXT with the check that the word JSON stands for."""
    if not connection.is_mariadb:
        return frozenset()
    query = (
        "SELECT TABLE_NAME, CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS"
        f" WHERE CONSTRAINT_SCHEMA = {schema}"
    )
    return frozenset(
        (table, name)
        for table, name, clause in connection.rows(query)
        if clause == f"json_valid({quote_name(name)})"
    )
