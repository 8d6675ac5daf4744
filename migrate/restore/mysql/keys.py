"""Keys after the rows: a table's definition taken apart into what must be first, and what is quicker made later."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pymysql

from exporters.mysql.connect import Address, connect
from exporters.mysql.errors import number_of
from exporters.mysql.identifiers import quote_name
from migrate.bundle.catalog import CatalogRow
from migrate.restore.mysql.ddl import items_of
from migrate.restore.mysql.schema import Definition, ddl_error
from migrate.restore.mysql.target import mark_done

Later = Mapping[str, str]
"""By table: the statement that completes it."""

LARGE_BYTES = 32 * 2**20
"""From so many bytes of rows on it pays: a smaller table costs less than another ALTER TABLE."""

_THERE = {1061, 1826}
_KEY = re.compile(r"KEY `")
_UNIQUE = re.compile(r"UNIQUE KEY `")
_FOREIGN = re.compile(r"CONSTRAINT (`[^`]*`)+ FOREIGN KEY ")
_ODD = re.compile(r"SPATIAL KEY |PERIOD |.* WITHOUT OVERLAPS", re.DOTALL)
_PRIMARY = re.compile(r"PRIMARY KEY \((`(?:[^`]|``)*`)")
_COUNTER = re.compile(r"(`(?:[^`]|``)*`) .* AUTO_INCREMENT", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Apart:
    """``first`` makes the table; ``later``, where it is not empty, is the ALTER TABLE that completes it."""

    first: str
    later: str = ""


def take_apart(name: str, sql: str) -> Apart:
    """Return a table's definition without the keys that can be added later. All stay where one of them is needed: by an
    AUTO_INCREMENT column that the primary key does not begin with, or in place of a primary key.
    """
    open_, close, items = items_of(sql)
    primary = next((found[1] for item in items if (found := _PRIMARY.match(item))), None)
    counter = next((found[1] for item in items if (found := _COUNTER.match(item))), None)
    if primary is None or counter not in {None, primary} or any(_ODD.match(item) for item in items):
        return Apart(sql)
    later = [item for item in items if _KEY.match(item) or _UNIQUE.match(item) or _FOREIGN.match(item)]
    if not later:
        return Apart(sql)
    kept = ",\n  ".join(item for item in items if item not in later)
    added = ", ".join(f"ADD {item}" for item in later)
    return Apart(f"{sql[:open_]}(\n  {kept}\n{sql[close:]}", f"ALTER TABLE {quote_name(name)} {added}")


def set_aside(
    definitions: Sequence[Definition], tables: Sequence[CatalogRow]
) -> tuple[list[Definition], Later]:
    """Return the definitions with large tables' keys taken out, and what adds these later."""
    large = {
        table.name
        for table in tables
        if table.size_bytes >= LARGE_BYTES and table.details.get("engine") == "InnoDB"
    }
    kept, later = [], {}
    for one in definitions:
        apart = Apart("")
        if one["kind"] == "table" and one["name"] in large:
            apart = take_apart(one["name"], one["sql"])
        kept.append({**one, "sql": apart.first} if apart.later else one)
        if apart.later:
            later[one["name"]] = apart.later
    return kept, later


def add_keys(address: Address, later: Later, done: set[str], workers: int) -> None:
    """Complete the tables that are not noted as such, several at once. Raises ``MoveoutError``."""
    todo = [name for name in later if _step(name) not in done]
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="moveout-keys") as pool:
        for future in [pool.submit(_add, address, name, later[name]) for name in todo]:
            future.result()


def _add(address: Address, name: str, statement: str) -> None:
    connection = connect(address)
    try:
        try:
            connection.run(statement)
        except pymysql.Error as exc:
            if number_of(exc) not in _THERE:  # made by a run that could not note it
                raise ddl_error(exc, {"kind": "keys of", "name": name}) from exc
        mark_done(connection, _step(name))
    finally:
        connection.close()


def _step(name: str) -> str:
    return f"keys {name}"
