"""A bundle's tables against a live database, whichever engine it is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from exporters.engine import PartReader, live_reader_of, part_reader_of
from exporters.row_digest import Tally, to_hex
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.partition_moves import moved_within
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_digests import TableDigest, digests_of
from migrate.engines import registry
from migrate.runtime.progress import Progress
from migrate.verify.table_differences import Looker

Accepts = Callable[[tuple[str, str], Tally | None], bool]
"""Takes a table (schema, name) and what was found of it, None for no table."""
NO_TABLE = 0
"""The number of what the catalog lists beside the tables (PostgreSQL's large objects): where empty, it is nowhere."""


def compare_database(
    reader: BundleReader,
    source: str,
    url: str,
    *,
    workers: int,
    progress: Progress,
    secrets: Mapping[str, str] | None = None,
    digests: list[TableDigest] | None = None,
    accepted: Sequence[Accepts] = (),
) -> list[Finding]:
    """Compare row counts and digests of every table and materialized view of ``source`` with the database at ``url``,
    which is of the same kind; of those that differ find the rows. ``digests`` fills up with what was read. ``accepted``
    tell of a table that differs whether that is known and reported otherwise.

    Raises errors of ``exporters.errors`` where it cannot be read, ``UsageError`` for an unknown source.
    """
    engine = registry.engine_for(url, url)
    registry.require(engine, engine.part_reader, "compared")
    registry.require(engine, engine.live_reader, "compared")
    part_reader, live_reader = part_reader_of(engine), live_reader_of(engine)
    secrets = secrets or {}
    tables = [row for row in reader.catalog() if row.source == source and row.has_rows]
    items = sum(table.items for table in tables)
    progress.begin(f"compare {source}", items=items, size_bytes=sum(table.size_bytes for table in tables))
    unread: dict[tuple[str, str], str] = {}
    live = dict(
        live_reader.live_tables(
            url,
            secrets=secrets,
            workers=workers,
            advance=lambda rows, size_bytes: progress.advance(items=rows, size_bytes=size_bytes),
            also={(table.schema, table.name) for table in tables if _derived(table)},
            unread=unread,
        )
    )
    progress.end()
    if digests is not None:
        digests += digests_of(source, live)
    findings = []
    moved = moved_within(tables, live)
    with ExitStack() as stack:
        looker = Looker(live_reader, part_reader, reader, url, secrets, stack)
        for table in tables:
            if (reason := unread.pop((table.schema, table.name), None)) is not None:
                findings.append(_unread(part_reader.label(table.schema, table.name), reason))
                continue
            tally = live.pop((table.schema, table.name), None)
            if (table.schema, table.name) in moved:
                continue
            if any(accepts((table.schema, table.name), tally) for accepts in accepted):
                continue
            found = _compare_table(part_reader, table, tally)
            if tally is not None and found:
                progress.note(f"{source}: looking for the rows of {found[0].key} that differ")
                found = [looker.look(table, finding) for finding in found]
            findings += found
    for (schema, name), tally in sorted(live.items()):
        label = part_reader.label(schema, name)
        findings.append(Finding(label, "is in the database, not in the bundle", "", f"{tally.rows} rows"))
    return findings


def _unread(label: str, reason: str) -> Finding:
    return Finding(label, f"could not be compared: {reason}", incomplete=True)


def _compare_table(part_reader: PartReader, table: CatalogRow, tally: Tally | None) -> list[Finding]:
    """Compare one table's rows with what was found of it; ``None`` for not at all."""
    label = part_reader.label(table.schema, table.name)
    if (what := _derived(table)) != "":
        return _compare_derived(label, what, table, tally)
    if tally is None:
        if table.number == NO_TABLE and not table.items:
            return []
        return [Finding(label, "is missing in the database", f"{table.items} rows", "no table")]
    if tally.rows != table.items:
        return [Finding(label, "has another number of rows", str(table.items), str(tally.rows))]
    if to_hex(tally.digest) != table.digest:
        return [Finding(label, "has other rows (their digest differs)", table.digest, to_hex(tally.digest))]
    return []


def _derived(table: CatalogRow) -> str:
    """Return what it is that a server fills by itself, "" for an ordinary table."""
    if table.kind == "materialized view":
        return "materialized view"
    extension = table.details.get("extension")
    return f"table of the extension {extension}" if extension else ""


def _compare_derived(label: str, what: str, table: CatalogRow, tally: Tally | None) -> list[Finding]:
    """Compare what a server fills by itself: other rows are no damage, but not the bundle's."""
    what = f"is a {what} that "
    if tally is None:
        return [Finding(label, f"{what}has no rows", f"{table.items} rows", "none", incomplete=True)]
    if tally.rows != table.items:
        rows = str(table.items), str(tally.rows)
        return [Finding(label, f"{what}has another number of rows", *rows, incomplete=True)]
    if to_hex(tally.digest) != table.digest:
        digests = table.digest, to_hex(tally.digest)
        return [Finding(label, f"{what}has other rows (their digest differs)", *digests, incomplete=True)]
    return []
