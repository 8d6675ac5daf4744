"""Timelines: a standby that is promoted writes a log of its own from some position on.

What was captured beyond that position belongs to another history than the server's. PostgreSQL documentation,
"Timelines" and "Streaming Replication Protocol" (TIMELINE_HISTORY). By SQL the history can only be read from its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from msgspec import Struct

from exporters.postgres.changes.slot import parse_lsn

FAILOVER_VERSION = 170_000
"""From this version on a standby may keep a slot."""

_NUMBER = "SELECT left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8)"
"""The name of a file of the log begins with the timeline ("WAL Internals")."""
_HISTORY = "SELECT pg_catalog.pg_read_binary_file(%s)"
HISTORY_GRANT = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO {role};"
"""What lets a role read the file of the history."""


class Timeline(Struct, frozen=True):
    """The timeline on which a server writes. ``switches``: the positions at which it left the ones before, in their
    order. ``is_known``: this role may read them.
    """

    number: int
    switches: Sequence[int]
    is_known: bool = True

    def lost_from(self, acknowledged: int, after: int) -> int | None:
        """Return from which position on what was captured is not in this history; None where all of it is. Everything
        before ``after`` was captured, and the server's slot knows of everything before ``acknowledged``, so that lies
        in this history. Where the switches are not known, nothing is certain about the rest.
        """
        if not self.is_known:
            return acknowledged if acknowledged < after else None
        return next((switch for switch in self.switches if acknowledged <= switch < after), None)


def read_timeline(replication: psycopg.Connection[Any], number: int, known: int) -> Timeline:
    """Return the timeline ``number`` of a server. ``known``: that of the base; earlier switches are not asked for.
    Raises the driver's errors.
    """
    if number <= known:
        return Timeline(number, ())
    row = replication.execute(f"TIMELINE_HISTORY {number}".encode()).fetchone()
    assert row is not None
    content = row[1] if isinstance(row[1], str) else bytes(row[1]).decode(errors="replace")
    return Timeline(number, parse_history(content))


def read_timeline_by_sql(control: psycopg.Connection[Any], known: int) -> Timeline:
    """Do the same by SQL. A role may read the file of the history where it may call ``pg_read_binary_file``."""
    row = control.execute(_NUMBER).fetchone()
    assert row is not None
    number = int(row[0], 16)
    if number <= known:
        return Timeline(number, ())
    try:
        row = control.execute(_HISTORY, (f"pg_wal/{number:08X}.history",)).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return Timeline(number, (), is_known=False)
    assert row is not None
    return Timeline(number, parse_history(bytes(row[0]).decode(errors="replace")))


def parse_history(content: str) -> list[int]:
    """Return the positions of a history file: a line has a timeline, the position at which it was left, a reason."""
    lines = (line.split("\t") for line in content.splitlines() if line and not line.startswith("#"))
    return [parse_lsn(fields[1]) for fields in lines]
