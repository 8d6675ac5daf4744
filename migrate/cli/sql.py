"""``moveout sql``: a query over the tables and object indexes of a bundle."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any

import typer
from msgspec import Struct
from rich import box
from rich.cells import cell_len
from rich.table import Table

from migrate.browse import sql_query
from migrate.cli import app
from migrate.cli.common.opened_bundle import open_bundle
from migrate.cli.common.options import CaseFile
from migrate.cli.common.session import Session
from migrate.cli.common.terminal import Console, Text, data_output, plain
from migrate.cli.common.verb import verb
from migrate.errors import OK, UsageError
from migrate.number_text import things

_LIMIT = 1000
_GAP = 3
"""Between two columns of a table."""


class Selected(Struct, frozen=True):
    """The rows of a query. ``more``: there are others after them. ``printed``: they are written already."""

    location: str
    names: Sequence[str]
    types: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    more: bool
    printed: bool = False
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return columns and rows."""
        columns = [{"name": name, "type": kind} for name, kind in zip(self.names, self.types, strict=True)]
        return {"location": self.location, "columns": columns, "rows": self.rows, "more": self.more}

    def draw(self, console: Console) -> None:
        """Print a table."""
        if self.printed:
            return
        if console.is_terminal and self._table_width > console.width:
            self._draw_rows(console)
        else:
            self._draw_table(console)
        console.print(things(len(self.rows), "row"), style="dim")
        if self.more:
            console.print("… and more: --limit N shows them, --csv writes all", style="dim")

    @property
    def _table_width(self) -> int:
        """How many columns of the terminal all columns take where nothing is folded."""
        columns = zip(self.names, *self.rows, strict=True)
        widths = [max(cell_len(str(cell or "NULL")) for cell in column) for column in columns]
        return sum(widths) + _GAP * (len(widths) - 1)

    def _draw_table(self, console: Console) -> None:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for name in self.names:
            table.add_column(Text(name), overflow="fold")
        for row in self.rows:
            table.add_row(*(_cell(value) for value in row))
        console.print(table)

    def _draw_rows(self, console: Console) -> None:
        """Print a line for each value, where a row is wider than the terminal."""
        width = max(map(cell_len, self.names))
        for number, row in enumerate(self.rows, 1):
            console.print(Text(f"row {number}", style="bold"))
            for name, value in zip(self.names, row, strict=True):
                cell = ("NULL", "dim") if value is None else plain(value)
                console.print(Text.assemble(f"{plain(name).ljust(width)}  ", cell), wrap=False)


def _cell(value: Any) -> Text:
    return Text("NULL", style="dim") if value is None else Text(value)


@verb(
    app,
    "sql",
    bwlimit=True,
    examples=(
        'sql bundle "SELECT count(*) FROM public.customers"',
        'sql s3://vault/shop "SELECT key FROM media.objects WHERE size > 1e9"',
        'sql bundle "FROM public.customers" --csv > customers.csv',
    ),
)
def sql_command(
    session: Session,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="LOCATION QUERY", help="The bundle, and one SELECT.")
    ] = None,
    case: CaseFile = None,
    *,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, metavar="N", help=f"Print at most so many rows (default: {_LIMIT}; --csv: all)."
        ),
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, with the names of columns first.")
    ] = False,
) -> Selected:
    """Query a bundle's tables with SQL, by DuckDB.

    Tables are named schema.table, or source.schema.table if the bundle has several sources. The index of a bucket
    is source.objects. Fetches only what the query needs. Needs pip install 'moveout[sql]'.
    """
    reader, rest = open_bundle(session, words or [], case)
    if len(rest) != 1:
        raise UsageError(
            "one query is needed",
            next_step=f'write it in quotes: moveout sql {shlex.quote(reader.store.location)} "SELECT …"',
        )
    if as_csv and session.json:
        raise UsageError("--csv and --json exclude each other", next_step="give one of them")
    limit = limit or (None if as_csv else _LIMIT)
    with sql_query.run(reader, rest[0], as_json=session.json) as result:
        if as_csv:
            out = data_output()
            writer = csv.writer(out)
            writer.writerow(result.names)
            writer.writerows(islice(result.rows, limit))
            out.flush()
            return Selected(reader.store.location, result.names, result.types, (), more=False, printed=True)
        rows = list(islice(result.rows, None if limit is None else limit + 1))
    return Selected(
        reader.store.location,
        result.names,
        result.types,
        rows[:limit],
        more=limit is not None and len(rows) > limit,
    )
