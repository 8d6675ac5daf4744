"""Examines a bucket as a source: which calls of the export these credentials may not make, and the policy that allows
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions as boto_errors
from msgspec import Struct

from exporters.doctor import (
    Examination,
    ExamineRequest,
    Finding,
    Fix,
    clock_finding,
    clock_skew,
    clock_words,
    count_words,
    gather,
)
from exporters.host_address import is_local
from exporters.objects import bucket_survey
from exporters.tls import Certificate, ask_certificate, certificate_findings, clear_text, tls_facts
from migrate.doctor import iam
from migrate.errors import MoveoutError, NotAllowedError
from migrate.storage.s3.client import S3Location, parse
from migrate.storage.s3.errors import as_source_errors, translate
from migrate.storage.s3.metadata.bucket_configuration import read_configuration
from migrate.storage.s3.source_bucket import S3Bucket

_SURVEY_SECONDS = 8.0
_NOT_EXPORTED = "They are not exported."


class _ExaminedBucket(Struct, frozen=True):
    request: ExamineRequest
    location: S3Location
    bucket: S3Bucket
    sample: Mapping[str, Any]
    """``Key`` of the first object; empty where the bucket is."""

    @property
    def server(self) -> str:
        return server_of(self.location, self.bucket)

    @property
    def is_minio(self) -> bool:
        return self.bucket.server.lower().startswith("minio")

    def refused(self, operation: str, **arguments: Any) -> bool:
        """Tell whether these credentials may not make a call. Raises ``MoveoutError`` where there is no answer."""
        try:
            getattr(self.bucket.boto, operation)(Bucket=self.location.bucket, **arguments)
        except (boto_errors.ClientError, boto_errors.BotoCoreError, OSError) as exc:
            error = translate(exc, f"{self.location.bucket}: {operation}")
            if isinstance(error, NotAllowedError):
                return True
            if not isinstance(exc, boto_errors.ClientError):
                raise error from exc
        return False


def examine(request: ExamineRequest) -> Examination:
    """Examine a source. See ``exporters.doctor.Examine``."""
    location = parse(request.url, secrets=request.secrets)
    bucket = S3Bucket(location)
    skew = server_clock_skew(bucket)
    server = server_of(location, bucket)
    try:
        bucket.check()
    except NotAllowedError as exc:
        fix = iam.fix_of(exc, iam.on_bucket(location, server, "ListBucket"))
        consequence = "Nothing of the bucket is exported."
        finding = Finding("blocks", "rights", location.bucket, str(exc), consequence, fix)
        words = {"server": server_words(bucket), "rights": "refused", "clock": clock_words(skew)}
        return Examination(words, [finding], error=exc)
    source = _ExaminedBucket(request, location, bucket, _sample(bucket))
    certificate = certificate_of(bucket)
    versions: dict[str, bool | None] = {}
    survey: dict[str, Any] = {}
    checks = [
        ("TLS", tls_findings(bucket, certificate, server, request.deadline)),
        ("clock", clock_finding(server, skew, server)),
        ("rights", _versions(source, versions)),
        ("rights", _objects(source, versions)),
        ("rights", _settings(source)),
        ("contents", _contents(source, survey)),
    ]
    findings = gather(checks, name=location.bucket, errors=(MoveoutError,))
    missing = sum(1 for finding in findings if finding.check == "rights" and finding.severity != "info")
    facts = {
        "server": server_words(bucket),
        **tls_facts(certificate),
        "rights": count_words(missing, "missing"),
        "snapshot": {True: "versions", False: "listing"}.get(bool(versions.get("kept")), ""),
        "changes": "sync",
        "clock": clock_words(skew),
    }
    return Examination(facts, findings, {"features": survey.get("features", {})}, survey.get("size_bytes"))


def server_of(location: S3Location, bucket: S3Bucket) -> str:
    """Return the name under which fixes for these credentials are collected: the profile, else the endpoint's host."""
    return location.profile or str(urlsplit(bucket.boto.meta.endpoint_url).netloc)


def server_words(bucket: S3Bucket) -> str:
    """Return what the server calls itself, for a table."""
    return bucket.server or "S3"


def server_clock_skew(bucket: S3Bucket) -> float:
    """Return by how many seconds the server's clock is ahead, as it says with any answer; 0 where it does not."""
    asked = datetime.now(UTC)
    try:
        response = bucket.boto.head_bucket(Bucket=bucket.name)
    except boto_errors.ClientError as exc:
        response = exc.response
    except (boto_errors.BotoCoreError, OSError) as exc:
        with as_source_errors(bucket.url):
            raise translate(exc, bucket.url) from exc
    date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not date:
        return 0.0
    return clock_skew(parsedate_to_datetime(date), asked=asked)


def certificate_of(bucket: S3Bucket) -> Certificate | None:
    """Return the endpoint's certificate, None where it speaks no TLS or is behind a proxy."""
    address = urlsplit(bucket.boto.meta.endpoint_url)
    if address.scheme != "https":
        return None
    try:
        return ask_certificate(address.hostname or "", address.port or 443)
    except OSError:
        return None


def tls_findings(
    bucket: S3Bucket, certificate: Certificate | None, server: str, deadline: datetime | None
) -> Iterator[Finding]:
    """Yield what is wrong with the encryption of an endpoint."""
    address = urlsplit(bucket.boto.meta.endpoint_url)
    host = address.hostname or ""
    if certificate is not None:
        strict = "every S3 client"
        yield from certificate_findings(certificate, "", server=server, strict=strict, deadline=deadline)
    elif address.scheme != "https" and not is_local(host):
        advice = Fix("advice", "write https:// into the endpoint_url of the profile", server)
        yield clear_text(server, advice)


def _sample(bucket: S3Bucket) -> Mapping[str, Any]:
    summary = next(iter(bucket.list()), None)
    return {"Key": summary.key} if summary else {}


def _versions(source: _ExaminedBucket, versions: dict[str, bool | None]) -> Iterator[Finding]:
    """Yield what keeps older versions from being exported. ``versions`` takes whether the bucket keeps some."""
    name, location = source.location.bucket, source.location
    refused = source.refused("list_object_versions", MaxKeys=1, Prefix=location.folder)
    versions["kept"] = kept = source.bucket.keeps_versions()
    if refused and kept is not False and not source.request.selection.current_only:
        yield Finding(
            "loses",
            "rights",
            f"versions of {name}",
            "these credentials may not list them (s3:ListBucketVersions)",
            "Older versions and delete markers are not exported.",
            iam.on_bucket(location, source.server, "ListBucketVersions", "GetBucketVersioning"),
        )


def _objects(source: _ExaminedBucket, versions: Mapping[str, bool | None]) -> Iterator[Finding]:
    """Yield which calls on objects are refused, tried on the first one."""
    if not source.sample:
        return
    location, server, sample = source.location, source.server, source.sample
    objects = f"objects of {location.bucket}"
    if source.refused("head_object", **sample):
        fix = iam.on_objects(location, server, "GetObject")
        problem = f"these credentials may not read {sample['Key']!r} (s3:GetObject)"
        yield Finding("blocks", "rights", objects, problem, "No object is exported.", fix)
    calls = [("get_object_tagging", "GetObjectTagging", "tags")]
    calls += [("get_object_acl", "GetObjectAcl", "ACLs")] if source.bucket.has_acls else []
    for operation, action, what in calls:
        if source.refused(operation, **sample):
            fix = iam.on_objects(location, server, action)
            problem = f"these credentials may not read them (s3:{action})"
            yield Finding("loses", "rights", f"{what} of {objects}", problem, _NOT_EXPORTED, fix)
    if versions.get("kept") and not source.request.selection.current_only:
        yield from _older(source, objects)


def _older(source: _ExaminedBucket, objects: str) -> Iterator[Finding]:
    summary = next((row for row in source.bucket.list_versions() if not row.is_delete_marker), None)
    if summary is None:
        return
    version = {"Key": summary.key, "VersionId": summary.version_id}
    for operation, action, what in (
        ("head_object", "GetObjectVersion", "older versions"),
        ("get_object_tagging", "GetObjectVersionTagging", "tags of older versions"),
    ):
        if source.refused(operation, **version):
            fix = iam.on_objects(source.location, source.server, action)
            problem = f"these credentials may not read them (s3:{action})"
            yield Finding("loses", "rights", f"{what} of {objects}", problem, _NOT_EXPORTED, fix)


def _settings(source: _ExaminedBucket) -> Iterator[Finding]:
    configuration = read_configuration(source.bucket.http, source.bucket.cancellation)
    denied = configuration.get("denied", ())
    if denied:
        fix = iam.of_settings(source.location, source.server, denied, is_minio=source.is_minio)
        problem = f"these credentials may not read {', '.join(denied)}"
        yield Finding("loses", "rights", f"settings of {source.location.bucket}", problem, _NOT_EXPORTED, fix)
    for setting in configuration.get("failing", ()):
        item = f"setting {setting} of {source.location.bucket}"
        advice = Fix("advice", "ask the provider whether the bucket has one", source.server)
        yield Finding(
            "info",
            "settings",
            item,
            "the server answers with an error when it is asked for it",
            "It is not exported.",
            advice,
        )


def _contents(source: _ExaminedBucket, survey: dict[str, Any]) -> Iterator[Finding]:
    """Look at the listing for some seconds. ``survey`` takes what it showed."""
    seen, totals = bucket_survey.take(source.bucket, source.request.selection, seconds=_SURVEY_SECONDS)
    survey |= {"features": dict(seen.features), "size_bytes": totals.size_bytes}
    if seen.archived:
        yield Finding(
            "slow",
            "contents",
            source.location.bucket,
            f"{seen.archived:,} objects are archived",
            "The export has them brought back, and waits for hours.",
            iam.on_objects(source.location, source.server, "RestoreObject"),
        )
    if not seen.rows and not source.request.may_be_empty:
        problem = "nothing is there" if source.location.folder else "it is empty"
        advice = Fix("advice", "check the name of the bucket, and the prefix, unless it is meant to be empty")
        yield Finding("info", "contents", source.location.url, problem, "Nothing is exported of it.", advice)
