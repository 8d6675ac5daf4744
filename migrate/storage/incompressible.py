"""Bytes that no file system and no link keeps in less room."""

from __future__ import annotations

import os
from collections.abc import Iterator

_BLOCK_BYTES = 2**20
_TURN_BYTES = 4099
"""No multiple of what file systems compare: a block that is turned by it is equal to none before."""


def pieces(size_bytes: int) -> Iterator[memoryview]:
    """Yield so many bytes: one random block again and again, each time turned further.

    The system would need 50 ms for 16 MiB of random bytes.
    """
    block = os.urandom(min(size_bytes, _BLOCK_BYTES))
    twice = memoryview(block + block)
    for number, start in enumerate(range(0, size_bytes, _BLOCK_BYTES)):
        turn = number * _TURN_BYTES % _BLOCK_BYTES
        yield twice[turn : turn + min(size_bytes - start, _BLOCK_BYTES)]
