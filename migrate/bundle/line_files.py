"""Text files of a bundle as lines, streamed: bounded memory whatever the file holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from migrate.errors import DamageError
from migrate.storage.api import Store

CHUNK_BYTES = 4 * 2**20
MAX_LINE_BYTES = 8192
"""A payload name has at most 1024 bytes (S3's limit for keys); hashes and punctuation come on top."""


def chunks(store: Store, key: str) -> Iterator[bytes]:
    """Yield a file in pieces. Raises ``GoneError``."""
    start = 0
    while piece := store.read(key, start, CHUNK_BYTES):
        yield piece
        start += len(piece)
        if len(piece) < CHUNK_BYTES:
            return


def lines(pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Cut pieces into lines, newline included. Raises ``DamageError`` for a line that is too long or does
    not end.
    """
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if len(line) > MAX_LINE_BYTES:
                raise _too_long(name)
            yield line + b"\n"
        if len(rest) > MAX_LINE_BYTES:
            raise _too_long(name)
    if rest:
        raise DamageError(name, expected="a newline at the end", found=repr(rest[-80:]))


def _too_long(name: str) -> DamageError:
    return DamageError(name, expected=f"lines of at most {MAX_LINE_BYTES} bytes", found="a longer one")
