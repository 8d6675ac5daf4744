"""Lists the buckets of an account, with their regions and settings, and their contents where one page says them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import botocore.exceptions as boto_errors
from msgspec import Struct

from exporters.discovery import EMPTY, Discovery, FoundSource
from exporters.errors import SourceSilentError
from exporters.limits import Note
from migrate.case.server_url import join
from migrate.errors import MoveoutError, UnreachableError
from migrate.storage.retry import FIRST_CONTACT_SECONDS, RetryPolicy, RetryServer, RetryTimeout
from migrate.storage.s3 import client as s3_client
from migrate.storage.s3.errors import as_source_errors, code_of, translate

_AT_ONCE = 8
_PAGE_KEYS = 1000
_MAIN_REGION = "us-east-1"
"""Its buckets have an empty location; those of Ireland may have the old name "EU" (S3's guide, GetBucketLocation)."""
_OLD_REGIONS = {"": _MAIN_REGION, "EU": "eu-west-1"}
_NO_LOCK = {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"}
_NO_SUCH_CALL = {"NotImplemented", "MethodNotAllowed"}


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
                    url=join(url, name),
                    name=name,
                    items=result.objects,
                    size_bytes=result.size_bytes,
                    identity=identity,
                    facts=tuple(_facts(result)),
                    problems=result.problems,
                    region=result.region,
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


class BucketSummary(Struct, frozen=True):
    """One bucket. ``objects`` (with versions and delete markers) and ``size_bytes`` are None where one page does not
    tell them. ``problems`` are what these credentials were not permitted to see.
    """

    name: str
    region: str
    versioning: str = ""
    """``Enabled``, ``Suspended``, or empty."""
    has_object_lock: bool = False
    objects: int | None = None
    size_bytes: int | None = None
    problems: Sequence[str] = ()


class Account:
    """What one set of credentials reaches at one endpoint. Methods raise errors of ``migrate.errors``; thread-safe."""

    def __init__(
        self, url: str, *, secrets: Mapping[str, str] | None = None, note: Note | None = None
    ) -> None:
        self._location = s3_client.parse_account(url, secrets=secrets)
        self.url = self._location.url
        self._session = s3_client.session(self._location)
        self._client_of = lru_cache(maxsize=None)(self._make_client)
        self._retry = RetryPolicy(
            RetryTimeout(first_contact_seconds=FIRST_CONTACT_SECONDS),
            RetryServer(self._location.url, note=note),
        )

    @property
    def endpoint(self) -> str:
        """The URL of the server."""
        return str(self._client_of(None).meta.endpoint_url)

    def buckets(self) -> list[str]:
        """Return the names of all buckets of the account, in order."""
        response = self._call(None, "list_buckets")
        return sorted(str(bucket["Name"]) for bucket in response.get("Buckets", []))

    def describe(self, bucket: str) -> BucketSummary:
        """Look at one bucket. What is not permitted is a problem of the summary; raises only where nothing answers."""
        problems: list[str] = []

        def ask(operation: str, region: str | None, sentence: str, **request: Any) -> Any:
            try:
                return self._call(region, operation, Bucket=bucket, **request)
            except UnreachableError:
                raise
            except MoveoutError as exc:
                code = _code_of(exc)
                if code not in _NO_LOCK | _NO_SUCH_CALL:
                    problems.append(f"{sentence}: {code or exc}")
                return {}

        place = ask("get_bucket_location", None, "its region may not be read").get("LocationConstraint") or ""
        region = _OLD_REGIONS.get(place, place)
        versioning = str(
            ask("get_bucket_versioning", region, "its versioning may not be read").get("Status", "")
        )
        lock = ask("get_object_lock_configuration", region, "its object lock may not be read")
        operation = "list_object_versions" if versioning else "list_objects_v2"
        page = ask(operation, region, "its objects may not be listed", MaxKeys=_PAGE_KEYS)
        objects, size_bytes = _counts(page)
        return BucketSummary(
            bucket,
            region,
            versioning,
            has_object_lock=bool(lock.get("ObjectLockConfiguration")),
            objects=objects,
            size_bytes=size_bytes,
            problems=problems,
        )

    def _make_client(self, region: str | None) -> Any:
        return s3_client.client(self._location, boto_session=self._session, region=region)

    def _call(self, region: str | None, operation: str, **request: Any) -> Any:
        what = f"s3://{request['Bucket']}" if "Bucket" in request else self.url
        client = self._client_of(region)

        def once() -> Any:
            try:
                return getattr(client, operation)(**request)
            except (boto_errors.ClientError, boto_errors.BotoCoreError, OSError) as exc:
                raise translate(exc, what) from exc

        return self._retry.run(once)


def contact(url: str, secrets: Mapping[str, str]) -> None:
    """Ask a server for its buckets. Raises ``SourceSilentError`` where there is no answer; a refusal is one."""
    location = s3_client.parse_account(url, secrets=secrets)
    try:
        s3_client.client(location, asks_silent=True).list_buckets()
    except (boto_errors.ReadTimeoutError, boto_errors.ConnectTimeoutError) as exc:
        raise SourceSilentError(str(exc), about=location.url) from exc
    except boto_errors.ClientError:
        return
    except (boto_errors.BotoCoreError, OSError) as exc:
        raise translate(exc, location.url) from exc


def _counts(page: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return how many objects and bytes a bucket has, where the first page of its listing is the only one."""
    if not page or page.get("IsTruncated"):
        return None, None
    listed = [*page.get("Contents", []), *page.get("Versions", [])]
    return len(listed) + len(page.get("DeleteMarkers", [])), sum(int(item["Size"]) for item in listed)


def _code_of(error: MoveoutError) -> str:
    cause = error.__cause__
    return code_of(cause) if isinstance(cause, boto_errors.ClientError) else ""
