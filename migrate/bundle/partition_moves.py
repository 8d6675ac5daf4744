"""Rows that changed the partition, not the table.

Where a row lies may depend on what differs between two servers: the hash of an enum is that of its label's
object number, and the order of texts that of the operating system. So the partitions of one table are also
compared as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from exporters.row_digest import Tally, to_hex
from migrate.bundle.catalog import CatalogRow

Name = tuple[str, str]

_HEX = re.compile(r"[0-9a-f]{32}")


def moved_within(tables: Sequence[CatalogRow], live: Mapping[Name, Tally]) -> frozenset[Name]:
    """Return (schema, name) of the partitions that hold other rows than the catalog says, while their
    partitioned table as a whole holds the same. ``live``: what a database holds now, by (schema, name).
    """
    families: dict[Name, list[CatalogRow]] = {}
    for table in tables:
        if (above := table.details.get("ancestors")) and _HEX.fullmatch(table.digest):
            families.setdefault((str(above[-1][0]), str(above[-1][1])), []).append(table)
    return frozenset(
        name
        for family in families.values()
        for name in _differing(family, live)
        if _sum_of_catalog(family) == _sum_of_live(family, live)
    )


def _differing(family: Sequence[CatalogRow], live: Mapping[Name, Tally]) -> list[Name]:
    found = []
    for table in family:
        tally = live.get((table.schema, table.name))
        if tally is not None and (tally.rows, to_hex(tally.digest)) != (table.items, table.digest):
            found.append((table.schema, table.name))
    return found


def _sum_of_catalog(family: Sequence[CatalogRow]) -> Tally:
    return sum((Tally(table.items, int(table.digest, 16)) for table in family), Tally())


def _sum_of_live(family: Sequence[CatalogRow], live: Mapping[Name, Tally]) -> Tally:
    return sum((live.get((table.schema, table.name), Tally()) for table in family), Tally())
