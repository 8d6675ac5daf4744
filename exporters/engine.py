"""What verification needs to know about a database engine, whichever it is.

A further engine joins by three entries, each named by its URL scheme: its exporter in the entry-point group
``moveout.exporters``, an object with the methods of ``Engine`` in ``moveout.engines``, and its restore in the table
of ``migrate.cli.common.destinations``. Schemes that are aliases of one another name the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast

from exporters.row_digest import Advance, Tally

ENTRY_POINTS = "moveout.engines"

Texts = Sequence[bytes]
"""The texts of some rows: what is digested."""


class LiveRows(Protocol):
    """The rows of a live database, all as of one moment. Methods raise ``SourceError``."""

    def columns(self, schema: str, name: str) -> Sequence[str] | None:
        """Return the names of a table's columns in the order of the row's text; None where there is no such table."""
        ...

    def key(self, schema: str, name: str) -> Sequence[str]:
        """Return the columns that tell a table's rows apart, none where there are no such."""
        ...

    def each(self, schema: str, name: str, take: Callable[[Texts], None]) -> None:
        """Hand all rows of a table over, some at a time, in any order."""
        ...


class Engine(Protocol):
    """One kind of database. Its texts of rows are the same from the server, from Parquet and from a restored copy."""

    read_errors: tuple[type[Exception], ...]
    """What ``tally_part`` raises where a Parquet part is damaged."""

    def live_tables(
        self,
        url: str,
        *,
        password: str | None,
        workers: int,
        advance: Advance,
        also: Collection[tuple[str, str]] = (),
        unread: dict[tuple[str, str], str] | None = None,
    ) -> Mapping[tuple[str, str], Tally]:
        """Return the tally of every table of a live database by (schema, name), as of one moment, and of the
        materialized views and tables of extensions that ``also`` names. ``unread`` fills up with the tables that the
        server does not read, and why; without it such a table is an error. Raises ``SourceError``.
        """
        ...

    def tally_part(self, file: Any, rows: int) -> Tally:
        """Return rows and digest of one Parquet part, from its values. ``file`` is a path or a random-access file;
        ``rows`` is what the catalog says of the part, for tables whose parts have no columns.
        """
        ...

    def live_rows(self, url: str, *, password: str | None) -> AbstractContextManager[LiveRows]:
        """Open a live database to look at single rows. Raises ``SourceError``."""
        ...

    def part_columns(self, file: Any) -> Sequence[str]:
        """Return the names of the columns in the order of the row's text."""
        ...

    def part_texts(self, file: Any) -> Iterator[Texts]:
        """Yield the texts of a part's rows, a few thousand at a time, in its order."""
        ...

    def split(self, text: bytes) -> list[bytes | None]:
        """Return a row's values as people may read them, None for NULL. Equal values have equal results, and different
        ones different.
        """
        ...

    def label(self, schema: str, name: str) -> str:
        """Return a table's name as people write it in this engine's SQL."""
        ...


def has_engine(kind: str) -> bool:
    """Tell whether sources of this kind (a URL scheme) are databases that can be compared."""
    return kind in _engines()


def engine_for(kind: str) -> Engine:
    """Return the engine of a kind of source. Raises ``KeyError`` where there is none."""
    return cast("Engine", _engines()[kind].load())


@cache
def _engines() -> Mapping[str, EntryPoint]:
    """Return what is installed: looking takes 5 ms."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
