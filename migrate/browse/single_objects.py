"""Reads single objects of a bundle: only those groups of rows of the index that can hold what is looked for, and only
the object's own bytes of a pack.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from msgspec import Struct, field

from exporters import arrow_functions as pc
from exporters.objects.pax_headers import GENERATED, member_name
from exporters.selection import glob
from exporters.sql.bounded_parquet import RowGroup
from migrate.bundle.object_index import ObjectRow, row_of, source_prefix
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError, GoneError, NotEmptyError
from migrate.runtime.crash_points import durable
from migrate.storage.api import Store
from migrate.storage.local.errors import translate_os

PIECE_BYTES = 8 * 2**20
_LITERAL = re.compile(r"[^*?\[]*")


class ObjectQuery(Struct, frozen=True):
    """Which objects are looked for: these keys, or those that match one of ``globs``; with neither, all. Keys are
    relative to the prefix that was exported. ``begins``: only keys that begin so. ``versions``: also older ones and
    delete markers, or only the version of this id.
    """

    keys: Collection[str] = ()
    globs: tuple[str, ...] = ()
    begins: str = ""
    versions: bool = False
    version_id: str = ""

    def may_be_within(self, first: str, last: str, prefix: str) -> bool:
        """Tell whether keys from ``first`` to ``last``, with the prefix, can be among them."""
        if self.keys:
            return any(first <= prefix + key <= last for key in self.keys)
        begins = [prefix + _begin(pattern) for pattern in self.globs] or [prefix + self.begins]
        return any(first[: len(begin)] <= begin <= last for begin in begins)

    def has(self, row: ObjectRow) -> bool:
        """Tell whether a row is among them."""
        if self.version_id and row.version_id != self.version_id:
            return False
        if not self.version_id and not self.versions and (row.is_delete_marker or not row.is_latest):
            return False
        if self.keys:
            return row.key in self.keys
        if not row.key.startswith(self.begins):
            return False
        return not self.globs or any(glob(pattern).match(row.key) for pattern in self.globs)


def _begin(pattern: str) -> str:
    """Return what every key that matches a glob begins with."""
    return _LITERAL.match(pattern)[0] if "/" in pattern else ""  # type: ignore[index]


def find(reader: BundleReader, source: str, query: ObjectQuery) -> Iterator[ObjectRow]:
    """Yield the objects that are looked for, in the order of the index. Raises ``DamageError``."""
    prefix = source_prefix(reader, source)
    for batch in _groups(reader, source, query, prefix):
        rows = pc.filter(batch, pc.equal(batch["disposition"], "exported"))
        if query.keys:
            keys = pa.array([prefix + key for key in query.keys], pa.string())
            rows = pc.filter(rows, pc.is_in(rows["key"], keys))
        for row in map(row_of(prefix, source), rows.to_pylist()):
            if query.has(row):
                yield row


def _groups(reader: BundleReader, source: str, query: ObjectQuery, prefix: str) -> Iterator[pa.RecordBatch]:
    def may_hold(group: RowGroup) -> bool:
        ends = group.ends("key")
        return ends is None or query.may_be_within(*ends, prefix)

    return reader.index(source, chosen=may_hold)


class Fetched(Struct):
    """What was written: files by key, and keys that are not in the bundle. ``matched``: how many keys were meant.
    ``kept``: how many files were there already, with the same bytes.
    """

    matched: int = 0
    kept: int = 0
    files: dict[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    missing: list[str] = field(default_factory=list)


def fetch(
    reader: BundleReader, source: str, query: ObjectQuery, to: Path, *, known: Mapping[str, str] = {}
) -> Fetched:
    """Write objects as files below a directory, under their keys where those are safe file names (else under a hash of
    the key, or that of a directory, or of another object: to some disks "A" and "a" are one). Those of ``known`` names
    were written before, to these files; a file with the object's bytes is kept. Raises ``NotEmptyError`` for another
    file that is there, ``DamageError`` for bytes that are not those of the index; nothing of such a file remains.
    """
    fetched = Fetched()
    matched_keys, own_files = set(), {_file_of(Path(file)) for file in known.values()}
    for row in find(reader, source, query):
        matched_keys.add(row.key)
        if row.is_delete_marker or row.name in known:
            continue
        path = to / member_name(row.key, "" if row.is_latest else row.version_id)
        is_taken = path.is_dir() or _file_of(path) in own_files
        if is_taken or any(parent.is_file() for parent in path.parents):  # keys may be "a" and "a/b"
            path = to / (GENERATED + hashlib.sha256(row.name.encode()).hexdigest())
        if _holds(path, row):
            fetched.kept += 1
        else:
            _write_file(reader.store, row, path)
        own_files.add(_file_of(path))
        fetched.files[row.name] = str(path)
        fetched.size_bytes += row.size_bytes
    fetched.matched = len(matched_keys)
    fetched.missing = sorted(set(query.keys) - matched_keys)
    return fetched


def _file_of(path: Path) -> tuple[int, int]:
    """Return what tells a file from all others, whatever its name; (0, 0) where there is none."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def _holds(path: Path, row: ObjectRow) -> bool:
    """Tell whether a file has the bytes of an object. Raises ``NotEmptyError`` where it has others."""
    try:
        if not path.exists():
            return False
        if path.stat().st_size == row.size_bytes:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == row.sha256:
                    return True
    except OSError as exc:
        raise translate_os(exc, path) from exc
    raise NotEmptyError(
        f"{path} exists already, and is not what the bundle has",
        next_step="name another directory with --to",
    )


def half_written(path: Path) -> Path:
    """Return where a file lies until it is whole: next to it, by a name that no file system finds too long."""
    return path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}.moveout")


def _write_file(store: Store, row: ObjectRow, path: Path) -> None:
    half = half_written(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            half.unlink(missing_ok=True)
            with half.open("xb") as file:  # through no link that somebody else has put there
                copy(store, row, file)
            with durable("get.file"):
                half.rename(path)
        finally:
            half.unlink(missing_ok=True)
    except OSError as exc:
        raise translate_os(exc, path) from exc


def copy(store: Store, row: ObjectRow, file: BinaryIO) -> None:
    """Write an object's bytes, piece by piece. Raises ``DamageError`` where they are not those of the index: what was
    written by then is of no use.
    """
    digest = hashlib.sha256()
    for start in range(0, row.size_bytes, PIECE_BYTES):
        length = min(PIECE_BYTES, row.size_bytes - start)
        try:
            piece = store.read(row.file, row.offset + start, length)
        except GoneError as exc:
            raise DamageError(row.file, expected="a file", found="none") from exc
        digest.update(piece)
        file.write(piece)
    if digest.hexdigest() != row.sha256:
        raise DamageError(row.file, expected=f"SHA-256 {row.sha256} of {row.key!r}", found=digest.hexdigest())


def as_json(row: ObjectRow) -> dict[str, Any]:
    """Return an object as it is shown."""
    return {
        "key": row.key,
        "size_bytes": row.size_bytes,
        "modified": row.modified.isoformat() if row.modified else None,
        "version_id": row.version_id or None,
        "is_latest": row.is_latest,
        "is_delete_marker": row.is_delete_marker,
        "sha256": row.sha256 or None,
        "headers": row.headers,
        "metadata": row.metadata,
        "tags": row.tags,
        "file": row.file or None,
        "offset": row.offset,
    }


def is_bucket(reader: BundleReader, source: str) -> bool:
    """Tell whether a source is a bucket. Raises ``UsageError`` where it is none of the bundle's."""
    reader.info.source(source)
    return any(row.source == source and row.kind == "bucket" for row in reader.catalog())
