"""Definitions of a bundle that somebody else has made: what the format does not say is damage that names the file."""

import json
from typing import Any

import pytest

from migrate.errors import DamageError
from migrate.restore.postgres.definitions.recorded_definitions import Definitions

ATTRIBUTES = ("superuser", "inherit", "createrole", "createdb", "login", "replication", "bypassrls")
ROLE = {
    **dict.fromkeys(("bootstrap", *ATTRIBUTES), False),
    "name": "app",
    "connection_limit": -1,
    "valid_until": None,
}
DATABASE = {"owner": "app", "bootstrap": False, "privileges": None, "comment": None, "connection_limit": -1}
SEQUENCE = {"schema": "public", "name": "s", "last_value": 1, "is_called": True}
LARGE_OBJECT = {"oid": 1, "owner": "app", "privileges": [["", "SELECT", False]], "comment": None}
TRIGGER = {
    **dict.fromkeys(
        ("schema", "table", "constraint_schema", "constraint_table", "constraint", "function"), "x"
    ),
    "name": "t",
    "state": "D",
}
ENTRIES = {
    "roles": ROLE,
    "database": DATABASE,
    "sequences": SEQUENCE,
    "large_objects": LARGE_OBJECT,
    "constraint_triggers": TRIGGER,
}


def read(kind: str, entry: dict[str, Any]) -> Any:
    name = f"{kind.replace('_', '-')}.json"
    return getattr(Definitions({name: json.dumps([entry]).encode()}, "data/app/schema/"), kind)()


@pytest.mark.parametrize("kind", ENTRIES)
def test_what_an_export_writes_is_taken(kind):
    entry = {**ENTRIES[kind], "comment": "a backslash and u0000: \\u0000"}
    assert read(kind, entry) in (entry, [entry])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("roles", {"bootstrap": None}),
        ("roles", {"connection_limit": 2**31}),
        ("roles", {"name": "a\0b"}),
        ("roles", {"comment": "\\\0"}),
        ("roles", {"name": "\ud800"}),
        ("database", {"connection_limit": "1; DROP TABLE t"}),
        ("sequences", {"last_value": 2**63}),
        ("large_objects", {"oid": -1}),
        ("constraint_triggers", {"state": "E"}),
    ],
)
def test_other_values_are_damage_of_the_file(kind, change):
    with pytest.raises(DamageError, match=rf"data/app/schema/{kind.replace('_', '-')}\.json"):
        read(kind, {**ENTRIES[kind], **change})


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("roles", "bootstrap"),
        ("roles", "valid_until"),
        ("database", "connection_limit"),
        ("database", "privileges"),
    ],
)
def test_what_a_restore_needs_is_there(kind, field):
    entry = {name: value for name, value in ENTRIES[kind].items() if name != field}
    with pytest.raises(DamageError, match=field):
        read(kind, entry)
