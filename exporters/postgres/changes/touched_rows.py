"""Which rows the messages of pgoutput change, by their keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from exporters.changes import Message, MessageKind
from exporters.postgres.changes.pgoutput import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    Relation,
    Row,
    Truncate,
    Update,
    decode,
)
from exporters.touched_rows import RowKey, TouchedRows, TouchedTables

_BY_KEY = "di"
"""The replica identities that are the columns of an index: the primary key, or another one."""
_TableName = tuple[str, str]


def touched_rows(messages: Iterable[Message]) -> Mapping[_TableName, TouchedRows]:
    """See ``exporters.changes.ChangeLog``."""
    collected = _Collected()
    for message in messages:
        if message.kind in {MessageKind.CHANGE, MessageKind.SHAPE}:
            collected.take(message)
    return collected.tables.touched()


class _Collected:
    """The rows of messages so far."""

    def __init__(self) -> None:
        self.tables = TouchedTables()
        self._relations: dict[int, Relation] = {}
        self._numbers: dict[_TableName, int] = {}
        self._keys: dict[int, tuple[int, ...]] = {}

    def take(self, message: Message) -> None:
        """Take a change or a shape."""
        decoded = decode(message.payload)
        if isinstance(decoded, Relation):
            self._take_shape(decoded)
        elif isinstance(decoded, Truncate):
            for number in decoded.relations:
                self._refuse(self._relations[number], "it was truncated")
        elif isinstance(decoded, Insert):
            self._add(decoded.relation, decoded.new)
        elif isinstance(decoded, Delete):
            self._add(decoded.relation, decoded.old)
        else:
            assert not isinstance(decoded, Begin | Commit)
            self._update(decoded)

    def _take_shape(self, relation: Relation) -> None:
        before = self._relations.get(relation.oid)
        if before == relation:
            return
        self._relations[relation.oid] = relation
        name = relation.schema, relation.name
        same_name = self._numbers.setdefault(name, relation.oid)
        key = tuple(index for index, column in enumerate(relation.columns) if column.is_key)
        self._keys[relation.oid] = key if relation.identity in _BY_KEY else ()
        self.tables.define(name, tuple(relation.columns[index].name for index in self._keys[relation.oid]))
        if before is not None or same_name != relation.oid:
            for changed in filter(None, (before, relation)):
                self._refuse(changed, "its definition has changed")

    def _update(self, change: Update) -> None:
        new = change.new
        if change.old is not None:
            self._add(change.relation, change.old)
            pairs = zip(change.old, new, strict=True)
            new = tuple([old if value is UNCHANGED else value for old, value in pairs])
        self._add(change.relation, new)

    def _add(self, number: int, row: Row) -> None:
        relation = self._relations[number]
        key: RowKey = tuple([value for index in self._keys[number] if isinstance(value := row[index], bytes)])
        self.tables.add((relation.schema, relation.name), key)

    def _refuse(self, relation: Relation, reason: str) -> None:
        self.tables.refuse((relation.schema, relation.name), reason)
