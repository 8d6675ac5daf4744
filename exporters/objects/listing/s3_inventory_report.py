"""An S3 Inventory: the host's own report, apart from any listing, of what a bucket held at some moment.

Amazon S3 user guide, "Amazon S3 Inventory" and "Locating your inventory list": ``manifest.json`` names the files of one
report, each with its MD5. In CSV (gzip, no line of names) keys are URL-encoded, in Parquet they are not.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import unquote_plus, urlsplit

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from msgspec import Struct

from exporters.bucket_api import Bucket, ObjectSummary
from exporters.errors import SourceDamagedError, SourceGoneError, SourceUsageError
from exporters.objects.changed_objects import current
from exporters.sql.parquet_read import READ_ERRORS
from exporters.sql.whole_parquet import whole_batches

_BLOCK_BYTES = 8 * 2**20
_WINDOW_BYTES = 4 * _BLOCK_BYTES
_BATCH_ROWS = 20_000
_KEY, _VERSION, _LATEST, _MARKER, _ETAG = "key", "version_id", "is_latest", "is_delete_marker", "e_tag"
_CSV_NAMES = {
    "Key": _KEY,
    "VersionId": _VERSION,
    "IsLatest": _LATEST,
    "IsDeleteMarker": _MARKER,
    "ETag": _ETAG,
}
_FIELD = re.compile(r"(?:required|optional)\s+\w+\s+(\w+)")

OpenBucket = Callable[[str], Bucket]


class ReportFile(Struct, frozen=True):
    """One file of a report: its key in the bucket that reports are delivered to, and its MD5 as 32 hex digits."""

    key: str
    md5: str


class Row(Struct, frozen=True):
    """An object, version or delete marker that the report names. ``version`` is ``null`` where it has none, and empty
    where the report does not list versions.
    """

    key: str
    version: str
    is_latest: bool
    is_delete_marker: bool
    etag: str


class Report(Struct, frozen=True):
    """A report as its manifest describes it. ``columns`` are names as in Parquet, those of CSV translated."""

    url: str
    bucket: str
    created: datetime
    kind: Literal["CSV", "Parquet"]
    columns: Sequence[str]
    files: Sequence[ReportFile]

    @property
    def has_versions(self) -> bool:
        """Whether it names all versions, not only the current ones."""
        return _VERSION in self.columns


def parse(data: bytes, url: str) -> Report:
    """Parse a manifest. Raises ``SourceUsageError``."""
    try:
        value = json.loads(data)
        kind, schema = value["fileFormat"], value["fileSchema"]
        if kind not in {"CSV", "Parquet"}:
            raise SourceUsageError(
                f"{url}: an inventory in {kind} cannot be read", next_step="ask for CSV or Parquet"
            )
        columns = _csv_columns(schema) if kind == "CSV" else _FIELD.findall(schema)
        files = [ReportFile(str(file["key"]), str(file["MD5checksum"])) for file in value["files"]]
        created = datetime.fromtimestamp(int(value["creationTimestamp"]) / 1000, UTC)
        report = Report(url, str(value["sourceBucket"]), created, kind, columns, files)
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError) as exc:
        raise SourceUsageError(
            f"{url} is not a manifest of an S3 Inventory: {exc!r}",
            next_step="give the report's manifest.json",
        ) from exc
    if _KEY not in columns:
        raise SourceUsageError(f"{url} names no column with keys")
    return report


def _csv_columns(schema: str) -> list[str]:
    return [_CSV_NAMES.get(name.strip(), name.strip()) for name in schema.split(",")]


class Files:
    """Where a report lies: in a bucket, or in a directory that was copied from one."""

    def __init__(self, url: str, open_bucket: OpenBucket) -> None:
        self._url = url
        self._bucket: Bucket | None = None
        if url.startswith("s3://"):
            parts = urlsplit(url)
            self._bucket = open_bucket(f"s3://{parts.netloc}" + (f"?{parts.query}" if parts.query else ""))
            self._key = parts.path.lstrip("/")

    def manifest(self) -> Report:
        """Read the manifest. Raises ``SourceError``."""
        if self._bucket is None:
            try:
                return parse(Path(self._url).read_bytes(), self._url)
            except OSError as exc:
                raise SourceGoneError(f"the inventory {self._url} cannot be read: {exc.strerror}") from exc
        with self._fetched(self._key) as file:
            return parse(file.read(), self._url)

    @contextmanager
    def open(self, file: ReportFile) -> Iterator[IO[bytes]]:
        """Lend a file of the report, on disk. Raises ``SourceError``, among them for one that is not what it was."""
        opened = self._fetched(file.key) if self._bucket is not None else self._local(file.key).open("rb")
        with opened as stream:
            md5 = _md5(stream)
            if md5 != file.md5:
                raise SourceDamagedError(
                    f"{self._url}: {file.key} has MD5 {md5}, the manifest says {file.md5}"
                )
            stream.seek(0)
            yield stream

    @contextmanager
    def _fetched(self, key: str) -> Iterator[IO[bytes]]:
        assert self._bucket is not None
        fetched = current(self._bucket, ObjectSummary(key, 0, "", datetime.now(UTC)))
        if fetched.error is not None:
            raise fetched.error
        with tempfile.TemporaryFile() as file:
            for block in self._bucket.stream(
                fetched.summary, part_bytes=_BLOCK_BYTES, window_bytes=_WINDOW_BYTES
            ):
                file.write(block)
            file.seek(0)
            yield file

    def _local(self, key: str) -> Path:
        """Find a file near the manifest: by its whole key from some directory above, or by its name."""
        manifest = Path(self._url).absolute()
        name = Path(key).name
        above = [parent / key for parent in manifest.parents]
        for path in (*above, manifest.parent / name, manifest.parent.parent / "data" / name):
            if path.is_file():
                return path
        raise SourceGoneError(
            f"{self._url}: its file {key} is not next to it", next_step="copy the data files, too"
        )


def _md5(stream: IO[bytes]) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    while block := stream.read(_BLOCK_BYTES):
        md5.update(block)
    return md5.hexdigest()


def rows(report: Report, files: Files) -> Iterator[Row]:
    """Yield what the report names, in the order of its files. Raises ``SourceError``."""
    for file in report.files:
        with files.open(file) as stream:
            try:
                for batch in _csv(stream, report) if report.kind == "CSV" else _parquet(stream, report):
                    yield from _rows(batch, encoded=report.kind == "CSV")
            except READ_ERRORS as exc:
                raise SourceDamagedError(
                    f"{report.url}: {file.key} has the right MD5 and cannot be read as {report.kind}: {exc}",
                    next_step="give another report",
                ) from exc


def _csv(stream: IO[bytes], report: Report) -> Iterator[pa.RecordBatch]:
    yield from pacsv.open_csv(
        pa.CompressedInputStream(stream, "gzip"),
        read_options=pacsv.ReadOptions(column_names=report.columns),
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(report.columns, pa.string()), include_columns=_needed_columns(report)
        ),
    )


def _parquet(stream: IO[bytes], report: Report) -> Iterator[pa.RecordBatch]:
    yield from whole_batches(pq.ParquetFile(stream), _BATCH_ROWS, columns=_needed_columns(report))


def _needed_columns(report: Report) -> list[str]:
    return [name for name in (_KEY, _VERSION, _LATEST, _MARKER, _ETAG) if name in report.columns]


def _rows(batch: pa.RecordBatch, *, encoded: bool) -> Iterator[Row]:
    count = batch.num_rows
    values: dict[str, list[Any]] = {name: batch[name].to_pylist() for name in batch.schema.names}
    versions = values.get(_VERSION)
    keys = map(_decoded, values[_KEY]) if encoded else values[_KEY]
    for key, version, latest, marker, etag in zip(
        keys,
        [""] * count if versions is None else [version or "null" for version in versions],
        map(_flag, values.get(_LATEST, ["true"] * count)),
        map(_flag, values.get(_MARKER, ["false"] * count)),
        values.get(_ETAG, [""] * count),
        strict=True,
    ):
        yield Row(key, version, latest, marker, (etag or "").strip('"'))


def _decoded(key: str) -> str:
    return unquote_plus(key, errors="surrogateescape")


def _flag(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")
