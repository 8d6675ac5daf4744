"""Rows joined to INSERTs that are long enough to be worth a round trip, and short enough for the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain

from msgspec import Struct

from exporters.mysql.identifiers import quote_name
from migrate.restore.mysql.values.bulk_rows import BulkRows
from migrate.restore.mysql.values.insert_values import LongValues, Values

_STATEMENT_BYTES = 2**20
"""About so long is one INSERT, where the server takes as much."""


class Statement(Struct, frozen=True):
    """An INSERT in pieces: with how many rows, and about how long. With ``types`` they are rows in bulk."""

    pieces: Iterable[bytes | memoryview]
    rows: int
    size_bytes: int
    types: bytes = b""


def insert_head(table: str, columns: Iterable[str]) -> str:
    """Return how an INSERT into these columns begins."""
    return f"INSERT INTO {quote_name(table)} ({', '.join(map(quote_name, columns))}) "


def insert_statements(
    table: str,
    columns: Iterable[str],
    batches: Iterable[BulkRows | Values | LongValues],
    allowed_bytes: int,
) -> Iterator[Statement]:
    """Join rows to INSERTs, far shorter than ``allowed_bytes`` where rows are. Those with long values are statements of
    their own. So are those with shapes that were never set: a SELECT of NULL is what lets MariaDB have them.
    """
    head = insert_head(table, columns).encode()
    together = _RowsTogether(head, min(_STATEMENT_BYTES, allowed_bytes // 2))
    for batch in batches:
        if isinstance(batch, LongValues):
            yield _alone(head, batch.pieces, never_set=batch.never_set)
        elif isinstance(batch, Values) and batch.never_set:
            yield from (_alone(head, partial(iter, [row]), never_set=True) for row in batch.rows)
        else:
            yield from together.add(batch)
    yield from together.rest()


class _RowsTogether:
    """Joins rows to INSERTs of up to ``most_bytes``; a longer row is one of its own."""

    def __init__(self, head: bytes, most_bytes: int) -> None:
        self._head, self._most_bytes = head, most_bytes
        self._pieces: list[memoryview] = []
        self._types = b""
        self._size_bytes = self._rows = 0

    def add(self, values: Values | BulkRows) -> Iterator[Statement]:
        """Take rows; yield the statements that are full."""
        types = values.types if isinstance(values, BulkRows) else b""
        if types != self._types:
            yield from self.rest()
            self._types = types
        begin, count = 0, len(values.joined)
        while begin < count:
            end = values.end_of(begin, self._most_bytes - self._size_bytes)
            if end == begin and self._pieces:
                yield from self.rest()
                continue
            end = max(end, begin + 1)
            self._pieces.append(values.text(begin, end))
            self._size_bytes += len(self._pieces[-1])
            self._rows += end - begin
            begin = end

    def rest(self) -> Iterator[Statement]:
        """Yield what was taken and is in no statement yet."""
        if self._pieces:
            pieces: list[bytes | memoryview] = [*self._pieces]
            if not self._types:
                *others, last = pieces
                pieces = [b"".join([self._head, b"VALUES ", *others, last[:-1]])]  # without the last comma
            yield Statement(pieces, self._rows, sum(map(len, pieces)), self._types)
            self._pieces = []
            self._size_bytes = self._rows = 0


def _alone(head: bytes, pieces: Callable[[], Iterable[bytes]], *, never_set: bool) -> Statement:
    """Return a statement of one row."""
    begin, end = (head + b"SELECT ", b"") if never_set else (head + b"VALUES (", b")")
    return Statement(chain([begin], pieces(), [end]), 1, len(begin) + 1 + sum(map(len, pieces())))
