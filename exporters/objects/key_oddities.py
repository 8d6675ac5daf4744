"""In what way a key is odd: what some S3 servers refuse, or store under another name. Pure.

Servers over file systems take keys for paths. Nothing is wrong with any of these keys, and a bundle
holds them all.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

from exporters.objects.scratch_table import scratch_table

NAMELESS = "no name: it is what its prefix is called"
OWN_FOLDER = "it marks the folder that is copied, which is the bucket there"
"""Why such an object is left out, see ``is_own_folder``."""
LEADING = "a slash at the beginning"
EMPTY = "an empty segment (//)"
DOT = "a segment ."
DOTDOT = "a segment .."
LONG = "a segment of more than 255 bytes"
WHOLE = "more than 900 bytes"
DIRECTORY = "a slash at the end"
DIRECTORY_WITH_BYTES = "a slash at the end, and content"
DIRECTORY_AND_OBJECT = "a slash at the end, and an object of that name without it"
OBJECT_AS_DIRECTORY = "the key of an object as its directory"
CHARACTER = "the character "
CASE = "the letters of another key, capitals and small ones taken for the same"
FORM = "the letters of another key in another Unicode normal form"

LONG_SEGMENT_BYTES = 255
LONG_KEY_BYTES = 900


def is_own_folder(key: str, size_bytes: int) -> bool:
    """Tell whether an object is the empty one that marks the folder which is copied, where that goes to no folder: it
    has no key there, and nothing is missing without it.
    """
    return not key and not size_bytes


class Oddities:
    """Takes keys in their order, returns the oddities of each. ``twins``: also look for keys that differ only by
    case or normal form; those that were seen are kept as hashes in private files until it is closed.
    """

    def __init__(self, twins: frozenset[str] = frozenset()) -> None:
        self._above: list[str] = []
        self._twins = {kind: _SeenTexts() for kind in twins}

    def close(self) -> None:
        """Drop the files."""
        for twins in self._twins.values():
            twins.close()

    def see_all(self, keys: Sequence[str]) -> None:
        """Pass the next keys by, in order, without counting them. Only what the last of them begins with can be
        above what follows.
        """
        last = keys[-1]
        above = [key for key in self._above if last.startswith(key)]
        self._above = above + [key for key in keys if key and last.startswith(key)]

    def of(self, key: str, size_bytes: int) -> frozenset[str]:
        """Return the oddities of the next key; asked once for each key, also of one that was just passed by. An object
        that is called like the prefix it is copied from has an empty one where it is copied to no prefix.
        """
        if not key:
            return frozenset({NAMELESS})
        while self._above and not key.startswith(self._above[-1]):
            self._above.pop()
        segments = key.split("/")
        oddities = _of_segments(segments, size_bytes)
        if any(key.startswith(above + "/") for above in self._above):
            oddities.add(
                DIRECTORY_AND_OBJECT if key[-1] == "/" and key[:-1] in self._above else OBJECT_AS_DIRECTORY
            )
        self._above.append(key)
        if len(key) > LONG_KEY_BYTES or len(key.encode()) > LONG_KEY_BYTES:
            oddities.add(WHOLE)
        if "\\" in key or not key.isprintable():
            odd = {char for char in key if char == "\\" or not char.isprintable()}
            oddities |= {f"{CHARACTER}U+{ord(char):04X}" for char in odd}
        for kind, twins in self._twins.items():
            if twins.seen(key.casefold() if kind == CASE else unicodedata.normalize("NFC", key)):
                oddities.add(kind)
        return frozenset(oddities)


def _of_segments(segments: list[str], size_bytes: int) -> set[str]:
    oddities: set[str] = set()
    if segments[0] == "" and len(segments) > 1:
        oddities.add(LEADING)
    if segments[-1] == "":
        oddities.add(DIRECTORY_WITH_BYTES if size_bytes else DIRECTORY)
    if "" in segments[1:-1]:
        oddities.add(EMPTY)
    oddities |= {name for name, segment in ((DOT, "."), (DOTDOT, "..")) if segment in segments}
    if any(len(segment) > 63 and len(segment.encode()) > LONG_SEGMENT_BYTES for segment in segments):
        oddities.add(LONG)
    return oddities


class _SeenTexts:
    """Remembers texts by their hashes, in a file that SQLite removes."""

    def __init__(self) -> None:
        self._rows = scratch_table("CREATE TABLE seen (hash BLOB PRIMARY KEY) WITHOUT ROWID")

    def seen(self, text: str) -> bool:
        """Tell whether this text was asked for before."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return self._rows.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount == 0

    def close(self) -> None:
        """Forget them."""
        self._rows.close()
