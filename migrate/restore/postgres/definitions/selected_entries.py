"""The entries of a script that belong to some tables, for ``--only TABLE``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from msgspec import Struct

from migrate.restore.postgres.definitions.dump_script import NAME, QUALIFIED, DumpEntry, Name, unquote

_OWN = (
    rb"^CREATE (?:UNLOGGED |FOREIGN )?TABLE (" + QUALIFIED + rb")",
    rb"^(?:CREATE|REFRESH) MATERIALIZED VIEW (" + QUALIFIED + rb")",
    rb"^ALTER (?:FOREIGN )?TABLE (?:ONLY )?(?:" + QUALIFIED + rb") ATTACH PARTITION (" + QUALIFIED + rb")",
    rb"^ALTER (?:FOREIGN )?TABLE (?:ONLY )?(" + QUALIFIED + rb")",
    rb"^ALTER SEQUENCE " + QUALIFIED + rb" OWNED BY (" + QUALIFIED + rb")\." + NAME,
    rb"^CREATE (?:UNIQUE )?INDEX " + NAME + rb" ON (?:ONLY )?(" + QUALIFIED + rb")",
    rb"^COMMENT ON (?:TABLE|COLUMN|MATERIALIZED VIEW) (" + QUALIFIED + rb")",
    rb"^COMMENT ON (?:CONSTRAINT|TRIGGER|POLICY|RULE) " + NAME + rb" ON (" + QUALIFIED + rb")",
    rb"^(?:GRANT|REVOKE) [^;]* ON TABLE (" + QUALIFIED + rb")",
    rb"^CREATE (?:CONSTRAINT )?TRIGGER [^;]*? ON (" + QUALIFIED + rb")",
    rb"^CREATE POLICY " + NAME + rb" ON (" + QUALIFIED + rb")",
    rb"^CREATE RULE " + NAME + rb" AS\s+ON \w+ TO (" + QUALIFIED + rb")",
    rb"^CREATE STATISTICS [^\n]* FROM (" + QUALIFIED + rb");",
    rb"^SECURITY LABEL FOR [^\n]+ ON (?:TABLE|COLUMN|MATERIALIZED VIEW) (" + QUALIFIED + rb")",
)
"""Where statements name the table that they belong to. Compiled when they are used: fourteen take 11 ms."""
_MADE = re.compile(
    rb"^CREATE (?:UNIQUE )?INDEX (?P<index>" + NAME + rb") ON (?:ONLY )?(?P<schema>" + NAME + rb")\."
    rb"|^ALTER TABLE ONLY (?P<key_schema>"
    + NAME
    + rb")\."
    + NAME
    + rb"\n    ADD CONSTRAINT (?P<key>"
    + NAME
    + rb") "
    rb"|^CREATE STATISTICS (?P<statistics>" + QUALIFIED + rb") ",
    re.MULTILINE,
)
_ABOUT = re.compile(
    rb"^ALTER INDEX (?P<above>" + QUALIFIED + rb") ATTACH PARTITION (?P<below>" + QUALIFIED + rb");"
    rb"|^COMMENT ON (?:INDEX|STATISTICS) (?P<object>" + QUALIFIED + rb")",
    re.MULTILINE,
)
"""What speaks of indexes and statistics, and not of their table."""

_SEQUENCE = re.compile(
    rb"^(?:CREATE|COMMENT ON|(?:GRANT|REVOKE) [^;]* ON|SECURITY LABEL FOR [^\n]+ ON) SEQUENCE ("
    + QUALIFIED
    + rb")",
    re.MULTILINE,
)
_OWNED = re.compile(rb"^ALTER SEQUENCE (" + QUALIFIED + rb") OWNED BY (" + QUALIFIED + rb")\.", re.MULTILINE)
_IDENTITY = re.compile(
    rb"^ALTER TABLE (?:ONLY )?(" + QUALIFIED + rb") .*SEQUENCE NAME (" + QUALIFIED + rb")",
    re.DOTALL | re.MULTILINE,
)
_ATTACH = re.compile(rb"^ALTER TABLE (?:ONLY )?(" + QUALIFIED + rb") ATTACH PARTITION", re.MULTILINE)


class OwnedSequences(Struct, frozen=True):
    """Which sequences belong to a column of which table."""

    by_table: Mapping[Name, frozenset[Name]]

    @staticmethod
    def of(entries: Sequence[DumpEntry]) -> OwnedSequences:
        """Find them in pre-data."""
        sequences: dict[Name, set[Name]] = {}
        for entry in entries:
            if (owned := _OWNED.search(entry.sql)) is not None:
                sequences.setdefault(unquote(owned[2]), set()).add(unquote(owned[1]))
            elif entry.kind == "SEQUENCE" and (identity := _IDENTITY.search(entry.sql)) is not None:
                sequences.setdefault(unquote(identity[1]), set()).add(unquote(identity[2]))
        return OwnedSequences({table: frozenset(names) for table, names in sequences.items()})

    def of_tables(self, tables: AbstractSet[Name]) -> set[Name]:
        """Return the sequences of these tables."""
        return {name for table in tables for name in self.by_table.get(table, ())}


def select_entries(
    entries: Sequence[DumpEntry],
    tables: AbstractSet[Name],
    also: Callable[[str], bool] = lambda _label: False,
) -> list[DumpEntry]:
    """Return, in order, the entries that make these tables and what is theirs: columns' sequences,
    defaults, indexes, constraints, triggers, rules, policies, comments and privileges. Partitions come
    without the tables above them, unless those are among ``tables``. ``also``: whether an entry is wanted besides, by
    its label; with it come the comments and privileges of its object.
    """
    owned = OwnedSequences.of(entries).of_tables(tables)
    others = {(entry.schema, entry.name) for entry in entries if also(entry.label)}
    chosen = {
        entry.number
        for entry in entries
        if also(entry.label) or _object_of(entry) in others or _is_of(entry, tables, owned)
    }
    made = {name for entry in entries if entry.number in chosen for name in _made(entry)}
    return [entry for entry in entries if entry.number in chosen or _is_about(entry, made)]


def _made(entry: DumpEntry) -> Iterator[Name]:
    """Yield the index, key or statistics that an entry makes."""
    if match := _MADE.search(entry.sql):
        schema, name = match["schema"] or match["key_schema"], match["index"] or match["key"]
        yield unquote(match["statistics"] or schema + b"." + name)


def _is_about(entry: DumpEntry, made: AbstractSet[Name]) -> bool:
    """Tell whether an entry speaks of what was made: of both indexes where it attaches one to the other."""
    match = _ABOUT.search(entry.sql)
    return match is not None and all(unquote(name) in made for name in match.groups() if name)


def _object_of(entry: DumpEntry) -> Name | None:
    """Return which object a comment or privilege belongs to, as pg_dump names it; None for other entries."""
    if entry.kind not in {"ACL", "COMMENT"}:
        return None
    kind, _, name = entry.name.partition(" ")
    return entry.schema, name.rpartition(".")[0] if kind == "COLUMN" else name


def _is_of(entry: DumpEntry, tables: AbstractSet[Name], owned: AbstractSet[Name]) -> bool:
    attach = _ATTACH.search(entry.sql)
    if attach is not None and unquote(attach[1]) not in tables:
        return False
    sequence = _SEQUENCE.search(entry.sql)
    if sequence is not None and unquote(sequence[1]) in owned:
        return True
    return any(name in tables for name in _named(entry))


def _named(entry: DumpEntry) -> Iterator[Name]:
    """Yield the table that the first statement belongs to."""
    for pattern in _OWN:
        if (match := re.search(pattern, entry.sql, re.MULTILINE)) is not None:
            yield unquote(match[1])
            return
