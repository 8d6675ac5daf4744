"""``moveout ls``: what is in a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from typing import Annotated, Any

import typer
from msgspec import Struct

from migrate.browse import single_objects, table_rows
from migrate.browse.single_objects import ObjectQuery
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.cli import app
from migrate.cli.common.opened_bundle import Source, complete_item, open_bundle, split_source
from migrate.cli.common.options import CaseFile
from migrate.cli.common.session import Session, verb
from migrate.cli.common.terminal import Console, Text, plain
from migrate.errors import OK
from migrate.number_text import bytes_words, count_words, things

_LIMIT = 1000


class Listing(Struct, frozen=True):
    """What is there: rows as JSON and as text. ``more``: there are others behind them."""

    location: str
    what: str
    rows: Sequence[Mapping[str, Any]]
    lines: Sequence[str]
    more: bool = False
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return the rows."""
        return {"location": self.location, self.what: list(self.rows), "more": self.more}

    def draw(self, console: Console) -> None:
        """Print a line each."""
        for line in self.lines:
            console.print(Text(line))
        if self.more:
            console.print("… and more: --limit N shows them", style="dim")


@verb(
    app,
    "ls",
    bwlimit=True,
    examples=(
        "ls bundle",
        "ls bundle app",
        'ls bundle "photos/**" --source media --versions',
    ),
)
def ls_command(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOCATION [SOURCE] [GLOB]",
            help="The bundle; a source; keys or tables that match: 'photos/**', 'sales.*'.",
            autocompletion=complete_item,
        ),
    ] = None,
    case: CaseFile = None,
    source: Source = None,
    *,
    versions: Annotated[
        bool, typer.Option("--versions", help="Show older versions and delete markers, too.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="List at most so many.")] = _LIMIT,
) -> Listing:
    """List what is in a bundle: tables, buckets, their objects.

    Reads the catalog or parts of the index, and no data.
    """
    reader, rest = open_bundle(session, words or [], case)
    if source is None and not rest:
        matching_tables = [
            (row.source, row.kind, table_rows.full_name(row), row.items, row.size_bytes)
            for row in reader.catalog()
        ]
        names = ("source", "kind", "name", "items", "size_bytes")
        lines = _aligned(
            [
                (*table_row[:2], count_words(table_row[3]), bytes_words(table_row[4]), table_row[2])
                for table_row in matching_tables
            ],
            "<<>>",
        )
        return Listing(
            reader.store.location,
            "entries",
            [dict(zip(names, table_row, strict=True)) for table_row in matching_tables],
            lines,
        )
    name, rest = split_source(reader, source, rest)
    if not single_objects.is_bucket(reader, name):
        return _list_tables(session, reader, name, rest)
    object_filter = ObjectQuery(globs=tuple(rest), versions=versions)
    rows = list(islice(single_objects.find(reader, name, object_filter), limit + 1))
    if not rows:
        session.progress.note(
            f"{name} has no such object; * stands for what is between two /, ** for all"
            if rest
            else f"{name} has no objects"
        )
    shown = rows[:limit]
    lines = [
        f"{bytes_words(row.size_bytes):>9}  {_moment(row.modified)}  {plain(row.name if versions else row.key)}"
        + ("  deleted" if row.is_delete_marker else "")
        for row in shown
    ]
    return Listing(
        reader.store.location,
        "objects",
        [single_objects.as_json(row) for row in shown],
        lines,
        len(rows) > limit,
    )


def _moment(modified: datetime | None) -> str:
    """Return when an object was written, UTC, in as many characters as where that is not known."""
    return f"{modified:%Y-%m-%d %H:%M:%SZ}" if modified else " " * 20


def _aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Return a line for each row, in columns; ``sides``: ``<`` or ``>`` for each but the last, which is free."""
    if not rows:
        return []
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shape = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths[:-1], strict=True))
    return [f"{shape}  {{}}".format(*row) for row in cells]


def _is_selected(row: CatalogRow, globs: Sequence[str]) -> bool:
    """Tell whether a table matches, by its name with or without the schema."""
    return any(fnmatchcase(name, glob) for glob in globs for name in (row.name, table_rows.full_name(row)))


def _list_tables(session: Session, reader: BundleReader, name: str, globs: Sequence[str]) -> Listing:
    matching_tables = [
        row for row in reader.catalog() if row.source == name and (not globs or _is_selected(row, globs))
    ]
    if not matching_tables:
        session.progress.note(
            f"{name} has no table {' or '.join(globs)}" if globs else f"{name} has no tables"
        )
    shown = [
        {"name": table_rows.full_name(row), "items": row.items, "digest": row.digest}
        for row in matching_tables
    ]
    lines = [f"{things(row.items, 'row'):>19}  {plain(table_rows.full_name(row))}" for row in matching_tables]
    return Listing(reader.store.location, "tables", shown, lines)
