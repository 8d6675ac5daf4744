"""Triggers of constraints that do not fire as new ones do, because somebody disabled them at the source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg

from exporters.postgres.definitions.constraint_triggers import constraint_triggers
from exporters.postgres.identifiers import quote_name, quote_qualified
from migrate.restore.postgres.definitions.dump_script import DumpEntry
from migrate.restore.postgres.definitions.temporary_grants import is_superuser

_STATES = {
    "O": ("ENABLE", "fired"),
    "D": ("DISABLE", "were disabled"),
    "R": ("ENABLE REPLICA", "fired on replicas only"),
    "A": ("ENABLE ALWAYS", "fired on replicas, too"),
}
"""What pg_trigger.tgenabled stands for: in ALTER TABLE, and in messages."""
_IDENTITY = ("schema", "table", "constraint_schema", "constraint_table", "constraint", "function")

_BY_NUMBER = re.compile(
    rb'^ALTER TABLE [^\n]* TRIGGER "(?:RI|PK)_ConstraintTrigger_[a-z_]*\d+";$', re.MULTILINE
)

Trigger = Mapping[str, Any]


def names_constraint_trigger(entry: DumpEntry) -> bool:
    """Tell whether an entry is about the trigger of a constraint. Of partitions pg_dump writes such entries, and names
    the trigger as it was called on the source server.
    """
    return entry.kind == "TRIGGER" and _BY_NUMBER.search(entry.sql) is not None


def set_constraint_triggers(connection: psycopg.Connection[Any], triggers: Iterable[Trigger]) -> list[str]:
    """Let triggers of constraints fire as at the source (``triggers`` of the exporter has the rows), within the
    caller's transaction; return what only a superuser may do. Those of constraints that are not here are passed over.
    """
    existing = {
        _identity(trigger): trigger["name"] for trigger in constraint_triggers(connection, every=True)
    }
    matched = [
        (trigger, existing[_identity(trigger)]) for trigger in triggers if _identity(trigger) in existing
    ]
    if not is_superuser(connection):
        return list(dict.fromkeys(_refused(trigger) for trigger, _ in matched))
    for trigger, name in matched:
        action, _ = _STATES[trigger["state"]]
        statement = f"ALTER TABLE ONLY {_table(trigger)} {action} TRIGGER {quote_name(name)}"
        connection.execute(statement.encode())
    return []


def _identity(trigger: Trigger) -> tuple[str, ...]:
    return tuple(trigger[word] for word in _IDENTITY)


def _table(trigger: Trigger) -> str:
    return quote_qualified(trigger["schema"], trigger["table"])


def _refused(trigger: Trigger) -> str:
    owner = quote_qualified(trigger["constraint_schema"], trigger["constraint_table"])
    _, words = _STATES[trigger["state"]]
    return (
        f"constraint {quote_name(trigger['constraint'])} of {owner}: its triggers on {_table(trigger)} {words} at the"
        " source, and fire here: only a superuser may change that"
    )
