"""The values in tables: Parquet rendered back to text, digested, and compared with the digests of the catalog."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
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
from migrate.errors import DamageError, GoneError, in_words
from migrate.runtime.worker_pool import ThreadWorkerPool, run_all
from migrate.verify.file_hashes import read_file
from migrate.verify.payload_files import ExpectedFile

READ_ONCE_BYTES = 64 * 2**20
"""Parts up to this size are held in memory while they are rendered; larger ones are read a second time for their hash.
"""


class CheckedPart(Struct, frozen=True):
    """What differs in a part of a table, and after the last one in the table; ``key`` is empty for a table without
    parts. ``hashed_bytes``: of a file whose bytes were all hashed, too, None of any other.
    """

    key: str
    findings: list[Finding]
    hashed_bytes: int | None = None


class _TablePart(Struct, frozen=True):
    """A part. ``file``: as the manifest has it, where it is read once, and hashed on the way."""

    key: str
    rows: int
    file: ExpectedFile | None


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
    files: Mapping[str, ExpectedFile] | None = None,
) -> Iterator[CheckedPart | TableDigest]:
    """Yield what differs, part by part, chunk by chunk and table by table; then the digests of the tables that were
    read whole. Those of ``files`` that fit into memory are hashed on the way.
    """
    to_hash = {
        key: file
        for key, file in (files or {}).items()
        if file.size_bytes is not None and file.size_bytes <= READ_ONCE_BYTES
    }
    tables: list[_TableCheck] = []
    for row, engine in _readable(reader, rows):
        try:
            keys = [(_key(row, part["name"]), int(part["rows"])) for part in row.details["parts"]]
        except (KeyError, TypeError, ValueError) as exc:
            finding = Finding(
                layout.CATALOG,
                f"{_label(row)} has no list of parts",
                found=f"something else ({in_words(exc)})",
            )
            yield CheckedPart("", [finding])
            continue
        parts = [_TablePart(key, count, to_hash.pop(key, None)) for key, count in keys]
        table = _TableCheck(row, part_reader_of(engine), parts)
        tables.append(table)
        if not parts:
            yield CheckedPart("", list(table.finish()))
    items = ((table, part) for table in tables for part in table.parts)
    pool = ThreadWorkerPool(partial(_read_part, reader), workers, name="moveout-verify-tables", ahead=workers)
    for (table, part), (values, hashed_bytes, differences) in run_all(pool, items):
        yield CheckedPart(part.key, [*differences, *table.take(part, values)], hashed_bytes)
    yield from (table.digest for table in tables if table.digest is not None)


def _read_part(
    reader: BundleReader, item: tuple[_TableCheck, _TablePart]
) -> tuple[RowsDigest | Finding, int | None, list[Finding]]:
    """Return the digest of the values, or why there is none; and how many bytes were hashed, and what differs there."""
    part_reader, part = item[0].part_reader, item[1]
    data: bytes | None = None
    differences: list[Finding] = []
    values: RowsDigest | Finding
    try:
        if part.file is not None:
            data, differences = read_file(reader.store, part.file)
        with reader.open(part.key) if data is None else io.BytesIO(data) as file:
            values = part_reader.digest_part(file, part.rows)
    except (DamageError, GoneError):
        values = Finding(part.key, "is missing; it is in the catalog")
    except part_reader.read_errors as exc:
        values = Finding(part.key, "cannot be read as Parquet", found=in_words(exc)[:200])
    return values, None if data is None else len(data), differences


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
        yield Finding(
            layout.CATALOG, f"{_label(row)} has no list of chunks", found=f"something else ({in_words(exc)})"
        )


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


def _key(row: CatalogRow, name: object) -> str:
    return layout.source_file(row.source, str(name))


def _label(row: CatalogRow) -> str:
    return f"{row.source}: {row.full_name}"
