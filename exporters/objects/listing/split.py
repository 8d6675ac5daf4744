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


def split_points(bucket: Bucket, cursor: str, until: str | None, count: int) -> list[str]:
    """Return at most ``count`` keys or directories between a key that was listed and the end of its range (None: of the
    bucket), in order. What is left of the range may be cut behind each of them. A few requests; nothing where nothing
    was found. Raises ``SourceError``.
    """
    common = bucket.prefix if until is None else beginning(cursor, until)
    name_start = common.rfind("/") + 1
    for _ in range(_DEPTH):
        directory = cursor[:name_start]
        names, is_complete = bucket.names(directory, cursor)
        names = [name for name in names if until is None or name < until]
        if not is_complete and names:
            return _between(bucket, names[-1], until, count) or _evenly_spaced(names, count)
        if names:
            return _evenly_spaced(names, count)
        following = cursor.find("/", name_start) + 1
        if not following:
            return []
        name_start = following
    return []


def _evenly_spaced(names: Sequence[str], most: int) -> list[str]:
    """Return so many of the names, at even distances."""
    count = min(most, len(names))
    return [names[len(names) * number // (count + 1)] for number in range(1, count + 1)]


def _between(bucket: Bucket, low: str, until: str | None, count: int) -> list[str]:
    """Cut a directory by characters: at the first position at which the keys behind ``low`` differ from it, at those
    characters that occur there.
    """
    difference = _first_difference(bucket, low, until)
    if difference is None:
        return []
    stem = low[:difference]
    above = [letter for letter in _LETTERS if letter > low[difference]]
    known = _count_existing(bucket, stem, above, until)
    return _evenly_spaced([stem + letter for letter in above[:known]], count)


def _first_difference(bucket: Bucket, low: str, until: str | None) -> int | None:
    """Return the first position at which some key behind differs from ``low``, by halving. If there are keys behind all
    that begin like ``low`` up to some position, there are also keys behind those that begin like it for longer.
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


def _count_existing(bucket: Bucket, stem: str, above: Sequence[str], until: str | None) -> int:
    """Return how many of the characters come before the last one behind which there is a key."""
    least, most = 0, len(above)
    while least < most:
        middle = (least + most) // 2
        if bucket.first_behind(stem + above[middle], until) is None or (
            until is not None and stem + above[middle] >= until
        ):
            most = middle
        else:
            least = middle + 1
    return least


def _first(bucket: Bucket, stem: str, until: str | None) -> str | None:
    """Return the first key behind all that begin so."""
    behind = stem + _LAST
    return None if until is not None and behind >= until else bucket.first_behind(behind, until)
