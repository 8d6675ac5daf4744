"""The control tables in which a restore keeps its progress, and how they differ from a customer's tables of such names.

A table is a control table if it has both the name and the columns of one. The prefix is ``moveout_restore``. Where a
customer has tables of these names, a restore takes ``moveout_restore2``, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import count

from msgspec import Struct

from exporters.mysql.connection import Connection
from exporters.mysql.identifiers import quote_literal

OWN_TABLE = "ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
"""What a control table is made with, whatever the server's defaults are."""
_PREFIX = "moveout_restore"
_COLUMNS = (
    "SELECT TABLE_NAME, CONCAT(COLUMN_NAME, ' ', COLUMN_TYPE) FROM information_schema.COLUMNS"
    " WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME LIKE 'moveout\\_restore%' ORDER BY TABLE_NAME, ORDINAL_POSITION"
)
_ABOUT = ["bundle varchar(200)", "source varchar(200)", "only_ longtext"]
_DONE = ["name varchar(700)"]
_LEFT_OUT = [*_ABOUT, "step varchar(700)", "entry longtext"]
_TRIGGERS = ["trigger_name varchar(64)", "definition longtext"]
_FOLLOW_NAMES = ["source", "base", "segment", "message", "position", "details"]


class ControlTables(Struct, frozen=True):
    """The names of one restore's tables. ``about`` says which restore it is, ``done`` which steps are done,
    ``left_out`` what was left out: that one stays after the restore. ``again`` and ``away`` are for tables that are
    made a second time. ``triggers`` keeps those that a repair has dropped, until it makes them again. ``follow`` says
    up to where changes of the source were applied since.
    """

    about: str
    done: str
    left_out: str
    again: str
    away: str
    triggers: str
    follow: str

    @staticmethod
    def of(prefix: str) -> ControlTables:
        """Return those whose names begin with ``prefix``."""
        return ControlTables(
            about=prefix,
            done=f"{prefix}_done",
            left_out=f"{prefix}_left_out",
            again=f"{prefix}_again",
            away=f"{prefix}_away",
            triggers=f"{prefix}_triggers",
            follow=f"{prefix}_follow",
        )

    @staticmethod
    def apart_from(names: Collection[str]) -> ControlTables:
        """Return the first ones that have none of these names, which are a customer's."""
        taken_names = {name.lower() for name in names}
        numbered = (ControlTables.of(_PREFIX if number == 1 else f"{_PREFIX}{number}") for number in count(1))
        return next(tables for tables in numbered if taken_names.isdisjoint(tables.names))

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.about, self.done, self.left_out, self.again, self.away, self.triggers, self.follow


def find_control_tables(connection: Connection) -> tuple[frozenset[str], frozenset[str]]:
    """Return the control tables of the session's database, and the other tables whose names begin alike. Raises the
    driver's errors.
    """
    columns: dict[str, list[str]] = {}
    for name, column in connection.rows(_COLUMNS.format(schema=quote_literal(connection.address.database))):
        columns.setdefault(str(name), []).append(str(column))
    control = set[str]()
    for name in columns:
        tables = ControlTables.of(re.sub("_(done|left_out|triggers|follow)$", "", name))
        if re.fullmatch(rf"{_PREFIX}\d*", tables.about):
            expected = {tables.done: _DONE, tables.left_out: _LEFT_OUT, tables.triggers: _TRIGGERS}
            control |= {table for table in expected if columns.get(table) == expected[table]}
            follow_names = [column.split()[0] for column in columns.get(tables.follow, ())]
            control |= {tables.follow} if follow_names == _FOLLOW_NAMES else set()
            control |= (
                {tables.about, tables.again, tables.away} if columns.get(tables.about) == _ABOUT else set()
            )
    control &= columns.keys()
    return frozenset(control), frozenset(columns.keys() - control)
