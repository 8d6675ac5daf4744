"""Compares the tables of a bundle with a live database of any engine. Where a table differs, finds the rows: their
keys, both values, and the part that holds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from msgspec import Struct
from msgspec.structs import replace

from exporters.engine import (
    LiveReader,
    LiveRows,
    LiveTables,
    PartReader,
    TablesRequest,
    live_reader_of,
    part_reader_of,
)
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding, RowDifference, Values
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_comparison import TableDifference, compare_table, compare_tables, digests_of
from migrate.engines import registry
from migrate.errors import DamageError, in_words
from migrate.number_text import things
from migrate.repair.row_differences import KeyOf, key_reader
from migrate.repair.row_sides import BundleRows, TakeTexts
from migrate.runtime.progress import SourceTask
from migrate.verify.compare import ComparisonRequest, SourceComparison
from migrate.verify.row_diff import DifferingRow, RowDiff, diff_rows

NO_TABLE = 0
"""The number of PostgreSQL's large objects in the catalog, which are no table: where there are none, nothing exists."""
MOST_TABLES = 50
"""The rows of at most so many differing tables are searched."""
SHOWN_ROWS = 100
"""At most so many rows of a table are reported."""
_LONG, _BEFORE, _AROUND = 400, 60, 200


def compare_database(request: ComparisonRequest) -> SourceComparison:
    """Compare row counts and digests of every table and materialized view of a source with those of a database; of
    those that differ find the rows. A table that the export could not read, and that is empty in the database, is no
    difference but the bundle's gap.

    Raises errors of ``exporters.errors`` where it cannot be read, ``UsageError`` for an unknown source.
    """
    reader, source, url, progress = request.reader, request.source, request.url, request.progress
    engine = registry.engine_for(url, url)
    registry.require(engine, engine.part_reader, "compared")
    registry.require(engine, engine.live_reader, "compared")
    part_reader, live_reader = part_reader_of(engine), live_reader_of(engine)
    tables = reader.tables(source)
    live_tables = _read_live(request, live_reader, tables)
    live, unread = live_tables.digests, live_tables.unread
    names = [table.key for table in tables]
    findings = [
        Finding(part_reader.label(*name), f"could not be compared: {unread[name]}", incomplete=True)
        for name in names
        if name in unread
    ]
    with ExitStack() as stack:
        search = RowSearch(live_reader, part_reader, reader, url, request.secrets, stack)
        for difference in compare_tables(tables, live):
            digest = live.get(difference.name)
            if difference.name in unread or any(
                accepts(difference.name, digest) for accepts in request.accepted
            ):
                continue
            finding = _finding(difference, part_reader.label(*difference.name))
            is_short = request.unfinished and difference.is_short
            if finding is not None and digest is not None and not (is_short and not digest.rows):
                progress.note(f"{source}: looking for the rows of {finding.key} that differ")
                finding = search.look(difference.table, finding)
            if finding is not None:
                findings.append(_not_yet(finding) if is_short else finding)
    findings += _renamed(tables, live_tables, part_reader)
    gaps = {gap.item for gap in reader.failed(source)}
    for name in sorted(live.keys() - set(names)):
        label, rows = part_reader.label(*name), live[name].rows
        if rows or label not in gaps:
            findings.append(_extra(label, rows, is_gap=label in gaps))
    return SourceComparison(findings, digests_of(source, live))


def _read_live(
    request: ComparisonRequest, live_reader: LiveReader, tables: Sequence[CatalogRow]
) -> LiveTables:
    progress = request.progress
    progress.begin(
        f"compare {request.source}",
        items=sum(table.items for table in tables),
        size_bytes=sum(table.size_bytes for table in tables),
        of=SourceTask(request.source),
    )
    tables_request = TablesRequest(
        request.workers,
        advance=lambda rows, size_bytes: progress.advance(items=rows, size_bytes=size_bytes),
        also={table.key for table in tables if _derived(table)},
        tolerant=True,
    )
    live = live_reader.live_tables(request.url, tables_request, secrets=request.secrets)
    progress.end()
    return live.named_as(table.key for table in tables)


def _renamed(tables: Sequence[CatalogRow], live: LiveTables, part_reader: PartReader) -> Iterator[Finding]:
    """Yield the tables whose rows are equal in columns of other names: a digest is of the values alone."""
    for table in tables:
        digest, found = live.digests.get(table.key), live.columns.get(table.key)
        if digest is None or found is None or not digest.rows or compare_table(table, digest) is not None:
            continue
        expected = [str(column["name"]) for column in table.columns]
        if expected and expected != list(found) and not _derived(table):
            label = part_reader.label(*table.key)
            yield Finding(label, "has columns of other names", ", ".join(expected), ", ".join(found))


def _extra(label: str, rows: int, *, is_gap: bool) -> Finding:
    """Return the finding for a table that only the database has. ``is_gap``: the export could not read it."""
    if is_gap:
        return Finding(
            label,
            "is a gap of the bundle, so its rows could not be compared",
            "",
            things(rows, "row"),
            incomplete=True,
        )
    return Finding(label, "is in the database, not in the bundle", "", things(rows, "row"))


_WORDS = {
    "missing": "is missing in the database",
    "rows": "has another number of rows",
    "digest": "has other rows (their digest differs)",
}


def _finding(difference: TableDifference, label: str) -> Finding | None:
    """Return the finding for a difference, None where it is none."""
    table = difference.table
    if derived := _derived(table):
        # Other rows of what a server fills by itself are no damage, but not the bundle's.
        words = "has no rows" if difference.what == "missing" else _WORDS[difference.what]
        expected, found = _expected_and_found(difference, "none")
        return Finding(label, f"is a {derived} that {words}", expected, found, incomplete=True)
    if difference.what == "missing" and table.number == NO_TABLE and not table.items:
        return None
    return Finding(label, _WORDS[difference.what], *_expected_and_found(difference, "no table"))


def _not_yet(finding: Finding) -> Finding:
    """Return the finding of a table that lacks rows while its restore is not finished: no damage, unless it also has
    rows that the bundle has not, or its rows could not be compared one by one.
    """
    comes = finding.found in {"no table", "0"} or bool(finding.rows)
    only_missing = comes and all(row.side == "only in the bundle" for row in finding.rows)
    return replace(finding, incomplete=True) if only_missing else finding


def _expected_and_found(difference: TableDifference, nothing: str) -> tuple[str, str]:
    if difference.what == "missing":
        return f"{difference.expected} rows", nothing
    return difference.expected, difference.found


def _derived(table: CatalogRow) -> str:
    """Return the kind of a table that a server fills by itself, "" for an ordinary table."""
    if table.kind == "materialized view":
        return "materialized view"
    extension = table.details.get("extension")
    return f"table of the extension {extension}" if extension else ""


class LiveSide:
    """A table of the live database."""

    part = ""

    def __init__(self, rows: LiveRows, table: CatalogRow) -> None:
        self._rows = rows
        self._table = table

    def each(self, take: TakeTexts, parts: frozenset[str] | None = None) -> None:
        """Read the table."""
        del parts
        self._rows.each(self._table.schema, self._table.name, take)


class RowSearch(Struct):
    """Looks for rows in one live database, which is opened for the first table."""

    live_reader: LiveReader
    part_reader: PartReader
    reader: BundleReader
    url: str
    secrets: Mapping[str, str]
    stack: ExitStack
    looked_at: int = 0
    _rows: LiveRows | None = None

    def look(self, table: CatalogRow, finding: Finding) -> Finding:
        """Return the finding with the rows that differ, as far as they can be read. Raises ``SourceError``."""
        if self.looked_at >= MOST_TABLES:
            return finding
        self.looked_at += 1
        unreadable: tuple[type[Exception], ...] = (DamageError, *self.part_reader.read_errors)
        try:
            return self._look(table, finding)
        except unreadable as exc:
            reason = in_words(exc)[:200]
            return replace(finding, what=f"{finding.what}; the bundle's rows cannot be read ({reason})")

    def _look(self, table: CatalogRow, finding: Finding) -> Finding:
        if self._rows is None:
            self._rows = self.stack.enter_context(self.live_reader.live_rows(self.url, secrets=self.secrets))
        bundle_rows = BundleRows(self.part_reader, self.reader, table)
        columns = self._rows.columns(table.schema, table.name)
        if not columns or not bundle_rows.columns:
            return finding
        if list(columns) != list(bundle_rows.columns):
            names = (", ".join(bundle_rows.columns), ", ".join(columns))
            return replace(finding, what="has other columns", expected=names[0], found=names[1])
        key = list(self._rows.key(table.schema, table.name))
        key_of = key_reader(self.part_reader, columns, key)
        live_side = LiveSide(self._rows, table)
        diff = diff_rows(bundle_rows, live_side, rows=table.items, key_of=key_of if key else None)
        show = _Show(self.part_reader, columns, key, key_of)
        what = f"{finding.what}: {_words(diff, key=bool(key))}"
        return replace(finding, what=what, rows=tuple(show.rows(diff)[:SHOWN_ROWS]))


def _words(diff: RowDiff, *, key: bool) -> str:
    counts = {
        "changed": len(diff.changed),
        "only in the bundle": len(diff.left),
        "only in the database": len(diff.right),
    }
    changes = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    if not changes:
        return "its rows are the bundle's by now: it changed while it was compared"
    if not diff.whole:
        changes = f"many rows, among them {changes}"
    return changes if key or not diff.left or not diff.right else f"{changes} (it has no key)"


class _Show(Struct, frozen=True):
    """Formats values for users from rows' texts."""

    part_reader: PartReader
    columns: Sequence[str]
    key: Sequence[str]
    key_of: KeyOf

    def rows(self, diff: RowDiff) -> list[RowDifference]:
        changed = [self._changed(source_row, destination_row) for source_row, destination_row in diff.changed]
        left = [
            RowDifference("only in the bundle", self._key(row), self._all(row), (), row.part)
            for row in diff.left
        ]
        right = [
            RowDifference("only in the database", self._key(row), (), self._all(row)) for row in diff.right
        ]
        most = max(SHOWN_ROWS // 3, SHOWN_ROWS - len(left) - len(right))
        return [*changed[:most], *left[:most], *right[:most], *changed[most:], *left[most:], *right[most:]]

    def _changed(self, source_row: DifferingRow, destination_row: DifferingRow) -> RowDifference:
        expected: list[tuple[str, str | None]] = []
        cells: list[tuple[str, str | None]] = []
        pairs = zip(
            self.columns,
            self.part_reader.split(source_row.text),
            self.part_reader.split(destination_row.text),
            strict=True,
        )
        for name, left, right in pairs:
            if left != right:
                at = _first_difference(left, right)
                expected.append((_name(name), _shown(left, at)))
                cells.append((_name(name), _shown(right, at)))
        return RowDifference("changed", self._key(source_row), tuple(expected), tuple(cells), source_row.part)

    def _key(self, row: DifferingRow) -> Values:
        return tuple(
            (_name(name), _shown(value)) for name, value in zip(self.key, self.key_of(row.text), strict=True)
        )

    def _all(self, row: DifferingRow) -> Values:
        values = zip(self.columns, self.part_reader.split(row.text), strict=True)
        return tuple((_name(name), _shown(value)) for name, value in values)


def _name(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _first_difference(left: bytes | None, right: bytes | None) -> int:
    """Return where two values begin to differ."""
    if left is None or right is None:
        return 0
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _shown(value: bytes | None, at: int = 0) -> str | None:
    """Return a value as text; of a long one what is around ``at``, its length and its SHA-256."""
    if value is None:
        return None
    if len(value) <= _LONG:
        return value.decode("utf-8", "backslashreplace")
    start = max(0, at - _BEFORE)
    cut = value[start : start + _AROUND].decode("utf-8", "backslashreplace")
    before = "…" if start else ""
    return f"{before}{cut}… ({len(value)} bytes, SHA-256 {hashlib.sha256(value).hexdigest()[:16]}…)"
