"""Checks that rows violate: MariaDB lets rows in unchecked, MySQL never. The check stays, and is not enforced."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pymysql

from exporters.base import Loss
from exporters.mysql.connect import Connection
from exporters.mysql.errors import number_of
from exporters.mysql.identifiers import quote_name
from migrate.restore.mysql.target import mark_done, read_done

_VIOLATED = 3819
_SAID = re.compile(r"Check constraint '(.*)' is violated", re.DOTALL)
_STEP = "unenforced "


class CheckViolatedError(Exception):
    """Rows do not pass a check of the target."""

    def __init__(self, check: str) -> None:
        self.check = check
        super().__init__(check)


def violated_check(error: pymysql.Error) -> str:
    """Return the name of the check that MySQL says rows violate, or nothing."""
    said = _SAID.search(str(error.args[1])) if number_of(error) == _VIOLATED else None
    return said[1] if said else ""


def loosen(connection: Connection, table: str, check: str) -> None:
    """Let a check hold for nobody, and note it, so that a run that goes on knows of it. Raises the driver's errors."""
    label = f"{quote_name(check)} of {quote_name(table)}"
    if f"{_STEP}{label}" not in read_done(connection):
        mark_done(connection, f"{_STEP}{label}")
    connection.run(f"ALTER TABLE {quote_name(table)} ALTER CHECK {quote_name(check)} NOT ENFORCED")


def loosened(connection: Connection) -> Iterator[Loss]:
    """Yield the checks that are not enforced because of the rows."""
    for step in sorted(read_done(connection)):
        if step.startswith(_STEP):
            yield Loss(
                f"check {step.removeprefix(_STEP)}",
                "constraint",
                "it is not enforced: rows that are there violate it",
            )
