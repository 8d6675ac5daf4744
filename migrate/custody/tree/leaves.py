"""The leaves of a bundle's tree: every row of an object index, every part of a table, each as JSON.

Order: sources as ``meta/bundle.json`` has them; of each the rows of its index, then the parts as the catalog has them.
A leaf has a salt of 16 bytes, so that nobody guesses from its hash what he was not shown.

The JSON is as short as it can be, since a proof has to carry it whole. Members are sorted, there are no spaces, and the
text is UTF-8: only what JSON must escape is escaped (RFC 8259, section 7). A key whose JSON would be longer than its
base64 stands as ``key_base64``: no key takes more than 4/3 of its bytes.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring as _quoted
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError

if TYPE_CHECKING:
    import pyarrow as pa

Item = dict[str, Any]
"""An object, or a part of a table, as its leaf has it."""
_MEMBERS = {
    "object": {
        "bucket", "disposition", "etag", "key", "last_modified", "reason", "sha256", "size", "source", "version_id",
    },
    "part": {"file", "rows", "schema", "sha256", "source", "table"},
}  # fmt: skip
"""What an item of each kind has, next to its kind."""

_KEY, _KEY_BASE64 = "key", "key_base64"

SEED_BYTES = 32
_SALT = 16
_COLUMNS = [
    "bucket", "disposition", "etag", "key", "last_modified", "reason", "sha256", "size", "version_id",
]  # fmt: skip


def salt(seed: bytes, index: int) -> str:
    """Return the salt of leaf ``index``, in hex: no salt tells anything of another."""
    return hmac.digest(seed, index.to_bytes(8, "big"), "sha256")[:_SALT].hex()


def leaf_batches(reader: BundleReader, seed: bytes) -> Iterator[list[bytes]]:
    """Yield all leaves in order, some thousands at a time. Raises ``DamageError``."""
    index = 0
    for batch in unsalted(reader):
        yield salted(batch, seed, index)
        index += len(batch)


def salted(batch: Sequence[str], seed: bytes, first: int) -> list[bytes]:
    """Put the salts into leaves, of which the first has the number ``first``."""
    return [with_salt(text, salt(seed, number)) for number, text in enumerate(batch, first)]


def unsalted(reader: BundleReader) -> Iterator[list[str]]:
    """Yield the items of the leaves as JSON, in order. Raises ``DamageError``."""
    hashes: dict[str, str] | None = None
    catalog = reader.catalog()
    for source in reader.info.sources:
        if any(row.source == source.name and row.kind == "bucket" for row in catalog):
            for batch in reader.index(source.name, columns=_COLUMNS):
                yield objects(batch, source.name)
        for row in catalog:
            if row.source == source.name and row.has_rows:
                hashes = part_hashes(reader, catalog) if hashes is None else hashes
                yield [_item(row, part, hashes) for part in parts(row)]


def objects(batch: pa.RecordBatch, source: str) -> list[str]:
    """Return the items of rows of an index as JSON. Raises ``DamageError``."""
    import pyarrow as pa  # noqa: PLC0415  a third of a second of a start, and few commands read an index

    try:
        columns = [_column(name, batch.column(name)) for name in _COLUMNS]
    except (KeyError, TypeError, UnicodeDecodeError, pa.ArrowException) as exc:
        raise DamageError(
            layout.source_file(source, "index/"), expected=f"the columns {_COLUMNS}", found=str(exc)
        ) from exc
    tail = _quoted(source)
    return [
        f'{{"bucket":{bucket},"disposition":{disposition},"etag":{etag},{key},"kind":"object",'
        f'"last_modified":{modified},"reason":{reason},"sha256":{digest},"size":{size},"source":{tail},'
        f'"version_id":{version}}}'
        for bucket, disposition, etag, key, modified, reason, digest, size, version in zip(
            *columns, strict=True
        )
    ]


def _column(name: str, column: pa.Array) -> list[Any]:
    """Return a column as JSON texts; of keys with their names."""
    import pyarrow as pa  # noqa: PLC0415  see above
    import pyarrow.compute as pc  # noqa: PLC0415

    if pa.types.is_timestamp(column.type):
        column = pc.strftime(column.cast(pa.timestamp("us")), format="%Y-%m-%dT%H:%M:%SZ")
    if name == "key":
        return [key_field(key) for key in column.to_pylist()]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return ["null" if value is None else _quoted(value) for value in column.to_pylist()]
    if not pa.types.is_integer(column.type):
        raise pa.ArrowTypeError(f"a column of type {column.type}")
    return ["null" if value is None else value for value in column.to_pylist()]


class LeafPart(Struct, frozen=True):
    """A file of a table, and how many rows it has."""

    key: str
    rows: int


def parts(row: CatalogRow) -> list[LeafPart]:
    """Return the parts of a table by the catalog. Raises ``DamageError``."""
    part_values = row.details.get("parts", [])
    try:
        return [
            LeafPart(layout.source_file(row.source, str(part_value["name"])), int(part_value["rows"]))
            for part_value in part_values
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise DamageError(
            layout.CATALOG, expected=f"parts of {row.name}", found=repr(part_values)[:200]
        ) from exc


def part_hashes(reader: BundleReader, catalog: Sequence[CatalogRow]) -> dict[str, str]:
    """Return the SHA-256 of every part of a table that is in the manifest, by key. Raises ``DamageError``."""
    keys = {part.key for row in catalog if row.has_rows for part in parts(row)}
    return {file.key: file.sha256 for file in reader.files() if file.key in keys}


def _item(row: CatalogRow, part: LeafPart, hashes: dict[str, str]) -> str:
    if part.key not in hashes:
        raise DamageError(
            layout.CATALOG, expected=f"parts of {row.name} that are in the manifest", found=part.key
        )
    return _encoded(
        {
            "file": part.key,
            "kind": "part",
            "rows": part.rows,
            "schema": row.schema,
            "sha256": hashes[part.key],
            "source": row.source,
            "table": row.name,
        }
    )


def _encoded(item: dict[str, Any]) -> str:
    """Return an item that has no key as JSON."""
    return json.dumps(item, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_field(key: str) -> str:
    """Return a key as the member of an item that it is: name, colon, value."""
    text = _quoted(key)
    escapes = len(text) - 2 - len(key)
    if escapes:
        data = key.encode(errors="surrogatepass")  # a key that somebody asks for, and no bundle has
        if len(data) + escapes > -(-len(data) // 3) * 4:
            return f'"{_KEY_BASE64}":"{base64.b64encode(data).decode()}"'
    return f'"{_KEY}":{text}'


def with_salt(item: str, salt: str) -> bytes:
    """Return the leaf of an item, given as JSON."""
    return f'{{"item":{item},"salt":"{salt}"}}'.encode()


def item_of(leaf: bytes) -> Item:
    """Return the item that a leaf shows. Raises ``ValueError``."""
    try:
        value = json.loads(leaf)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    return _plain(value.get("item") if isinstance(value, dict) else None)


def decode(item: str) -> Item:
    """Return an item, given as JSON, with its key as text. Raises ``ValueError``."""
    return _plain(json.loads(item))


def _plain(item: Any) -> Item:
    if not isinstance(item, dict) or {_KEY, _KEY_BASE64} <= item.keys():
        raise ValueError("a leaf that names no item, or two")
    plain: Item = item
    if _KEY_BASE64 in plain:
        plain = {**plain, _KEY: base64.b64decode(str(plain[_KEY_BASE64]), validate=True).decode()}
    kind = plain.get("kind")
    if not isinstance(kind, str) or not _MEMBERS.get(kind, {"kind of item"}) <= plain.keys():
        raise ValueError("a leaf that lacks what an object or a part has")
    return plain


def describe(item: Item) -> str:
    """Return an item for people. A key may have lines and marks in it that a terminal would obey."""
    if item["kind"] == "part":
        return f"{item['file']}, {item['rows']} rows of {item['table']}, SHA-256 {item['sha256']}"
    state = (
        f"SHA-256 {item['sha256']}"
        if item["disposition"] == "exported"
        else f"{item['disposition']}: {item['reason']}"
    )
    return f"{item['bucket']}/{item['key']}, {item['size']} bytes, {state}"
