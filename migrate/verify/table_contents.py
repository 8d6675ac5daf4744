"""The values in tables: Parquet rendered back to text, digested, and compared with the digests of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct, field

from exporters.engine import Engine, PartReader, part_reader_of
from exporters.row_digest import RowsDigest, to_hex
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_comparison import TableDigest
from migrate.engines import registry
from migrate.errors import DamageError
from migrate.runtime.worker_pool import ThreadWorkerPool, run_all


class _TablePart(Struct, frozen=True):
    key: str
    rows: int


class _TableCheck(Struct):
    """A table, and what was read of it so far, by part."""

    row: CatalogRow
    part_reader: PartReader
    parts: Sequence[_TablePart]
    read: dict[str, RowsDigest] = field(default_factory=dict)
    ended: int = 0
    digest: TableDigest | None = None

    def take(self, part: _TablePart, result: RowsDigest | Finding) -> Iterator[Finding]:
        """Take what was read of a part; yield what is wrong with it, and after the last one with the table."""
        self.ended += 1
        if isinstance(result, Finding):
            yield result
        else:
            self.read[part.key] = result
            if result.rows != part.rows:
                yield Finding(part.key, f"rows of {_label(self.row)}", str(part.rows), str(result.rows))
        if self.ended == len(self.parts):
            yield from self.finish()

    def finish(self) -> Iterator[Finding]:
        """Yield what differs in the whole table; nothing where a part could not be read."""
        if len(self.read) < len(self.parts):
            return
        row, total = self.row, sum(self.read.values(), RowsDigest())
        self.digest = TableDigest(row.source, row.schema, row.name, total.rows, to_hex(total.digest))
        yield from _compare(row, total, self.read)
        self.read.clear()


def _readable(reader: BundleReader, rows: Sequence[CatalogRow]) -> Iterator[tuple[CatalogRow, Engine]]:
    """Yield the tables whose Parquet files some engine reads."""
    for row in rows:
        engine = registry.find(reader.sources[row.source].kind)
        if row.has_rows and engine is not None and engine.part_reader:
            yield row, engine


def check(
    reader: BundleReader,
    rows: Sequence[CatalogRow],
    *,
    workers: int,
    digests: list[TableDigest],
    open_part: Callable[[str], Any] | None = None,
    on_compared: Callable[[str], None] = lambda _: None,
) -> Iterator[Finding]:
    """Yield what differs, part by part, chunk by chunk and table by table. ``digests`` fills up with what was read of
    whole tables. ``open_part`` opens a file by its key, and raises like ``BundleReader.open``, which is the default.
    ``on_compared`` is called with the key of each file whose values were compared.
    """
    tables: list[_TableCheck] = []
    for row, engine in _readable(reader, rows):
        try:
            parts = [_TablePart(_key(row, part["name"]), int(part["rows"])) for part in row.details["parts"]]
        except (KeyError, TypeError, ValueError) as exc:
            yield Finding(layout.CATALOG, f"{_label(row)} has no list of parts", found=repr(exc))
            continue
        table = _TableCheck(row, part_reader_of(engine), parts)
        tables.append(table)
        if not parts:
            yield from table.finish()
    items = ((table, part) for table in tables for part in table.parts)
    pool = ThreadWorkerPool(
        partial(_digest, open_part or reader.open), workers, name="moveout-verify-tables", ahead=workers
    )
    for (table, part), result in run_all(pool, items):
        on_compared(part.key)
        yield from table.take(part, result)
    digests.extend(table.digest for table in tables if table.digest is not None)


def _compare(row: CatalogRow, total: RowsDigest, read: Mapping[str, RowsDigest]) -> Iterator[Finding]:
    if total.rows != row.items:
        yield Finding(layout.CATALOG, f"rows of {_label(row)}", str(row.items), str(total.rows))
    if to_hex(total.digest) == row.digest:
        return
    what = f"the digest of {_label(row)} differs: its values are not those that were exported"
    yield Finding(layout.source_file(row.source, f"{row.directory}/"), what, row.digest, to_hex(total.digest))
    try:
        yield from _chunks(row, row.details.get("chunks", ()), read)
    except (KeyError, TypeError, ValueError) as exc:
        yield Finding(layout.CATALOG, f"{_label(row)} has no list of chunks", found=repr(exc))


def _chunks(
    row: CatalogRow, chunks: Sequence[Mapping[str, Any]], read: Mapping[str, RowsDigest]
) -> Iterator[Finding]:
    """Yield the chunks whose digest differs, by their first part. Bundles of the first days have none."""
    for number, chunk in enumerate(chunks):
        keys = [_key(row, name) for name in chunk["parts"]]
        digest = sum((read[key] for key in keys), RowsDigest())
        if to_hex(digest.digest) != chunk["digest"]:
            what = f"the difference is in chunk {number} of {_label(row)}"
            yield Finding(keys[0], what, str(chunk["digest"]), to_hex(digest.digest))


def _digest(open_part: Callable[[str], Any], item: tuple[_TableCheck, _TablePart]) -> RowsDigest | Finding:
    part_reader, part = item[0].part_reader, item[1]
    try:
        with open_part(part.key) as file:
            return part_reader.digest_part(file, part.rows)
    except DamageError:
        return Finding(part.key, "is missing; it is in the catalog")
    except part_reader.read_errors as exc:
        return Finding(part.key, "cannot be read as Parquet", found=str(exc)[:200])


def _key(row: CatalogRow, name: object) -> str:
    return layout.source_file(row.source, str(name))


def _label(row: CatalogRow) -> str:
    return f"{row.source}: {row.schema}.{row.name}" if row.schema else f"{row.source}: {row.name}"
