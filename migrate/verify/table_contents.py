"""The values in tables: Parquet rendered back to text, digested, beside the digests of the catalog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

from exporters.engine import PartReader, part_reader_of
from exporters.row_digest import Tally, to_hex
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_digests import TableDigest
from migrate.engines import registry
from migrate.errors import DamageError
from migrate.verify.thread_pool import in_parallel


@dataclass(frozen=True, slots=True)
class _Part:
    key: str
    rows: int


def check(
    reader: BundleReader,
    rows: Sequence[CatalogRow],
    executor: Executor,
    *,
    ahead: int,
    digests: list[TableDigest],
) -> Iterator[Finding]:
    """Yield what differs, part by part, chunk by chunk and table by table. ``digests`` fills up with what was read of
    whole tables.
    """
    for row in rows:
        engine = registry.find(reader.sources[row.source].kind)
        if not row.has_rows or engine is None or not engine.part_reader:
            continue
        part_reader = part_reader_of(engine)
        try:
            parts = [_Part(_key(row, part["name"]), int(part["rows"])) for part in row.details["parts"]]
        except (KeyError, TypeError, ValueError) as exc:
            yield Finding(layout.CATALOG, f"{_label(row)} has no list of parts", found=repr(exc))
            continue
        read: dict[str, Tally] = {}
        found = in_parallel(executor, partial(_tally, part_reader, reader), parts, ahead=ahead)
        for part, tally in zip(parts, found, strict=True):
            if isinstance(tally, Finding):
                yield tally
                continue
            read[part.key] = tally
            if tally.rows != part.rows:
                yield Finding(part.key, f"rows of {_label(row)}", str(part.rows), str(tally.rows))
        if len(read) < len(parts):
            continue
        total = sum(read.values(), Tally())
        digests.append(TableDigest(row.source, row.schema, row.name, total.rows, to_hex(total.digest)))
        yield from _compare(row, total, read)


def _compare(row: CatalogRow, total: Tally, read: Mapping[str, Tally]) -> Iterator[Finding]:
    if total.rows != row.items:
        yield Finding(layout.CATALOG, f"rows of {_label(row)}", str(row.items), str(total.rows))
    if to_hex(total.digest) == row.digest:
        return
    what = f"the digest of {_label(row)} differs: its values are not those that were exported"
    yield Finding(
        layout.source_file(row.source, f"tables/{row.number}/"), what, row.digest, to_hex(total.digest)
    )
    try:
        yield from _chunks(row, row.details.get("chunks", ()), read)
    except (KeyError, TypeError, ValueError) as exc:
        yield Finding(layout.CATALOG, f"{_label(row)} has no list of chunks", found=repr(exc))


def _chunks(
    row: CatalogRow, chunks: Sequence[Mapping[str, Any]], read: Mapping[str, Tally]
) -> Iterator[Finding]:
    """Yield the chunks whose digest differs, by their first part. Bundles of the first days have none."""
    for number, chunk in enumerate(chunks):
        keys = [_key(row, name) for name in chunk["parts"]]
        tally = sum((read[key] for key in keys), Tally())
        if to_hex(tally.digest) != chunk["digest"]:
            what = f"the difference is in chunk {number} of {_label(row)}"
            yield Finding(keys[0], what, str(chunk["digest"]), to_hex(tally.digest))


def _tally(part_reader: PartReader, reader: BundleReader, part: _Part) -> Tally | Finding:
    try:
        with reader.open(part.key) as file:
            return part_reader.tally_part(file, part.rows)
    except DamageError:
        return Finding(part.key, "is missing; it is in the catalog")
    except part_reader.read_errors as exc:
        return Finding(part.key, "cannot be read as Parquet", found=str(exc)[:200])


def _key(row: CatalogRow, name: object) -> str:
    return layout.source_file(row.source, str(name))


def _label(row: CatalogRow) -> str:
    return f"{row.source}: {row.schema}.{row.name}" if row.schema else f"{row.source}: {row.name}"
