"""Where a listing can be cut, so that several parts of it are taken at once.

S3 lists only forwards and counts nothing beforehand, but it can begin anywhere. Directories are found by listing with a
delimiter; within one that has too many entries for that, by asking which key comes first behind a guessed one.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from exporters.bucket_api import Bucket, beginning

_LAST = "\U0010ffff"
"""The last character there is."""
_LETTERS = sorted("-.=_~" + string.digits + string.ascii_letters)
_DEPTH = 8


def points(bucket: Bucket, cursor: str, until: str | None, wanted: int) -> list[str]:
    """Return at most ``wanted`` keys or directories between a key that was listed and the end of its range (None: of
    the bucket), in order: what is left of the range may be cut behind each of them. A few requests; nothing where
    nothing was found. Raises ``SourceError``.
    """
    common = bucket.prefix if until is None else beginning(cursor, until)
    at = common.rfind("/") + 1
    for _ in range(_DEPTH):
        directory = cursor[:at]
        names, whole = bucket.names(directory, cursor)
        names = [one for one in names if until is None or one < until]
        if not whole and names:
            return _between(bucket, names[-1], until, wanted) or _even(names, wanted)
        if names:
            return _even(names, wanted)
        following = cursor.find("/", at) + 1
        if not following:
            return []
        at = following
    return []


def _even(names: Sequence[str], wanted: int) -> list[str]:
    """Return so many of the names, at even distances."""
    count = min(wanted, len(names))
    return [names[len(names) * number // (count + 1)] for number in range(1, count + 1)]


def _between(bucket: Bucket, low: str, until: str | None, wanted: int) -> list[str]:
    """Cut a directory by characters: at the first position at which the keys behind ``low`` differ from it, at those
    characters that occur there.
    """
    at = _first_difference(bucket, low, until)
    if at is None:
        return []
    begun = low[:at]
    above = [one for one in _LETTERS if one > low[at]]
    known = _count_existing(bucket, begun, above, until)
    return _even([begun + one for one in above[:known]], wanted)


def _first_difference(bucket: Bucket, low: str, until: str | None) -> int | None:
    """Return the first position at which some key behind differs from ``low``, by halving: if there are keys behind all
    that begin like ``low`` does up to some position, there are also behind those that begin like it for longer.
    """
    least, most = len(beginning(low, until)) if until is not None else 0, len(low)
    if _first(bucket, low[:most], until) is None:
        return None
    while least + 1 < most:
        middle = (least + most) // 2
        if _first(bucket, low[:middle], until) is None:
            least = middle
        else:
            most = middle
    return most - 1


def _count_existing(bucket: Bucket, begun: str, above: Sequence[str], until: str | None) -> int:
    """Return how many of the characters come before the last one behind which there is a key."""
    least, most = 0, len(above)
    while least < most:
        middle = (least + most) // 2
        if bucket.first_behind(begun + above[middle], until) is None or (
            until is not None and begun + above[middle] >= until
        ):
            most = middle
        else:
            least = middle + 1
    return least


def _first(bucket: Bucket, begun: str, until: str | None) -> str | None:
    """Return the first key behind all that begin so."""
    behind = begun + _LAST
    return None if until is not None and behind >= until else bucket.first_behind(behind, until)
