"""Lists the buckets of an account, with their settings, and their contents where that is cheap."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from exporters.discovery import EMPTY, Discovery, FoundSource
from exporters.limits import Note
from migrate.case.server_url import join
from migrate.errors import MoveoutError
from migrate.storage.s3.account import Account, BucketSummary
from migrate.storage.s3.errors import as_source_errors

_AT_ONCE = 8


def discover(url: str, *, secrets: Mapping[str, str], note: Note, names_only: bool = False) -> Discovery:
    """Return the buckets of an account. See ``exporters.discovery.Discover``."""
    with as_source_errors(url.partition("?")[0]):
        account = Account(url, secrets=secrets, note=note)
        names = account.buckets()
        endpoint = account.endpoint
    if names_only:
        return Discovery(
            [FoundSource(join(url, name), name, identity=f"s3:{endpoint}/{name}") for name in names]
        )
    sources: list[FoundSource] = []
    gaps: list[str] = []
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="discover") as pool:
        for name, result in zip(names, pool.map(lambda name: _describe(account, name), names), strict=True):
            identity = f"s3:{endpoint}/{name}"
            if isinstance(result, MoveoutError):
                gaps.append(f"the bucket {name} could not be looked at: {result}")
                sources.append(FoundSource(join(url, name), name, identity=identity))
                continue
            sources.append(
                FoundSource(
                    join(url, name),
                    name,
                    result.objects,
                    result.size_bytes,
                    identity,
                    tuple(_facts(result)),
                    result.problems,
                    result.region,
                )
            )
    return Discovery(sources, gaps=gaps)


def _describe(account: Account, name: str) -> BucketSummary | MoveoutError:
    try:
        return account.describe(name)
    except MoveoutError as exc:
        return exc


def _facts(bucket: BucketSummary) -> list[str]:
    facts = [f"region {bucket.region}"]
    if bucket.versioning:
        facts.append("versioned" if bucket.versioning == "Enabled" else "versioning suspended")
    if bucket.has_object_lock:
        facts.append("object lock")
    if bucket.objects == 0:
        facts.append(EMPTY)
    return facts
