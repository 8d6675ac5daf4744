"""The parts of a source's tables, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from msgspec import Struct

from exporters.row_digest import Advance
from exporters.sql.whole_parquet import read_errors
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.errors import DamageError, in_words
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress

_Item = TypeVar("_Item")


class PartFile(Struct, frozen=True):
    """A part of a table: ``name`` relative to ``data/<source>/``, unique within the source. ``first``: of its table."""

    table: CatalogRow
    name: str
    rows: int
    first: bool

    @property
    def key(self) -> str:
        """Its key in the bundle."""
        return layout.source_file(self.table.source, self.name)

    @property
    def size_bytes(self) -> int:
        """Its share of the table's bytes, about."""
        return self.table.size_bytes * self.rows // max(self.table.items, 1)


def parts_of(tables: Sequence[CatalogRow]) -> list[PartFile]:
    """Return all parts of these tables, in their order."""
    return [
        PartFile(table, part["name"], part["rows"], first=not position)
        for table in tables
        for position, part in enumerate(table.parts)
    ]


def batches_of(parts: Iterable[PartFile], *, size_bytes: int, count: int) -> list[list[PartFile]]:
    """Return parts in their order, in batches of ``size_bytes`` and ``count`` parts at most."""
    batches: list[list[PartFile]] = []
    filled = 0
    for part in parts:
        if not batches or filled + part.size_bytes > size_bytes or len(batches[-1]) == count:
            batches.append([])
            filled = 0
        batches[-1].append(part)
        filled += part.size_bytes
    return batches


def damage(part: PartFile, error: BaseException) -> DamageError:
    """Return the error for a part that cannot be read."""
    return DamageError(
        part.key,
        expected="a readable Parquet file",
        found=in_words(error)[:200],
        next_step="run verify --level full on the bundle and fetch the file again",
    )


@contextmanager
def reading_part(part: PartFile) -> Iterator[None]:
    """Raise ``DamageError`` that names the part for all that reading it may raise."""
    try:
        yield
    except read_errors() as exc:
        raise damage(part, exc) from exc


def missing_rows(label: str, part: PartFile, error: DamageError) -> str:
    """Return the finding for a part that cannot be read. ``label``: its table, as shown to users."""
    return f"{label}: the rows in {part.key} are missing: expected {error.expected}, found {error.found}"


REPAIR = (
    "a file of the bundle is damaged: moveout transfer --recheck from a whole copy replaces it, then the same command"
    " restores the rest"
)


class AttemptProgress:
    """What one attempt to write parts has shown as progress, so that it can be taken back."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._rows: dict[str, int] = {}
        self._size_bytes = 0

    def add(self, part: PartFile, rows: int) -> None:
        """Show more rows of a part, and their share of its bytes, which are those of its text, however it is sent."""
        before = self._rows.get(part.name, 0)
        self._rows[part.name] = before + rows
        whole = max(part.rows, 1)
        size_bytes = part.size_bytes * (before + rows) // whole - part.size_bytes * before // whole
        self._size_bytes += size_bytes
        self._advance(rows, size_bytes)

    def take_back(self) -> None:
        """Show nothing of it any more."""
        self._advance(-sum(self._rows.values()), -self._size_bytes)
        self._rows.clear()
        self._size_bytes = 0


class WrittenRows(Struct, frozen=True):
    """Rows that were there from an earlier run, and bytes that were written now."""

    skipped_items: int
    size_bytes: int


class RowsToWrite:
    """The ``parts`` that a restore has yet to write, and what all workers write of them. Thread-safe as far as it
    matters: integer addition loses nothing that does.
    """

    def __init__(self, parts: Sequence[PartFile], skipped_items: int, progress: Progress) -> None:
        self.parts = parts
        self._skipped_items = skipped_items
        self._size_bytes = 0
        self._progress = progress

    def advance(self, rows: int, size_bytes: int) -> None:
        """Show more rows, of so many bytes. See ``Advance``."""
        self._size_bytes += size_bytes
        self._progress.advance(items=rows, size_bytes=size_bytes)

    def end(self) -> WrittenRows:
        """Return what was written."""
        self._progress.end()
        return WrittenRows(self._skipped_items, self._size_bytes)


def readable(
    part: PartFile, items: Iterator[_Item], cancellation: CancellationToken | None = None
) -> Iterator[_Item]:
    """Pass on what is read of a part. Raises ``DamageError`` where that fails, ``Cancelled``."""
    while True:
        if cancellation is not None:
            cancellation.check()
        with reading_part(part):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item
