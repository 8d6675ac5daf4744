"""The definitions of a source as they lie in the bundle, checked; and which of them are restored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from exporters.mysql.definitions.show_create import DEFINITIONS
from exporters.mysql.definitions.spatial_reference_systems import KIND as SPATIAL
from exporters.mysql.definitions.statement_begin import made_by, trigger_of_any_database
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


_Word = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_]+\Z")]
"""The name of a charset or of a collation: it stands in statements as it is."""


class RecordedDefinition(TypedDict):
    """An entry of ``definitions.json``; docs/FORMAT.md says which kind has what."""

    kind: str
    name: str
    sql: NotRequired[str]
    table: NotRequired[str]
    charset: NotRequired[_Word]
    collation: NotRequired[_Word]
    comment: NotRequired[str]
    next: NotRequired[int]
    rounds: NotRequired[int]
    sql_mode: NotRequired[str]
    time_zone: NotRequired[str]
    client: NotRequired[_Word]
    connection: NotRequired[_Word]
    database_collation: NotRequired[_Word]


_NEEDED_OF_ALL = frozenset({"sql"})
_NEEDED = {
    "database": frozenset({"charset", "collation"}),
    "sequence": frozenset({"sql", "next", "rounds"}),
    "trigger": frozenset({"sql", "table"}),
}
"""What entries of a kind have besides what all have."""


_KINDS = frozenset({*BEFORE_ROWS, *AFTER_ROWS, *LAST})
_OF_A_DATABASE = frozenset({"trigger", "view"})


def read_definitions(reader: BundleReader, source: str) -> list[Definition]:
    """Return a source's definitions as they lie in the bundle, checked. Raises ``DamageError``."""
    key = layout.source_file(source, DEFINITIONS)
    for file in reader.source_files(source, "schema/"):
        if file.key == key:
            database = str(reader.last_position_value(source, "database") or "")
            return _parsed(reader.read_checked(file), key, database)
    raise DamageError(key, expected="a file", found="nothing")


def _parsed(data: bytes, key: str, database: str = "") -> list[Definition]:
    entries = canonical_json.decode_entries(data, key, RecordedDefinition, holds_bytes=True)
    if not entries or entries[0]["kind"] != "database":
        raise DamageError(key, expected="the database's own definition in entry 1", found="none")
    for number, entry in enumerate(entries):
        kind, place = entry["kind"], f"in entry {number + 1}"
        if missing := _NEEDED.get(kind, _NEEDED_OF_ALL) - entry.keys():
            raise DamageError(key, expected=f"{', '.join(sorted(missing))} {place}", found="none")
        if number and not (kind in _KINDS and _makes(entry, database)):
            expected = f"what makes {kind} {entry['name']} {place}"
            raise DamageError(key, expected=expected, found=repr(entry.get("sql", "")[:80]))
    [((kind, name), count)] = Counter((entry["kind"], entry["name"]) for entry in entries).most_common(1)
    if count > 1:
        raise DamageError(key, expected="each definition once", found=f"{kind} {name} {count} times")
    return [dict(entry) for entry in entries]


def _makes(entry: RecordedDefinition, database: str) -> bool:
    """Tell whether a statement makes what its entry says in the database, rather than an account, say, or a file of the
    server, or in place of what another database has: it is run with the rights of whoever restores.
    """
    match = made_by(entry["kind"]).match(entry["sql"])
    if match is None:
        return False
    name = _unquoted(match["name"])
    if name.isascii() and entry["name"].isascii() and name.lower() != entry["name"].lower():
        return False
    of = match["database"]
    return of is None or (entry["kind"] in _OF_A_DATABASE and database in {"", _unquoted(of)})


def _unquoted(name: str) -> str:
    return name[1:-1].replace(name[0] * 2, name[0]) if name[0] in '`"' else name


def of_any_database(definition: Definition) -> Definition:
    """Return a trigger without the database that whoever made it has named, as newer exports have it."""
    if definition["kind"] != "trigger":
        return definition
    return {**definition, "sql": trigger_of_any_database(definition["sql"])}


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
