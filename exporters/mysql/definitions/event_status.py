"""Whether the events of a database run: programs of the server's clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from exporters.mysql.identifiers import quote_literal, quote_name

ENABLED, DISABLED = "ENABLED", "DISABLED"
_WORDS = {ENABLED: "ENABLE", DISABLED: "DISABLE"}
_EVENTS = "SELECT EVENT_NAME, STATUS, DEFINER FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {}"


class Event(NamedTuple):
    """An event of a database. ``definer`` is as the catalog has it: ``user@host``."""

    name: str
    status: str
    definer: str

    def statement(self, database: str, status: str) -> str:
        """Return the SQL that enables or disables it. Without its definer it would become ours (MySQL manual,
        "ALTER EVENT").
        """
        user, _, host = self.definer.rpartition("@")
        return (
            f"ALTER DEFINER = {quote_name(user)}@{quote_name(host)} EVENT"
            f" {quote_name(database)}.{quote_name(self.name)} {_WORDS[status]}"
        )


def read_events(rows: Callable[[str], list[tuple[Any, ...]]], database: str) -> list[Event]:
    """Return the events of a database. ``rows`` runs a query, and raises what it raises."""
    return [Event(*map(str, row)) for row in rows(_EVENTS.format(quote_literal(database)))]
