"""All items of a bundle's tree in one file, some of them withheld: their hashes stand for them, and the root stays.

moveout-disclosure@v1
{"item":{…},"salt":"…"}              a leaf, one a line
withheld <hash, base64>              a leaf that is not shown

<the signed checkpoint>
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.custody import checkpoint, leaf, leaves, merkle, tree
from migrate.custody.checkpoint import Checkpoint
from migrate.errors import DamageError
from migrate.store.base import Store

HEADER = b"moveout-disclosure@v1\n"
_WITHHELD = b"withheld "


@dataclass(frozen=True, slots=True)
class Disclosed:
    """What a file shows: so many leaves, so many of them withheld, and the checkpoint. ``holds``: the leaves are
    exactly those of the checkpoint's tree.
    """

    shown: int
    withheld: int
    checkpoint: Checkpoint
    holds: bool


def disclose(store: Store, withhold: Callable[[dict[str, object]], bool], file: BinaryIO) -> Disclosed:
    """Write all leaves into ``file`` but for those to withhold. Raises like ``tree.prove``."""
    kept, signed = tree.read(store)
    file.write(HEADER)
    hashes, withheld = bytearray(), 0
    for batch in leaves.unsalted(BundleReader(store)):
        salted = leaves.salted(batch, kept.seed, len(hashes) // merkle.SIZE)
        for text, line in zip(batch, salted, strict=True):
            digest = merkle.leaf_hash(line)
            hashes += digest
            if withhold(leaf.decode(text)):
                withheld += 1
                file.write(_WITHHELD + base64.b64encode(digest) + b"\n")
            else:
                file.write(line + b"\n")
    if merkle.top(bytes(hashes)) != signed.hash:
        raise DamageError(layout.CHECKPOINT, expected="the root of this bundle's tree", found="another")
    file.write(b"\n" + signed.encode())
    count = len(hashes) // merkle.SIZE
    return Disclosed(count - withheld, withheld, signed, holds=True)


def check(file: BinaryIO) -> Disclosed:
    """Check such a file, streamed. Raises ``ValueError`` where it is none."""
    if file.readline(len(HEADER)) != HEADER:
        raise ValueError("no disclosure")
    hashes, withheld = bytearray(), 0
    for line in _lines(file):
        if line.startswith(_WITHHELD):
            withheld += 1
            hashes += _hash(line.removeprefix(_WITHHELD))
        else:
            hashes += merkle.leaf_hash(line)
    signed = checkpoint.decode(file.read(checkpoint.MAX_BYTES + 1))
    count = len(hashes) // merkle.SIZE
    holds = (count, merkle.top(bytes(hashes))) == (signed.size, signed.hash)
    return Disclosed(count - withheld, withheld, signed, holds)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline():
        if line == b"\n":
            return
        yield line.rstrip(b"\n")


def _hash(text: bytes) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("a withheld leaf without its hash") from exc
    if len(found) != merkle.SIZE or base64.b64encode(found) != text:
        raise ValueError("a withheld leaf without its hash")
    return found
