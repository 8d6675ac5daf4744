"""Repairs of rows: the options, and what was repaired, as people read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from migrate.case.model import Case, Endpoint
from migrate.cli.common.sources import known_secrets, parse_pairs
from migrate.cli.common.terminal import plain
from migrate.errors import UsageError
from migrate.number_text import count_words, things
from migrate.repair.repair import TableRepair

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Repair:
    """What ``--repair`` is to do. ``sources``: the live sources whose rows are taken, by name; of others the bundle's
    are.
    """

    sources: Mapping[str, Endpoint]
    dry_run: bool


def repair_options(
    against: Mapping[str, Endpoint],
    from_words: Sequence[str],
    case: Case | None,
    *,
    repair: bool,
    dry_run: bool,
) -> Repair | None:
    """Return what is to be repaired, None for nothing. Raises ``UsageError`` for options that do not go together."""
    if not repair:
        if from_words or dry_run:
            raise UsageError(
                "--from and --dry-run go with --repair", next_step="add --repair, or leave them out"
            )
        return None
    if not against:
        raise UsageError("--repair needs to know what to repair", next_step="add --against NAME=URL")
    sources = known_secrets(parse_pairs(from_words), case)
    if others := sources.keys() - against.keys():
        name = min(others)
        raise UsageError(
            f"--from names {name}, which --against does not", next_step=f"add --against {name}=URL"
        )
    return Repair(sources, dry_run)


def draw_repairs(console: Console, source: str, tables: Sequence[TableRepair], *, dry_run: bool) -> None:
    """Print what was repaired of each table, or would be."""
    if not tables:
        return
    rows = sum(table.rows for table in tables)
    done = "would be repaired" if dry_run else "were repaired"
    console.print(f"{source}: {things(rows, 'row')} in {things(len(tables), 'table')} {done}")
    for table in tables[:_SHOWN]:
        style = "yellow" if table.reason else ""
        console.print(Text(f"  {plain(table.table)}: {difference_words(table)}", style=style))
    if len(tables) > _SHOWN:
        console.print(f"  and {count_words(len(tables) - _SHOWN)} more (all with --json)")


def difference_words(table: TableRepair) -> str:
    """Return how a table differs, or why that is not known."""
    counts = {"missing": table.inserted, "changed": table.updated, "extra": table.deleted}
    words = ", ".join(f"{count_words(count)} {word}" for word, count in counts.items() if count)
    if table.refused:
        return f"{words} rows; the destination refuses {things(table.refused, 'row')}: {table.reason}"
    return f"not repaired: {table.reason}" if table.reason else f"{words} rows"
