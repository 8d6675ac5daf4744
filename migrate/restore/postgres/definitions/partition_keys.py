"""Keys of partitioned tables that the server makes for the partitions as well. Pure: no I/O.

pg_dump makes the key of each table by itself, and attaches those of partitions. No server attaches one that excludes by
operators (CompareIndexInfo in src/backend/catalog/index.c): ``EXCLUDE`` and ``WITHOUT OVERLAPS``. So such a key is made
of the partitioned table with all that is below it. Those of partitions get their names afterwards; where the server
refuses the whole key, as one before 17 does, they are made by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from exporters.postgres.identifiers import quote_literal
from migrate.restore.postgres.definitions.dump_script import (
    NAME,
    QUALIFIED,
    DumpEntry,
    Name,
    unquote,
    without_quotes,
)

_KEY = re.compile(
    rb"^ALTER TABLE ONLY (?P<table>(?P<schema>"
    + NAME
    + rb")\."
    + NAME
    + rb")\n    ADD CONSTRAINT (?P<name>"
    + NAME
    + rb") (?P<definition>(?:EXCLUDE |(?:PRIMARY KEY|UNIQUE) \([^\n]* WITHOUT OVERLAPS\))[^\n]*);$",
    re.MULTILINE,
)
_ATTACH = re.compile(
    rb"^ALTER INDEX (" + QUALIFIED + rb") ATTACH PARTITION (" + QUALIFIED + rb");$", re.MULTILINE
)
_RENAME = b"""DO $moveout$ DECLARE made pg_catalog.name; BEGIN
  SELECT c.conname INTO made FROM pg_catalog.pg_constraint c WHERE c.conrelid = %(table)s::pg_catalog.regclass
    AND c.conindid <> 0 AND c.conparentid <> 0
    AND pg_catalog.to_regclass(%(root)s) IN (SELECT pg_catalog.pg_partition_ancestors(c.conindid));
  IF made IS NULL THEN EXECUTE %(alone)s;
  ELSIF made <> %(name)s THEN
    EXECUTE pg_catalog.format('ALTER TABLE ONLY %%s RENAME CONSTRAINT %%I TO %%I', %(table)s, made, %(name)s);
  END IF;
END $moveout$;"""


class _Key(Struct, frozen=True):
    """A key, and where it stands in its entry."""

    entry: DumpEntry
    match: re.Match[bytes]

    @property
    def index(self) -> bytes:
        """The name of its index, as in SQL."""
        return self.match["schema"] + b"." + self.match["name"]

    def replaced(self, entry: DumpEntry, sql: bytes) -> DumpEntry:
        """Return an entry that has this SQL in place of the key, and what follows that."""
        old = self.entry.sql
        return replace(entry, sql=old[: self.match.start()] + sql + old[self.match.end() :])


def with_keys_of_partitions(
    entries: Sequence[DumpEntry],
) -> tuple[list[DumpEntry], Mapping[int, frozenset[Name]]]:
    """Return the entries of post-data such that keys which cannot be attached are made with those of all partitions;
    and which partitions' tables such an entry locks, by its number.
    """
    keys = {key.index: key for key in _keys(entries)}
    attached = dict(_attached(entries)) if keys else {}
    roots = {index: _root(index, attached) for index in attached if index in keys}
    families: dict[bytes, list[bytes]] = {}
    for index, root in roots.items():
        families.setdefault(root, []).append(index)
    changed: dict[int, DumpEntry | None] = {}
    locked: dict[int, frozenset[Name]] = {}
    by_index = {match[2]: entry for entry, match in _attachments(entries)}
    for root, family in families.items():
        if root not in keys or not _is_uniform(keys[root], [keys[index] for index in family]):
            continue
        top = keys[root]
        changed[top.entry.number] = top.replaced(
            top.entry, top.match[0].replace(b"ALTER TABLE ONLY ", b"ALTER TABLE ", 1)
        )
        locked[top.entry.number] = frozenset(unquote(keys[index].match["table"]) for index in family)
        for index in family:
            key, attach = keys[index], by_index[index]
            words = {b"table": key.match["table"], b"root": root, b"name": without_quotes(key.match["name"])}
            words[b"alone"] = key.match[0]
            rename = _RENAME % {name: _literal(value) for name, value in words.items()}
            changed[key.entry.number] = None
            changed[attach.number] = key.replaced(attach, rename)
    every = (changed.get(entry.number, entry) for entry in entries)
    return [entry for entry in every if entry is not None], locked


def _keys(entries: Sequence[DumpEntry]) -> Iterator[_Key]:
    for entry in entries:
        if entry.kind == "CONSTRAINT" and (match := _KEY.search(entry.sql)) is not None:
            yield _Key(entry, match)


def _attachments(entries: Sequence[DumpEntry]) -> Iterator[tuple[DumpEntry, re.Match[bytes]]]:
    for entry in entries:
        if entry.kind == "INDEX ATTACH" and (match := _ATTACH.search(entry.sql)) is not None:
            yield entry, match


def _attached(entries: Sequence[DumpEntry]) -> Iterator[tuple[bytes, bytes]]:
    """Yield each index that is attached, and the one to which it is."""
    for _, match in _attachments(entries):
        yield match[2], match[1]


def _root(index: bytes, attached: Mapping[bytes, bytes]) -> bytes:
    while index in attached:
        index = attached[index]
    return index


def _is_uniform(root: _Key, family: Sequence[_Key]) -> bool:
    """Tell whether the keys of partitions are like that of the partitioned table, as the server would make them."""
    return all(key.match["definition"] == root.match["definition"] for key in family)


def _literal(text: bytes) -> bytes:
    """Return text in the encoding of the dump as a string literal."""
    return quote_literal(text.decode("latin-1")).encode("latin-1")
