"""Which rows differ: between two sets of rows that are given as texts, in any order, of any size.

Only rows in buckets that differ are remembered (``migrate.repair.row_sides``), as hashes; what is left over on one
side differs. A comparison shows some differences: it keeps few texts, needs no disk, and names the part of each row. A
repair needs all differences, and lays the rows on disk (``migrate.repair.row_differences``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from msgspec import Struct
from xxhash import xxh3_128_intdigest

from exporters.engine import Texts
from migrate.repair.row_differences import Key, KeyOf
from migrate.repair.row_sides import BucketSums, HashedSide, TakeTexts, count_buckets

MOST_ROWS = 100_000
"""At most so many rows of both sides are remembered; buckets beyond that are left out, and the result records it."""
KEPT_ROWS = 1000
KEPT_BYTES = 32 * 2**20
"""Texts of differing rows that are kept, of each side."""
FEW_ROWS = 100
"""How many rows of each side are examined where there are more than can be kept."""


class Side(Protocol):
    """One of the two sets. ``part`` is the part of the rows that are handed over at the moment, "" for none."""

    part: str

    def each(self, take: TakeTexts, parts: frozenset[str] | None = None) -> None:
        """Hand all rows over, some at a time; or those of some parts."""
        ...


class DifferingRow(Struct, frozen=True):
    """A row on one side only: its text, and the part that holds it."""

    text: bytes
    part: str = ""


class RowDiff(Struct, frozen=True):
    """What differs. ``changed``: pairs with the same key; ``left``, ``right``: rows of one side only. ``whole``: that
    is all there is; else these are some of many.
    """

    changed: Sequence[tuple[DifferingRow, DifferingRow]]
    left: Sequence[DifferingRow]
    right: Sequence[DifferingRow]
    whole: bool


def diff_rows(left: Side, right: Side, *, rows: int, key_of: KeyOf | None) -> RowDiff:
    """Find the rows of ``left`` that ``right`` has not, and the other way round. ``rows``: how many there are, about.
    ``key_of`` takes the key out of a row's text; without it no row counts as changed.
    """
    buckets = count_buckets(rows)
    left_sums = HashedSide.of_texts(left.each).sums(buckets)
    right_sums = HashedSide.of_texts(right.each).sums(buckets)
    differing = left_sums.differing(right_sums)
    chosen = _that_fit(differing, left_sums, right_sums)
    leftovers = _Leftovers(left, right, _Among(frozenset(chosen), buckets))
    leftovers.look()
    whole = len(chosen) == len(differing) and leftovers.left.whole and leftovers.right.whole
    if whole:
        return _paired(leftovers.left.rows, leftovers.right.rows, key_of)
    few = leftovers.left.rows[:FEW_ROWS], leftovers.right.rows[:FEW_ROWS]
    if key_of is None:
        return RowDiff((), *few, whole=False)
    return _with_partners(left, right, few, key_of, _Among(frozenset(differing), buckets))


def _that_fit(differing: Sequence[int], left: BucketSums, right: BucketSums) -> list[int]:
    chosen: list[int] = []
    rows = 0
    for bucket in differing:
        rows += left.rows[bucket] + right.rows[bucket]
        if chosen and rows > MOST_ROWS:
            break
        chosen.append(bucket)
    return chosen


class _Kept:
    """The first rows, as many as memory has room for."""

    def __init__(self) -> None:
        self.rows: list[DifferingRow] = []
        self.whole = True
        self._size = 0

    def add(self, row: DifferingRow, copies: int = 1) -> None:
        self._size += len(row.text)
        if len(self.rows) + copies > KEPT_ROWS or (self.rows and self._size > KEPT_BYTES):
            self.whole = False
        else:
            self.rows += [row] * copies


class _Among(Struct, frozen=True):
    """Some of the buckets."""

    chosen: frozenset[int]
    buckets: int

    def each(self, side: Side, take: Callable[[bytes], None], parts: frozenset[str] | None = None) -> None:
        """Hand over the rows of a side in these buckets, or those of some parts."""

        def take_texts(texts: Texts, _: Texts) -> None:
            for text in texts:
                take(text)

        hashed = HashedSide.of_texts(partial(side.each, parts=parts))
        hashed.each(take_texts, self.buckets, self.chosen)


class _Leftovers:
    """Rows of the chosen buckets that are on one side only."""

    def __init__(self, left: Side, right: Side, among: _Among) -> None:
        self._left_side, self._right_side = left, right
        self._among = among
        self._hashes: Counter[int] = Counter()
        self._parts: dict[int, str] = {}
        self.left, self.right = _Kept(), _Kept()

    def look(self) -> None:
        """Remember the left rows, strike out the right ones, and read the texts of what is left over."""
        among = self._among
        if not among.chosen:
            return
        among.each(self._left_side, self._remember)
        among.each(self._right_side, self._strike_out)
        if self._hashes:
            parts = frozenset(self._parts[number] for number in self._hashes)
            among.each(self._left_side, self._collect, parts)

    def _remember(self, text: bytes) -> None:
        number = xxh3_128_intdigest(text)
        self._hashes[number] += 1
        self._parts.setdefault(number, self._left_side.part)

    def _strike_out(self, text: bytes) -> None:
        number = xxh3_128_intdigest(text)
        if (count := self._hashes.get(number, 0)) > 1:
            self._hashes[number] = count - 1
        elif count:
            del self._hashes[number]
        else:
            self.right.add(DifferingRow(text))

    def _collect(self, text: bytes) -> None:
        if copies := self._hashes.pop(xxh3_128_intdigest(text), 0):
            self.left.add(DifferingRow(text, self._left_side.part), copies)


def _paired(left: Sequence[DifferingRow], right: Sequence[DifferingRow], key_of: KeyOf | None) -> RowDiff:
    """Pair rows of both sides that have the same key: they are one row that has changed."""
    if key_of is None:
        return RowDiff((), left, right, whole=True)
    by_key = {key_of(row.text): row for row in right}
    changed, rest = [], []
    for row in left:
        partner = by_key.pop(key_of(row.text), None)
        if partner is None:
            rest.append(row)
        else:
            changed.append((row, partner))
    return RowDiff(changed, rest, list(by_key.values()), whole=True)


def _with_partners(
    left: Side,
    right: Side,
    few: tuple[Sequence[DifferingRow], Sequence[DifferingRow]],
    key_of: KeyOf,
    among: _Among,
) -> RowDiff:
    """Take ``few`` of many differing rows, and look on the other side for rows with the same keys."""
    rows_by_key = {key_of(row.text): row for row in few[0]}
    partners = _by_key(right, rows_by_key, key_of, among)
    changed = [(rows_by_key.pop(key), partner) for key, partner in partners.items()]
    known = {key_of(row.text) for row, _ in changed}
    others = {key: row for row in few[1] if (key := key_of(row.text)) not in known}
    partners = _by_key(left, others, key_of, among)
    changed += [(partner, others.pop(key)) for key, partner in partners.items()]
    return RowDiff(changed, list(rows_by_key.values()), list(others.values()), whole=False)


def _by_key(
    side: Side, keys: Mapping[Key, DifferingRow], key_of: KeyOf, among: _Among
) -> dict[Key, DifferingRow]:
    """Return the rows of a side that have one of the keys, among those of differing buckets."""
    rows: dict[Key, DifferingRow] = {}

    def take(text: bytes) -> None:
        if (key := key_of(text)) in keys:
            rows[key] = DifferingRow(text, side.part)

    if keys:
        among.each(side, take)
    return rows
