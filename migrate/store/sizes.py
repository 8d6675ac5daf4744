"""How large files are cut into parts: a rule of nothing but the size, so that a resumed run cuts alike."""

from __future__ import annotations

from migrate.store.base import MAX_PARTS, PART_BYTES


def part_bytes_for(size_bytes: int) -> int:
    """Return the size of a part for a file: ``PART_BYTES``, doubled until ``MAX_PARTS`` suffice."""
    part_bytes = PART_BYTES
    while part_bytes * MAX_PARTS < size_bytes:
        part_bytes *= 2
    return part_bytes


def part_sizes(size_bytes: int, part_bytes: int) -> list[int]:
    """Return the size of each part of a file; an empty file has none."""
    whole, rest = divmod(size_bytes, part_bytes)
    return [part_bytes] * whole + ([rest] if rest else [])
