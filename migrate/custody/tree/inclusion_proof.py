"""That one item was in a bundle's tree, in one small file: a proof as C2SP has it (c2sp.org/tlog-proof).

c2sp.org/tlog-proof@v1 extra <base64 of the leaf: JSON, says what the item is> index <number of the leaf>
<hash, base64> …

<the signed checkpoint>
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from msgspec import Struct

from migrate.custody.tree import checkpoint, leaves, merkle_tree
from migrate.custody.tree.checkpoint import Checkpoint
from migrate.custody.tree.leaves import Item

HEADER = b"c2sp.org/tlog-proof@v1\n"
MAX_BYTES = 65_536
_INDEX = re.compile(rb"index (0|[1-9][0-9]{0,18})")


class Proof(Struct, frozen=True):
    """A leaf, its number, and its siblings up to the root in the checkpoint."""

    leaf: bytes
    index: int
    siblings: Sequence[bytes]
    checkpoint: Checkpoint

    @property
    def item(self) -> Item:
        """What the leaf says. Raises ``ValueError``."""
        return leaves.item_of(self.leaf)

    @property
    def holds(self) -> bool:
        """Whether the leaf is in the tree of the checkpoint; its signature is another matter."""
        root_hash = merkle_tree.root_from_path(
            merkle_tree.leaf_hash(self.leaf), self.index, self.checkpoint.size, self.siblings
        )
        return root_hash == self.checkpoint.hash

    def encode(self) -> bytes:
        """Return the proof's file."""
        lines = [b"extra " + base64.b64encode(self.leaf), f"index {self.index}".encode()]
        lines += map(base64.b64encode, self.siblings)
        return HEADER + b"\n".join(lines) + b"\n\n" + self.checkpoint.encode()


def decode(data: bytes) -> Proof:
    """Read a proof's file; nothing is proved yet. Raises ``ValueError``."""
    head, _, rest = data[: MAX_BYTES + 1].partition(b"\n\n")
    if not head.startswith(HEADER):
        raise ValueError("no proof (c2sp.org/tlog-proof@v1)")
    lines = head[len(HEADER) :].split(b"\n")
    match = _INDEX.fullmatch(lines[1]) if len(lines) > 1 else None
    if match is None or not lines[0].startswith(b"extra ") or len(lines) > 66:
        raise ValueError("no proof of a bundle's item")
    try:
        leaf = base64.b64decode(lines[0].removeprefix(b"extra "), validate=True)
        siblings = [base64.b64decode(line, validate=True) for line in lines[2:]]
    except binascii.Error as exc:
        raise ValueError("no base64") from exc
    proof = Proof(leaf, int(match[1]), siblings, checkpoint.decode(rest))
    if proof.encode() != data or any(len(sibling) != merkle_tree.SIZE for sibling in siblings):
        raise ValueError("not written as a proof is")
    return proof
