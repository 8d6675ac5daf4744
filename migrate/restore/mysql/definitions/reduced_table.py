"""A table of which the destination refuses something: made without that, which is named.

What it is, is tried out with a table of our own that is dropped again. Keys, constraints and partitions that no CREATE
TABLE may have are added afterwards where the destination takes them so. A server may refuse in one statement what it
takes in several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial

import pymysql
from msgspec import Struct

from exporters.api import Loss
from exporters.mysql.errors import is_about_the_thing, message_of
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.restore.mysql.definitions.object_maker import ObjectMaker
from migrate.restore.mysql.definitions.recorded_definitions import Definition
from migrate.restore.mysql.definitions.table_ddl import closing, masked, spans_of
from migrate.restore.mysql.destination import DestinationConnection, alter, items_there
from migrate.restore.mysql.restore_state import forget_loss, note_loss

GENERATED, FOREIGN, PARTITIONS = "generated column", "foreign key", "partitions"
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
    "primary key", "AUTO_INCREMENT", GENERATED, "default", "collation", "key", "constraint", "option",
    PARTITIONS, FOREIGN,
)  # fmt: skip
_FOREIGN_KEYS = (
    "SELECT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS"
    " WHERE CONSTRAINT_SCHEMA = {schema} AND REFERENCED_TABLE_NAME = {table} AND TABLE_NAME <> {table}"
)


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


def make_reduced(
    connection: DestinationConnection, maker: ObjectMaker, definition: Definition, ours: Collection[str]
) -> bool:
    """Make a table without what the destination refuses of it; return whether there is a way. ``ours``: the tables
    that are being restored. Raises the driver's errors.
    """
    out = least(definition["sql"], partial(_refusal, connection, maker, definition))
    if out is None:
        return False
    losses = {piece: _loss(definition, piece, reason) for piece, reason in out.items()}
    for loss in losses.values():
        note_loss(connection, loss)
    dropped_keys = [
        foreign_key
        for foreign_key in _foreign_keys_to(connection, definition["name"])
        if foreign_key[0] in ours
    ]
    for table, name, item in dropped_keys:
        note_loss(connection, _away(table, item))
        connection.run(f"ALTER TABLE {quote_name(table)} DROP FOREIGN KEY {quote_name(name)}")
    try:
        maker.make({**definition, "sql": without(definition["sql"], out)})
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        for loss in losses.values():
            forget_loss(connection, loss)
        return False
    finally:
        _put_back(connection, dropped_keys)
    for piece, loss in losses.items():
        if piece.addition and alter(connection, definition["name"], piece.addition) is None:
            forget_loss(connection, loss)
    return True


def _put_back(connection: DestinationConnection, foreign_keys: Sequence[tuple[str, str, str]]) -> None:
    for table, _, item in foreign_keys:
        refusal = alter(connection, table, f"ADD {item}")
        if refusal is not None:
            note_loss(
                connection,
                Loss(f"table {quote_name(table)}", FOREIGN, f"{' '.join(item.split())}: {refusal}"),
            )
        forget_loss(connection, _away(table, item))


def _away(table: str, item: str) -> Loss:
    """The loss that is recorded in case the restore stops before the key is added again."""
    return Loss(
        f"table {quote_name(table)}", FOREIGN, f"{' '.join(item.split())}: the restore was stopped here"
    )


def _refusal(connection: DestinationConnection, maker: ObjectMaker, definition: Definition, sql: str) -> str:
    """Return why the destination refuses a table of this definition, "" if it makes it."""
    again, head = connection.again, len(f"CREATE TABLE {quote_name(definition['name'])}")
    connection.run(f"DROP TABLE IF EXISTS {again}")
    try:
        sql = f"CREATE TABLE {again}{sql[head:]}"
        maker.make({**definition, "name": connection.control.again, "sql": sql})
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        return message_of(exc)
    finally:
        with suppress(pymysql.Error):
            connection.run(f"DROP TABLE IF EXISTS {again}")
    return ""


def _loss(definition: Definition, piece: Piece, reason: str) -> Loss:
    return Loss(f"table {quote_name(definition['name'])}", piece.lost, f"{piece.shown}: {reason}")


def _foreign_keys_to(connection: DestinationConnection, table: str) -> list[tuple[str, str, str]]:
    """Return the tables that are there already and point to this one, with their foreign keys' names and definitions:
    the destination would refuse a table that does not fit to these.
    """
    schema = quote_literal(connection.address.database)
    rows = connection.rows(_FOREIGN_KEYS.format(schema=schema, table=quote_literal(table)))
    return [(str(child), str(name), _item(connection, str(child), str(name))) for child, name in rows]


def _item(connection: DestinationConnection, table: str, constraint: str) -> str:
    begin = f"CONSTRAINT {quote_name(constraint)} "
    return next((item for item in items_there(connection, table) if item.startswith(begin)), "")
