"""Rows of the object index: everything that is known of one object. ``docs/FORMAT.md`` describes the
columns.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct, field

from exporters.api import Gap, Loss
from exporters.bucket_api import STANDARD_HEADERS, Fetched, ObjectPart, ObjectSummary
from exporters.errors import reading_state
from exporters.lossless_text import is_utf_8, latin_1_text, text_of

_TEXTS = pa.map_(pa.string(), pa.string())
INDEX = pa.schema(
    [
        ("bucket", pa.string()),
        ("key", pa.string()),
        ("version_id", pa.string()),
        ("is_latest", pa.bool_()),
        ("is_delete_marker", pa.bool_()),
        ("size", pa.int64()),
        ("last_modified", pa.timestamp("us", tz="UTC")),
        ("etag", pa.string()),
        ("storage_class", pa.string()),
        ("sha256", pa.string()),
        ("md5", pa.string()),
        ("crc64nvme", pa.string()),
        ("checksums", _TEXTS),
        ("headers", _TEXTS),
        ("metadata", _TEXTS),
        ("tags", _TEXTS),
        ("other", _TEXTS),
        ("acl", pa.string()),
        ("lock_mode", pa.string()),
        ("lock_until", pa.string()),
        ("legal_hold", pa.string()),
        ("part_sizes", pa.list_(pa.int64())),
        ("pack", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("large", pa.string()),
        ("disposition", pa.string()),
        ("reason", pa.string()),
    ]
)
"""Hashes are hex digits; ``pack`` and ``large`` are names relative to ``data/<source>/``; ``offset`` and
``length`` are the object's bytes within its pack.
"""
WORK = pa.schema([("position", pa.int32()), *INDEX])
"""A row before the index is put together: with its row number in its shard of the inventory."""
_MAPS = tuple(field.name for field in INDEX if field.type == _TEXTS)
_VALUES = itemgetter(*WORK.names)
_NOTHING: Mapping[str, Any] = dict.fromkeys(WORK.names)

LATIN_1 = "moveout-latin-1"
"""Among ``other``: the headers, separated by commas, of whose values each character stands for one byte."""
PART_NUMBERS = "moveout-part-numbers"
"""Among ``other``: the numbers of the parts, separated by commas, where they are not 1, 2, 3 …"""
_METADATA = "x-amz-meta-"
_CHECKSUM = "x-amz-checksum-"
_LOCK_MODE, _LOCK_UNTIL = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"
_LEGAL_HOLD, _VERSION = "x-amz-object-lock-legal-hold", "x-amz-version-id"
_OF_THE_REQUEST = {
    "x-amz-id-2",
    "x-amz-request-id",
    "x-amz-tagging-count",
    "x-amz-storage-class",
    "x-amz-bucket-region",
    "x-amz-request-charged",
    _LOCK_MODE,
    _LOCK_UNTIL,
    _LEGAL_HOLD,
    _VERSION,
}


class Content(Struct, frozen=True):
    """Where an object's bytes are in the bundle, and their hashes (hex). ``md5`` is None where the bytes were
    checked by the server's own CRC64NVME instead.
    """

    sha256: str
    md5: str | None
    crc64nvme: int
    pack: str | None = None
    offset: int | None = None
    large: str | None = None
    parts: Sequence[ObjectPart] = field(default_factory=list)


def exported(bucket: str, position: int, fetched: Fetched, content: Content) -> dict[str, Any]:
    """Return the work row of an object that is in the bundle."""
    summary, headers = fetched.summary, fetched.headers
    answered_version = headers.get(_VERSION)
    groups: tuple[_Pairs, _Pairs, _Pairs, _Pairs] = ([], [], [], [])
    checksums, s3_headers, metadata, other = groups
    texts = headers if all(map(str.isascii, headers.values())) else _as_utf_8(headers, other)
    for column, value in zip(_columns_of(tuple(texts)), texts.values(), strict=True):
        if column is not None:
            kind, name = column
            groups[kind].append((name, value))
    if any(part.number != number for number, part in enumerate(content.parts, 1)):
        other.append((PART_NUMBERS, ",".join(str(part.number) for part in content.parts)))
    row = _row(bucket, position, summary)
    row |= {
        "version_id": summary.version_id or (None if answered_version in {"", "null"} else answered_version),
        "sha256": content.sha256,
        "md5": content.md5,
        "crc64nvme": f"{content.crc64nvme:016x}",
        "checksums": checksums,
        "headers": s3_headers,
        "metadata": metadata,
        "other": other,
        "tags": list(fetched.tags.items()),
        "lock_mode": headers.get(_LOCK_MODE),
        "lock_until": headers.get(_LOCK_UNTIL),
        "legal_hold": headers.get(_LEGAL_HOLD),
        "part_sizes": [part.size_bytes for part in content.parts],
        "pack": content.pack,
        "offset": content.offset,
        "length": summary.size_bytes,
        "large": content.large,
        "disposition": "exported",
    }
    return row


def losses(fetched: Fetched) -> Iterator[Loss]:
    """Yield what is known to be missing of an object that was read."""
    missing = fetched.headers.get("x-amz-missing-meta")
    if missing is not None:
        yield Loss(
            fetched.summary.name,
            "user metadata",
            f"the server holds {missing} entries that it cannot send as headers",
        )
    if "x-amz-server-side-encryption-customer-algorithm" in fetched.headers:
        yield Loss(
            fetched.summary.name, "encryption", "encrypted with a key of the customer's own: stored in clear"
        )


def marker(bucket: str, position: int, summary: ObjectSummary) -> dict[str, Any]:
    """Return the work row of a delete marker: there is nothing to read of it."""
    return _row(bucket, position, summary) | {"etag": None, "storage_class": None, "disposition": "exported"}


def missing(bucket: str, position: int, summary: ObjectSummary, gap: Gap) -> dict[str, Any]:
    """Return the work row of an object that is not in the bundle."""
    return _row(bucket, position, summary) | {"disposition": gap.disposition, "reason": gap.reason}


def to_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return work rows as a table."""
    columns = list(zip(*map(_VALUES, rows), strict=True)) or [()] * len(WORK)
    columns_of_rows = [pa.array(values, field.type) for values, field in zip(columns, WORK, strict=True)]
    return pa.Table.from_arrays(columns_of_rows, schema=WORK)


def to_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def from_state(data: bytes, name: str) -> pa.Table:
    """Read the Parquet file of this name that an earlier run wrote to a workspace. Raises ``SourceStateError``."""
    with reading_state(name):
        return pq.ParquetFile(io.BytesIO(data)).read()


def to_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a work row as plain JSON; ``from_json`` reads it."""
    return dict(row) | {"last_modified": row["last_modified"].isoformat()}


def from_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Read what ``to_json`` wrote."""
    maps = {name: [(key, value) for key, value in row[name]] for name in _MAPS if row.get(name)}
    return {**_NOTHING, **row, **maps, "last_modified": datetime.fromisoformat(row["last_modified"])}


def _row(bucket: str, position: int, summary: ObjectSummary) -> dict[str, Any]:
    return {
        **_NOTHING,
        "position": position,
        "bucket": bucket,
        "key": summary.key,
        "version_id": summary.version_id or None,
        "is_latest": summary.is_latest,
        "is_delete_marker": summary.is_delete_marker,
        "size": summary.size_bytes,
        "last_modified": summary.modified,
        "etag": summary.etag,
        "storage_class": summary.storage_class,
    }


_Pairs = list[tuple[str, str]]
_CHECKSUMS, _STANDARD, _USER, _OTHER = range(4)


def _as_utf_8(headers: Mapping[str, str], other: _Pairs) -> Mapping[str, str]:
    """Return headers as the index can hold them: what is not UTF-8 as Latin-1, and ``other`` says of which."""
    odd = [name for name, value in headers.items() if not is_utf_8(value)]
    if odd:
        other.append((LATIN_1, ",".join(odd)))
    return {**headers, **{name: latin_1_text(headers[name]) for name in odd}}


def as_came(row: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return the ``headers`` or the ``metadata`` of a row of the index as they came, see ``lossless_text``."""
    pairs, odd = dict(row[kind] or ()), dict(row["other"] or ()).get(LATIN_1)
    if odd is None:
        return pairs
    prefix = _METADATA if kind == "metadata" else ""
    for name in odd.split(","):
        short = name.removeprefix(prefix)
        if name.startswith(prefix) and short in pairs:
            pairs[short] = text_of(pairs[short].encode("latin-1"))
    return pairs


@lru_cache(maxsize=4096)
def _columns_of(headers: tuple[str, ...]) -> list[tuple[int, str] | None]:
    """Return of which kind each header is, and its name there; None for what belongs to the request. Remembered,
    because the objects of a bucket have much the same headers, and there are many objects.
    """
    return [_column_of(header) for header in headers]


def _column_of(header: str) -> tuple[int, str] | None:
    if header in STANDARD_HEADERS:
        return _STANDARD, header
    if not header.startswith("x-amz-") or header in _OF_THE_REQUEST:
        return None
    for kind, prefix in ((_USER, _METADATA), (_CHECKSUMS, _CHECKSUM)):
        if header.startswith(prefix):
            return kind, header.removeprefix(prefix)
    return _OTHER, header
