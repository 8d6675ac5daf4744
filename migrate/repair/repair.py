"""Makes the rows of a destination's tables equal to those of a bundle, or of a live source.

Nothing is kept about how far a repair came: what was written does not differ any more. So the same command goes on
with a repair that was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from itertools import islice
from typing import Protocol

from msgspec import Struct

from exporters.engine import LocatedRows, PartReader
from exporters.row_digest import RowsDigest
from migrate.number_text import things
from migrate.repair.row_differences import SOURCE, RowChanges, RowFile, key_reader, row_differences
from migrate.repair.row_sides import TableSides, located_side
from migrate.runtime.cancellation import CancellationToken

RETRIED_ROWS = 1000
"""How many rows that were refused are tried at once."""
_STEPS = 1000
"""How many rows of a table without transactions are written before the guard is asked again."""


class TableWriter(Protocol):
    """Writes changes to one table. No trigger and no foreign key acts on them."""

    def write(self, changes: RowChanges) -> str:
        """Remove and add rows in one transaction; without transactions one by one, in this order. Where the destination
        refuses what is added, the rows are removed all the same; return why, "" where all is written. Raises
        ``SourceError`` and errors of ``migrate.errors``.
        """
        ...


class RepairDestination(Protocol):
    """A live database whose rows are repaired, and how it was when it was opened. Methods raise ``SourceError``."""

    @property
    def rows(self) -> LocatedRows:
        """The rows as of the moment of opening."""
        ...

    def incomparable(self, schema: str, name: str) -> str:
        """Return why the rows of a table that is there cannot be compared; "" where they can."""
        ...

    def unwritable(self, schema: str, name: str) -> str:
        """Return why the rows of a table that differs cannot be written; "" where they can. Not asked of others: it may
        take a query.
        """
        ...

    def is_atomic(self, schema: str, name: str) -> bool:
        """Return whether a kill leaves all that is written at once, or nothing; else it may leave the first rows."""
        ...

    def writing(self, schema: str, name: str) -> AbstractContextManager[TableWriter]:
        """Open a table to be written. Raises ``NotAllowedError`` where its triggers cannot be kept from firing."""
        ...


class OpenRepair(Protocol):
    """Opens a destination. It locks out other repairs and restores."""

    def __call__(self, url: str, secrets: Mapping[str, str]) -> AbstractContextManager[RepairDestination]:
        """Connect, and take a snapshot. Raises ``SourceError``, ``BusyError``, ``NotAllowedError``."""
        ...


class ComparedTable(Struct):
    """A table whose rows are compared. ``hash_name``: the servers' hash by which both digests are computed, "" for that
    of bundles. ``read_destination`` reads the destination's rows by that of bundles. ``is_atomic``: see
    ``RepairDestination``.
    """

    label: str
    columns: Sequence[str]
    read_destination: Callable[[], RowsDigest]
    hash_name: str = ""
    is_atomic: bool = True
    source: RowsDigest = RowsDigest()
    destination: RowsDigest = RowsDigest()


class TableGuard(Protocol):
    """Decides whether rows of a destination may be replaced."""

    def before_writing(self, table: ComparedTable, changes: RowChanges) -> None:
        """Allow that rows of a table are replaced, before they are. Raises what ends the repair."""
        ...

    def when_refused(self, table: ComparedTable) -> None:
        """Hear that the destination did not take all rows: what it has now is not known."""
        ...

    def when_equal(self, table: ComparedTable) -> None:
        """Hear that a table of the destination has the source's rows."""
        ...


class Unguarded:
    """Lets all rows be replaced."""

    def before_writing(self, table: ComparedTable, changes: RowChanges) -> None:
        """See ``TableGuard``."""

    def when_refused(self, table: ComparedTable) -> None:
        """See ``TableGuard``."""

    def when_equal(self, table: ComparedTable) -> None:
        """See ``TableGuard``."""


class TablePair(Struct, frozen=True):
    """A table at both sides. ``columns``: of the source, in the order of its rows' texts. ``rows``: how many there are,
    about. ``open_sides`` returns both sides.
    """

    schema: str
    name: str
    label: str
    columns: Sequence[str]
    rows: int
    open_sides: Callable[[], TableSides]


class TableRepair(Struct):
    """What was repaired of a table, or differs. ``refused``: rows that the destination does not take, for ``reason``.
    ``reason`` alone: why the table was not repaired.
    """

    table: str
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    refused: int = 0
    reason: str = ""

    @property
    def rows(self) -> int:
        """How many rows differ."""
        return self.inserted + self.updated + self.deleted

    def count(self, changes: RowChanges) -> None:
        """Add the rows of some changes."""
        self.inserted += len(changes.new) - changes.changed
        self.deleted += len(changes.gone) - changes.changed
        self.updated += changes.changed

    @property
    def words(self) -> str:
        """How the table differs, or why that is not known."""
        counts = {"missing": self.inserted, "changed": self.updated, "extra": self.deleted}
        words = ", ".join(things(count, f"{word} row") for word, count in counts.items() if count)
        if self.refused:
            return f"{words}; the destination refuses {things(self.refused, 'row')}: {self.reason}"
        return f"not repaired: {self.reason}" if self.reason else words


def repair_tables(
    tables: Iterable[TablePair],
    destination: RepairDestination,
    part_reader: PartReader,
    *,
    dry_run: bool = False,
    guard: TableGuard | None = None,
    cancellation: CancellationToken | None,
) -> list[TableRepair]:
    """Make tables equal; return those that differed. ``dry_run``: only count. ``guard``: what allows to write to a
    table. Raises errors of both sides, and those of the guard.
    """
    cancellation, guard = cancellation or CancellationToken(), guard or Unguarded()
    results: list[TableRepair] = []
    waiting: list[tuple[TablePair, ComparedTable, TableRepair, RowFile]] = []
    with ExitStack() as files:
        for table in tables:
            cancellation.check()
            result, compared = TableRepair(table.label), _compared(table, destination)
            changes = _changes_of(table, compared, destination, part_reader, result)
            with _writing(table, compared, destination, guard, dry_run=dry_run) as write:
                refused = _repair_table(changes, write, result, files, cancellation)
                if refused is not None:
                    guard.when_refused(compared)
            if refused is not None:
                waiting.append((table, compared, result, refused))
            elif not result.reason:
                guard.when_equal(compared)
            if result.rows or result.reason:
                results.append(result)
        for table, compared, result, refused in waiting:
            # A row may have been refused for one that is removed by now.
            with destination.writing(table.schema, table.name) as writer:
                _write_again(writer, refused, result)
            if not result.reason:
                guard.when_equal(compared)
    return results


def _compared(table: TablePair, destination: RepairDestination) -> ComparedTable:
    def read_destination() -> RowsDigest:
        return located_side(destination.rows, table.schema, table.name).sums(1).total

    return ComparedTable(table.label, table.columns, read_destination)


def _repair_table(
    table_changes: Iterator[RowChanges],
    write: Callable[[RowChanges], str],
    result: TableRepair,
    files: ExitStack,
    cancellation: CancellationToken,
) -> RowFile | None:
    """Write the changes of a table; return the rows that were refused, in a file that ``files`` closes."""
    refused: RowFile | None = None
    for changes in table_changes:
        result.count(changes)
        if reason := write(changes):
            result.reason, result.refused = reason, result.refused + len(changes.new)
            refused = refused or files.enter_context(closing(RowFile()))
            refused.write(SOURCE, changes.new)
        cancellation.check()
    return refused


@contextmanager
def _writing(
    table: TablePair,
    compared: ComparedTable,
    destination: RepairDestination,
    guard: TableGuard,
    *,
    dry_run: bool,
) -> Iterator[Callable[[RowChanges], str]]:
    """Open a table to be written when its first changes come: most tables have none."""
    with ExitStack() as stack:
        writer: TableWriter | None = None

        def write(changes: RowChanges) -> str:
            nonlocal writer
            if dry_run:
                return ""
            guard.before_writing(compared, changes)
            if writer is None:
                writer = stack.enter_context(destination.writing(table.schema, table.name))
            return writer.write(changes)

        yield write


def _changes_of(
    table: TablePair,
    compared: ComparedTable,
    destination: RepairDestination,
    part_reader: PartReader,
    result: TableRepair,
) -> Iterator[RowChanges]:
    """Yield what makes a table equal; where that cannot be, the result has the reason. Note what is ``compared``."""
    columns = destination.rows.columns(table.schema, table.name)
    if columns is None:
        result.reason = "it is not at the destination"
    elif list(columns) != list(table.columns):
        result.reason = (
            f"it has other columns ({', '.join(columns)}) than the source ({', '.join(table.columns)})"
        )
    else:
        result.reason = destination.incomparable(table.schema, table.name)
    if result.reason:
        return
    key = destination.rows.key(table.schema, table.name)
    key_of = key_reader(part_reader, table.columns, key) if key else None

    def take_totals(source: RowsDigest, opposite: RowsDigest) -> None:
        compared.source, compared.destination = source, opposite

    source, opposite, compared.hash_name = table.open_sides()
    for changes in row_differences(source, opposite, rows=table.rows, key_of=key_of, take_totals=take_totals):
        if not result.rows:
            result.reason = destination.unwritable(table.schema, table.name)
            if result.reason:
                return
            compared.is_atomic = destination.is_atomic(table.schema, table.name)
        yield from [changes] if compared.is_atomic else _in_steps(changes)


def _in_steps(changes: RowChanges) -> Iterator[RowChanges]:
    """Yield the same changes in the same order, fewer at once."""
    for start in range(0, len(changes.gone), _STEPS):
        yield RowChanges(gone=changes.gone[start : start + _STEPS])
    for start in range(0, len(changes.new), _STEPS):
        yield RowChanges(new=changes.new[start : start + _STEPS], changed=0 if start else changes.changed)


def _write_again(writer: TableWriter, refused: RowFile, result: TableRepair) -> None:
    """Add rows that were refused before, one by one where they are refused together."""
    result.reason, result.refused = "", 0
    rows = (row.text for _, row in refused.rows())
    while texts := list(islice(rows, RETRIED_ROWS)):
        if len(texts) > 1 and not writer.write(RowChanges(new=texts)):
            continue
        for text in texts:
            if reason := writer.write(RowChanges(new=[text])):
                result.refused, result.reason = result.refused + 1, reason
