"""Bytes at a location: a directory, or a bucket and a prefix."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from migrate.errors import UsageError
from migrate.runtime.cancellation import PROCESS, CancellationToken
from migrate.storage.api import MultipartStore
from migrate.storage.local.store import LocalStore
from migrate.storage.rate_limit import Throttle, Throttled
from migrate.storage.retry import FIRST_CONTACT_SECONDS, TOTAL_SECONDS, Note, Retrying, RetryPolicy

__all__ = ["free_bytes", "open_local", "open_location"]


def open_location(
    url: str,
    *,
    secrets: Mapping[str, str] | None = None,
    bwlimit: Throttle | None = None,
    note: Note | None = None,
    patience_seconds: float = TOTAL_SECONDS,
    cancellation: CancellationToken = PROCESS,
) -> MultipartStore:
    """Return the store of a location: a path, ``file:///dir`` or ``s3://bucket/prefix?profile=NAME``.

    Nothing is asked of the other side yet. ``secrets`` are keys of the location, where they do not come from a
    profile or the environment. ``bwlimit`` may be shared by several locations; ``note`` is told of retries that
    take long; passing faults are waited out for ``patience_seconds``, until
    ``cancellation`` is cancelled. Raises ``UsageError`` and, where there are no credentials, ``NotAllowedError``.
    """
    store: MultipartStore = _bare(url, secrets, cancellation)
    if bwlimit is not None:
        store = Throttled(store, bwlimit)
    policy = RetryPolicy(
        note=note,
        total_seconds=patience_seconds,
        first_contact_seconds=FIRST_CONTACT_SECONDS,
        cancellation=cancellation,
    )
    return Retrying(store, policy)


def open_local(url: str) -> LocalStore:
    """Return the store of a directory itself: of a path or ``file:///dir``. Raises ``UsageError``."""
    store = _bare(url) if urlsplit(url).scheme != "s3" else None
    if not isinstance(store, LocalStore):
        raise UsageError(f"{url!r} is no directory")
    return store


def free_bytes(url: str) -> int | None:
    """Return how much room is left where a directory is, or is to be; None for a bucket. Raises ``UsageError``."""
    store = _bare(url) if urlsplit(url).scheme != "s3" else None
    if not isinstance(store, LocalStore):
        return None
    there = next(path for path in (store.root, *store.root.parents) if path.exists())
    return shutil.disk_usage(there).free


def _bare(
    url: str, secrets: Mapping[str, str] | None = None, cancellation: CancellationToken = PROCESS
) -> MultipartStore:
    parts = urlsplit(url)
    if "://" not in url and parts.scheme not in {"s3", "file"}:
        if not url:
            raise UsageError(
                "a location needs a name", next_step="give a directory or s3://bucket/prefix?profile=NAME"
            )
        return LocalStore(Path(url).expanduser())
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise UsageError(
                f"{url!r} names no directory of this machine", next_step="write file:///DIRECTORY"
            )
        return LocalStore(unquote(parts.path))
    if parts.scheme == "s3":
        from migrate.storage.s3 import client  # noqa: PLC0415  boto3 takes half a second to import
        from migrate.storage.s3 import store as s3  # noqa: PLC0415  boto3 takes half a second to import

        return s3.S3Store(client.parse(url, secrets=secrets), cancellation=cancellation)
    raise UsageError(
        f"a location cannot be at {parts.scheme}://",
        next_step="give a directory or s3://bucket/prefix?profile=NAME",
    )
