"""Directories as locations: a path, or ``file:///dir``."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from exporters.lossless_text import path_of
from migrate.errors import UsageError
from migrate.storage.local.object_lock import DirectoryObjectLock
from migrate.storage.local.store import LocalStore
from migrate.storage.registry import Access, LocationType


def _store(url: str) -> LocalStore:
    if not url:
        raise UsageError(
            "a location needs a name", next_step="give a directory or s3://bucket/prefix?profile=NAME"
        )
    parts = urlsplit(url)
    if parts.scheme != "file":
        return LocalStore(Path(url).expanduser())
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise UsageError(f"{url!r} names no directory of this machine", next_step="write file:///DIRECTORY")
    if "#" in url:
        raise UsageError(f"{url!r}: a file:// URL takes no #", next_step="in a name write it as %23")
    return LocalStore(path_of(parts.path))


def _open(url: str, _access: Access) -> LocalStore:
    return _store(url)


def _open_object_lock(url: str, _access: Access) -> DirectoryObjectLock:
    return DirectoryObjectLock(_store(url))


LOCATION = LocationType("/backup/bundle", _open, _open_object_lock)
