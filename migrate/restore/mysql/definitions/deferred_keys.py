"""Keys after the rows: a table's definition taken apart into what must be first, and what is quicker made later."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pymysql
from msgspec import Struct

from exporters.api import Loss
from exporters.mysql.errors import message_of, number_of
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.bundle.catalog import CatalogRow
from migrate.number_text import list_words
from migrate.restore.mysql.definitions.object_maker import ddl_error, needs_the_user
from migrate.restore.mysql.definitions.recorded_definitions import Definition
from migrate.restore.mysql.definitions.table_ddl import items_of
from migrate.restore.mysql.destination import DestinationConnection, items_there
from migrate.restore.mysql.restore_state import mark_done, note_loss
from migrate.restore.mysql.rows.relaxed_constraints import not_unique

Later = Mapping[str, Sequence[str]]
"""By table: the keys and constraints that complete it."""

LARGE_BYTES = 32 * 2**20
"""From so many bytes of rows on it pays: a smaller table costs less than another ALTER TABLE."""

_DUPLICATE = 1062
_DEADLOCK, _TRIES, _AGAIN_SECONDS = 1213, 10, 0.3
"""Foreign keys of two tables to each other, or to a third, may wait for one another: the server ends one statement."""
_NO_SUCH_TABLE = {1049, 1146}
_KEY = re.compile(r"KEY `")
_UNIQUE = re.compile(r"UNIQUE KEY `")
_NAMED = re.compile(r"(?:UNIQUE )?(?:KEY|CONSTRAINT) (?:`[^`]*`)+ ")
_FOREIGN = re.compile(r"CONSTRAINT (?:`[^`]*`)+ FOREIGN KEY ")
_ODD = re.compile(r"SPATIAL KEY |PERIOD |.* WITHOUT OVERLAPS", re.DOTALL)
_UNRESOLVED = (
    "SELECT CONSTRAINT_NAME, TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME"
    " FROM information_schema.REFERENTIAL_CONSTRAINTS"
    " WHERE CONSTRAINT_SCHEMA = {schema} AND UNIQUE_CONSTRAINT_NAME IS NULL ORDER BY 2, 1"
)
"""Foreign keys to tables that are missing, among others."""
_PRIMARY = re.compile(r"PRIMARY KEY \((`(?:[^`]|``)*`)")
_COUNTER = re.compile(r"(`(?:[^`]|``)*`) .* AUTO_INCREMENT", re.DOTALL)


class SplitDefinition(Struct, frozen=True):
    """``first`` makes the table; ``later`` are the keys and constraints that complete it."""

    first: str
    later: Sequence[str] = ()


def split_definition(sql: str, *, foreign_only: bool) -> SplitDefinition:
    """Return a table's definition without the keys that can be added later. All stay where one of them is needed: by an
    AUTO_INCREMENT column that the primary key does not begin with, or in place of a primary key. ``foreign_only``:
    only those to other tables go.
    """
    open_, close, items = items_of(sql)
    if foreign_only:
        later = [item for item in items if _FOREIGN.match(item)]
    else:
        primary = next((match[1] for item in items if (match := _PRIMARY.match(item))), None)
        counter = next((match[1] for item in items if (match := _COUNTER.match(item))), None)
        if primary is None or counter not in {None, primary} or any(_ODD.match(item) for item in items):
            return SplitDefinition(sql)
        later = [item for item in items if _KEY.match(item) or _UNIQUE.match(item) or _FOREIGN.match(item)]
    if not later:
        return SplitDefinition(sql)
    first_items = ",\n  ".join(item for item in items if item not in later)
    return SplitDefinition(f"{sql[:open_]}(\n  {first_items}\n{sql[close:]}", later)


def set_aside(
    definitions: Sequence[Definition], tables: Sequence[CatalogRow], *, foreign: bool = False
) -> tuple[list[Definition], Later]:
    """Return the definitions with large tables' keys taken out, and what adds these later. ``foreign``: of all tables
    those to other ones, which a server of the other flavour may refuse one by one, and only when both are there.
    """
    large = {
        table.name
        for table in tables
        if table.size_bytes >= LARGE_BYTES and table.details.get("engine") == "InnoDB"
    }
    first_definitions, later = [], {}
    for definition in definitions:
        split = SplitDefinition("")
        if definition["kind"] == "table" and (foreign or definition["name"] in large):
            split = split_definition(definition["sql"], foreign_only=definition["name"] not in large)
        first_definitions.append({**definition, "sql": split.first} if split.later else definition)
        if split.later:
            later[definition["name"]] = split.later
    return first_definitions, later


def add_keys(destination: DestinationConnection, later: Later, done: set[str], workers: int) -> None:
    """Complete the tables that are not noted as such, several at once. Raises ``MoveoutError``."""
    todo = [name for name in later if _step(name) not in done]
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="moveout-keys") as pool:
        for future in [pool.submit(_add, destination, name, later[name]) for name in todo]:
            future.result()


def _add(destination: DestinationConnection, name: str, items: Sequence[str]) -> None:
    with closing(destination.another()) as connection:
        for left in reversed(range(_TRIES)):
            try:
                _add_all(connection, name, items)
                break
            except pymysql.Error as exc:
                if number_of(exc) != _DEADLOCK or not left:
                    raise ddl_error(exc, {"kind": "keys of", "name": name}) from exc
                time.sleep(_AGAIN_SECONDS)
        mark_done(connection, _step(name))


def _add_all(connection: DestinationConnection, name: str, items: Sequence[str]) -> None:
    """Add all at once, or what the destination takes of it; what it refuses is noted. Raises the driver's errors."""
    try:
        connection.run(f"ALTER TABLE {quote_name(name)} {', '.join(f'ADD {item}' for item in items)}")
    except pymysql.Error as exc:
        if needs_the_user(exc):
            raise
        if len(items) == 1 and _is_there(connection, name, items[0]):  # made by a run that could not note it
            return
        if len(items) > 1:
            for item in items:
                _add_all(connection, name, [item])
        elif number_of(exc) == _DUPLICATE and _UNIQUE.match(items[0]):
            note_loss(connection, not_unique(name, items[0]))
            _add_all(connection, name, [items[0].removeprefix("UNIQUE ")])
        else:
            lost = "foreign key" if _FOREIGN.match(items[0]) else "key"
            reason = f"{' '.join(items[0].split())}: {message_of(exc)}"
            note_loss(connection, Loss(f"table {quote_name(name)}", lost, reason))


def _is_there(connection: DestinationConnection, name: str, item: str) -> bool:
    begin = _NAMED.match(item)
    return begin is not None and any(item.startswith(begin[0]) for item in items_there(connection, name))


def note_pointing_nowhere(connection: DestinationConnection, others: Collection[str]) -> list[str]:
    """Return a note for each database of which foreign keys name tables that are missing: the keys of a definition that
    was made while they were not checked. None for the ``others`` that are restored, too. Raises the driver's errors.
    """
    schema = connection.address.database
    missing: dict[str, list[str]] = {}
    for row in connection.rows(_UNRESOLVED.format(schema=quote_literal(schema))):
        key, table, database, referenced = map(str, row)
        if database not in others and _is_missing(
            connection, f"{quote_name(database)}.{quote_name(referenced)}"
        ):
            words = f"{quote_name(key)} of {quote_name(table)} (to {quote_name(referenced)})"
            missing.setdefault(database, []).append(words)
    return [
        f"foreign keys name tables of {quote_name(database)} that are missing on this server: {list_words(keys)}."
        " It takes no new rows into tables with such a key: restore"
        f" {'the missing tables' if database == schema else quote_name(database)}, too, or drop the keys"
        for database, keys in missing.items()
    ]


def _is_missing(connection: DestinationConnection, table: str) -> bool:
    """Tell whether the server says that there is no such table; to an account without rights it says nothing."""
    try:
        connection.rows(f"SELECT 1 FROM {table} LIMIT 0")
    except pymysql.Error as exc:
        return number_of(exc) in _NO_SUCH_TABLE
    return False


def _step(name: str) -> str:
    return f"keys {name}"
