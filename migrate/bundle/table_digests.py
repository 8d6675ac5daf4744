"""Digests of tables beside those of the catalog: of what Parquet gives back, of what a restored database holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporters.row_digest import Tally, to_hex


@dataclass(frozen=True, slots=True)
class TableDigest:
    """Rows and digest of one table, wherever they were read. ``digest`` as in the catalog: 32 hex digits."""

    source: str
    schema: str
    name: str
    rows: int
    digest: str


def digests_of(source: str, found: Mapping[tuple[str, str], Tally]) -> tuple[TableDigest, ...]:
    """Return the tallies of a database's tables by (schema, name), in order."""
    return tuple(
        TableDigest(source, schema, name, tally.rows, to_hex(tally.digest))
        for (schema, name), tally in sorted(found.items())
    )
