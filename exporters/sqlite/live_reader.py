"""Live SQLite files, counted and digested to be compared with a bundle; see ``exporters.engine.LiveReader``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from exporters.engine import LiveRows, LiveTables, TablesRequest
from exporters.row_digest import Advance, RowsDigest
from exporters.sqlite.address import parse_url
from exporters.sqlite.catalog import SqliteTable, read_catalog
from exporters.sqlite.chunk_plan import measure
from exporters.sqlite.files.backup import copied, copies
from exporters.sqlite.files.connection_pool import Pool
from exporters.sqlite.files.directory import find
from exporters.sqlite.identifiers import SCHEMA
from exporters.sqlite.live_rows import live_rows
from exporters.sqlite.rows.row_batches import digest_table


def digest_tables(url: str, *, workers: int, advance: Advance) -> LiveTables:
    """Read every table of a database that others may be writing to: of a copy. Of a directory the schemas are the
    files' paths below it. Raises ``SourceError``.
    """
    address = parse_url(url)
    if not address.path.is_dir():
        with copied(address) as copy:
            return _digest_quiet(copy.path, address.url, workers=workers, advance=advance)
    addresses = {name: address.below(name) for name in find(address.path).databases}
    table_digests: dict[tuple[str, str], RowsDigest] = {}
    columns: dict[tuple[str, str], Sequence[str]] = {}
    with copies(addresses) as copied_files:
        for name, copy in copied_files.items():
            read = _digest_quiet(copy.path, addresses[name].url, workers=workers, advance=advance)
            table_digests |= {(name, table): digest for (_, table), digest in read.digests.items()}
            columns |= {(name, table): names for (_, table), names in read.columns.items()}
    return LiveTables(table_digests, columns=columns)


def quiet_tables(
    path: Path, where: str, *, workers: int, advance: Advance, names: Collection[str] | None = None
) -> Mapping[tuple[str, str], RowsDigest]:
    """Return the digest of every table, or of those named, of a file that no process writes to. ``where`` names it in
    errors.
    """
    return _digest_quiet(path, where, workers=workers, advance=advance, names=names).digests


def _digest_quiet(
    path: Path, where: str, *, workers: int, advance: Advance, names: Collection[str] | None = None
) -> LiveTables:
    pool = Pool(path, where)
    try:
        with pool.connection() as connection:
            every = read_catalog(connection).tables
            tables = [table for table in every if names is None or table.name in names]
            sizes = measure(connection, tables)

        def digest(table: SqliteTable) -> RowsDigest:
            with pool.connection() as connection:
                return digest_table(
                    connection, table, largest_bytes=sizes[table.name].largest_bytes, advance=advance
                )

        with ThreadPoolExecutor(max(1, workers)) as threads:
            keys = [(SCHEMA, table.name) for table in tables]
            digests = dict(zip(keys, threads.map(digest, tables), strict=True))
        columns = {(SCHEMA, table.name): [column.name for column in table.columns] for table in tables}
        return LiveTables(digests, columns=columns)
    finally:
        pool.close()


class SqliteLiveReader:
    """The methods are those of ``LiveReader``."""

    def live_tables(self, url: str, request: TablesRequest, *, secrets: Mapping[str, str]) -> LiveTables:
        """Read every table of a consistent copy."""
        del secrets
        live = digest_tables(url, workers=request.workers, advance=request.advance)
        digests = {name: digest for name, digest in live.digests.items() if name not in request.without}
        return LiveTables(digests, columns=live.columns)

    def live_rows(self, url: str, *, secrets: Mapping[str, str]) -> AbstractContextManager[LiveRows]:
        """Open a consistent copy."""
        del secrets
        return live_rows(parse_url(url))
