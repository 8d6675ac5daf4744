"""Which rows the events of a binary log change, by their keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from exporters.changes import Message, MessageKind
from exporters.mysql.changes.binlog_events import (
    DELETES,
    INSERTS,
    ROWS,
    STATEMENTS,
    EventType,
    TableMap,
    event_type,
    read_query,
    read_table_map,
    table_number,
)
from exporters.mysql.changes.logged_statements import Names, StatementKind, read_statement
from exporters.mysql.changes.row_events import Image, is_looked_up_by, row_images, uncompressed
from exporters.touched_rows import RowKey, TouchedRows, TouchedTables


def touched_rows(messages: Iterable[Message], names: Names) -> Mapping[tuple[str, str], TouchedRows]:
    """See ``exporters.changes.ChangeLog``."""
    collected = _Collected(names)
    for message in messages:
        collected.take(message)
    return collected.tables.touched()


class _Keyed(Struct, frozen=True):
    """The map of a table, and its key. ``is_looked_up``: whether rows are found by a key of its types."""

    table: TableMap
    name: tuple[str, str]
    key: tuple[int, ...]
    is_looked_up: bool

    def key_of(self, image: Image) -> RowKey:
        """Return the values of the key in an image, as far as that has them."""
        return tuple([value for index in self.key if (value := image.get(index)) is not None])


class _Collected:
    """The rows of messages so far."""

    def __init__(self, names: Names) -> None:
        self.tables = TouchedTables()
        self._names = names
        self._maps: dict[int, _Keyed] = {}

    def take(self, message: Message) -> None:
        """Take a message."""
        kind = event_type(message.payload)
        if message.kind is MessageKind.SHAPE and kind == EventType.TABLE_MAP:
            self._take_shape(read_table_map(message.payload))
        elif message.kind is MessageKind.CHANGE and kind in ROWS:
            self._take_rows(uncompressed(message.payload))
        elif message.kind is MessageKind.CHANGE and kind in STATEMENTS:
            self._take_statement(message.payload)

    def _take_shape(self, table: TableMap) -> None:
        columns, key = table.columns, table.key
        is_looked_up = all(is_looked_up_by(table.types[index], table.metadata[index]) for index in key)
        self._maps[table.number] = _Keyed(table, ("", table.name), key, is_looked_up)
        self.tables.define(("", table.name), tuple(columns[index] for index in key if columns))

    def _take_rows(self, event: bytes) -> None:
        keyed = self._maps[table_number(event)]
        if self.tables.is_refused(keyed.name):
            return
        if not keyed.is_looked_up:
            self.tables.refuse(keyed.name, "rows are not looked up by a key of such a type")
            return
        kind = event_type(event)
        try:
            for _, _, images in row_images(event, keyed.table):
                old = {} if kind in INSERTS else images[0]
                if kind not in INSERTS:
                    self.tables.add(keyed.name, keyed.key_of(old))
                if kind not in DELETES:
                    self.tables.add(keyed.name, keyed.key_of({**old, **images[-1]}))
        except ValueError as exc:
            self.tables.refuse(keyed.name, f"the log does not name its rows: {exc}")

    def _take_statement(self, event: bytes) -> None:
        statement = read_statement(read_query(event), self._names)
        if statement is None:
            return
        reason = (
            "it was truncated" if statement.kind is StatementKind.TRUNCATE else "its definition has changed"
        )
        for name in statement.tables:
            self.tables.refuse(("", name), reason)
