"""Timelines: a standby that is promoted writes a log of its own from some position on.

What was captured beyond that position belongs to another history than the server's. PostgreSQL documentation,
"Timelines" and "Streaming Replication Protocol" (TIMELINE_HISTORY).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from exporters.postgres.changes.slot import parse_lsn

FAILOVER_VERSION = 170_000
"""From this version on a standby may keep a slot."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The timeline on which a server writes. ``switches``: the positions at which it left the ones before, in their
    order.
    """

    number: int
    switches: Sequence[int]

    def lost_from(self, acknowledged: int, after: int) -> int | None:
        """Return from which position on what was captured is not in this history; None where all of it is. Everything
        before ``after`` was captured, and the server's slot knows of everything before ``acknowledged``, so that lies
        in this history.
        """
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


def parse_history(content: str) -> list[int]:
    """Return the positions of a history file: a line has a timeline, the position at which it was left, a reason."""
    lines = (line.split("\t") for line in content.splitlines() if line and not line.startswith("#"))
    return [parse_lsn(fields[1]) for fields in lines]
