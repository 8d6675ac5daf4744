"""Examines a bucket as a destination: what it will not take, found by writing keys of our own and removing them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from exporters.doctor import (
    Examination,
    ExamineRequest,
    Finding,
    Fix,
    Severity,
    clock_finding,
    clock_words,
    count_words,
    gather,
)
from exporters.objects.bucket_survey import CLASS, MARKERS, OBJECT_LOCK, OLDER
from exporters.tls import tls_facts
from migrate.doctor import iam
from migrate.doctor.bucket_source import (
    certificate_of,
    server_clock_skew,
    server_of,
    server_words,
    tls_findings,
)
from migrate.errors import GoneError, MoveoutError, NotAllowedError
from migrate.storage.s3.capability_probe import LOCK_DENIED, Capabilities, ProbePlan, probe
from migrate.storage.s3.client import S3Location, parse
from migrate.storage.s3.destination_bucket import DestinationBucket
from migrate.storage.s3.own_objects import of_others

_WRITES = (
    "PutObject*",
    "GetObject*",
    "DeleteObject",
    "DeleteObjectVersion",
    "AbortMultipartUpload",
    "ListMultipartUploadParts",
)
_LISTS = (
    "ListBucket",
    "ListBucketVersions",
    "ListBucketMultipartUploads",
    "GetBucketVersioning",
    "GetBucketObjectLockConfiguration",
)


def examine(request: ExamineRequest) -> Examination:
    """Examine a destination. See ``exporters.doctor.Examine``; ``needs`` may hold the ``features`` of the source."""
    location = parse(request.url, secrets=request.secrets)
    destination = DestinationBucket(location)
    features: Mapping[str, int] = request.needs.get("features", {})
    server = server_of(location, destination.reader)
    skew = server_clock_skew(destination.reader)
    try:
        destination.reader.check()
    except GoneError as exc:
        fix = Fix("shell", _create(location, destination, locks=OBJECT_LOCK in features))
        finding = request.missing(location.bucket, exc, fix)
        return Examination({"server": server_words(destination.reader), "ready": "missing"}, [finding])
    except NotAllowedError as exc:
        fix = iam.fix_of(exc, iam.on_bucket(location, server, *_LISTS))
        finding = Finding("blocks", "rights", location.bucket, str(exc), "Nothing of it comes up.", fix)
        facts = {"server": server_words(destination.reader), "rights": "refused"}
        return Examination(facts, [finding], error=exc)
    certificate = certificate_of(destination.reader)
    checks = [
        ("TLS", tls_findings(destination.reader, certificate, server, request.deadline)),
        ("clock", clock_finding(server, skew, server)),
        ("rights", _rights(destination, location, server, features)),
        ("contents", _contents(destination)),
        ("objects", _capabilities(destination, location, server, features)),
    ]
    findings = gather(checks, name=location.bucket, errors=(MoveoutError,))
    facts = {
        "server": server_words(destination.reader),
        **tls_facts(certificate),
        "rights": count_words(sum(1 for finding in findings if finding.check == "rights"), "missing"),
        "ready": "not empty" if any(finding.check == "contents" for finding in findings) else "empty",
        "clock": clock_words(skew),
    }
    return Examination(facts, findings)


def _create(location: S3Location, destination: DestinationBucket, *, locks: bool) -> str:
    endpoint = destination.reader.boto.meta.endpoint_url
    profile = f" --profile {shlex.quote(location.profile)}" if location.profile else ""
    lock = " --object-lock-enabled-for-bucket" if locks else ""
    return f"aws s3api create-bucket --bucket {location.bucket}{lock}{profile} --endpoint-url {shlex.quote(endpoint)}"


def _rights(
    destination: DestinationBucket, location: S3Location, server: str, features: Mapping[str, int]
) -> Iterator[Finding]:
    """Yield which questions about versions and locks are refused: the answers are not guessed."""
    of_versions: Severity = "loses" if {OLDER, MARKERS} & features.keys() else "info"
    of_locks: Severity = "loses" if OBJECT_LOCK in features else "info"
    try:
        destination.versioning()
    except NotAllowedError as exc:
        fix = iam.on_bucket(location, server, "GetBucketVersioning")
        consequence = "Older versions are not restored, and not synced."
        yield Finding(
            of_versions, "rights", f"versions of {location.bucket}", exc.explanation, consequence, fix
        )
    destination.object_lock()
    if destination.lock_denied:
        fix = iam.on_bucket(location, server, "GetBucketObjectLockConfiguration")
        consequence = "Retention and legal holds are not restored, and not synced."
        yield Finding(of_locks, "rights", f"object lock of {location.bucket}", LOCK_DENIED, consequence, fix)


def _contents(destination: DestinationBucket) -> Iterator[Finding]:
    summary = next(of_others(destination, destination.list()), None)
    if summary is not None:
        yield Finding(
            "blocks",
            "contents",
            destination.url,
            f"it holds {summary.key!r} already",
            "A restore refuses to mix its objects with others, unless an earlier run wrote them.",
            Fix("advice", "name an empty bucket or prefix, or restore with --merge"),
        )


def _capabilities(
    destination: DestinationBucket, location: S3Location, server: str, features: Mapping[str, int]
) -> Iterator[Finding]:
    kinds = [
        kind for kind in features if kind not in {OBJECT_LOCK, OLDER, MARKERS} and not kind.startswith(CLASS)
    ]
    classes = [kind.removeprefix(CLASS) for kind in features if kind.startswith(CLASS)]
    try:
        capabilities = probe(destination, ProbePlan(kinds, classes))
    except NotAllowedError as exc:
        fix = iam.on_objects(location, server, *_WRITES)
        yield Finding("blocks", "rights", location.bucket, str(exc), "Nothing of it comes up.", fix)
        return
    yield from capability_findings(features, capabilities, location.bucket)


def capability_findings(
    features: Mapping[str, int], capabilities: Capabilities, bucket: str
) -> Iterator[Finding]:
    """Yield what the destination will not take of what the source has."""
    if not capabilities.probed:
        problem = f"it was not tried out: {capabilities.why}"
        yield Finding("info", "objects", bucket, problem, "What it refuses is seen during the restore.")
    other = Fix("advice", "choose a server that keeps such keys, or accept that they are left out, and named")
    for kind, refusal in capabilities.refused_keys.items():
        count = f"{features[kind]:,} keys have {kind}" if kind in features else f"keys with {kind}"
        severity: Severity = "loses" if kind in features else "info"
        yield Finding(
            severity,
            "names",
            bucket,
            f"{count}: the destination {refusal}",
            "They will not be restored.",
            other,
        )
    for name, refusal in capabilities.refused_classes.items():
        problem = (
            f"{features[CLASS + name]:,} objects have the storage class {name}: the destination {refusal}"
        )
        yield Finding("loses", "objects", bucket, problem, "They get the destination's own class.")
    if OBJECT_LOCK in features and not (capabilities.object_lock or capabilities.lock_denied):
        problem = "the source locks objects, the destination bucket has no object lock"
        advice = Fix("advice", "create the bucket anew with object lock: it can only be had from the start")
        yield Finding(
            "loses", "objects", bucket, problem, "Retention and legal holds are not restored.", advice
        )
    if {OLDER, MARKERS} & features.keys() and not capabilities.versioning:
        problem = "the source keeps versions, the destination bucket does not yet"
        yield Finding("info", "objects", bucket, problem, "The restore switches versioning on.")
