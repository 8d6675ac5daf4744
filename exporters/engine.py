"""What verification needs to know about a database engine, whichever it is.

A further engine joins by three entries, each named by its URL scheme: its exporter in the entry-point group
``moveout.exporters``, an object with the methods of ``Engine`` in ``moveout.engines``, and its restore in the table
of ``migrate.cli.destinations``. Schemes that are aliases of one another name the same object.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from exporters.tally import Advance, Tally

ENTRY_POINTS = "moveout.engines"


class Engine(Protocol):
    """One kind of database. Its texts of rows are the same from the server, from Parquet and from a restored copy."""

    read_errors: tuple[type[Exception], ...]
    """What ``tally_part`` raises where a Parquet part is damaged."""

    def live_tables(
        self, url: str, *, password: str | None, workers: int, advance: Advance
    ) -> Mapping[tuple[str, str], Tally]:
        """Return the tally of every table of a live database by (schema, name), as of one moment. Raises
        ``SourceError``.
        """
        ...

    def tally_part(self, file: Any, rows: int) -> Tally:
        """Return rows and digest of one Parquet part, from its values. ``file`` is a path or a random-access file;
        ``rows`` is what the catalog says of the part, for tables whose parts have no columns.
        """
        ...

    def label(self, schema: str, name: str) -> str:
        """Return a table's name as people write it in this engine's SQL."""
        ...


def has_engine(kind: str) -> bool:
    """Tell whether sources of this kind (a URL scheme) are databases that can be compared."""
    return any(entry.name == kind for entry in entry_points(group=ENTRY_POINTS))


def engine_for(kind: str) -> Engine:
    """Return the engine of a kind of source. Raises ``KeyError`` where there is none."""
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == kind:
            return cast("Engine", entry.load())
    raise KeyError(kind)
