"""What a server says of a database by itself, without moveout: so that two can be compared."""

import re
from collections import Counter
from typing import Any

import pymysql

from tests.exporters.mysql.databases import open_database
from tests.torture.random_databases.words import quote

_VOLATILE = re.compile(
    r"^(table_rows|avg_row_length|data_length|max_data_length|index_length|data_free|create_time|update_time|check_time"
    r"|checksum|cardinality|created|last_altered|last_executed|.*_schema|.*_catalog|specific_name|table_id|temporary"
    r"|max_index_length|auto_increment|character_set_client|unique_constraint_schema|histogram|nullable_|.*db|originator)$"
)
_CATALOGS = {
    "TABLES": "TABLE_SCHEMA",
    "COLUMNS": "TABLE_SCHEMA",
    "STATISTICS": "TABLE_SCHEMA",
    "KEY_COLUMN_USAGE": "TABLE_SCHEMA",
    "TABLE_CONSTRAINTS": "TABLE_SCHEMA",
    "REFERENTIAL_CONSTRAINTS": "CONSTRAINT_SCHEMA",
    "CHECK_CONSTRAINTS": "CONSTRAINT_SCHEMA",
    "PARTITIONS": "TABLE_SCHEMA",
    "VIEWS": "TABLE_SCHEMA",
    "ROUTINES": "ROUTINE_SCHEMA",
    "PARAMETERS": "SPECIFIC_SCHEMA",
    "TRIGGERS": "TRIGGER_SCHEMA",
    "EVENTS": "EVENT_SCHEMA",
}


class Look:
    """One database as its server shows it; its own name is everywhere ``@``."""

    def __init__(self, url: str) -> None:
        self._name = url.rpartition("/")[2]
        self._session = open_database(url)
        self._session.encoding = "latin-1"  # bytes as they come
        self._mariadb = "mariadb" in self._session.get_server_info().lower()
        self._ask("SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00', sql_quote_show_create = 1")
        if not self._mariadb:
            self._ask(
                "SET show_gipk_in_create_table_and_information_schema = ON, information_schema_stats_expiry = 0"
            )

    def close(self) -> None:
        self._session.close()

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        with self._session.cursor() as cursor:
            cursor.execute(query.encode())
            return list(cursor.fetchall())

    def _named(self, query: str) -> list[dict[str, Any]]:
        with self._session.cursor(pymysql.cursors.DictCursor) as cursor:
            cursor.execute(query.encode())
            return [
                {name.lower(): self._neutral(value) for name, value in row.items()}
                for row in cursor.fetchall()
            ]

    def _neutral(self, value: Any) -> Any:
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        return value.replace(f"`{self._name}`.", "@.") if isinstance(value, str) else value

    def tables(self) -> list[str]:
        query = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE IN"
        rows = self._ask(f"{query} ('BASE TABLE', 'SYSTEM VERSIONED')")
        return sorted(row[0].encode("latin-1").decode() for row in rows)

    def catalogs(self) -> dict[str, Any]:
        """All that information_schema says."""
        found: dict[str, Any] = {}
        views = {
            row[0]
            for row in self._ask(
                "SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE()"
            )
        }
        for name, schema in _CATALOGS.items():
            rows = self._named(f"SELECT * FROM information_schema.{name} WHERE {schema} = DATABASE()")
            if name == "REFERENTIAL_CONSTRAINTS":
                rows = [row | {"unique_constraint_name": self._columns_of_key(row)} for row in rows]
            if not self._mariadb:
                rows = [_plain(name, row, views) for row in rows]
            lines = [
                sorted((k, v) for k, v in row.items() if not _VOLATILE.match(k))
                for row in map(_printed, rows)
            ]
            found[name] = sorted(map(repr, lines))
        return found | {"SHOW CREATE": [line for table in self.tables() for line in self._lines(table)]}

    def _lines(self, table: str) -> list[str]:
        """A table's definition."""
        made = re.sub(r" /\* TRANSACTIONAL=\d \*/", "", self._created(table))
        return [f"{quote(table)} {line}" for line in made.split("\n")]

    def _created(self, table: str) -> str:
        """A definition as the server prints it."""
        return str(self._named(f"SHOW CREATE TABLE {quote(table)}")[0]["create table"])

    def _columns_of_key(self, row: dict[str, Any]) -> list[Any]:
        """What a foreign key points to: of several keys over the same columns a server takes the one that was first."""
        table, key = (
            row[name].encode("latin-1").decode().replace("'", "''").replace("\\", "\\\\") if row[name] else ""
            for name in ("referenced_table_name", "unique_constraint_name")
        )
        return self._ask(
            "SELECT COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()"
            f" AND TABLE_NAME = '{table}' AND INDEX_NAME = '{key}' AND SEQ_IN_INDEX = 1"
        )

    def columns(self, table: str) -> list[tuple[str, str]]:
        """Name and type of each."""
        rows = self._named(f"SHOW FULL COLUMNS FROM {quote(table)}")
        pairs = [(row["field"].encode("latin-1").decode(), row["type"].lower()) for row in rows]
        made = self._named(f"SHOW CREATE TABLE {quote(table)}")[0]["create table"]
        if "WITH SYSTEM VERSIONING" in made and "PERIOD FOR" not in made:
            pairs += [("row_start", "timestamp(6)"), ("row_end", "timestamp(6)")]
        return pairs

    def rows(self, table: str, only: set[str] | None = None) -> Counter[tuple[Any, ...]]:
        """Every row, exactly."""
        words = [
            _exactly(quote(name), kind) for name, kind in self.columns(table) if only is None or name in only
        ]
        history = " FOR SYSTEM_TIME ALL" if self.is_versioned(table) else ""
        return Counter(self._ask(f"SELECT {', '.join(words)} FROM {quote(table)}{history}"))

    def is_versioned(self, table: str) -> bool:
        """Whether it has a history."""
        return "WITH SYSTEM VERSIONING" in self._created(table)

    def checksums(self) -> dict[str, Any]:
        """The engine's own."""
        tables = filter(self._is_comparable, self.tables())
        return {table: self._ask(f"CHECKSUM TABLE {quote(table)}")[0][1] for table in tables}

    def _is_comparable(self, table: str) -> bool:
        """Not of what hides rows. Aria's depend on a row format that it does not show. MariaDB adds up what happens to
        lie in the place of virtual columns (``ALTER TABLE … FORCE`` changes the sum, or it crashes). MySQL adds up
        hidden columns of keys over expressions, see ``_plain``, and whether numbers in JSON have a sign, which the
        bundle's ledger names.
        """
        made = self._created(table)
        odd = (
            "SYSTEM VERSIONING",
            "ENGINE=Aria",
            r"\) VIRTUAL" if self._mariadb else r"KEY `.*` \(.*\(\(|` json\b",
        )
        return not any(re.search(words, made) for words in odd)

    def counters(self) -> list[tuple[Any, ...]]:
        """Where sequences stand."""
        if not self._mariadb:
            return []
        query = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'SEQUENCE'"
        names = sorted(row[0].encode("latin-1").decode() for row in self._ask(query))
        return [(name, *self._ask(f"SELECT * FROM {quote(name)}")) for name in names]


def _plain(catalog: str, row: dict[str, Any], views: set[str]) -> dict[str, Any]:
    """What MySQL knows of how something was made, and prints in no definition: whether a column of an expression was
    NULL once (of a key that is older than a NOT NULL; of a view, that it was made in a strict mode); how wide a number
    was declared, by which a view's text is long; and in which charset a literal was written. What SHOW CREATE TABLE
    prints of that is compared for itself.
    """
    if catalog == "STATISTICS" and row["expression"] is not None:
        row = row | {"nullable": ""}
    if catalog == "COLUMNS" and row["table_name"] in views:
        row = row | dict.fromkeys(("is_nullable", "column_default"), "")
        if row["data_type"] == "varchar":
            row = row | dict.fromkeys(
                ("column_type", "character_maximum_length", "character_octet_length"), ""
            )
    return {name: _unmarked(value) if name in _EXPRESSIONS else value for name, value in row.items()}


_EXPRESSIONS = ("generation_expression", "column_default", "check_clause", "expression")
_LITERAL = re.compile(rb"_(\w+)\\'(.*?)\\'", re.DOTALL)
_KNOWN = {b"latin1": "cp1252", b"utf8mb4": "utf-8", b"utf8mb3": "utf-8"}


def _unmarked(shown: Any) -> Any:
    """An expression without the charsets of its literals, in UTF-8, as far as these are known here."""
    if not isinstance(shown, str):
        return shown
    stored = shown.encode("latin-1").decode().encode("latin-1", "replace")

    def read(match: re.Match[bytes]) -> bytes:
        codec = "ascii" if match[2].isascii() and not match[1].startswith(b"u") else _KNOWN.get(match[1])
        return b"'" + match[2].decode(codec, "replace").encode() + b"'" if codec else match[0]

    return _LITERAL.sub(read, stored)


def _printed(row: dict[str, Any]) -> dict[str, Any]:
    """Aria knows what it was once asked for, and prints what it has; other engines print what only Aria has. The names
    that a UNION's second query gives, nobody sees; a server takes away what they begin with.
    """
    if row.get("engine") == "Aria":
        return {k: v for k, v in row.items() if k != "create_options"}
    if "create_options" in row:
        return row | {"create_options": re.sub(r"\s*transactional=\d", "", row["create_options"] or "")}
    if "view_definition" in row:
        return row | {
            "view_definition": re.sub(r" AS `[\x00-\x20\x7f]+", " AS `", row["view_definition"] or "")
        }
    return row


def differences(source: Look, destination: Look) -> list[str]:
    """Everything in which two databases are not alike."""
    ours, theirs = source.catalogs(), destination.catalogs()
    lines = [f"{name} - {line}" for name in ours for line in ours[name] if line not in theirs[name]]
    lines += [f"{name} + {line}" for name in ours for line in theirs[name] if line not in ours[name]]
    for table in set(source.tables()) & set(destination.tables()):
        rows, others = source.rows(table), destination.rows(table)
        if rows != others:
            lines.append(f"rows of {table!r}: - {list(rows - others)[:3]} + {list(others - rows)[:3]}")
    sums, other_sums = source.checksums(), destination.checksums()
    lines += [f"checksum of {name!r}" for name in sums if sums[name] != other_sums.get(name)]
    if source.counters() != destination.counters():
        lines.append(f"sequences: {source.counters()} {destination.counters()}")
    return lines


def _exactly(name: str, kind: str) -> str:
    if kind.startswith(("float", "double")):
        return f"CONCAT({name}*1e0)"
    if kind.startswith(("enum", "set", "bit")):
        return f"CONCAT(CAST({name} AS UNSIGNED))"
    if kind.startswith("time") and not kind.startswith("timestamp"):
        return f"CONCAT({name})"
    if kind == "json":
        return f"CONCAT(JSON_TYPE({name}), HEX(CAST({name} AS CHAR)))"
    return f"HEX({name})" if _is_bytes(kind) else f"HEX(CAST({name} AS BINARY))"


def _is_bytes(kind: str) -> bool:
    return "char" in kind or "text" in kind or "blob" in kind or "binary" in kind
