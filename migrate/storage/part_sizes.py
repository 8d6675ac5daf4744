"""How large files are cut into parts, and how one that was begun is cut: so that a resumed run cuts alike."""

from __future__ import annotations

from collections.abc import Iterable

from migrate.storage.api import MAX_PARTS, MIN_PART_BYTES, PART_BYTES, Part

HALF_PART_BYTES = 8 * 2**20
"""A part where nothing is known of the link."""
_CUTS = frozenset(base << n for base in (MIN_PART_BYTES, HALF_PART_BYTES) for n in range(16))


def part_bytes_for(size_bytes: int, usual: int | None = None) -> int:
    """Return the size of a part for a file: the usual one (``PART_BYTES`` at most), doubled until ``MAX_PARTS``
    suffice.
    """
    part_bytes = min(usual or PART_BYTES, PART_BYTES)
    while part_bytes * MAX_PARTS < size_bytes:
        part_bytes *= 2
    return part_bytes


def cut_of(parts: Iterable[Part]) -> int | None:
    """Return the size of the parts of an upload that was begun; None where that cannot be told, or none of ours is so
    large. All have one size but the last one of the file, which may be smaller.
    """
    sizes = [part.size_bytes for part in sorted(parts, key=lambda part: part.number)]
    cut = max(sizes, default=0)
    return cut if cut in _CUTS and all(size == cut for size in sizes[:-1]) else None


def part_sizes(size_bytes: int, part_bytes: int) -> list[int]:
    """Return the size of each part of a file; an empty file has none."""
    whole, rest = divmod(size_bytes, part_bytes)
    return [part_bytes] * whole + ([rest] if rest else [])
