"""One restore of one database: what is restored, what earlier restores left, and the outcome with its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Loss
from exporters.row_digest import Advance, RowsDigest
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader, hash_file
from migrate.bundle.table_comparison import TableDifference, compare_table, compare_tables, digests_of
from migrate.errors import DamageError, NotEmptyError, UsageError
from migrate.restore.common.api import RestoreOutcome, RestoreRequest, Retry
from migrate.restore.common.environment import note_database_name
from migrate.restore.common.left_out import FinishedRestore, lacking_of, unique
from migrate.restore.common.selection import RestoreSelection
from migrate.restore.common.table_parts import (
    REPAIR,
    PartFile,
    RowsToWrite,
    WrittenRows,
    missing_rows,
    parts_of,
)
from migrate.runtime.progress import Progress, SourceTask

_ALREADY = "the {where} holds all of this already: every table has the bundle's rows; nothing was done"
_NO_TABLES = (
    "the {where} holds every object of the bundle already, and there are no rows to compare; nothing was done"
)
_DAMAGED = (
    "{}: {} is damaged: its SHA-256 is not that of the manifest. Once moveout transfer --recheck has replaced it,"
    " restore into a new database"
)
_AS_LEFT = "the {where} is as an earlier restore has left it; nothing was done"

_OF_ROWS = ("the rows of ", "the comparison of ")
"""How sentences about the rows of a table begin."""
_ROWS_END, _INDEXES_END = 0.6, 0.8
"""How much of a restore's time has passed, about, when all rows are there, and when all indexes are."""

Label = Callable[[str, str], str]
"""Formats a table's name for messages, from schema and name."""


class State(Struct, frozen=True):
    """What a run was restoring, as the destination records it: the bundle's id, the source, and which part of it was
    selected (``RestoreSelection.words``).
    """

    bundle: str
    source: str
    only: str = ""


class TableRestore(Struct, frozen=True):
    """What is restored, and from which bundle. ``tables`` are the selected rows of the source's catalog. ``views`` are
    those of materialized views: the destination computes their rows, so they are only compared.
    """

    reader: BundleReader
    source: str
    tables: Sequence[CatalogRow]
    workers: int
    progress: Progress
    selection: RestoreSelection = field(default_factory=RestoreSelection)
    views: Sequence[CatalogRow] = ()
    destination_digests: dict[tuple[str, str], RowsDigest] = field(default_factory=dict)
    """What comparisons have read of the destination."""
    refused: frozenset[str] = frozenset()
    """What messages call the definitions that ``earlier`` restores could not make."""
    earlier: Sequence[FinishedRestore] = ()
    """Restores of this bundle, or of bundles that it continues: the definitions that they left out are tried again."""
    others: Sequence[str] = ()
    """See ``RestoreRequest``."""
    span: tuple[float, float] = (0.0, 1.0)
    """Which part of the source's restore this is, where it takes several: from and to, 0 to 1."""

    @property
    def state(self) -> State:
        """What to record in the destination."""
        return State(self.reader.info.id, self.source, self.selection.words())

    @staticmethod
    def of(request: RestoreRequest) -> TableRestore:
        """Return the restore that a request asks for. Raises ``UsageError`` where the bundle has no such source, or the
        source no such table.
        """
        reader, source, earlier = request.reader, request.source, request.earlier
        reader.info.source(source)
        selection = RestoreSelection.parse(request.only)
        rows = reader.tables(source)
        chosen = selection.choose(rows)
        tables = [row for row in chosen if row.kind == "table"]
        retried = {name for record in earlier for name, digest in record.tables.items() if digest is None}
        views = [
            row
            for row in (rows if selection.left_out else chosen)
            if row.kind == "materialized view" and (row in chosen or row.key in retried)
        ]
        refused = frozenset(name for record in earlier for name in record.refused())
        return TableRestore(
            reader=reader,
            source=source,
            tables=tables,
            workers=request.workers,
            progress=request.progress,
            selection=selection,
            views=views,
            refused=refused,
            earlier=earlier,
            others=request.others,
        )

    @property
    def whole(self) -> bool:
        """Whether all definitions are restored, not those of some tables: into a database or file of its own."""
        return self.selection.definitions and not self.selection.is_part

    def finished_records(
        self, read: Callable[[str], list[FinishedRestore]]
    ) -> tuple[list[FinishedRestore], bool]:
        """Return the records of finished restores of this source, and whether one is of this very selection. ``read``
        returns those from one bundle, by its id. Where this bundle was never restored as a whole, those from bundles
        that it continues are among them.
        """
        records = read(self.reader.info.id)
        same = any(record.only == self.selection.words() for record in records)
        if all(record.only for record in records):
            for bundle in reversed(self.reader.info.continues):
                records += [record.for_successor() for record in read(bundle)]
        return records, same

    def position_value(self, name: str) -> Any:
        """Return the value in the last recorded position of the source that has one, None where none has."""
        return self.reader.last_position_value(self.source, name)

    @property
    def source_database(self) -> str:
        """The name of the source's database, "" where the bundle does not record it."""
        return str(self.position_value("database") or "")

    def with_tables(self, tables: Sequence[CatalogRow]) -> TableRestore:
        """Return the same restore for these tables, with digests of its own."""
        return TableRestore(
            self.reader, self.source, tables, self.workers, self.progress, self.selection, span=self.span
        )

    @property
    def indexes_task(self) -> SourceTask:
        """The part of the restore that makes indexes and constraints, for the progress."""
        return self._task(_ROWS_END, _INDEXES_END)

    def _task(self, begin: float, end: float) -> SourceTask:
        """Return a part of the restore, for the progress."""
        first, last = self.span
        whole = last - first
        return SourceTask(self.source, whole * (end - begin), done_before=first + whole * begin)

    @property
    def items(self) -> int:
        """How many rows the source has."""
        return sum(table.items for table in self.tables)

    @property
    def size_bytes(self) -> int:
        """How many bytes of text these rows have."""
        return sum(table.size_bytes for table in self.tables)

    def was_left_out(self, label: str) -> bool:
        """Tell whether an earlier restore left out the definition that messages call ``label``."""
        return label in self.refused

    def still_left_out(self, tried: Iterable[str], label: Label) -> list[str]:
        """Return what earlier restores left out, except what was ``tried`` again and the tables of this restore."""
        items = self._items(label)
        over = tuple(f"{name}: " for name in (*tried, *(f"{of}{item}" for item in items for of in _OF_ROWS)))
        return unique(
            sentence
            for record in self.earlier
            for sentence in record.left_out
            if not sentence.startswith(over)
        )

    def _items(self, label: Label) -> list[str]:
        """Return what messages call the tables and views."""
        tables = [label(table.schema, table.name) for table in (*self.tables, *self.views)]
        return [f"{kind}{table}" for table in tables for kind in ("", "table ", "materialized view ")]

    def still_lost(self, label: Label) -> list[Loss]:
        """Return the losses that earlier restores recorded, except those of the tables of this restore."""
        items = self._items(label)
        return unique(loss for record in self.earlier for loss in record.losses if loss.item not in items)

    def require_same(self, state: State, *, where: str, how: str) -> None:
        """Raise ``NotEmptyError`` unless the state found at ``where`` is of this restore; ``how`` to get rid of it."""
        if (state.bundle, state.source) != (self.reader.info.id, self.source):
            what = f"source {state.source} of bundle {state.bundle}"
        elif state.only != self.selection.words():
            what = state.only or "everything"
        else:
            return
        raise NotEmptyError(
            f"{where} holds an unfinished restore of {what}", next_step=f"finish that one, or {how}"
        )

    def nothing_to_do(
        self,
        where: str,
        records: Sequence[FinishedRestore] = (),
        findings: Sequence[str] = (),
        *,
        left_out: Sequence[str] = (),
        notes: Sequence[str] = (),
        absent: AbstractSet[tuple[str, str]] | None = None,
    ) -> RestoreOutcome:
        """Return the outcome where nothing was to be done; ``where``: database or file. ``records``: what finished
        restores have left out of it. ``absent``: the tables and materialized views that are not there; None where what
        was left out is not to be tried again.
        """
        left_out = unique(*(record.left_out for record in records), left_out)
        words = _AS_LEFT if records else _ALREADY if self.tables else _NO_TABLES
        notes = unique(*(record.notes for record in records), notes)
        outcome = self.outcome(WrittenRows(self.items, 0), findings, notes, left_out)
        if not findings:
            outcome = replace(outcome, routine=(words.format(where=where),))
        rows = [row for row in (*self.tables, *self.views) if row.key in (absent or ())]
        refused = any(name for record in records for name in record.refused())
        if absent is None or not (rows or refused) or not self.selection.is_everything:
            return outcome
        return replace(outcome, retry=Retry(records, rows))

    def nothing_to_do_for_follow(
        self, url: str, records: Sequence[FinishedRestore], notes: Sequence[str], left_out: Sequence[str]
    ) -> RestoreOutcome:
        """Return the outcome for a destination to which changes of the source were applied since: nothing is done.
        Raises ``UsageError`` where only a part of the snapshot is selected: it would lack these changes.
        """
        if not self.selection.is_everything:
            raise UsageError(
                f"{url} has changes that {self.source} made after its snapshot; rows of the snapshot would be older"
                " than the others",
                next_step="leave --only out, or restore into another database",
            )
        note = "the database was restored, and has changes of the source since; moveout cutover compares both"
        left_out = unique(*(record.left_out for record in records), left_out)
        return self.outcome(WrittenRows(self.items, 0), [], [note, *notes], left_out)

    def outcome(
        self, rows: WrittenRows, findings: Sequence[str], notes: Sequence[str], left_out: Sequence[str] = ()
    ) -> RestoreOutcome:
        """Return the outcome. What the bundle lacks is left out, too."""
        copied, computed = (
            sum(map(self._rows_there, which)) if self.selection.rows else 0
            for which in (self.tables, self.views)
        )
        missing = tuple(unique(left_out, self._lacking()))
        names = {row.key for row in (*self.tables, *self.views)}
        is_whole = self.selection.is_everything and self.destination_digests.keys() == names
        return RestoreOutcome(
            self.source,
            copied,
            rows.size_bytes,
            rows.skipped_items,
            tuple(findings),
            tuple(notes),
            left_out=missing,
            tables=digests_of(self.source, self.destination_digests),
            computed_items=computed,
            is_equal=is_whole and not findings and not missing,
        )

    def _rows_there(self, table: CatalogRow) -> int:
        """Return how many rows of a table or view the destination has: of a table all, where nothing was compared;
        of a view that could not be read there, none.
        """
        digest = self.destination_digests.get(table.key)
        if digest is not None:
            return min(table.items, digest.rows)
        return table.items if table.kind == "table" else 0

    def _lacking(self) -> list[str]:
        """Return a sentence for each item that the bundle itself lacks, where all of it is restored."""
        return [] if self.selection.is_part else lacking_of(self.reader, self.source)

    def findings(self, tables: Sequence[CatalogRow], label: Label) -> list[str]:
        """Return a sentence for every table whose rows differ, and for every damaged file of such a table."""
        differences = compare_tables(tables, self.destination_digests)
        present_tables = [difference.table for difference in differences if difference.what != "missing"]
        damaged = self._damaged(present_tables, label) if present_tables else ()
        return [*sentences(differences, label), *damaged]

    def _damaged(self, tables: Sequence[CatalogRow], label: Label) -> Iterator[str]:
        parts = {part.key: part for part in parts_of(tables)}
        for file in self.reader.source_files(self.source):
            if file.key in parts and hash_file(self.reader.store, file.key) != file.sha256:
                table = parts[file.key].table
                yield _DAMAGED.format(label(table.schema, table.name), file.key)

    def differing(self, records: Sequence[FinishedRestore]) -> list[CatalogRow]:
        """Return the tables to be compared: all but those that are still as a finished restore has left them."""
        return [table for table in self.tables if not self._accepted(table, records)]

    def _accepted(self, table: CatalogRow, records: Sequence[FinishedRestore]) -> bool:
        digest = self.destination_digests.get(table.key)
        return any(record.accepts(table.key, digest) for record in records)

    def record(
        self,
        left_out: Sequence[str],
        notes: Sequence[str],
        losses: Sequence[Loss],
        passwordless: Sequence[str] = (),
    ) -> FinishedRestore:
        """Return the record of this restore, with the tables whose rows differ. It replaces earlier ones."""
        tables = {name: digest for record in self.earlier for name, digest in record.tables.items()}
        for table in (*self.tables, *self.views):
            tables.pop(table.key, None)
        for table in (*self.tables, *self.views) if self.selection.rows else ():
            digest = self.destination_digests.get(table.key)
            if compare_table(table, digest) is not None:
                tables[table.key] = digest
        only = "" if self.selection.left_out else self.selection.words()
        notes = unique(*(record.notes for record in self.earlier), notes)
        passwordless = unique(*(record.passwordless for record in self.earlier), passwordless)
        return FinishedRestore(only, left_out, notes, losses, tables, passwordless=passwordless)

    @property
    def superseded(self) -> Sequence[str]:
        """The bundles whose records the record of this restore takes the place of."""
        own = (self.reader.info.id,) if self.selection.left_out else ()
        return (*self.reader.info.continues, *own) if self.earlier else ()

    def begin_rows(self, parts: Sequence[PartFile], done: AbstractSet[str]) -> RowsToWrite:
        """Return the parts that are not ``done``, to be written now; their progress is shown until ``end``."""
        todo = [part for part in parts if part.name not in done]
        total = sum(part.rows for part in parts)
        self.progress.begin(
            f"restore {self.source}", items=total, size_bytes=self.size_bytes, of=self._task(0.0, _ROWS_END)
        )
        skipped = total - sum(part.rows for part in todo)
        if skipped:
            left = sum(part.size_bytes for part in todo)
            self.progress.skip(items=skipped, size_bytes=self.size_bytes - left)
        return RowsToWrite(todo, skipped, self.progress)

    def begin_comparison(self) -> Advance:
        """Return what shows the progress of reading the destination's rows; ``end_comparison`` takes their digests."""
        rows = sum(view.items for view in self.views)
        size_bytes = sum(view.size_bytes for view in self.views)
        with_views = " and its materialized views" if self.views else ""
        self.progress.begin(
            f"compare {self.source}{with_views}",
            items=self.items + rows,
            size_bytes=self.size_bytes + size_bytes,
            of=self._task(_INDEXES_END, 1.0),
        )
        return lambda rows, size_bytes: self.progress.advance(items=rows, size_bytes=size_bytes)

    def end_comparison(self, digests: Mapping[tuple[str, str], RowsDigest]) -> None:
        """Take the digests of the destination's tables, for ``findings``."""
        self.progress.end()
        self.destination_digests.update(digests)


class DatabaseRestore(Struct, kw_only=True, dict=True):
    """A restore into one database, and what is gathered on the way. ``merge``: others may use the database."""

    run: TableRestore
    merge: bool = False
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    passwordless: list[str] = field(default_factory=list)
    """The roles or accounts that were made, and need a password."""
    damaged: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """By schema and name of a table, the rows that could not be read."""

    @property
    def selection(self) -> RestoreSelection:
        """Which part is restored."""
        return self.run.selection

    @property
    def alone(self) -> bool:
        """Whether the database holds nothing else."""
        return self.run.whole and not self.merge

    @property
    def has_all_rows(self) -> bool:
        """Whether all rows of the source are there at the end, so that its changes may follow."""
        return self.selection.rows and (self.selection.left_out or not self.selection.is_part)

    def note_damage(self, damaged: Sequence[tuple[PartFile, DamageError]], label: Label) -> None:
        """Note parts that cannot be read."""
        for part, error in sorted(damaged, key=lambda entry: entry[0].name):
            key = part.table.key
            self.damaged.setdefault(key, []).append(missing_rows(label(*key), part, error))
        self.notes.extend([REPAIR] if damaged and REPAIR not in self.notes else [])

    def note_database_name(self, texts: Iterable[tuple[str, str]], now: str, quote: str) -> None:
        """Note which objects name the source's database, which is called ``now``; see ``environment``."""
        losses, notes = note_database_name(texts, self.run.source_database, now, quote)
        self.losses.extend(losses)
        self.notes.extend(notes)


def sentences(differences: Iterable[TableDifference], label: Label) -> list[str]:
    """Return a sentence for every table whose rows in the destination are not the bundle's."""
    return [_sentence(difference, label(*difference.name)) for difference in differences]


def _sentence(difference: TableDifference, name: str) -> str:
    expected, found = difference.expected, difference.found
    if difference.what == "missing":
        return f"{name} is missing in the destination"
    if difference.what == "rows":
        return f"{name}: expected {expected} rows, found {found}"
    return f"{name}: expected digest {expected}, found {found}"
