"""Definitions of MySQL for MariaDB, and of MariaDB for MySQL: what the other one writes differently is written its way,
what it has not is left out and named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import pymysql
from msgspec import Struct, field

from exporters.api import Loss
from exporters.mysql.connection import Connection
from exporters.mysql.definitions.spatial_reference_systems import KIND as SPATIAL
from exporters.mysql.identifiers import quote_name
from migrate.restore.mysql.definitions.recorded_definitions import Definition
from migrate.restore.mysql.definitions.table_ddl import closing, edited, items_of, masked, without_items

_DEFAULT = re.compile(r" DEFAULT (?=\S)")
_FUNCTION = re.compile(r"(?!current_timestamp\b)\w+(?=\()", re.IGNORECASE)
_LONG = re.compile(
    r"\0+ (?:(?:tiny|medium|long)?(?:text|blob)|json|geometry|point|\w*linestring|\w*polygon)\b"
)
_LITERAL = re.compile(r"\w*\0+")


class Rule(Struct, frozen=True):
    """What is replaced outside of quotes; where that loses something, which property and why."""

    pattern: re.Pattern[str]
    put: str = ""
    lost: str = ""
    reason: str = ""

    def matches(self, item: str) -> bool:
        """Tell whether the rule applies to this column, key or constraint."""
        return self.pattern.match(masked(item)) is not None


class Dialect(Struct, frozen=True):
    """How one flavour writes what the other one wrote. ``out``: columns, keys and constraints that it has not.
    ``kinds`` and ``modes``: objects and words of sql_mode that it has not. ``collations``: where one is unknown, others
    by what is in its name.
    """

    name: str
    rules: Sequence[Rule]
    out: Sequence[Rule]
    kinds: AbstractSet[str]
    modes: AbstractSet[str]
    collations: Sequence[tuple[re.Pattern[str], str]]
    brackets_defaults: bool = False


def _rule(pattern: str, put: str = "", lost: str = "", reason: str = "") -> Rule:
    return Rule(re.compile(pattern, re.DOTALL), put, lost, reason)


_TYPE = r"(?<=\0 )"
"""A column's type stands behind its name, which is masked."""

TO_MARIADB = Dialect(
    "MariaDB",
    rules=[
        _rule(r"\b_utf8mb4(?=\0)"),  # MariaDB keeps such literals without their escapes
        _rule(r"/\*!80023 INVISIBLE \*/", "INVISIBLE"),
        _rule(r"/\*!80000 INVISIBLE \*/", "IGNORED"),
        _rule(_TYPE + r"geomcollection\b", "geometrycollection"),
        _rule(r" /\*!80003 SRID \d+ \*/", "", "SRID", "no column is tied to one; each value keeps its own"),
        _rule(r" /\*!50100 WITH PARSER \0+ \*/", "", "parser", "a full-text key has the server's own"),
        _rule(r" COMPRESSION=\0+", "", "compression", "pages are compressed by other words"),
        _rule(
            r" /\*!50606 (?:STORAGE|COLUMN_FORMAT) \w+ \*/",
            "",
            "storage",
            "columns are kept where the table is",
        ),
        _rule(r" /\*!80016 (?:DEFAULT )?ENCRYPTION=[^*]*\*/", "", "encryption", "it is the server's affair"),
        _rule(_TYPE + r"json\b", "json", "type json", "the text is kept, in LONGTEXT with a check"),
    ],
    out=[
        _rule(r"(?:UNIQUE )?KEY .*\(\(", "", "key", "there are no keys over expressions"),
        _rule(
            r"CONSTRAINT .*NOT ENFORCED",
            "",
            "constraint",
            "every constraint is enforced, and this one was not",
        ),
    ],
    kinds=frozenset({"library", SPATIAL}),
    modes=frozenset({"TIME_TRUNCATE_FRACTIONAL"}),
    collations=[
        (re.compile("_0900_ai_ci$"), "utf8mb4_uca1400_nopad_ai_ci"),
        (re.compile("_0900_as_ci$"), "utf8mb4_uca1400_nopad_as_ci"),
        (re.compile("_0900_as_cs.*$"), "utf8mb4_uca1400_nopad_as_cs"),
        (re.compile("_0900_bin$"), "utf8mb4_nopad_bin"),
        (re.compile("^utf8mb4_"), "utf8mb4_unicode_520_ci"),
    ],
)

_MODES_OF_MARIADB = frozenset({
    "IGNORE_BAD_TABLE_OPTIONS", "SIMULTANEOUS_ASSIGNMENT", "EMPTY_STRING_IS_NULL", "TIME_ROUND_FRACTIONAL",
    "NO_AUTO_CREATE_USER", "NO_FIELD_OPTIONS", "NO_KEY_OPTIONS", "NO_TABLE_OPTIONS",
    "ORACLE", "MSSQL", "DB2", "POSTGRESQL", "MAXDB", "MYSQL323", "MYSQL40",
})  # fmt: skip

TO_MYSQL = Dialect(
    "MySQL",
    rules=[
        _rule(_TYPE + r"uuid\b", "char(36) CHARACTER SET ascii", "type uuid", "its text is kept"),
        _rule(_TYPE + r"inet6\b", "varchar(39) CHARACTER SET ascii", "type inet6", "its text is kept"),
        _rule(_TYPE + r"inet4\b", "varchar(15) CHARACTER SET ascii", "type inet4", "its text is kept"),
        _rule(
            _TYPE + r"decimal\(\d+,3[1-8]\)(?: unsigned)?(?: zerofill)?",
            "varchar(70) CHARACTER SET ascii",
            "type decimal",
            "there are no more than 30 digits behind the point; its text is kept",
        ),
        _rule(r" DEFAULT nextval\([^)]*\)", "", "default", "there are no sequences"),
        _rule(r"\s*PARTITION BY SYSTEM_TIME.*$", "", "partitions", "tables have no history"),
        _rule(r" WITH SYSTEM VERSIONING", "", "versioning", "tables have no history"),
        _rule(r" WITHOUT SYSTEM VERSIONING"),
        _rule(
            r"\bENGINE ?= ?(?!InnoDB\b|MyISAM\b|MEMORY\b|CSV\b|ARCHIVE\b|BLACKHOLE\b)\w+",
            "ENGINE=InnoDB",
            "engine",
            "there is no such engine; it is InnoDB",
        ),
        _rule(
            r" ROW_FORMAT=PAGE\b| (?:PAGE_CHECKSUM|TRANSACTIONAL|SEQUENCE|ENCRYPTED|ENCRYPTION_KEY_ID)=\w+| \0+=\0+",
            "",
            "table option",
            "there is no such option",
        ),
        _rule(r"\bIGNORED\b", "INVISIBLE"),
    ],
    out=[
        _rule(r"PERIOD FOR ", "", "period", "there are no periods"),
        _rule(r".*GENERATED ALWAYS AS ROW (?:START|END)"),
        _rule(r"(?:UNIQUE|PRIMARY) KEY .*WITHOUT OVERLAPS", "", "key", "there are no periods"),
        _rule(r"UNIQUE KEY .*USING HASH", "", "key", "no unique key is as long as a whole text"),
    ],
    kinds=frozenset({"sequence", "package", "package body"}),
    modes=_MODES_OF_MARIADB,
    collations=[
        (re.compile("^utf8mb4_.*_as_cs$"), "utf8mb4_0900_as_cs"),
        (re.compile("^utf8mb4_.*_as_ci$"), "utf8mb4_0900_as_ci"),
        (re.compile("^utf8mb4_.*nopad_bin$"), "utf8mb4_0900_bin"),
        (re.compile("^utf8mb4_"), "utf8mb4_0900_ai_ci"),
        (re.compile("_nopad_"), "_"),
        (re.compile("_uca1400_.*"), "_unicode_ci"),
    ],
    brackets_defaults=True,
)

_COLLATION = re.compile(r"(?<=\bCOLLATE[ =])\w+", re.IGNORECASE)
_SETTINGS = ("collation", "connection", "database_collation")
_FULL_NAMES = "SELECT FULL_COLLATION_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"
_NAMES = "SELECT COLLATION_NAME FROM information_schema.COLLATIONS"


class Adapter(Struct, frozen=True):
    """Adapts definitions to a server; ``losses`` fills up. ``collations``: all that the server supports."""

    dialect: Dialect
    collations: AbstractSet[str]
    losses: list[Loss] = field(default_factory=list)

    def adapt(self, definitions: Sequence[Definition]) -> list[Definition]:
        """Return the definitions that the server can have, in its own words."""
        return [self._adapted(definition) for definition in definitions if not self._is_out(definition)]

    def _is_out(self, definition: Definition) -> bool:
        out = definition["kind"] in self.dialect.kinds
        if out:
            self._lose(definition, "definition", f"{self.dialect.name} has no such thing")
        return out

    def _adapted(self, definition: Definition) -> Definition:
        adapted = dict(definition)
        if adapted.pop("comment", ""):
            self._lose(definition, "comment", f"{self.dialect.name} has no comments of databases")
        if definition["kind"] == "table":
            adapted["sql"] = self._table(definition, definition["sql"])
        if "sql" in definition:
            adapted["sql"], _ = edited(
                adapted["sql"], _COLLATION, lambda match: self._collation(definition, match[0])
            )
        adapted |= {
            name: self._collation(definition, str(definition[name]))
            for name in _SETTINGS
            if name in definition
        }
        if "sql_mode" in definition:
            words = [
                word for word in str(definition["sql_mode"]).split(",") if word not in self.dialect.modes
            ]
            adapted["sql_mode"] = ",".join(words)
        return adapted

    def _table(self, definition: Definition, sql: str) -> str:
        for rule in self.dialect.out:
            sql, removed = without_items(sql, rule.matches)
            self._note(definition, rule, removed)
        for rule in self.dialect.rules:
            sql, before = edited(sql, rule.pattern, rule.put)
            self._note(definition, rule, before)
        return bracketed(sql) if self.dialect.brackets_defaults else sql

    def _note(self, definition: Definition, rule: Rule, removed: Sequence[str]) -> None:
        if rule.lost:
            for words in removed:
                shown = " ".join(words.split())
                self._lose(definition, rule.lost, f"{shown}: in {self.dialect.name} {rule.reason}")

    def _collation(self, definition: Definition, name: str) -> str:
        if name.lower() in self.collations:
            return name
        for pattern, other in self.dialect.collations:
            put = pattern.sub(other, name) if other.startswith("_") else other
            if pattern.search(name) and put in self.collations:
                self._lose(
                    definition, f"collation {name}", f"{self.dialect.name} does not know it; it is {put}"
                )
                return put
        return name

    def _lose(self, definition: Definition, lost: str, reason: str) -> None:
        item = (
            f"{definition['kind']} {quote_name(definition['name'])}"
            if definition["name"]
            else str(definition["kind"])
        )
        loss = Loss(item, lost, reason)
        if loss not in self.losses:
            self.losses.append(loss)


def adapter_for(source: str, destination: Connection) -> Adapter | None:
    """Return what adapts definitions of a server (``MySQL 8.4.0``, ``MariaDB 10.11``) to the destination, None where
    they stay as they are. Raises the driver's errors.
    """
    wrote = {"MySQL": False, "MariaDB": True}.get(source.partition(" ")[0], destination.is_mariadb)
    if wrote == destination.is_mariadb:
        return None
    return Adapter(TO_MARIADB if destination.is_mariadb else TO_MYSQL, known_collations(destination))


def known_collations(destination: Connection) -> frozenset[str]:
    """Return all collations that a server supports, in lower case. Raises the driver's errors."""
    try:
        # MariaDB 10.10 and newer: a collation of several charsets has a full name with each.
        rows = destination.rows(_FULL_NAMES)
    except pymysql.Error:
        rows = destination.rows(_NAMES)
    return frozenset(str(row[0]).lower() for row in rows)


def bracketed(sql: str) -> str:
    """Return a table's definition with parentheses around defaults that are functions, and around those of texts."""
    open_, close, items = items_of(sql)
    done = [_column(item) for item in items]
    return sql if done == items else f"{sql[:open_]}(\n  " + ",\n  ".join(done) + f"\n{sql[close:]}"


def _column(item: str) -> str:
    shown = masked(item)
    match = _DEFAULT.search(shown) if shown.startswith("\0") else None
    if match is None:
        return item
    start = match.end()
    if (function := _FUNCTION.match(shown, start)) is not None:
        end = closing(shown, function.end())
    elif _LONG.match(shown) and (literal := _LITERAL.match(shown, start)) is not None:
        end = literal.end()
    else:
        return item
    return f"{item[:start]}({item[start:end]}){item[end:]}"
