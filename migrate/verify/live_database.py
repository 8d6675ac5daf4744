"""A bundle's tables against a live database, whichever engine it is of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from exporters.engine import LiveReader, LiveTables, PartReader, TablesRequest, live_reader_of, part_reader_of
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.table_comparison import TableDifference, compare_table, compare_tables, digests_of
from migrate.engines import registry
from migrate.number_text import things
from migrate.runtime.progress import SourceTask
from migrate.verify.compare import ComparisonRequest, SourceComparison
from migrate.verify.table_differences import RowSearch

NO_TABLE = 0
"""The number of PostgreSQL's large objects in the catalog, which are no table: where there are none, nothing exists."""


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
            if finding is not None and digest is not None:
                progress.note(f"{source}: looking for the rows of {finding.key} that differ")
                finding = search.look(difference.table, finding)
            findings += [finding] if finding is not None else []
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
    return live


def _renamed(tables: Sequence[CatalogRow], live: LiveTables, part_reader: PartReader) -> Iterator[Finding]:
    """Yield the tables whose rows are equal in columns of other names: a digest is of the values alone."""
    for table in tables:
        digest, found = live.digests.get(table.key), live.columns.get(table.key)
        if digest is None or found is None or not digest.rows or compare_table(table, digest) is not None:
            continue
        expected = [str(column["name"]) for column in table.details.get("columns", ())]
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
        expected, found = _shown(difference, "none")
        return Finding(label, f"is a {derived} that {words}", expected, found, incomplete=True)
    if difference.what == "missing" and table.number == NO_TABLE and not table.items:
        return None
    return Finding(label, _WORDS[difference.what], *_shown(difference, "no table"))


def _shown(difference: TableDifference, nothing: str) -> tuple[str, str]:
    if difference.what == "missing":
        return f"{difference.expected} rows", nothing
    return difference.expected, difference.found


def _derived(table: CatalogRow) -> str:
    """Return what it is that a server fills by itself, "" for an ordinary table."""
    if table.kind == "materialized view":
        return "materialized view"
    extension = table.details.get("extension")
    return f"table of the extension {extension}" if extension else ""
