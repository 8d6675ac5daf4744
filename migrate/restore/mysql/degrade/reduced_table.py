"""A table of which the destination refuses something: made without that, which is named.

What it is, is tried out with a table of our own that is dropped again. Keys, constraints and partitions that no CREATE
TABLE may have are added afterwards where the destination takes them so. A server may refuse in one statement what it
takes in several.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

import pymysql

from exporters.api import Loss
from exporters.mysql.errors import is_about_the_thing, message_of
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.restore.mysql.definitions import Definer, Definition
from migrate.restore.mysql.degrade.concessions import forget, note
from migrate.restore.mysql.degrade.optional_clauses import FOREIGN, Piece, least, without
from migrate.restore.mysql.destination import DestinationConnection, alter, items_there

_FOREIGN_KEYS = (
    "SELECT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS"
    " WHERE CONSTRAINT_SCHEMA = {schema} AND REFERENCED_TABLE_NAME = {table} AND TABLE_NAME <> {table}"
)


def make_reduced(
    connection: DestinationConnection, definer: Definer, definition: Definition, ours: Collection[str]
) -> bool:
    """Make a table without what the destination refuses of it; return whether there is a way. ``ours``: the tables
    that are being restored. Raises the driver's errors.
    """
    trial = _Trial(connection, definer, definition)
    out = least(definition["sql"], trial.refusal)
    if out is None:
        return False
    losses = {piece: _loss(definition, piece, reason) for piece, reason in out.items()}
    for loss in losses.values():
        note(connection, loss)
    dropped_keys = [
        foreign_key
        for foreign_key in _foreign_keys_to(connection, definition["name"])
        if foreign_key[0] in ours
    ]
    for table, name, item in dropped_keys:
        note(connection, _away(table, item))
        connection.run(f"ALTER TABLE {quote_name(table)} DROP FOREIGN KEY {quote_name(name)}")
    try:
        definer.make({**definition, "sql": without(definition["sql"], out)})
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        for loss in losses.values():
            forget(connection, loss)
        return False
    finally:
        _put_back(connection, dropped_keys)
    for piece, loss in losses.items():
        if piece.addition and alter(connection, definition["name"], piece.addition) is None:
            forget(connection, loss)
    return True


def _put_back(connection: DestinationConnection, foreign_keys: Sequence[tuple[str, str, str]]) -> None:
    for table, _, item in foreign_keys:
        refusal = alter(connection, table, f"ADD {item}")
        if refusal is not None:
            note(
                connection,
                Loss(f"table {quote_name(table)}", FOREIGN, f"{' '.join(item.split())}: {refusal}"),
            )
        forget(connection, _away(table, item))


def _away(table: str, item: str) -> Loss:
    """The loss that is recorded in case the restore stops before the key is added again."""
    return Loss(
        f"table {quote_name(table)}", FOREIGN, f"{' '.join(item.split())}: the restore was stopped here"
    )


class _Trial:
    """Tries definitions of a table on the destination."""

    def __init__(self, connection: DestinationConnection, definer: Definer, definition: Definition) -> None:
        self._connection, self._definer, self._definition = connection, definer, definition
        self._head = len(f"CREATE TABLE {quote_name(definition['name'])}")

    def refusal(self, sql: str) -> str:
        """Return why the destination refuses the table, "" if it makes it. Raises the driver's errors."""
        again = self._connection.again
        self._connection.run(f"DROP TABLE IF EXISTS {again}")
        try:
            name = self._connection.control.again
            self._definer.make(
                {**self._definition, "name": name, "sql": f"CREATE TABLE {again}{sql[self._head :]}"}
            )
        except pymysql.Error as exc:
            if not is_about_the_thing(exc):
                raise
            return message_of(exc)
        finally:
            with suppress(pymysql.Error):
                self._connection.run(f"DROP TABLE IF EXISTS {again}")
        return ""


def _loss(definition: Definition, piece: Piece, reason: str) -> Loss:
    return Loss(f"table {quote_name(definition['name'])}", piece.lost, f"{piece.shown}: {reason}")


def _foreign_keys_to(connection: DestinationConnection, table: str) -> list[tuple[str, str, str]]:
    """Return the tables that are there already and point to this one, with their foreign keys' names and definitions:
    the destination would refuse a table that does not fit to these.
    """
    schema = quote_literal(connection.address.database)
    rows = connection.rows(_FOREIGN_KEYS.format(schema=schema, table=quote_literal(table)))
    return [(str(child), str(name), _item(connection, str(child), str(name))) for child, name in rows]


def _item(connection: DestinationConnection, table: str, constraint: str) -> str:
    begin = f"CONSTRAINT {quote_name(constraint)} "
    return next((item for item in items_there(connection, table) if item.startswith(begin)), "")
