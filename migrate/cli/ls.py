"""``moveout ls``: what is in a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import replace

from migrate.browse import single_objects
from migrate.browse.single_objects import ObjectQuery
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.cli import app
from migrate.cli.common.opened_bundle import (
    Source,
    complete_item,
    open_bundle,
    print_missing,
    split_source,
)
from migrate.cli.common.options import CaseFileHere, case_here
from migrate.cli.common.session import Session
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.errors import OK, GoneError
from migrate.number_text import bytes_words, count_words, things

_LIMIT = 1000


class Listing(Struct, frozen=True):
    """What is there: rows as JSON and as text. ``more``: there are others behind them. ``missing``: words that match
    nothing.
    """

    location: str
    what: str
    rows: Sequence[Mapping[str, Any]]
    lines: Sequence[str]
    more: bool = False
    missing: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """7 where something is not there."""
        return GoneError.exit_code if self.missing else OK

    def as_json(self) -> dict[str, Any]:
        """Return the rows."""
        listed = {"location": self.location, self.what: list(self.rows), "more": self.more}
        return listed | {"missing": list(self.missing)}

    def draw(self, console: Console) -> None:
        """Print a line each."""
        for line in self.lines:
            console.print(Text(line), wrap=False)
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
    case: CaseFileHere = None,
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
    reader, rest = open_bundle(session, words or [], case_here(case, words))
    if source is None and not rest:
        matching_tables = [
            (row.source, row.kind, row.full_name, row.items, row.size_bytes) for row in reader.catalog()
        ]
        names = ("source", "kind", "name", "items", "size_bytes")
        lines = _aligned(
            [
                (*table_row[:2], count_words(table_row[3]), bytes_words(table_row[4]), table_row[2])
                for table_row in matching_tables
            ]
        )
        return Listing(
            reader.store.location,
            "entries",
            [dict(zip(names, table_row, strict=True)) for table_row in matching_tables],
            lines,
        )
    name, rest = split_source(reader, source, rest)
    is_bucket = single_objects.is_bucket(reader, name)
    listing = (
        _list_objects(reader, name, rest, versions, limit) if is_bucket else _list_tables(reader, name, rest)
    )
    if not listing.rows and not rest:
        session.progress.note(f"{name} has no {'objects' if is_bucket else 'tables'}")
    print_missing(session, reader, name, listing.missing)
    return listing


def _list_objects(
    reader: BundleReader, name: str, globs: Sequence[str], versions: bool, limit: int
) -> Listing:
    query = ObjectQuery(globs=tuple(globs), versions=versions)
    rows = list(islice(single_objects.find(reader, name, query), limit + 1))
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
        [glob for glob in globs if not any(single_objects.find(reader, name, replace(query, globs=(glob,))))],
    )


def _moment(modified: datetime | None) -> str:
    """Return when an object was written, UTC, in as many characters as where that is not known."""
    return f"{modified:%Y-%m-%d %H:%M:%SZ}" if modified else " " * 20


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each entry: source, kind, items, size, and the name, which may be of any width."""
    if not rows:
        return []
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shape = "  ".join(f"{{:{side}{width}}}" for side, width in zip("<<>>", widths[:-1], strict=True))
    return [f"{shape}  {{}}".format(*row) for row in cells]


def _is_selected(row: CatalogRow, globs: Sequence[str]) -> bool:
    """Tell whether a table matches, by its name with or without the schema."""
    return any(fnmatchcase(name, glob) for glob in globs for name in (row.name, row.full_name))


def _list_tables(reader: BundleReader, name: str, globs: Sequence[str]) -> Listing:
    tables = [row for row in reader.catalog() if row.source == name]
    matching_tables = [row for row in tables if not globs or _is_selected(row, globs)]
    shown = [{"name": row.full_name, "items": row.items, "digest": row.digest} for row in matching_tables]
    lines = [f"{things(row.items, 'row'):>19}  {plain(row.full_name)}" for row in matching_tables]
    missing = [glob for glob in globs if not any(_is_selected(row, [glob]) for row in tables)]
    return Listing(reader.store.location, "tables", shown, lines, missing=missing)
