"""Which rows differ: between two sets of rows that are given as texts, in any order, of any size.

Rows fall into buckets by their hash, on both sides into the same. First pass: every bucket's count and sum of hashes;
buckets that agree hold the same rows. Second pass: only the rows of the others are remembered, as hashes; what is left
over on one side differs. So memory is bounded, no order and no key is needed, and a table without a key is no harder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from xxhash import xxh3_128_intdigest

from exporters.engine import Texts

MOST_BUCKETS = 1 << 16
FEWEST_BUCKETS = 1 << 8
MOST_ROWS = 100_000
"""At most so many rows of both sides are remembered; buckets beyond that are left out, and the result records it."""
KEPT_ROWS = 1000
KEPT_BYTES = 32 * 2**20
"""Texts of differing rows that are kept, of each side."""
FEW_ROWS = 100
"""So many rows of each side are examined where there are more than can be kept."""

Take = Callable[[Texts], None]
Key = tuple[bytes | None, ...]
KeyOf = Callable[[bytes], Key]


class Side(Protocol):
    """One of the two sets. ``part`` is the part of the rows that are handed over at the moment, "" for none."""

    part: str

    def each(self, take: Take, parts: frozenset[str] | None = None) -> None:
        """Hand all rows over, some at a time; or those of some parts."""
        ...


@dataclass(frozen=True, slots=True)
class DifferingRow:
    """A row on one side only: its text, and the part that holds it."""

    text: bytes
    part: str = ""


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What differs. ``changed``: pairs with the same key; ``left``, ``right``: rows of one side only. ``whole``: that
    is all there is; else these are some of many.
    """

    changed: Sequence[tuple[DifferingRow, DifferingRow]]
    left: Sequence[DifferingRow]
    right: Sequence[DifferingRow]
    whole: bool


class _Sums:
    """Count and sum of hashes by bucket."""

    def __init__(self, buckets: int) -> None:
        self.mask = buckets - 1
        self.sums = [0] * buckets
        self.counts = [0] * buckets

    def take(self, texts: Texts) -> None:
        sums, counts, mask = self.sums, self.counts, self.mask
        for number in map(xxh3_128_intdigest, texts):
            bucket = number & mask
            sums[bucket] += number
            counts[bucket] += 1


def narrow(left: Side, right: Side, *, rows: int, key_of: KeyOf | None) -> Narrowed:
    """Find the rows of ``left`` that ``right`` has not, and the other way round. ``rows``: how many there are, about.
    ``key_of`` takes the key out of a row's text; without it no row counts as changed.
    """
    buckets = min(MOST_BUCKETS, max(FEWEST_BUCKETS, 1 << (rows // 8).bit_length()))
    left_sums, right_sums = _Sums(buckets), _Sums(buckets)
    left.each(left_sums.take)
    right.each(right_sums.take)
    differing = [
        bucket
        for bucket in range(buckets)
        if left_sums.counts[bucket] != right_sums.counts[bucket]
        or left_sums.sums[bucket] != right_sums.sums[bucket]
    ]
    chosen = _that_fit(differing, left_sums, right_sums)
    leftovers = _Leftovers(left, right, frozenset(chosen), buckets - 1)
    leftovers.look()
    whole = len(chosen) == len(differing) and leftovers.left.whole and leftovers.right.whole
    if whole:
        return _paired(leftovers.left.rows, leftovers.right.rows, key_of)
    few = leftovers.left.rows[:FEW_ROWS], leftovers.right.rows[:FEW_ROWS]
    if key_of is None:
        return Narrowed((), *few, whole=False)
    return _with_partners(left, right, few, key_of, _Among(frozenset(differing), buckets - 1))


def _that_fit(differing: Sequence[int], left: _Sums, right: _Sums) -> list[int]:
    chosen: list[int] = []
    rows = 0
    for bucket in differing:
        rows += left.counts[bucket] + right.counts[bucket]
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


@dataclass(frozen=True, slots=True)
class _Among:
    """Tells the rows of some buckets."""

    buckets: frozenset[int]
    mask: int

    def of(self, texts: Texts) -> Iterator[tuple[int, bytes]]:
        buckets, mask = self.buckets, self.mask
        for text, number in zip(texts, map(xxh3_128_intdigest, texts), strict=True):
            if number & mask in buckets:
                yield number, text


class _Leftovers:
    """Rows of the chosen buckets that are on one side only."""

    def __init__(self, left: Side, right: Side, chosen: frozenset[int], mask: int) -> None:
        self._left_side, self._right_side = left, right
        self._among = _Among(chosen, mask)
        self._hashes: Counter[int] = Counter()
        self._parts: dict[int, str] = {}
        self.left, self.right = _Kept(), _Kept()

    def look(self) -> None:
        """Remember the left rows, strike out the right ones, and read the texts of what is left over."""
        if not self._among.buckets:
            return
        self._left_side.each(self._remember)
        self._right_side.each(self._strike_out)
        if self._hashes:
            self._left_side.each(self._collect, frozenset(self._parts[number] for number in self._hashes))

    def _remember(self, texts: Texts) -> None:
        for number, _ in self._among.of(texts):
            self._hashes[number] += 1
            self._parts.setdefault(number, self._left_side.part)

    def _strike_out(self, texts: Texts) -> None:
        for number, text in self._among.of(texts):
            if (count := self._hashes.get(number, 0)) > 1:
                self._hashes[number] = count - 1
            elif count:
                del self._hashes[number]
            else:
                self.right.add(DifferingRow(text))

    def _collect(self, texts: Texts) -> None:
        for number, text in self._among.of(texts):
            if copies := self._hashes.pop(number, 0):
                self.left.add(DifferingRow(text, self._left_side.part), copies)


def _paired(left: Sequence[DifferingRow], right: Sequence[DifferingRow], key_of: KeyOf | None) -> Narrowed:
    """Rows of both sides with the same key are one row that has changed."""
    if key_of is None:
        return Narrowed((), left, right, whole=True)
    by_key = {key_of(row.text): row for row in right}
    changed, rest = [], []
    for row in left:
        partner = by_key.pop(key_of(row.text), None)
        if partner is None:
            rest.append(row)
        else:
            changed.append((row, partner))
    return Narrowed(changed, rest, list(by_key.values()), whole=True)


def _with_partners(
    left: Side,
    right: Side,
    few: tuple[Sequence[DifferingRow], Sequence[DifferingRow]],
    key_of: KeyOf,
    among: _Among,
) -> Narrowed:
    """Of many differing rows take a few, and look on the other side for rows with their keys."""
    rows_by_key = {key_of(row.text): row for row in few[0]}
    partners = _by_key(right, rows_by_key, key_of, among)
    changed = [(rows_by_key.pop(key), partner) for key, partner in partners.items()]
    known = {key_of(row.text) for row, _ in changed}
    others = {key: row for row in few[1] if (key := key_of(row.text)) not in known}
    partners = _by_key(left, others, key_of, among)
    changed += [(partner, others.pop(key)) for key, partner in partners.items()]
    return Narrowed(changed, list(rows_by_key.values()), list(others.values()), whole=False)


def _by_key(
    side: Side, keys: Mapping[Key, DifferingRow], key_of: KeyOf, among: _Among
) -> dict[Key, DifferingRow]:
    """Return the rows of a side that have one of the keys, among those of differing buckets."""
    rows: dict[Key, DifferingRow] = {}

    def take(texts: Texts) -> None:
        for _, text in among.of(texts):
            if (key := key_of(text)) in keys:
                rows[key] = DifferingRow(text, side.part)

    if keys:
        side.each(take)
    return rows
