"""Of a database that came to the other flavour: what is not there has to be named."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.exporters.mysql.databases import fetch
from tests.torture.random_databases.likeness import Look
from tests.torture.random_databases.words import quote

_OBJECTS = {
    "table": "SELECT '', TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"
    " AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')",
    "sequence": "SELECT '', TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"
    " AND TABLE_TYPE = 'SEQUENCE'",
    "view": "SELECT '', TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE()",
    "routine": "SELECT '', ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE()",
    "trigger": "SELECT '', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()",
    "event": "SELECT '', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()",
    "column": "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()",
    "key": "SELECT DISTINCT TABLE_NAME, INDEX_NAME FROM information_schema.STATISTICS"
    " WHERE TABLE_SCHEMA = DATABASE()",
    "foreign key": "SELECT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS"
    " WHERE CONSTRAINT_SCHEMA = DATABASE()",
    "partition": "SELECT TABLE_NAME, PARTITION_NAME FROM information_schema.PARTITIONS"
    " WHERE TABLE_SCHEMA = DATABASE() AND PARTITION_NAME IS NOT NULL",
}
_AHEAD = re.compile(r"^[\x00-\x20\x7f]+")
"""Servers take these away from names of what a view selects, and MariaDB also where the view lists its columns."""
_CHECKS = (
    "SELECT TABLE_NAME FROM information_schema.TABLE_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE()"
    " AND CONSTRAINT_TYPE = 'CHECK'"
)
_JSON = "SELECT TABLE_NAME FROM information_schema.CHECK_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE() AND CHECK_CLAUSE"
_OF_JSON = f"{_JSON} = CONCAT('json_valid(`', REPLACE(CONSTRAINT_NAME, '`', '``'), '`)')"


def unnamed(source: str, destination: str, named: Sequence[str]) -> list[str]:
    """Return what only ``source`` has and no sentence of ``named`` has the name of."""
    missing = []
    views = {name for _, name in fetch(source, _OBJECTS["view"])}
    lost = set[str]()
    for kind, query in _OBJECTS.items():
        there = {(table, name.lower()) for table, name in fetch(destination, query)}
        for table, name in fetch(source, query):
            kept = _AHEAD.sub("", name) if table in views else name
            if (table, kept.lower()) in there or (table, name.lower()) in there or table in lost:
                continue
            lost |= set() if table else {name}
            if not _is_named(table, name, kind, named):
                missing.append(
                    f"{kind} {quote(name)} of {quote(table)}" if table else f"{kind} {quote(name)}"
                )
    checks = _checks(source, destination, named)
    return [*missing, *(f"{count} checks of {quote(table)}" for table, count in checks if table not in lost)]


def _is_named(table: str, name: str, kind: str, named: Sequence[str]) -> bool:
    shown = " ".join(quote(name).split())
    word = "PARTITION" if kind == "partition" else "PRIMARY KEY" if shown == "`PRIMARY`" else shown
    about = " ".join(quote(table).split()) if table else ""
    return any(word.lower() in one.lower() and about in one for one in named)


def _checks(source: str, destination: str, named: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield how many checks of a table are neither there nor named; those by which MariaDB knows JSON are not
    counted."""
    ours, theirs = (Counter(row[0] for row in fetch(url, _CHECKS)) for url in (source, destination))
    for counted, url in ((ours, source), (theirs, destination)):
        if "mariadb" in fetch(url, "SELECT VERSION()")[0][0].lower():
            counted.subtract(row[0] for row in fetch(url, _OF_JSON))
    for table, count in (ours - theirs).items():
        about = " ".join(quote(table).split())
        left = count - sum("CHECK (" in one and about in one for one in named)
        if left > 0:
            yield table, left


_COLUMNS = (
    "SELECT TABLE_NAME, COLUMN_NAME, CONCAT_WS(' ', DATA_TYPE, CHARACTER_SET_NAME) FROM information_schema.COLUMNS"
    " WHERE TABLE_SCHEMA = DATABASE()"
)
_NOT_COMPUTED = " AND COALESCE(GENERATION_EXPRESSION, '') = ''"
_OTHERWISE = (
    *("time", "float", "double", "geometry", "geomcollection", "geometrycollection"),
    *("point", "linestring", "polygon", "multipoint"),
)
"""Types of values that a server of the other flavour may hold otherwise."""


def other_rows(source: str, destination: str) -> list[str]:
    """Return the tables whose values in columns of equal types are not equal, as the servers themselves show them."""
    theirs = set(fetch(destination, _COLUMNS))
    shared: dict[str, set[str]] = {}
    for table, column, kind in fetch(source, _COLUMNS + _NOT_COMPUTED):
        if (table, column, kind) in theirs and kind not in _OTHERWISE:
            shared.setdefault(table, set()).add(column)
    ours, copy = Look(source), Look(destination)
    try:
        return [
            f"rows of {table!r}"
            for table, columns in shared.items()
            if table in ours.tables()
            and not ours.is_versioned(table)
            and ours.rows(table, columns) != copy.rows(table, columns)
        ]
    finally:
        ours.close()
        copy.close()
