"""Which keys a target takes as they are: tried out with keys of our own, before the first object is written.

S3 servers over file systems refuse keys that are no paths, or, worse, store them under another name and
answer 200. Each kind of oddity that occurs in the bundle is tried once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping

from migrate.errors import MoveoutError, UnreachableError
from migrate.store.s3_bucket_write import Description, TargetBucket

LEADING = "a slash at the beginning"
EMPTY = "an empty segment (//)"
DOT = "a segment ."
DOTDOT = "a segment .."
LONG = "a segment of more than 255 bytes"
DIRECTORY = "a slash at the end"
DIRECTORY_WITH_BYTES = "a slash at the end, and content"
BESIDE = "the key of an object as its directory"
CHARACTER = "the character "

_SAMPLES: Mapping[str, str] = {
    LEADING: "/{name}",
    EMPTY: "{name}//x",
    DOT: "{name}/./x",
    DOTDOT: "{name}/../{name}-x",
    LONG: "{name}" + "x" * 255,
    DIRECTORY: "{name}/",
    DIRECTORY_WITH_BYTES: "{name}/",
    BESIDE: "{name}/x",
}


class Oddities:
    """Sees keys in their order, says of each in what way it is odd."""

    def __init__(self) -> None:
        self._above: list[str] = []

    def of(self, key: str, size_bytes: int) -> frozenset[str]:
        """Return the oddities of the next key."""
        while self._above and not key.startswith(self._above[-1]):
            self._above.pop()
        found = {BESIDE} if any(key.startswith(above + "/") for above in self._above) else set()
        self._above.append(key)
        segments = key.split("/")
        if segments[0] == "" and len(segments) > 1:
            found.add(LEADING)
        if segments[-1] == "":
            found.add(DIRECTORY_WITH_BYTES if size_bytes else DIRECTORY)
        if "" in segments[1:-1]:
            found.add(EMPTY)
        found |= {name for name, segment in ((DOT, "."), (DOTDOT, "..")) if segment in segments}
        if any(len(segment.encode()) > 255 for segment in segments):
            found.add(LONG)
        if not key.isprintable():
            found |= {f"{CHARACTER}U+{ord(char):04X}" for char in key if not char.isprintable()}
        return frozenset(found)


def refused(target: TargetBucket, oddities: Iterable[str]) -> dict[str, str]:
    """Return the oddities that the target does not take, each with what it does instead. Leaves nothing
    behind.
    """
    found = {}
    for oddity in sorted(oddities):
        fault = _try(target, oddity)
        if fault is not None:
            found[oddity] = fault
    return found


def _try(target: TargetBucket, oddity: str) -> str | None:
    name = f"moveout-canary-{secrets.token_hex(6)}"
    key = _sample(target, oddity, name)
    body = b"" if oddity == DIRECTORY else b"canary"
    wanted = {key: body}
    if oddity == BESIDE:
        wanted = {key.removesuffix("/x"): body, key: body}
    try:
        for one, content in wanted.items():
            error = target.put(Description(one), content).error
            if isinstance(error, UnreachableError):
                raise error
            if error is not None:
                return f"refuses it ({error})"
        return _differently(set(_stored(target, name)), set(wanted))
    finally:
        for one in {*_stored(target, name), *wanted}:
            _remove(target, one)


def _differently(stored: set[str], wanted: set[str]) -> str | None:
    if stored == wanted:
        return None
    other = min(stored - wanted, default=None)
    return "does not list it afterwards" if other is None else f"stores it as {other!r}"


def _sample(target: TargetBucket, oddity: str, name: str) -> str:
    if oddity.startswith(CHARACTER):
        return f"{target.prefix}{name}{chr(int(oddity.removeprefix(CHARACTER + 'U+'), 16))}x"
    sample = _SAMPLES[oddity].format(name=name)
    return sample if oddity == LEADING else target.prefix + sample


def _stored(target: TargetBucket, name: str) -> Iterator[str]:
    """Yield what has come to lie anywhere under the canary's name."""
    for within in {"", target.prefix}:
        for prefix in (f"{within}{name}", f"{within}/{name}"):
            for found in target.list(prefix=prefix):
                yield found.key


def _remove(target: TargetBucket, key: str) -> None:
    try:
        target.delete(key)
    except UnreachableError:
        raise
    except MoveoutError:
        return  # a key that it refuses to write it also refuses to delete
