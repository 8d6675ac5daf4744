"""The values in tables: Parquet rendered back to text, digested, beside the digests of the catalog."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from exporters.engine import Engine, engine_for, has_engine
from exporters.tally import Tally, to_hex
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.verify.pool import in_parallel


@dataclass(frozen=True, slots=True)
class _Part:
    key: str
    rows: int


def check(
    reader: BundleReader, rows: Sequence[CatalogRow], executor: Executor, *, ahead: int
) -> Iterator[Finding]:
    """Yield what differs, part by part and table by table."""
    for row in rows:
        kind = reader.sources[row.source].kind
        if row.kind != "table" or not has_engine(kind):
            continue
        engine = engine_for(kind)
        try:
            parts = [
                _Part(layout.source_file(row.source, str(part["name"])), int(part["rows"]))
                for part in row.details["parts"]
            ]
        except (KeyError, TypeError, ValueError) as exc:
            yield Finding(layout.CATALOG, f"{_label(row)} has no list of parts", found=repr(exc))
            continue
        total = Tally()
        unread = False
        found = in_parallel(executor, partial(_tally, engine, reader), parts, ahead=ahead)
        for part, tally in zip(parts, found, strict=True):
            if isinstance(tally, Finding):
                unread = True
                yield tally
                continue
            total += tally
            if tally.rows != part.rows:
                yield Finding(part.key, f"rows of {_label(row)}", str(part.rows), str(tally.rows))
        if unread:
            continue
        if total.rows != row.items:
            yield Finding(layout.CATALOG, f"rows of {_label(row)}", str(row.items), str(total.rows))
        if to_hex(total.digest) != row.digest:
            yield Finding(
                layout.source_file(row.source, f"tables/{row.number}/"),
                f"the digest of {_label(row)} differs: its values are not those that were exported",
                row.digest,
                to_hex(total.digest),
            )


def _tally(engine: Engine, reader: BundleReader, part: _Part) -> Tally | Finding:
    try:
        with reader.open(part.key) as file:
            return engine.tally_part(file, part.rows)
    except DamageError:
        return Finding(part.key, "is missing; it is in the catalog")
    except engine.read_errors as exc:
        return Finding(part.key, "cannot be read as Parquet", found=str(exc)[:200])


def _label(row: CatalogRow) -> str:
    return f"{row.source}: {row.schema}.{row.name}" if row.schema else f"{row.source}: {row.name}"
