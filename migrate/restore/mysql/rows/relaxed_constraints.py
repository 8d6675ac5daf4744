"""A table whose own rows the destination refuses, as another server had let them in: what keeps them out gives way,
and is named. Checks stay without being enforced, unique keys as plain ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum

import pymysql

from exporters.api import Loss
from exporters.mysql.errors import message_of, number_of
from exporters.mysql.identifiers import quote_name
from migrate.restore.mysql.definitions.reduced_table import GENERATED, pieces_of
from migrate.restore.mysql.definitions.table_ddl import items_of, masked
from migrate.restore.mysql.destination import DestinationConnection, alter, items_there
from migrate.restore.mysql.restore_state import forget_loss, note_loss

CHECK_VIOLATED = 3819
_NAMES_IN_ERROR = {
    CHECK_VIOLATED: re.compile(r"Check constraint '(.*)' is violated", re.DOTALL),
    1062: re.compile(r" for key '(.*)'$", re.DOTALL),
    1048: re.compile(r"Column '(.*)' cannot be null", re.DOTALL),
    3673: re.compile(r"Column '(.*)' cannot be null", re.DOTALL),
}
_NO_PARTITION = {1526, 1748}
_TOO_LONG = {1153, 1301}
"""A row is longer than the server takes, whatever it computes."""


class Relaxation(Enum):
    """What to do after a table was changed for its rows."""

    NONE = "nothing helps"
    PART = "write the part again"
    TABLE = "write the whole table again"


def loosen(connection: DestinationConnection, table: str, error: pymysql.Error) -> Relaxation:
    """Let a table have rows that it has refused with ``error``, if there is a way. Raises the driver's errors."""
    number = number_of(error)
    relaxations: dict[int, Callable[[DestinationConnection, str, str], bool]] = {
        CHECK_VIOLATED: _unenforced,
        1062: _plain_key,
    }
    if number in _NO_PARTITION:
        return Relaxation.PART if _unpartitioned(connection, table, error) else Relaxation.NONE
    match = _NAMES_IN_ERROR[number].search(str(error.args[1])) if number in _NAMES_IN_ERROR else None
    if match is not None and relaxations.get(number, _nullable)(connection, table, match[1]):
        return Relaxation.PART
    return Relaxation.TABLE if _uncomputed(connection, table, error) else Relaxation.NONE


def _item(table: str) -> str:
    return f"table {quote_name(table)}"


def _unenforced(connection: DestinationConnection, table: str, check: str) -> bool:
    label = f"check {quote_name(check)} of {quote_name(table)}"
    loss = Loss(label, "constraint", "it is not enforced: rows that are there violate it")
    return _altered(connection, table, f"ALTER CHECK {quote_name(check)} NOT ENFORCED", [loss])


def _plain_key(connection: DestinationConnection, table: str, key: str) -> bool:
    """MySQL puts the table's name before that of the key."""
    names = {key, key.removeprefix(f"{table}.")}
    begins = [
        *(f"UNIQUE KEY {quote_name(name)} " for name in names),
        *(["PRIMARY KEY "] * ("PRIMARY" in names)),
    ]
    item = next((item for item in items_there(connection, table) if item.startswith(tuple(begins))), "")
    if not item:
        return False
    plain = re.sub(r"^(?:UNIQUE|PRIMARY) |(?<=\)) USING HASH$", "", item)
    return _altered(connection, table, f"DROP {_dropped(item)}, ADD {plain}", [not_unique(table, item)])


def not_unique(table: str, item: str) -> Loss:
    """Return the reason for a key that cannot be unique because of its rows."""
    return Loss(_item(table), "key", f"{' '.join(item.split())}: it is not unique: rows are equal here")


def _nullable(connection: DestinationConnection, table: str, column: str) -> bool:
    begin = f"{quote_name(column)} "
    item = next((item for item in items_there(connection, table) if item.startswith(begin)), "")
    at = masked(item).find(" NOT NULL")
    if at < 0:
        return False
    reason = f"{quote_name(column)} may be NULL here: rows that are there were never given a value"
    words = f"MODIFY COLUMN {item[:at]}{item[at + len(' NOT NULL') :]}"
    return _altered(connection, table, words, [Loss(_item(table), "NOT NULL", reason)])


def _unpartitioned(connection: DestinationConnection, table: str, error: pymysql.Error) -> bool:
    loss = Loss(_item(table), "partitions", f"it has no PARTITIONS here: {message_of(error)}")
    return _altered(connection, table, "REMOVE PARTITIONING", [loss])


def _uncomputed(connection: DestinationConnection, table: str, error: pymysql.Error) -> bool:
    """Make computed columns plain ones, which are to have the values that are in the bundle."""
    sql = _definition(connection, table)
    computed = {piece.column: piece for piece in pieces_of(sql) if piece.lost == GENERATED}
    if not computed or number_of(error) in _TOO_LONG:
        return False
    words, losses, before = list[str](), list[Loss](), " FIRST"
    touched = dict.fromkeys(
        item
        for item in items_of(sql)[2]
        if not item.startswith("`") and any(name in item for name in computed)
    )
    words += [f"DROP {_dropped(item)}" for item in touched]
    words += [f"DROP COLUMN {name}" for name in computed]
    for item in items_of(sql)[2]:
        name = item[: masked(item).find(" ")]
        if name in computed:
            piece = computed[name]
            words.append(f"ADD COLUMN {item.replace(piece.words, '', 1)}{before}")
            reason = f"{piece.shown}: not of all rows can it be computed here: {message_of(error)}"
            losses.append(Loss(_item(table), GENERATED, reason))
        before = f" AFTER {name}" if item.startswith("`") else before
    words += [f"ADD {item}" for item in touched]
    return _altered(connection, table, ", ".join(words), losses)


def _dropped(item: str) -> str:
    """Return what ALTER TABLE drops a key or constraint as."""
    if item.startswith("PRIMARY"):
        return "PRIMARY KEY"
    shown = masked(item)
    begin = shown.index("\0")
    name = item[begin : shown.index(" ", begin)]
    if item.startswith("CONSTRAINT"):
        return f"FOREIGN KEY {name}" if " FOREIGN KEY " in shown else f"CONSTRAINT {name}"
    return f"KEY {name}"


def _definition(connection: DestinationConnection, table: str) -> str:
    return str(connection.named(f"SHOW CREATE TABLE {quote_name(table)}")[0]["create table"])


def _altered(connection: DestinationConnection, table: str, words: str, losses: Sequence[Loss]) -> bool:
    """Alter a table and note what it loses by that; return whether the destination has done so."""
    for loss in losses:
        note_loss(connection, loss)
    if alter(connection, table, words) is None:
        return True
    for loss in losses:
        forget_loss(connection, loss)
    return False
