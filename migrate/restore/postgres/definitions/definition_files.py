"""Definitions into the destination: roles, pg_dump's sections, sequences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from msgspec import Struct
from msgspec.structs import replace

from exporters.postgres.errors import translate
from exporters.postgres.identifiers import quote_literal, quote_name, quote_qualified
from exporters.postgres.sessions.connection import AS_BEGUN
from migrate.bundle import canonical_json, layout
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError, MoveoutError, NoSpaceError, NotAllowedError, UsageError
from migrate.restore.postgres.definitions.dump_script import DumpEntry, Script, plain_sql, split_script
from migrate.restore.postgres.definitions.recorded_definitions import (
    ConstraintTrigger,
    RecordedDatabase,
    RecordedExtension,
    RecordedLargeObject,
    RecordedRole,
    RecordedSequence,
    RecordedSettings,
)

if TYPE_CHECKING:
    from migrate.restore.postgres.rows.source_charset import OwnEncoding

_Entry = TypeVar("_Entry")
_CONTENT_KINDS = {
    "AGGREGATE": "function",
    "DOMAIN": "type",
    "FOREIGN TABLE": "table",
    "FUNCTION": "function",
    "PROCEDURE": "function",
    "SEQUENCE": "sequence",
    "TYPE": "type",
    "VIEW": "view",
}
"""The kinds of pg_dump's entries of a database without tables, with the words of ``destination.all_content``."""
_ARGUMENTS = re.compile(r"\(.*\)\Z", re.DOTALL)


class Definitions(Struct, frozen=True):
    """A source's definitions as they lie in the bundle, checked. ``files`` by name, e.g. ``pre-data.sql``."""

    files: Mapping[str, bytes]

    @staticmethod
    def read(reader: BundleReader, source: str) -> Definitions:
        """Raises ``DamageError``."""
        prefix = layout.source_file(source, "schema/")
        files = {
            file.key.removeprefix(prefix): reader.read_checked(file)
            for file in reader.source_files(source, "schema/")
        }
        for name in ("pre-data.sql", "post-data.sql", "sequences.json", "roles.json"):
            if name not in files:
                raise DamageError(prefix + name, expected="a file", found="nothing")
        return Definitions(files)

    def section(self, name: str, *, portable: bool) -> bytes:
        """Return the SQL of ``pre-data`` or ``post-data``."""
        return self.files[f"{name}-portable.sql" if portable else f"{name}.sql"]

    def _entries(self, name: str, kind: type[_Entry]) -> Sequence[_Entry]:
        """Return what a list says, empty where the bundle has none. Raises ``DamageError``."""
        return canonical_json.decode_entries(self.files.get(name, b"[]"), f"schema/{name}", kind)

    def roles(self) -> Sequence[RecordedRole]:
        """Return the roles that own or may use something."""
        return self._entries("roles.json", RecordedRole)

    def settings(self) -> Sequence[RecordedSettings]:
        """Return what is set for the database, and for roles in it."""
        return self._entries("settings.json", RecordedSettings)

    def database(self) -> RecordedDatabase | None:
        """Return the database's owner, privileges, comment and connection limit, where the bundle has them."""
        return next(iter(self._entries("database.json", RecordedDatabase)), None)

    def large_objects(self) -> Sequence[RecordedLargeObject]:
        """Return owner, privileges and comment of every large object, where pre-data does not have them."""
        return self._entries("large-objects.json", RecordedLargeObject)

    def extensions(self) -> Sequence[RecordedExtension]:
        """Return the extensions with their members, where the bundle has them."""
        return self._entries("extensions.json", RecordedExtension)

    def constraint_triggers(self) -> Sequence[ConstraintTrigger]:
        """Return the triggers of constraints that fire otherwise than new ones do."""
        return self._entries("constraint-triggers.json", ConstraintTrigger)

    def sequences(self) -> Sequence[RecordedSequence]:
        """Return the sequences' values."""
        return self._entries("sequences.json", RecordedSequence)


_DUMPED_BY = re.compile(rb"^-- Dumped by pg_dump version (\d+)", re.MULTILINE)
_CLOSED_PUBLIC = 15
"""From this version on nobody may create anything in schema public unless it is granted (PostgreSQL 15 release notes).
pg_dump writes nothing where nobody may, whatever version the source is of (getNamespaces in src/bin/pg_dump/pg_dump.c).
"""


_LOGGED_SEQUENCES = 15
"""From this version on a sequence may be unlogged, and pg_dump writes for an older server's identity column that its
sequence is not what its table is (dumpSequence in src/bin/pg_dump/pg_dump.c).
"""
_CLIENT_ENCODING = re.compile(rb"^(SET client_encoding = ')(\w+)(';)$", re.MULTILINE)
_LOGGING = re.compile(rb"^    LOGGED\n", re.MULTILINE)


def begin_as_dumped(connection: psycopg.Connection[Any], definitions: Definitions) -> None:
    """Give schema public of a new database on an older server the privileges from which the definitions go on."""
    match = _DUMPED_BY.search(definitions.section("pre-data", portable=False))
    newer = match is not None and int(match[1]) >= _CLOSED_PUBLIC
    if newer and connection.info.server_version < _CLOSED_PUBLIC * 10000:
        connection.execute(
            "DO $$ BEGIN IF pg_catalog.to_regnamespace('public') IS NOT NULL THEN"
            " REVOKE CREATE ON SCHEMA public FROM PUBLIC; END IF; END $$"
        )


def read_script(connection: psycopg.Connection[Any], script: bytes) -> Script:
    """Return a section's entries, as this server takes them."""
    known = {row[0].lower() for row in connection.execute("SELECT name FROM pg_catalog.pg_settings")}
    if (own := _own_encoding(connection, script)) is not None:
        # Where bytes are taken as they are, the driver need not support the encoding.
        script = _CLIENT_ENCODING.sub(rb"\1SQL_ASCII\3" if own.kept else rb"\1UTF8\3", script, count=1)
        script = script if own.kept else own.in_utf8(script)
    parsed = split_script(plain_sql(script, known))
    if connection.info.server_version >= _LOGGED_SEQUENCES * 10000:
        return parsed
    return replace(parsed, entries=tuple(map(without_logging, parsed.entries)))


def content_of(script: Script) -> set[str]:
    """Return kind and name of each relation, routine and type, as ``destination.all_content`` has them."""
    return {
        f"{_CONTENT_KINDS[entry.kind]} {entry.schema}.{_ARGUMENTS.sub('', entry.name)}"
        for entry in script.entries
        if entry.kind in _CONTENT_KINDS
    }


def held_otherwise(connection: psycopg.Connection[Any], script: bytes) -> list[str]:
    """Return the names of entries with text that this server cannot hold as it is (``source_charset``)."""
    own = _own_encoding(connection, script)
    return (
        []
        if own is None
        else [entry.label for entry in split_script(script).entries if not own.is_held(entry.sql)]
    )


def _own_encoding(connection: psycopg.Connection[Any], script: bytes) -> OwnEncoding | None:
    """Return the encoding of a script, None for UTF-8 and for bytes without an encoding."""
    match = _CLIENT_ENCODING.search(script)
    if match is None or match[2] in (b"UTF8", b"SQL_ASCII"):
        return None
    from migrate.restore.postgres.rows.source_charset import OwnEncoding  # noqa: PLC0415  it imports Arrow

    return OwnEncoding(connection, match[2].decode())


def without_logging(entry: DumpEntry) -> DumpEntry:
    """Return an entry as servers take it whose sequences are all logged, also those of unlogged tables."""
    return replace(entry, sql=_LOGGING.sub(b"", entry.sql)) if entry.kind == "SEQUENCE" else entry


def begun_as(connection: psycopg.Connection[Any], settings: Mapping[str, str] | None) -> bytes:
    """Return statements for a session that writes values as those of the source do, where a bundle records how
    (``connection.AS_BEGUN``), as far as this server supports that. It is for what code of the database's own fills.
    """
    statements = b""
    for name in AS_BEGUN:
        if settings is None or name not in settings:
            continue
        statement = (
            f"SELECT pg_catalog.set_config('{name}', {quote_literal(settings[name])}, false);".encode()
        )
        with (
            suppress(psycopg.DataError, psycopg.ProgrammingError),
            connection.transaction(force_rollback=True),
        ):
            connection.execute(statement)
            statements += statement
    return statements


@contextmanager
def under_settings(connection: psycopg.Connection[Any], script: Script) -> Iterator[None]:
    """Run the settings at the script's head, its encoding among them; afterwards what we send is UTF-8
    again.
    """
    connection.execute(script.head)
    yield
    connection.execute("SET client_encoding = 'UTF8'")


def set_sequences(sequences: Sequence[RecordedSequence]) -> Iterator[tuple[str, str]]:
    """Yield by name the statements that give every sequence the value it had. One that is not there is passed over: its
    definition was left out.
    """
    for sequence in sequences:
        label = quote_qualified(sequence["schema"], sequence["name"])
        name = quote_literal(label)
        value, called = sequence["last_value"], "true" if sequence["is_called"] else "false"
        sql = f"SELECT pg_catalog.setval(pg_catalog.to_regclass({name}), {value}, {called})"
        yield f"the value of sequence {label}", sql


def describe_large_objects(
    objects: Sequence[RecordedLargeObject], *, portable: bool
) -> Iterator[tuple[str, str]]:
    """Yield by name the statements that give large objects their owner and privileges, unless the restore leaves them
    out, and their comment.
    """
    for large_object in objects:
        name = f"LARGE OBJECT {large_object['oid']}"
        statements = [] if portable else [f"ALTER {name} OWNER TO {quote_name(large_object['owner'])}"]
        if not portable:
            statements += grants(
                name, large_object["owner"], large_object["privileges"], key="schema/large-objects.json"
            )
        if large_object["comment"]:
            statements.append(f"COMMENT ON {name} IS {quote_literal(large_object['comment'])}")
        if statements:
            yield f"owner, privileges and comment of {name}", "; ".join(statements)


def grants(
    name: str, owner: str, privileges: Sequence[Sequence[Any]] | None, *, key: str, public: str = ""
) -> list[str]:
    """Return the statements that give an object these privileges instead of those that a new one has. ``public``: who
    else than its owner has such. ``key``: the file of the bundle. Raises ``DamageError``.
    """
    if privileges is None:
        return []
    return [
        f"REVOKE ALL ON {name} FROM {quote_name(owner)}{public}",
        *(
            f"GRANT {_word(privilege, key)} ON {name} TO {quote_name(role) if role else 'PUBLIC'}"
            + (" WITH GRANT OPTION" if grantable else "")
            for role, privilege, grantable in privileges
        ),
    ]


def _word(privilege: str, key: str) -> str:
    """Return a privilege's name from the bundle, only where it is one word."""
    if not privilege.isalpha():
        raise DamageError(key, expected="a privilege", found=privilege)
    return privilege


def destination_error(error: BaseException, where: str) -> MoveoutError:
    """Return the error for a failure of the destination."""
    if isinstance(error, psycopg.errors.DiskFull):
        return NoSpaceError(
            f"{where}: {' '.join(str(error).split())}",
            next_step="make room on the destination server, then run the same command again",
        )
    return translate(error, where)


def ddl_error(error: psycopg.Error, section: str) -> MoveoutError:
    """Return the error for a section, or one of its entries, that cannot be run."""
    reason = " ".join(str(error).split())
    if (
        isinstance(error, psycopg.errors.UndefinedFile | psycopg.errors.FeatureNotSupported)
        and "extension" in reason
    ):
        return UsageError(
            f"the destination server lacks an extension: {reason}",
            next_step="install the extension's package on the destination server, then run the same command again",
        )
    if isinstance(error, psycopg.OperationalError):
        return destination_error(error, section)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return NotAllowedError(
            f"{section} cannot be restored: {reason}",
            next_step="restore as the owner of the destination database or as a superuser",
        )
    if isinstance(
        error, psycopg.errors.DuplicateSchema | psycopg.errors.DuplicateTable | psycopg.errors.DuplicateObject
    ):
        return UsageError(
            f"{section} cannot be restored: {reason}",
            next_step="nothing of it was kept. Drop what is there, or restore rows alone: --only data",
        )
    return UsageError(
        f"{section} cannot be restored: {reason}",
        next_step="nothing of it was kept. Compare the servers' versions and extensions, then try again",
    )
