"""What a table can do without, in its definition as SHOW CREATE TABLE prints it: so that what a server refuses costs
that and not the table. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence

from msgspec import Struct

from migrate.restore.mysql.table_ddl import closing, masked, spans_of

GENERATED, FOREIGN, PARTITIONS = "generated column", "foreign key", "partitions"


class Piece(Struct, frozen=True):
    """``words`` at ``begin`` to ``end`` of a definition; ``lost`` is the property that they give. ``column``: whose."""

    lost: str
    words: str
    begin: int
    end: int
    column: str = ""

    @property
    def addition(self) -> str:
        """What ALTER TABLE calls it, or nothing where it would have to change a column."""
        if self.lost in {"key", "constraint", FOREIGN} and not self.column:
            return f"ADD {self.words.lstrip(', ' + chr(10))}"
        return self.words.strip() if self.lost == PARTITIONS else ""

    @property
    def shown(self) -> str:
        """It and its column, on one line."""
        return " ".join(f"{self.column} {self.words.lstrip(', ')}".split())


_KEYS = {
    re.compile(r"PRIMARY KEY "): "key",
    re.compile(r"UNIQUE KEY "): "key",
    re.compile(r"(?:FULLTEXT |SPATIAL )?KEY "): "key",
    re.compile(r"CONSTRAINT \0+ FOREIGN KEY ", re.DOTALL): FOREIGN,
    re.compile(r"CONSTRAINT \0+ CHECK ", re.DOTALL): "constraint",
}
_OF_COLUMNS: dict[str, re.Pattern[str]] = {
    GENERATED: re.compile(r" GENERATED ALWAYS AS (?=\()"),
    "default": re.compile(r" DEFAULT (?=\(|\w+\()| DEFAULT \w*\0+| DEFAULT [^\s,(]+"),
    "collation": re.compile(r" COLLATE \w+"),
    "constraint": re.compile(r" CHECK (?=\()"),
    "AUTO_INCREMENT": re.compile(r" AUTO_INCREMENT\b"),
}
_AFTER = {
    GENERATED: re.compile(r" (?:VIRTUAL|STORED|PERSISTENT)"),
    "default": re.compile(r" ON UPDATE current_timestamp(?:\(\d*\))?", re.IGNORECASE),
}
_OPTIONS = re.compile(r" (?:ROW_FORMAT|KEY_BLOCK_SIZE|COLLATE|PACK_KEYS)=\w+")
_PARTITIONS = re.compile(r"\s*(?:/\*!\d+ )?\s*PARTITION BY .*", re.DOTALL)
_ORDER = (
    *("primary key", "AUTO_INCREMENT", GENERATED, "default", "collation", "key", "constraint", "option"),
    *(PARTITIONS, FOREIGN),
)


def pieces_of(sql: str) -> list[Piece]:
    """Return all such pieces, those first that others may need, or that matter more than others."""
    pieces = list(_pieces(sql))
    counter = next((piece.column for piece in pieces if piece.lost == "AUTO_INCREMENT"), "")
    leads = any(f"PRIMARY KEY ({counter}" in piece.words for piece in pieces)

    def location(piece: Piece) -> tuple[int, int]:
        needed = "PRIMARY KEY " in piece.words or (not leads and f"({counter}" in piece.words)
        lost = "primary key" if piece.lost == "key" and needed else piece.lost
        return _ORDER.index(lost), piece.begin

    return sorted(pieces, key=location)


def _pieces(sql: str) -> Iterator[Piece]:
    shown = masked(sql)
    _, close, spans = spans_of(sql)
    before = 0
    for begin, end in spans:
        item = shown[begin:end]
        lost = next((lost for pattern, lost in _KEYS.items() if pattern.match(item)), "")
        if lost:
            yield Piece(lost, sql[before:end], before, end)
        elif item.startswith("\0"):
            yield from _of_column(sql, shown, begin, end)
        before = end
    partitions = _PARTITIONS.search(shown, close)
    if partitions is not None:
        yield Piece(PARTITIONS, sql[partitions.start() :], partitions.start(), len(sql))
    for option in _OPTIONS.finditer(shown, close, partitions.start() if partitions else len(sql)):
        yield Piece("option", sql[option.start() : option.end()], option.start(), option.end())


def _of_column(sql: str, shown: str, begin: int, end: int) -> Iterator[Piece]:
    name_ends = shown.index(" ", begin)
    for lost, pattern in _OF_COLUMNS.items():
        match = pattern.search(shown, name_ends, end)
        if match is None:
            continue
        ends = match.end()
        if (opens := re.compile(r"\w*\(").match(shown, ends, end)) is not None and lost != "collation":
            ends = closing(shown, opens.end() - 1)
        if (after := _AFTER.get(lost)) is not None and (suffix := after.match(shown, ends, end)) is not None:
            ends = suffix.end()
        yield Piece(lost, sql[match.start() : ends], match.start(), ends, sql[begin:name_ends])


def without(sql: str, out: Collection[Piece]) -> str:
    """Return a definition without these pieces of it."""
    for piece in sorted(out, key=lambda piece: -piece.begin):
        sql = sql[: piece.begin] + sql[piece.end :]
    return sql


def least(sql: str, refusal: Callable[[str], str]) -> dict[Piece, str] | None:
    """Return as few pieces as a table has to do without so that the destination takes the definition, and why each;
    None where it does not even without all. ``refusal`` returns why the destination refuses a definition, "" if it
    accepts it.
    """
    pieces = pieces_of(sql)
    out = dict.fromkeys(pieces, "")
    if refusal(without(sql, out)):
        return None

    def put_back(some: Sequence[Piece]) -> None:
        reason = refusal(without(sql, [piece for piece in out if piece not in some]))
        if not reason:
            for piece in some:
                del out[piece]
        elif len(some) == 1:
            out[some[0]] = reason
        else:
            put_back(some[: len(some) // 2])
            put_back(some[len(some) // 2 :])

    put_back(pieces)
    return out
