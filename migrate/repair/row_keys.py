"""The key of a row, taken out of its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exporters.engine import PartReader

Key = tuple[bytes | None, ...]
KeyOf = Callable[[bytes], Key]


def key_reader(part_reader: PartReader, columns: Sequence[str], key: Sequence[str]) -> KeyOf:
    """Return what takes the key out of a row's text."""
    indexes = [list(columns).index(name) for name in key]

    def key_of(text: bytes) -> Key:
        values = part_reader.split(text)
        return tuple(values[index] for index in indexes)

    return key_of
