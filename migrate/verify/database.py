"""A bundle's tables against a live database, and against their own Parquet files."""

from __future__ import annotations

from collections.abc import Sequence

from exporters.postgres import large_objects
from exporters.postgres.connect import parse_url
from exporters.postgres.digest import Tally, to_hex
from exporters.postgres.identifiers import quote_qualified
from exporters.postgres.live import live_tables
from exporters.postgres.parquet import READ_ERRORS, tally_part
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.errors import UsageError
from migrate.progress import Progress


def compare_database(
    reader: BundleReader,
    source: str,
    url: str,
    *,
    workers: int,
    progress: Progress,
    password: str | None = None,
) -> list[Finding]:
    """Compare row counts and digests of every table of ``source`` with the database at ``url``.

    Raises errors of ``exporters.errors`` where it cannot be read, ``UsageError`` for an unknown source.
    """
    if source not in reader.sources:
        names = ", ".join(sorted(reader.sources))
        raise UsageError(f"the bundle has no source {source}", next_step=f"It has: {names}.")
    tables = [row for row in reader.catalog() if row.source == source and row.kind == "table"]
    items = sum(table.items for table in tables)
    progress.begin(f"compare {source}", items=items, size_bytes=sum(table.size_bytes for table in tables))
    live = dict(
        live_tables(
            parse_url(url, password=password),
            workers=workers,
            advance=lambda rows, size_bytes: progress.advance(items=rows, size_bytes=size_bytes),
        )
    )
    progress.end()
    findings = []
    for table in tables:
        tally = live.pop((table.schema, table.name), None)
        findings += compare_table(table, tally)
    for (schema, name), tally in sorted(live.items()):
        label = quote_qualified(schema, name)
        findings.append(Finding(label, "is in the database, not in the bundle", "", f"{tally.rows} rows"))
    return findings


def compare_table(table: CatalogRow, tally: Tally | None) -> list[Finding]:
    """Compare one table's rows with what was found of it; ``None`` for not at all."""
    label = quote_qualified(table.schema, table.name)
    if tally is None:
        if table.number == large_objects.NUMBER and not table.items:
            return []
        return [Finding(label, "is missing in the database", f"{table.items} rows", "no table")]
    if tally.rows != table.items:
        return [Finding(label, "has another number of rows", str(table.items), str(tally.rows))]
    if to_hex(tally.digest) != table.digest:
        return [Finding(label, "has other rows (their digest differs)", table.digest, to_hex(tally.digest))]
    return []


def parquet_digest(reader: BundleReader, table: CatalogRow) -> Tally:
    """Return rows and digest of a table from its Parquet parts, rendered back to the server's text. Raises
    whatever
    ``exporters.postgres.parquet.READ_ERRORS`` lists where a part cannot be read.
    """
    found = Tally()
    for part in table.details["parts"]:
        found += tally_part(reader.open(layout.source_file(table.source, part["name"])), part["rows"])
    return found


def check_parquet(reader: BundleReader, tables: Sequence[CatalogRow]) -> list[Finding]:
    """Compare what the Parquet parts of tables hold with the catalog; for ``verify --level full``."""
    findings = []
    for table in tables:
        try:
            findings += compare_table(table, parquet_digest(reader, table))
        except READ_ERRORS as exc:
            label = quote_qualified(table.schema, table.name)
            findings.append(Finding(label, f"its Parquet files cannot be read: {exc}"))
    return findings
