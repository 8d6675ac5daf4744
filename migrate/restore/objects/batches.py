"""What is to be written of a bucket, in batches: the smallest piece of a restore that one hand does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from migrate.bundle.object_index import ObjectRow
from migrate.restore.objects.destination_terms import in_parts

BATCH_OBJECTS = 1000


class History(Struct, frozen=True):
    """The versions of a key that are to be written, oldest first, and how many it has already."""

    key: str
    rows: Sequence[ObjectRow]
    before: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(row.size_bytes for row in self.rows)


def batches(histories: Iterable[History], most_bytes: int) -> Iterator[list[History]]:
    """Gather histories; one with a version that goes in parts, or of more than ``most_bytes`` in all, is a batch by
    itself.
    """
    gathered: list[History] = []
    size_bytes = count = 0
    for history in histories:
        if history.size_bytes > most_bytes or any(in_parts(row) for row in history.rows):
            yield [history]
            continue
        if gathered and (
            size_bytes + history.size_bytes > most_bytes or count + len(history.rows) > BATCH_OBJECTS
        ):
            yield gathered
            gathered, size_bytes, count = [], 0, 0
        gathered.append(history)
        size_bytes += history.size_bytes
        count += len(history.rows)
    if gathered:
        yield gathered
