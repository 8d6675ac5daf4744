"""Move buckets that a suite has filled: by an export and a restore, and by a sync. Compare by MinIO's own SDK."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import minio
import pyarrow.parquet as pq
import urllib3
from minio.error import S3Error
from minio.versioningconfig import VersioningConfig
from minio.xml import marshal

from scripts.outsiders.program import Outcome, Program
from scripts.outsiders.suite import Context, SuiteRow
from scripts.servers import S3Server

_BATCH = 16
"""So many buckets are exported at once."""
_AT_ONCE = 4
_RETRIES = urllib3.Retry(
    6, backoff_factor=0.5, status_forcelist=(500, 503), allowed_methods=None, raise_on_status=False
)
_HEADERS = (
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
    "x-amz-storage-class",
    "x-amz-server-side-encryption",
)
_SAME_AS_NONE = {"x-amz-storage-class": "STANDARD", "x-amz-object-lock-legal-hold": "OFF"}
"""Values that say as much as no header."""
_REQUEST_ENCODING = re.compile(r"(?:^|,)\s*aws-chunked\s*(?=,|$)")
"""An encoding of a request, not of an object: S3 keeps objects without it, some servers with it."""
_SETTINGS: Mapping[str, Callable[[minio.Minio, str], Any]] = {
    "versioning": minio.Minio.get_bucket_versioning,
    "policy": minio.Minio.get_bucket_policy,
    "tagging": minio.Minio.get_bucket_tags,
    "lifecycle": minio.Minio.get_bucket_lifecycle,
    "encryption": minio.Minio.get_bucket_encryption,
    "object-lock": minio.Minio.get_object_lock_config,
}
"""The settings of a bucket that a MinIO keeps, by moveout's names of them."""
_NOT_SET = re.compile("NoSuch(?!Bucket$).*|.*NotFoundError")
Contents = Mapping[str, Sequence[tuple[Any, ...]]]
"""Of each key its versions, oldest first, with all that the SDK says of them."""


def client_of(server: S3Server) -> minio.Minio:
    """Return MinIO's client of a server. It tries again where a busy machine keeps the server from its drive."""
    url = urlsplit(server.endpoint)
    return minio.Minio(
        url.netloc,
        access_key=server.access_key,
        secret_key=server.secret_key,
        secure=url.scheme == "https",
        region="us-east-1",
        http_client=urllib3.PoolManager(
            retries=_RETRIES, maxsize=_AT_ONCE, ca_certs=str(server.ca_bundle) if server.ca_bundle else None
        ),
    )


def read_contents(client: minio.Minio, bucket: str) -> Contents:
    """Read every version of every object of a bucket."""
    listed = [
        version
        for version in client.list_objects(bucket, recursive=True, include_version=True)
        if not str(version.object_name).startswith((".moveout-sync/", ".moveout-restore/"))
    ]
    contents: dict[str, list[tuple[Any, ...]]] = {}
    with ThreadPoolExecutor(_AT_ONCE) as executor:
        for version, content in zip(
            listed, executor.map(lambda version: _read(client, bucket, version), listed), strict=True
        ):
            contents.setdefault(str(version.object_name), []).insert(0, content)
    return contents


def _read(client: minio.Minio, bucket: str, listed_version: Any) -> tuple[Any, ...]:
    if listed_version.is_delete_marker:
        return ("delete marker",)
    version = None if listed_version.version_id in {None, "null"} else listed_version.version_id
    response = None
    try:
        response = client.get_object(bucket, listed_version.object_name, version_id=version)
        digest = hashlib.sha256(response.read(decode_content=False)).hexdigest()
        headers = {name.lower(): value for name, value in response.headers.items()}
        tags: Mapping[str, str] = (
            client.get_object_tags(bucket, listed_version.object_name, version_id=version) or {}
        )
    except S3Error as error:
        return ("unreadable", error.code)
    except ValueError:  # the client asks for no key of blanks
        return ("only listed", listed_version.size, listed_version.etag)
    finally:
        if response is not None:
            response.close()
            response.release_conn()
    kept_headers = {
        name: header_value
        for name, header_value in headers.items()
        if name in _HEADERS or name.startswith("x-amz-meta-")
    }
    encoding = _REQUEST_ENCODING.sub("", kept_headers.pop("content-encoding", "")).lstrip(", ")
    if encoding:
        kept_headers["content-encoding"] = encoding
    for name, default in _SAME_AS_NONE.items():
        if kept_headers.get(name) == default:
            del kept_headers[name]
    return (
        listed_version.size,
        digest,
        listed_version.etag,
        sorted(kept_headers.items()),
        sorted(tags.items()),
    )


def read_settings(client: minio.Minio, bucket: str) -> Mapping[str, str]:
    """Read the settings of a bucket that are set, as text that does not name the bucket."""
    settings: dict[str, str] = {}
    for name, read in _SETTINGS.items():
        try:
            text = _text(read(client, bucket))
        except S3Error as error:
            text = "" if _NOT_SET.fullmatch(error.code or "") else f"unreadable: {error.code}"
        if text:
            settings[name] = re.sub(
                f"arn:aws:s3:::{re.escape(bucket)}(?![\\w.-])", "arn:aws:s3:::BUCKET", text
            )
    return settings


def _text(value: Any) -> str:
    """Return a setting of the SDK as text; empty where it is not set."""
    if isinstance(value, VersioningConfig):
        return "" if value.status == "Off" else str(value.status)
    if isinstance(value, str):
        return json.dumps(_ordered(json.loads(value)), sort_keys=True)
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True)
    return marshal(value).decode() if value else ""


def _ordered(value: Any) -> Any:
    """Return the lists of a policy in order: a MinIO gives them in any."""
    if isinstance(value, dict):
        return {name: _ordered(item) for name, item in value.items()}
    return sorted(map(_ordered, value), key=json.dumps) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class BucketMove:
    """From one server to another one."""

    context: Context
    source: S3Server
    destination: S3Server

    def run(self, buckets: Sequence[str]) -> Iterator[SuiteRow]:
        """Move buckets; yield a row for each batch."""
        program = Program.for_servers(self.context.servers, self.context.scratch / "move")
        before = {name: read_contents(client_of(self.source), name) for name in buckets}
        filled = [name for name in buckets if before[name] or read_settings(client_of(self.source), name)]
        for start in range(0, len(filled), _BATCH):
            if self.context.out_of_time:
                yield SuiteRow("other buckets", skipped="the time is used up")
                return
            batch = {name: before[name] for name in filled[start : start + _BATCH]}
            yield self._export(program, batch, start)
            yield self._sync(program, batch, start)

    def _export(self, program: Program, batch: Mapping[str, Contents], start: int) -> SuiteRow:
        row = SuiteRow(f"buckets {start + 1} to {start + len(batch)}: export, restore")
        bundle, account = self.context.scratch / f"bundle-{start}", self.context.scratch / f"account-{start}"
        destinations = {name: self._make_destination(name, "r") for name in batch}
        sources = [f"{source_name(name)}={_url(self.source, name)}" for name in batch]
        outcomes = [program.run("export", *sources, "--to", str(bundle))]
        if outcomes[0].finished:
            ends = [
                f"{source_name(name)}={_url(self.destination, bucket_name)}"
                for name, bucket_name in destinations.items()
            ]
            outcomes.append(program.run("restore", str(bundle), *ends, "--report-to", str(account)))
        row.errors += [outcome.failure for outcome in outcomes if not outcome.finished]
        if row.errors:
            return row
        reported = _Said(outcomes)
        reported.read(bundle / "data/losses.parquet", bundle / "data/gaps.parquet")
        reported.read(*account.rglob("losses.parquet"))
        self._compare(row, batch, destinations, reported)
        return row

    def _sync(self, program: Program, batch: Mapping[str, Contents], start: int) -> SuiteRow:
        row = SuiteRow(f"buckets {start + 1} to {start + len(batch)}: sync")
        for name, contents in batch.items():
            destination, record = self._make_destination(name, "s"), self.context.scratch / "records" / name
            arguments = [
                f"old={_url(self.source, name)}",
                f"new={_url(self.destination, destination)}",
                "--record",
                str(record),
            ]
            history = client_of(self.source).get_bucket_versioning(name).status in {"Enabled", "Suspended"}
            outcome = program.run("sync", *arguments, *(["--history"] if history else []))
            if not outcome.finished:
                row.errors.append(f"{name}: {outcome.failure}")
                continue
            reported = _Said([outcome])
            reported.read(record / "losses.parquet", record / "gaps.parquet")
            self._compare(row, {name: contents}, {name: destination}, reported)
        return row

    def _make_destination(self, name: str, kind: str) -> str:
        """Make a bucket at the destination, with object lock if the source's has it."""
        bucket_name, client = f"{kind}-{name}"[:63].rstrip("-."), client_of(self.destination)
        try:
            client_of(self.source).get_object_lock_config(name)
            locks = True
        except S3Error:
            locks = False
        client.make_bucket(bucket_name, object_lock=locks)
        return bucket_name

    def _compare(
        self, row: SuiteRow, batch: Mapping[str, Contents], destinations: Mapping[str, str], reported: _Said
    ) -> None:
        for name, source_contents in batch.items():
            self._compare_settings(row, name, destinations[name], reported)
            destination_contents = read_contents(client_of(self.destination), destinations[name])
            for key in sorted({*source_contents, *destination_contents}):
                row.moved += 1
                source_versions, destination_versions = (
                    source_contents.get(key, ()),
                    destination_contents.get(key, ()),
                )
                reasons = reported.about(name, key)
                if list(source_versions) == list(destination_versions):
                    row.equal += 1
                elif explains(reasons, source_versions, destination_versions):
                    row.losses.append(f"{name}/{key}: {reasons[0]}")
                else:
                    row.unreported.append(
                        f"{name}/{key!r}: {_difference(source_versions, destination_versions)}"
                    )

    def _compare_settings(self, row: SuiteRow, bucket: str, destination: str, reported: _Said) -> None:
        source_settings = read_settings(client_of(self.source), bucket)
        destination_settings = read_settings(client_of(self.destination), destination)
        for name in sorted({*source_settings, *destination_settings}):
            row.moved += 1
            pair = source_settings.get(name, ""), destination_settings.get(name, "")
            if pair[0] == pair[1]:
                row.equal += 1
            elif reason := reported.about_setting(bucket, name):
                row.losses.append(f"{bucket}, {name}: {reason}")
            else:
                row.unreported.append(f"{bucket}, {name}: {pair[0]} / {pair[1]}"[:600])


class _Said:
    """What moveout reported of its commands: losses and gaps by the item."""

    def __init__(self, outcomes: Iterable[Outcome]) -> None:
        self._rows: list[tuple[str, str, str]] = []
        """Source, item, reason."""
        self._lines: list[str] = []
        for outcome in outcomes:
            for restored in outcome.report.get("restored", []):
                self._lines += [*restored.get("findings", []), *restored.get("left_out", [])]

    def read(self, *ledgers: Path) -> None:
        """Take in losses and gaps."""
        for ledger in ledgers:
            if ledger.exists():
                for ledger_row in pq.read_table(ledger).to_pylist():
                    reason = f"{ledger_row.get('property') or ledger_row.get('disposition')}: {ledger_row['reason']}"
                    self._rows.append((ledger_row["source"], ledger_row["item"], reason))

    def about(self, bucket: str, key: str) -> Sequence[str]:
        """Return what was reported of an object, or of its bucket's versions."""
        lines = [line for line in self._lines if line.startswith((f"{key}:", f"{key} ", repr(key)))]
        reasons = [
            reason
            for source, item, reason in self._rows
            if source in {source_name(bucket), "old"}
            and (item in {key, repr(key)} or item.startswith((f"{key} (version ", f"{key!r} (version ")))
        ]
        return [*lines, *reasons, *self._about_bucket(bucket, "versions")]

    def about_setting(self, bucket: str, name: str) -> str:
        """Return what was reported of a bucket's setting; empty where nothing was."""
        return next(iter(self._about_bucket(bucket, f"bucket {name}:")), "")

    def _about_bucket(self, bucket: str, start: str) -> Sequence[str]:
        names = {bucket, source_name(bucket), f"r-{bucket}", f"s-{bucket}"}
        return [reason for _, item, reason in self._rows if item in names and reason.startswith(start)]


def explains(
    reasons: Sequence[str],
    source_versions: Sequence[tuple[Any, ...]],
    destination_versions: Sequence[tuple[Any, ...]],
) -> bool:
    """Tell whether what was reported explains a difference: a lost ETag explains no other one."""
    if not all(reason.startswith("ETag:") for reason in reasons):
        return True
    return bool(reasons) and [_without_etag(version) for version in source_versions] == [
        _without_etag(version) for version in destination_versions
    ]


def _without_etag(version: tuple[Any, ...]) -> tuple[Any, ...]:
    return version[:2] + version[3:]


def _difference(
    source_versions: Sequence[tuple[Any, ...]], destination_versions: Sequence[tuple[Any, ...]]
) -> str:
    if len(source_versions) != len(destination_versions):
        return f"{len(source_versions)} versions, at the destination {len(destination_versions)}"
    pair = next(
        pair for pair in zip(source_versions, destination_versions, strict=True) if pair[0] != pair[1]
    )
    return f"{pair[0]} / {pair[1]}"[:600]


def source_name(bucket: str) -> str:
    """Return what a bucket is called as a source: names of sources have no dots, names of buckets no underscores."""
    return bucket.replace(".", "_")


def _url(server: S3Server, bucket: str) -> str:
    return f"s3://{bucket}?profile={server.profile}"


def buckets_of(server: S3Server) -> list[str]:
    """Return the names of a server's buckets."""
    return sorted(bucket.name for bucket in client_of(server).list_buckets())
