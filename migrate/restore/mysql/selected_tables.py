"""The definitions that belong to some tables, for ``--only TABLE``. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from exporters.mysql.definitions.spatial_reference_systems import KIND as SPATIAL
from migrate.restore.mysql.definitions import Definition

_SYSTEM = re.compile(r"/\*!80003 SRID (\d+) \*/")
_NEXT_VALUE = re.compile(r"nextval\(`((?:[^`]|``)*)`\)", re.IGNORECASE)


def select_definitions(definitions: Sequence[Definition], tables: AbstractSet[str]) -> list[Definition]:
    """Return, in order, what makes these tables: themselves, the sequences that their defaults count with, the spatial
    reference systems of their columns, and their triggers.
    """
    made = [one for one in definitions if one["kind"] == "table" and one["name"] in tables]
    sequences = {name.replace("``", "`") for one in made for name in _NEXT_VALUE.findall(one["sql"])}
    systems = {number for one in made for number in _SYSTEM.findall(one["sql"])}
    return [one for one in definitions if _is_of(one, tables, sequences, systems)]


def _is_of(
    one: Definition, tables: AbstractSet[str], sequences: AbstractSet[str], systems: AbstractSet[str]
) -> bool:
    if one["kind"] == "table":
        return one["name"] in tables
    if one["kind"] == "sequence":
        return one["name"] in sequences
    if one["kind"] == SPATIAL:
        return one["name"] in systems
    return one["kind"] == "trigger" and one.get("table") in tables
