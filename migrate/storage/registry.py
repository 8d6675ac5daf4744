"""The kinds of locations by the scheme of their URLs, and how a location is opened.

A kind of location is one module with a ``LocationType``, named here or, by a package of somebody else's, in the
entry-point group ``moveout.locations``. ``docs/guides/add-a-location.md`` shows one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from pkgutil import resolve_name
from urllib.parse import urlsplit

from msgspec import Struct

from migrate.case.secrets import redact
from migrate.errors import UsageError
from migrate.runtime import crash_points
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import MultipartStore
from migrate.storage.crash_points import CrashPoints
from migrate.storage.object_lock import ObjectLock
from migrate.storage.outage import outage_of
from migrate.storage.rate_limit import RateLimited, RateLimiter
from migrate.storage.retry import (
    FIRST_CONTACT_SECONDS,
    TOTAL_SECONDS,
    Note,
    Retrying,
    RetryPolicy,
    RetryServer,
    RetryTimeout,
)
from migrate.storage.silence import Moving

_log = logging.getLogger(__name__)

ENTRY_POINTS = "moveout.locations"
DIRECTORY = "file"
"""The scheme of a location that is given as a path."""
_BUILT_IN = {
    DIRECTORY: "migrate.storage.local.location:LOCATION",
    "s3": "migrate.storage.s3.location:LOCATION",
}
"""Import paths instead of modules: boto3 takes half a second to import."""


class Access(Struct, frozen=True):
    """What a location is opened with. ``secrets`` are its keys, where they do not come from a profile or the
    environment; ``note`` is called for retries that take long.
    """

    secrets: Mapping[str, str] | None = None
    note: Note | None = None
    cancellation: CancellationToken | None = None


class LocationType(Struct, frozen=True):
    """One kind of location. ``example`` is a URL for help texts. ``open`` sends no request yet; it raises
    ``UsageError`` for a URL that is wrong. ``open_object_lock`` is None where files have neither versions nor locks.
    """

    example: str
    open: Callable[[str, Access], MultipartStore]
    open_object_lock: Callable[[str, Access], ObjectLock] | None = None


def open_location(
    url: str,
    *,
    secrets: Mapping[str, str] | None = None,
    rate_limiter: RateLimiter | None = None,
    at_once_bytes: int = 0,
    note: Note | None = None,
    retry_seconds: float = TOTAL_SECONDS,
    deadline: datetime | None = None,
    cancellation: CancellationToken | None = None,
    part_of: str = "",
) -> MultipartStore:
    """Return the store of a location: a path, or a URL such as ``s3://bucket/prefix?profile=NAME``.

    No request is sent yet. ``rate_limiter`` may be shared by several locations; files of up to ``at_once_bytes`` count
    and do not wait for it. Passing faults are waited out for ``retry_seconds``, until ``cancellation`` is cancelled,
    and not beyond a ``deadline`` that lies ahead. ``part_of``: the URL of the bucket that it is a part of; notes name
    that.
    Raises ``UsageError`` and, where there are no credentials, ``NotAllowedError``.
    """
    _log.info("location %s", redact(url))
    store = _type_of(url).open(url, Access(secrets, note, cancellation))
    stuck_seconds = store.stuck_seconds if isinstance(store, Moving) else None
    if crash_points.are_watched():
        store = CrashPoints(store)
    name = part_of or store.location
    policy = RetryPolicy(
        RetryTimeout(retry_seconds, FIRST_CONTACT_SECONDS, deadline),
        RetryServer(name, outage_of(name), note, stuck_seconds),
        cancellation=cancellation,
    )
    if rate_limiter is None:
        return Retrying(store, policy)
    # The limit is outside: nobody waits for it again to try again.
    tried_again = Retrying(store, policy, on_resent=rate_limiter.count)
    return RateLimited(tried_again, rate_limiter, cancellation=cancellation, at_once_bytes=at_once_bytes)


def open_object_lock(
    url: str, *, secrets: Mapping[str, str] | None = None, note: Note | None = None
) -> ObjectLock:
    """Return the versions and locks of a location. Raises ``UsageError`` where its kind has none."""
    location_type = _type_of(url)
    if location_type.open_object_lock is None:
        raise UsageError(
            f"{url}: nothing at such a location can be held or erased version by version",
            next_step="transfer the bundle to a bucket with Object Lock",
        )
    return location_type.open_object_lock(url, Access(secrets, note))


def location_below(url: str, name: str) -> str:
    """Return the location of a folder within another location."""
    if "://" not in url:
        return str(Path(url) / name)
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()


def free_bytes(url: str, *, secrets: Mapping[str, str] | None = None) -> int | None:
    """Return the free bytes at a location, None where it does not report them. Raises ``UsageError``."""
    return _type_of(url).open(url, Access(secrets)).free_bytes()


def _type_of(url: str) -> LocationType:
    """Return the kind of a location. Raises ``UsageError`` for a URL of an unknown scheme."""
    scheme = urlsplit(url).scheme
    if "://" not in url and scheme not in _BUILT_IN:
        scheme = DIRECTORY
    if scheme in _BUILT_IN:
        location_type: LocationType = resolve_name(_BUILT_IN[scheme])
        return location_type
    from importlib.metadata import entry_points  # noqa: PLC0415  it takes 10 ms, and a location of moveout's own needs none

    plugins = entry_points(group=ENTRY_POINTS)
    for entry in plugins.select(name=scheme):
        loaded: LocationType = entry.load()
        return loaded
    known = ", ".join(f"{name}://" for name in sorted({*_BUILT_IN, *plugins.names} - {DIRECTORY}))
    raise UsageError(
        f"a location cannot be at {scheme}://",
        next_step=f"give a directory, or the URL of a location of moveout's: {known}",
    )
