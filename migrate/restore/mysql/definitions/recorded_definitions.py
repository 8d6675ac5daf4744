"""The definitions of a source as they lie in the bundle, checked; and which of them are restored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NotRequired, TypedDict

from exporters.mysql.definitions.show_create import DEFINITIONS
from exporters.mysql.definitions.spatial_reference_systems import KIND as SPATIAL
from migrate.bundle import canonical_json, layout
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError

Definition = dict[str, Any]

BEFORE_ROWS = (SPATIAL, "sequence", "table")
AFTER_ROWS = ("library", "function", "procedure", "package", "package body", "view", "trigger")
LAST = ("event",)
"""An event may change rows at any moment once it is there: so it comes after these were compared."""
ENABLED = re.compile(r" ON COMPLETION (?:NOT )?PRESERVE ENABLE ")
"""What an event has that runs."""
_SYSTEM = re.compile(r"/\*!80003 SRID (\d+) \*/")
_NEXT_VALUE = re.compile(r"nextval\(`((?:[^`]|``)*)`\)", re.IGNORECASE)


class RecordedDefinition(TypedDict):
    """An entry of ``definitions.json``; docs/FORMAT.md says which kind has what."""

    kind: str
    name: str
    sql: NotRequired[str]
    table: NotRequired[str]
    charset: NotRequired[str]
    collation: NotRequired[str]
    comment: NotRequired[str]
    next: NotRequired[int]
    rounds: NotRequired[int]
    sql_mode: NotRequired[str]
    time_zone: NotRequired[str]
    client: NotRequired[str]
    connection: NotRequired[str]
    database_collation: NotRequired[str]


_NEEDED_OF_ALL = frozenset({"sql"})
_NEEDED = {
    "database": frozenset({"charset", "collation"}),
    "sequence": frozenset({"sql", "next", "rounds"}),
    "trigger": frozenset({"sql", "table"}),
}
"""What entries of a kind have besides what all have."""


_MAKES = re.compile(r"\s*CREATE\s+(?:OR\s+REPLACE\s+)?([A-Z]+)[\s=]", re.IGNORECASE)
_MADE = {
    "AGGREGATE", "ALGORITHM", "DEFINER", "EVENT", "FUNCTION", "JSON", "LIBRARY", "PACKAGE", "PROCEDURE", "SEQUENCE",
    "SPATIAL", "SQL", "TABLE", "TRIGGER", "VIEW",
}  # fmt: skip
"""With these words continues what SHOW CREATE prints of anything that belongs to a database."""
_NAME = r"(?:`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\"|'[^']*'|[\w$]+)"
_NO_LIBRARY = re.compile(
    rf"\s*CREATE\s+(?:OR\s+REPLACE\s+)?(?:DEFINER\s*=\s*{_NAME}(?:@{_NAME})?\s+)?"
    rf"(?:(?:AGGREGATE\s+)?FUNCTION\s+{_NAME}\s*\(|(?!AGGREGATE|DEFINER|FUNCTION)[A-Z]+[\s=])",
    re.IGNORECASE,
)
"""A function of a library has no parameters: its name is followed by RETURNS … SONAME."""


def read_definitions(reader: BundleReader, source: str) -> list[Definition]:
    """Return a source's definitions as they lie in the bundle, checked. Raises ``DamageError``."""
    key = layout.source_file(source, DEFINITIONS)
    for file in reader.source_files(source, "schema/"):
        if file.key == key:
            return _parsed(reader.read_checked(file), key)
    raise DamageError(key, expected="a file", found="nothing")


def _parsed(data: bytes, key: str) -> list[Definition]:
    entries = canonical_json.decode_entries(data, key, RecordedDefinition, holds_bytes=True)
    for number, entry in enumerate(entries):
        if missing := _NEEDED.get(entry["kind"], _NEEDED_OF_ALL) - entry.keys():
            raise DamageError(
                key, expected=f"{', '.join(sorted(missing))} in entry {number + 1}", found="none"
            )
        if "sql" in entry and not _makes_a_part(entry["sql"]):
            expected = f"what makes a part of a database in entry {number + 1}"
            raise DamageError(key, expected=expected, found=repr(entry["sql"][:80]))
    return [dict(entry) for entry in entries]


def _makes_a_part(sql: str) -> bool:
    """Tell whether a statement makes a part of a database, rather than an account, say, or a file of the server: it is
    run with the rights of whoever restores.
    """
    match = _MAKES.match(sql)
    if match is None or match[1].upper() not in _MADE:
        return False
    return "soname" not in sql.lower() or _NO_LIBRARY.match(sql) is not None


def step_of(definition: Definition) -> str:
    """Return the name under which it is noted as done."""
    return f"{definition['kind']} {definition['name']}"


def select_definitions(definitions: Sequence[Definition], tables: AbstractSet[str]) -> list[Definition]:
    """Return, in order, what makes these tables: themselves, the sequences that their defaults count with, the spatial
    reference systems of their columns, and their triggers.
    """
    table_definitions = [
        table for table in definitions if table["kind"] == "table" and table["name"] in tables
    ]
    sequences = {
        name.replace("``", "`") for table in table_definitions for name in _NEXT_VALUE.findall(table["sql"])
    }
    systems = {number for table in table_definitions for number in _SYSTEM.findall(table["sql"])}
    return [definition for definition in definitions if _is_of(definition, tables, sequences, systems)]


def _is_of(
    definition: Definition, tables: AbstractSet[str], sequences: AbstractSet[str], systems: AbstractSet[str]
) -> bool:
    if definition["kind"] == "table":
        return definition["name"] in tables
    if definition["kind"] == "sequence":
        return definition["name"] in sequences
    if definition["kind"] == SPATIAL:
        return definition["name"] in systems
    return definition["kind"] == "trigger" and definition.get("table") in tables


def running_events(definitions: Sequence[Definition]) -> list[str]:
    """Return the names of the events that run at the source."""
    return [item["name"] for item in definitions if item["kind"] == "event" and ENABLED.search(item["sql"])]


def without_running_events(definitions: Sequence[Definition]) -> list[Definition]:
    """Return definitions whose events do not run yet: what they do at the source comes with its changes."""
    return [
        item | {"sql": ENABLED.sub(lambda match: match[0].replace(" ENABLE ", " DISABLE "), item["sql"])}
        if item["kind"] == "event"
        else item
        for item in definitions
    ]
