"""Rows of the record, of a plan, and of what else a sync says: as Parquet, and back."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from exporters.api import Loss
from exporters.bucket_api import NULL_VERSION, ObjectSummary
from exporters.objects.index_rows import INDEX
from exporters.sql.bounded_parquet import rows_of
from migrate.sync.diff import Action, SyncStep
from migrate.sync.record.column_pages import Known, KnownPage
from migrate.sync.versions.version_diff import KnownVersion

_ELSEWHERE = {"pack", "offset", "length", "large", "disposition", "reason"}
"""Columns of a bundle's index that are about bundles, and those that say what all rows of a record have in common."""
DESTINATION_ETAG, DESTINATION_VERSION, LOSSES = "destination_etag", "destination_version_id", "losses"
SYNCED = pa.schema(
    [field for field in INDEX if field.name not in _ELSEWHERE]
    + [
        pa.field(DESTINATION_ETAG, pa.string()),
        pa.field(DESTINATION_VERSION, pa.string()),
        pa.field(LOSSES, pa.map_(pa.string(), pa.string())),
    ]
)
"""One object that is at the destination as it was at the source. The columns are those of a bundle's index, with
``key`` relative to the source's prefix. ``losses`` are what the destination does not have of it, the reason by
property.
"""
_OF_KNOWN = ("key", "etag", "size", "last_modified", DESTINATION_ETAG)
_OF_VERSIONS = ("key", "version_id", "etag", "size", "last_modified", "is_delete_marker", DESTINATION_VERSION)
_LOSSES_AT_ONCE = _KNOWN_AT_ONCE = 20_000
_STEPS_AT_ONCE = 1000
_SIDE: Mapping[str, tuple[str, pa.DataType]] = {
    "key": ("key", pa.string()),
    "size": ("size_bytes", pa.int64()),
    "etag": ("etag", pa.string()),
    "modified": ("modified", pa.timestamp("us", tz="UTC")),
    "class": ("storage_class", pa.string()),
    "version": ("version_id", pa.string()),
    "marker": ("is_delete_marker", pa.bool_()),
}
"""What a plan has of an object on a side: the field of ``ObjectSummary``, and its type."""
_PLAN = pa.schema(
    [
        ("do", pa.string()),
        ("key", pa.string()),
        ("why", pa.string()),
        ("ours", pa.bool_()),
        ("known", pa.bool_()),
        ("odd", pa.list_(pa.string())),
        ("before", pa.int64()),
        *(
            (f"{side}_{name}", kind)
            for side in ("source", "destination")
            for name, (_, kind) in _SIDE.items()
        ),
    ]
)


def synced_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rows of the record as a table."""
    listed = list(rows)
    columns = [pa.array([row.get(field_.name) for row in listed], field_.type) for field_ in SYNCED]
    return pa.Table.from_arrays(columns, schema=SYNCED)


def read_known(data: bytes) -> Iterator[KnownPage]:
    """Read a file of the record, as far as comparing needs it."""
    for batch in rows_of(io.BytesIO(data), _KNOWN_AT_ONCE, _OF_KNOWN):
        columns = [batch[name] for name in _OF_KNOWN]
        columns[3] = columns[3].view(pa.int64())  # a cast would import all functions of Arrow
        yield KnownPage(*(column.to_pylist() for column in columns))


def read_versions(data: bytes) -> Iterator[tuple[str, KnownVersion]]:
    """Read a file of the record of a sync of histories, as far as comparing needs it."""
    for batch in rows_of(io.BytesIO(data), _KNOWN_AT_ONCE, _OF_VERSIONS):
        columns = [batch[name] for name in _OF_VERSIONS]
        columns[4] = columns[4].view(pa.int64())
        for key, version, etag, size_bytes, modified, is_marker, destination in zip(
            *(column.to_pylist() for column in columns), strict=True
        ):
            yield (
                key,
                KnownVersion(version or "", etag or "", size_bytes, modified, is_marker, destination or ""),
            )


def which_version(key: str, version_id: str, modified: int) -> str:
    """Return what ``record_merge.by_version`` calls a row. Rows without an id differ by their time, in microseconds."""
    return f"{key}\0{version_id}\0{modified if version_id == NULL_VERSION else ''}"


def read_losses(data: bytes, *, history: bool) -> Iterator[Loss]:
    """Read what the destination does not have of the objects of a file of the record."""
    columns = ["key", "version_id", LOSSES]
    for batch in rows_of(io.BytesIO(data), _LOSSES_AT_ONCE, columns):
        if not len(batch[LOSSES].items):
            continue
        for key, version, losses_of_row in zip(*(batch[name].to_pylist() for name in columns), strict=True):
            name = f"{key} (version {version})" if history else key
            for property_name, reason in losses_of_row or ():
                yield Loss(name, property_name, reason)


def plan_bytes(steps: Sequence[SyncStep]) -> bytes:
    """Return steps as a Parquet file."""
    columns: dict[str, list[Any]] = {
        "do": [str(step.do) for step in steps],
        "key": [step.key for step in steps],
        "why": [step.why for step in steps],
        "ours": [step.ours for step in steps],
        "known": [step.known for step in steps],
        "odd": [list(step.odd) for step in steps],
        "before": [step.before for step in steps],
    }
    for side in ("source", "destination"):
        summaries: list[ObjectSummary | None] = [getattr(step, side) for step in steps]
        for name, (field_name, _) in _SIDE.items():
            read = attrgetter(field_name)
            columns[f"{side}_{name}"] = [None if summary is None else read(summary) for summary in summaries]
    return to_bytes(pa.table(columns, schema=_PLAN))


def read_plan(data: bytes) -> Iterator[SyncStep]:
    """Read what ``plan_bytes`` wrote."""
    for batch in rows_of(io.BytesIO(data), _STEPS_AT_ONCE):
        for row in batch.to_pylist():
            yield SyncStep(
                Action(row["do"]),
                row["key"],
                row["why"],
                _summary(row, "source"),
                _summary(row, "destination"),
                ours=row["ours"],
                known=row["known"],
                odd=tuple(row["odd"]),
                before=row["before"],
            )


def begun_rows(data: bytes) -> Iterator[Known]:
    """Yield the keys of a plan that a run may have written before it ended."""
    columns = ("do", "key", "ours")
    for batch in rows_of(io.BytesIO(data), _KNOWN_AT_ONCE, columns):
        for do, key, is_ours in zip(*(batch[name].to_pylist() for name in columns), strict=True):
            if is_ours and do in {Action.COPY, Action.LOOK}:
                yield Known(key, begun=True)


def to_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def _summary(row: Mapping[str, Any], side: str) -> ObjectSummary | None:
    if row[f"{side}_key"] is None:
        return None
    return ObjectSummary(**{name: row[f"{side}_{column}"] for column, (name, _) in _SIDE.items()})
