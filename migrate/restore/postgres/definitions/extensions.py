"""Extensions as the source had them: their versions, objects that were added to them, what was changed of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import psycopg
from msgspec import Struct
from msgspec.structs import replace

from exporters.api import Loss
from exporters.postgres.definitions.extensions import read_extensions
from exporters.postgres.identifiers import quote_literal, quote_name, quote_qualified
from exporters.row_digest import RowsDigest
from migrate.restore.postgres.context import PostgresRestore
from migrate.restore.postgres.definitions.dump_script import DumpEntry, Name
from migrate.restore.postgres.definitions.refusals import is_superuser
from migrate.restore.postgres.destination import has_table, table_with_rows
from migrate.restore.postgres.restore_state import mark_done

_CREATE = re.compile(rb"^CREATE EXTENSION IF NOT EXISTS [^;]+(?=;$)", re.MULTILINE)
_AVAILABLE = """
SELECT v.name, v.version FROM pg_catalog.pg_available_extension_versions v
JOIN pg_catalog.pg_available_extensions e ON e.name = v.name AND e.default_version <> v.version
"""
_LISTS = frozenset(
    {"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"}
)
"""Settings whose values are lists of names (variable_is_guc_list_quote in src/bin/pg_dump/dumputils.c)."""
MEMBER = -1
"""The number of entries for members of extensions: no script has them."""
_MARK = "extension-table/"
"""How the name begins under which the destination remembers that an extension's table is ours to fill."""

Extension = Mapping[str, Any]
Member = Mapping[str, Any]


def with_versions(
    connection: psycopg.Connection[Any], entries: Sequence[DumpEntry], extensions: Sequence[Extension]
) -> tuple[DumpEntry, ...]:
    """Return entries that make extensions in the source's versions, where the server has and takes these."""
    made = {entry.name for entry in entries if entry.kind == "EXTENSION"}
    requested = [
        (extension["name"], extension["version"]) for extension in extensions if extension["name"] in made
    ]
    if not requested:
        return tuple(entries)
    available = set(connection.execute(_AVAILABLE).fetchall())
    versions = {name: version for name, version in requested if (name, version) in available}
    return tuple(
        _with_version(entry, versions[entry.name])
        if entry.kind == "EXTENSION" and entry.name in versions
        else entry
        for entry in entries
    )


def _with_version(entry: DumpEntry, version: str) -> DumpEntry:
    def tried(match: re.Match[bytes]) -> bytes:
        statement = match[0].decode()
        either = (
            f"BEGIN {statement} VERSION {quote_literal(version)}; EXCEPTION WHEN OTHERS THEN {statement}; END"
        )
        return f"DO {quote_literal(either)}".encode()

    return replace(entry, sql=_CREATE.sub(tried, entry.sql, count=1))


def _set(setting: str) -> str:
    """Return the clause for a setting of a function as the catalog has it; lists are quoted there already."""
    name, _, value = setting.partition("=")
    shown = value if name in _LISTS and value not in {"", '""'} else quote_literal(value.strip('"'))
    return f"SET {quote_name(name)} TO {shown}"


class _Pair(Struct, frozen=True):
    """A member of an extension at the source, and the same here; None where it is not."""

    extension: str
    there: Member
    here: Member | None
    owner_here: str | None
    """Who owns the extension here, and most of its members."""

    @property
    def label(self) -> str:
        """Its name as shown to users."""
        return f"{self.there['type']} {self.there['identity']} of extension {self.extension}"

    @property
    def alterations(self) -> list[str]:
        """What is to be altered of a function."""
        if self.here is None:
            return []
        clauses_here = self.here.get("clauses", ())
        clauses = [clause for clause in self.there.get("clauses") or () if clause not in clauses_here]
        settings, settings_here = self.there.get("settings") or (), self.here.get("settings", ())
        reset = ["RESET ALL"] if set(settings) != set(settings_here) else []
        return [*clauses, *reset, *map(_set, settings if reset else ())]

    @property
    def is_other_body(self) -> bool:
        """Whether it is a function with other code here."""
        return self.here is not None and self.there.get("body") != self.here.get("body")

    @property
    def other_owner(self) -> str | None:
        """To whom the member was given at the source, where it belongs to another role here."""
        owner = self.there.get("given_to")
        if self.here is None or owner in {None, self.here.get("given_to", self.owner_here)}:
            return None
        return str(owner)

    @property
    def is_other_comment(self) -> bool:
        """Whether another comment stands on it here."""
        return self.here is not None and self.there.get("comment") != self.here.get("comment")


def members(
    connection: psycopg.Connection[Any], extensions: Sequence[Extension], *, portable: bool
) -> list[DumpEntry]:
    """Return entries for what the extensions here lack, or have otherwise than those of the source. Only a superuser
    gives members away: to be refused that would cost the owners of all objects. Sequences come last: those of a table
    go to another owner with it, and not by themselves.
    """
    pairs = sorted(_pairs(connection, extensions), key=lambda pair: pair.there["type"] == "sequence")
    gives = is_superuser(connection) and not portable
    return [entry for pair in pairs for entry in _entries(pair, portable=portable, gives=gives)]


def _pairs(connection: psycopg.Connection[Any], extensions: Sequence[Extension]) -> Iterator[_Pair]:
    """Yield the members of the extensions that are here in the same version: those of another version are unknown."""
    if not extensions:
        return
    by_name = {extension["name"]: extension for extension in read_extensions(connection, definitions=False)}
    for extension in extensions:
        here = by_name.get(extension["name"])
        if here is None or here["version"] != extension["version"]:
            continue
        known = {_key(member): member for member in here["members"]}
        for member in extension["members"]:
            yield _Pair(extension["name"], member, known.get(_key(member)), here["owner"])


def _key(member: Member) -> tuple[str, str]:
    """Return how a member is named by every version: PostgreSQL 17 prints pg_catalog.json as json."""
    return member["type"], member["identity"].replace('"', "").replace("pg_catalog.", "")


def _entries(pair: _Pair, *, portable: bool, gives: bool) -> Iterator[DumpEntry]:
    member = pair.there
    kind, named = member["type"].upper(), f"{member['type'].upper()} {member['identity']}"
    schema = member.get("schema") or "-"
    name = member["name"].removeprefix(f"{schema}.")

    def entry(kind: str, *statements: str) -> DumpEntry:
        return DumpEntry(
            MEMBER, kind, name, schema, "".join(f"{statement};\n" for statement in statements).encode()
        )

    definition = str(member.get("definition") or "").rstrip().removesuffix(";")
    if pair.here is None and definition:
        owner = [] if portable or not member.get("owner") else [f"ALTER {named} OWNER TO {member['owner']}"]
        yield entry(kind, definition, *owner, f"ALTER EXTENSION {quote_name(pair.extension)} ADD {named}")
    elif pair.is_other_body and definition:
        yield entry(kind, definition)
    if pair.alterations:
        yield entry(kind, *(f"ALTER {named} {alteration}" for alteration in pair.alterations))
    if pair.other_owner is not None and gives:
        yield entry(kind, f"ALTER {named} OWNER TO {quote_name(pair.other_owner)}")
    if pair.is_other_comment or (pair.here is None and member.get("comment")):
        comment = "NULL" if member.get("comment") is None else quote_literal(member["comment"])
        yield entry("COMMENT", f"COMMENT ON {named} IS {comment}")


def filled_otherwise(job: PostgresRestore, done: AbstractSet[str]) -> frozenset[Name]:
    """Return the tables of extensions that are not to be filled: the extension does that, or there is no such table
    here. Others are empty, and the destination remembers that their rows are ours to write.
    """
    connection = job.destination.connection
    names = set()
    for table in job.run.tables:
        name, mark = table.key, f"{_MARK}{table.number}"
        if not table.details.get("extension") or mark in done:
            continue
        if has_table(connection, name) and not table_with_rows(connection, [name]):
            mark_done(connection, mark)
        else:
            names.add(name)
    return frozenset(names)


def note_other_rows(job: PostgresRestore, names: AbstractSet[Name]) -> None:
    """Record as lost the rows of tables that their extensions fill, where those are others."""
    for table in job.run.tables:
        name = table.key
        digest = job.run.destination_digests.get(name, RowsDigest())
        if (
            name not in names
            or name in job.unread
            or digest == RowsDigest(table.items, int(table.digest, 16))
        ):
            continue
        extension = table.details["extension"]
        reason = (
            f"the extension {extension} makes the table here, with {digest.rows} rows; the bundle has the source's"
            f" {table.items}"
        )
        job.note_loss(Loss(f"table {quote_qualified(*name)}", "rows", reason))


def unlike(
    connection: psycopg.Connection[Any],
    extensions: Sequence[Extension],
    known: Sequence[str],
    *,
    portable: bool = False,
) -> tuple[list[str], list[str]]:
    """Return what is not here as at the source: members by name, but those that the ``known`` sentences name, and, as
    notes, extensions of another version or, unless ``portable``, of another owner.
    """
    left_out = []
    for pair in _pairs(connection, extensions):
        if any(str(pair.there["identity"]) in sentence for sentence in known):
            continue
        if pair.here is None:
            left_out.append(f"{pair.label}: the extension does not make it here")
        elif pair.is_other_body or pair.alterations or pair.is_other_comment:
            left_out.append(f"{pair.label}: it was altered at the source, and is not here")
        elif pair.other_owner is not None and not portable:
            left_out.append(
                f"{pair.label}: it belongs to {pair.other_owner} at the source, and does not here"
            )
    query = "SELECT extname, extversion, pg_catalog.pg_get_userbyid(extowner) FROM pg_catalog.pg_extension"
    here = {name: (version, owner) for name, version, owner in connection.execute(query)}
    notes = []
    for extension in extensions:
        name, version, owner = extension["name"], extension["version"], extension.get("owner")
        version_here, owner_here = here.get(name, (version, owner))
        if version != version_here:
            notes.append(
                f"extension {name} is of version {version_here} here, of {version} at the source: what was added to it"
                " or altered by hand cannot be told"
            )
        if owner not in {None, owner_here} and not portable:
            notes.append(
                f"extension {name} belongs to {owner_here} here, to {owner} at the source, and so may its members:"
                " no statement gives an extension to another role"
            )
    return left_out, notes
