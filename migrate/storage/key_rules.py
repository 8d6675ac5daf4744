"""Which keys a location takes: those that cannot escape it, whatever kind of location it is."""

from __future__ import annotations

from migrate.errors import UsageError

LOCK = "_work/.lock"
HIDDEN = ("_work/.uploads/", "_work/.tmp/", LOCK)
"""A local store's own files: never listed, never to be written through the store. No source is called so."""


def checked(key: str) -> str:
    """Return ``key`` if it names a file below the location. Raises ``UsageError`` for ``..``, absolute keys, NUL
    and the like.

    The same rule holds for S3, where some servers take ``a/../b`` and store ``b``.
    """
    bad = not key or "\0" in key or any(segment in {"", ".", ".."} for segment in key.split("/"))
    if bad or key.startswith(HIDDEN):
        raise UsageError(f"{key!r} cannot be the name of a file at a location")
    return key
