"""In which order post-data's entries are made, and which of them at once. Pure: no I/O.

pg_dump's order is right one by one. Indexes and the constraints that are indexes need nothing of each other, neither do
foreign keys once all indexes are there. So those go in parallel. An entry that is not known to be independent (a
function or a view that pg_dump had to put after the data) divides the script, and nothing moves across it.

A key locks its table exclusively while its index is made, so that the table's other indexes wait, and one processor
does most of the work. So the index of a large table is made first, at the same time as the others. Then it becomes
the key.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum

from msgspec import Struct, field
from msgspec.structs import replace

from migrate.restore.postgres.definitions.dump_script import NAME, QUALIFIED, DumpEntry, Name, unquote
from migrate.restore.postgres.definitions.partition_keys import with_keys_of_partitions

_INDEX = re.compile(
    rb"^CREATE (?:UNIQUE )?INDEX " + NAME + rb" ON (?:ONLY )?(" + QUALIFIED + rb") USING ", re.MULTILINE
)
_ALTER = re.compile(rb"^ALTER TABLE (?:IF EXISTS )?(?:ONLY )?(" + QUALIFIED + rb")", re.MULTILINE)
_FOREIGN_KEY = re.compile(rb"^(    ADD CONSTRAINT [^\n]+ FOREIGN KEY [^\n]+);$", re.MULTILINE)
_KEY = re.compile(
    rb"\A((?:SET default_[a-z_]+ = [^;\n]*;|--\n|\s)*)(ALTER TABLE ONLY ("
    + QUALIFIED
    + rb")\n    ADD CONSTRAINT ("
    + NAME
    + rb") (PRIMARY KEY|UNIQUE)) (\([^()]+\));\s*\Z"
)
"""A key without further clauses: what is set for it, its statement as far as the columns, and what that names."""
_REFERENCES = re.compile(rb" REFERENCES (" + QUALIFIED + rb")\(")

_POSTPONED = frozenset(
    {
        "ACL",
        "CHECK CONSTRAINT",
        "COMMENT",
        "DEFAULT ACL",
        "EVENT TRIGGER",
        "INDEX ATTACH",
        "MATERIALIZED VIEW DATA",
        "POLICY",
        "PUBLICATION",
        "PUBLICATION TABLE",
        "PUBLICATION TABLES IN SCHEMA",
        "ROW SECURITY",
        "RULE",
        "SECURITY LABEL",
        "STATISTICS",
        "TRIGGER",
    }
)
"""Kinds that no index and no foreign key can need: they may come after those."""


_LIGHT = frozenset({"CONSTRAINT", "INDEX", "INDEX ATTACH", "FK CONSTRAINT"}) | (
    _POSTPONED - {"MATERIALIZED VIEW DATA", "CHECK CONSTRAINT"}
)
"""Kinds that take no longer than their table is large."""
_LIGHT_BYTES = 2**20
_STRUCTURE = frozenset({"CONSTRAINT", "FK CONSTRAINT", "INDEX", "INDEX ATTACH"})


class TableLock(Enum):
    """How an entry holds its tables while it is made (PostgreSQL documentation, 13.3)."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"


class KeyByIndex(Struct, frozen=True):
    """Statements: the index of a key, the key that takes it, and what takes the index away again."""

    create_index: bytes
    take_index: bytes
    drop_index: bytes


class PostDataStep(Struct, frozen=True):
    """An entry with the tables that it locks; without any it is made alone."""

    entry: DumpEntry
    tables: frozenset[Name] = frozenset()
    lock: TableLock = TableLock.EXCLUSIVE
    size_bytes: int = 0
    """The size of the table that it is about."""
    parents: frozenset[Name] = frozenset()
    """The tables to which a foreign key refers."""
    key: KeyByIndex | None = None
    """How a key is made of an index that was made before; of that index as well."""
    makes_index: bool = False
    """It makes the index of the key only."""

    @property
    def is_light(self) -> bool:
        """Tell whether it is soon made, so that it may share a transaction with others."""
        return self.size_bytes <= _LIGHT_BYTES and self.entry.kind in _LIGHT

    def for_new_rows(self) -> PostDataStep | None:
        """Return how a foreign key is made that is not held against the rows that are there, None of all else."""
        sql, count = _FOREIGN_KEY.subn(rb"\1 NOT VALID;", self.entry.sql)
        return replace(self, entry=replace(self.entry, sql=sql)) if count == 1 else None

    def by_index(self) -> tuple[PostDataStep, PostDataStep] | None:
        """Return a key as two steps, its index and then the key; None where it is no key, or has more clauses."""
        match = _KEY.match(self.entry.sql) if self.entry.kind == "CONSTRAINT" else None
        if match is None:
            return None
        settings, statement, table, name, _, columns = match.groups()
        schema = table[: re.match(NAME, table).end()]  # type: ignore[union-attr]  # QUALIFIED begins with a name
        key = KeyByIndex(
            settings
            + b"CREATE UNIQUE INDEX "
            + name
            + b" ON ONLY "
            + table
            + b" USING btree "
            + columns
            + b";",
            settings + statement + b" USING INDEX " + name + b";",
            b"DROP INDEX " + schema + b"." + name + b";",
        )
        return replace(self, key=key, lock=TableLock.SHARED, makes_index=True), replace(self, key=key)

    def fits(self, locked: LockedTables) -> bool:
        """Tell whether it can be made while others hold these locks."""
        return self.tables.isdisjoint(locked.exclusive if self.lock is TableLock.SHARED else locked.tables)


class LockedTables(Struct, frozen=True):
    """The tables that steps lock, and of these the ones that they lock exclusively."""

    tables: frozenset[Name]
    exclusive: frozenset[Name]

    @staticmethod
    def of(steps: Iterable[PostDataStep]) -> LockedTables:
        """Return what these steps lock."""
        every, exclusive = set[Name](), set[Name]()
        for step in steps:
            every |= step.tables
            if step.lock is TableLock.EXCLUSIVE:
                exclusive |= step.tables
        return LockedTables(frozenset(every), frozenset(exclusive))


class Stage(Struct, frozen=True):
    """Steps to be made before the next stage begins: at once, or one after the other."""

    steps: tuple[PostDataStep, ...]
    parallel: bool

    @property
    def needs_rows(self) -> bool:
        """Whether entries are not indexes or constraints: they may read rows, or fire on these."""
        return any(step.entry.kind not in _STRUCTURE for step in self.steps)


def split_at_rows(stages: Sequence[Stage]) -> tuple[Sequence[Stage], Sequence[Stage]]:
    """Return the stages before the first one that needs all rows, and the others."""
    first = next((number for number, stage in enumerate(stages) if stage.needs_rows), len(stages))
    return stages[:first], stages[first:]


class _Segment(Struct):
    """The entries between two that must keep their place in the order."""

    indexes: list[PostDataStep] = field(default_factory=list)
    attached: list[PostDataStep] = field(default_factory=list)
    foreign_keys: list[PostDataStep] = field(default_factory=list)
    others: list[PostDataStep] = field(default_factory=list)

    def stages(self, weights: Mapping[Name, int]) -> Iterator[Stage]:
        indexes, keys = _keys_apart(self.indexes)
        yield Stage(tuple(_heaviest_first(indexes, weights)), parallel=True)
        yield Stage((*keys, *self.attached), parallel=False)
        yield Stage(tuple(_by_parent(_heaviest_first(self.foreign_keys, weights))), parallel=True)
        yield Stage(tuple(self.others), parallel=False)


def stages(entries: Sequence[DumpEntry], weights: Mapping[Name, int] | None = None) -> list[Stage]:
    """Return the stages of a script, without its event triggers. ``weights``: the tables' sizes."""
    result: list[Stage] = []
    segment = _Segment()
    every, locked = with_keys_of_partitions(entries)
    for entry in every:
        if is_event_trigger(entry):
            continue
        step = _step(entry, weights or {})
        if below := locked.get(entry.number):
            size_bytes = sum((weights or {}).get(table, 0) for table in below)
            step = replace(step, tables=step.tables | below, size_bytes=size_bytes)
        if entry.kind == "INDEX ATTACH":
            segment.attached.append(step)
        elif not step.tables and entry.kind not in _POSTPONED:
            result += [*segment.stages(weights or {}), Stage((step,), parallel=False)]
            segment = _Segment()
        elif entry.kind == "FK CONSTRAINT" and step.tables:
            segment.foreign_keys.append(step)
        elif step.tables:
            segment.indexes.append(step)
        else:
            segment.others.append(step)
    result += segment.stages(weights or {})
    return [stage for stage in result if stage.steps]


def _step(entry: DumpEntry, weights: Mapping[Name, int]) -> PostDataStep:
    """Find what an entry locks; the kind counts only where the statement is one of that kind."""
    if entry.kind == "INDEX" and (index := _INDEX.search(entry.sql)) is not None:
        table = unquote(index[1])
        return PostDataStep(entry, frozenset({table}), TableLock.SHARED, weights.get(table, 0))
    alter = _ALTER.search(entry.sql)
    if alter is None or entry.kind not in {"CONSTRAINT", "FK CONSTRAINT"}:
        return PostDataStep(entry)
    table = unquote(alter[1])
    others = _REFERENCES.findall(entry.sql) if entry.kind == "FK CONSTRAINT" else []
    parents = frozenset(map(unquote, others))
    return PostDataStep(entry, parents | {table}, size_bytes=weights.get(table, 0), parents=parents)


def _keys_apart(steps: Sequence[PostDataStep]) -> tuple[list[PostDataStep], list[PostDataStep]]:
    """Return what can be made at once, and the keys that come after it because their indexes are among that. Those are
    keys of tables for which it takes long, and that have other indexes.
    """
    of_table = Counter(table for step in steps for table in step.tables)
    indexes, keys = [], []
    for step in steps:
        has_others = any(of_table[table] > 1 for table in step.tables)
        if not step.is_light and has_others and (both := step.by_index()) is not None:
            indexes.append(both[0])
            keys.append(both[1])
        else:
            indexes.append(step)
    return indexes, keys


def _heaviest_first(steps: Iterable[PostDataStep], weights: Mapping[Name, int]) -> list[PostDataStep]:
    """The longest work first, so that it does not end alone."""
    return sorted(steps, key=lambda step: -sum(weights.get(table, 0) for table in step.tables))


def _by_parent(steps: Iterable[PostDataStep]) -> list[PostDataStep]:
    """Light ones come last, those of the same parent in a row: each locks it."""
    return sorted(steps, key=lambda step: (step.is_light, sorted(step.parents) if step.is_light else []))


def is_event_trigger(entry: DumpEntry) -> bool:
    """Tell whether an entry is about an event trigger. These come last: they may forbid what is still to do."""
    return entry.kind == "EVENT TRIGGER" or (
        entry.kind in {"COMMENT", "SECURITY LABEL"} and b" ON EVENT TRIGGER " in entry.sql[:400]
    )
