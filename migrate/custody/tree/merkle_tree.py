"""Merkle trees as RFC 6962 (section 2.1) has them: SHA-256, with a first byte that distinguishes leaves and nodes.

Hashes of a level lie one after the other in ``bytes``, 32 each: a million leaves are 32 MB. A node without a sibling
goes up a level as it is, which makes the same tree as the RFC's recursion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

SIZE = 32
GROUP = 256
"""How many leaves share one node of the eighth level; what is kept of a tree is that level."""
EMPTY = sha256().digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\0" + leaf).digest()


def leaf_hashes(leaves: Iterable[bytes]) -> bytes:
    """Return the hashes of leaves."""
    return b"".join([sha256(b"\0" + leaf).digest() for leaf in leaves])


def next_level(hashes: bytes) -> bytes:
    """Return the next level. Raises ``ValueError`` for what is no level."""
    if len(hashes) % SIZE:
        raise ValueError("hashes of another size")
    pairs = len(hashes) // (2 * SIZE) * (2 * SIZE)
    nodes = [
        sha256(b"\1" + hashes[offset : offset + 2 * SIZE]).digest() for offset in range(0, pairs, 2 * SIZE)
    ]
    return b"".join(nodes) + hashes[pairs:]


def grouped(hashes: bytes) -> bytes:
    """Return one node for each group of leaves; the last may have fewer."""
    group_bytes = GROUP * SIZE
    return b"".join(
        top(hashes[offset : offset + group_bytes]) for offset in range(0, len(hashes), group_bytes)
    )


def top(hashes: bytes) -> bytes:
    """Return the root above a level."""
    if not hashes:
        return EMPTY
    while len(hashes) > SIZE:
        hashes = next_level(hashes)
    return hashes


def path(hashes: bytes, index: int) -> list[bytes]:
    """Return the siblings on the way from node ``index`` of a level up to the root above it."""
    siblings = []
    while len(hashes) > SIZE:
        offset = (index ^ 1) * SIZE
        if offset < len(hashes):
            siblings.append(hashes[offset : offset + SIZE])
        hashes, index = next_level(hashes), index // 2
    return siblings


def root_from_path(leaf: bytes, index: int, size: int, siblings: Sequence[bytes]) -> bytes | None:
    """Return the root that a leaf's hash and its siblings lead to (RFC 9162, section 2.1.3.2). None where there are too
    many or too few of them for a tree of ``size`` leaves.
    """
    if not 0 <= index < size:
        return None
    last, node_hash = size - 1, leaf
    for sibling in siblings:
        if last == 0:
            return None
        if index % 2 or index == last:
            node_hash = sha256(b"\1" + sibling + node_hash).digest()
            while index % 2 == 0 and index:
                index, last = index // 2, last // 2
        else:
            node_hash = sha256(b"\1" + node_hash + sibling).digest()
        index, last = index // 2, last // 2
    return node_hash if last == 0 else None
