r"""pg_dump's script, cut into its entries, and as a server takes it.

pg_dump writes a comment before every object (``-- Name: …; Type: …; Schema: …; Owner: …``). The same words may stand
inside of a function's body, a comment or a default. So the script is read as the server reads it (PostgreSQL
documentation, 4.1): only a comment that stands outside of all quotes begins an entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psycopg
from msgspec import Struct
from msgspec.structs import replace

from exporters.postgres.identifiers import quote_literal
from exporters.postgres.sessions.connection import AS_BEGUN

if TYPE_CHECKING:
    from migrate.restore.postgres.rows.source_charset import OwnEncoding

NAME = rb'(?:"(?:[^"]|"")+"|[a-z_\x80-\xff][a-z0-9_$\x80-\xff]*)'
"""An identifier as pg_dump writes it."""
QUALIFIED = rb"(?:" + NAME + rb"\." + NAME + rb")"

Name = tuple[str, str]
"""Schema and name of an object."""

_RESTRICT = re.compile(rb"^\\(?:un)?restrict \S+\n", re.MULTILINE)
_SETTING = re.compile(rb"^SET ([a-z_]+) = [^;\n]*;\n", re.MULTILINE)
_OBJECT = b"\n-- Name: "

_TOKEN = re.compile(
    rb"""(?P<comment>--[^\n]*)
    |(?P<block>/\*)
    |(?<![A-Za-z0-9_$\x80-\xff])(?:[eE]'(?:[^'\\]++|\\.|'')*+'|(?P<dollar>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$))
    |'[^']*'|"[^"]*\"""",
    re.VERBOSE | re.DOTALL,
)
_CODE = re.compile(
    _TOKEN.pattern + rb"""|(?P<code>[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*|[(),;])""", _TOKEN.flags
)
_BLOCK_EDGE = re.compile(rb"/\*|\*/")
_HEADER = re.compile(rb"-- Name: (.*); Type: ([^;]*); Schema: (.*); Owner: (.*)", re.DOTALL)
_HEADER_MARK = b"-- Name: "
_RULE = b"--\n"
"""The line before it."""
_TRAILING_SETTINGS = re.compile(rb"(?:\n+SET default_[a-z_]+ = [^\n]*;)+\s*\Z")
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


class DumpEntry(Struct, frozen=True):
    """One object of a script. ``number`` counts from 0 and is the same whenever the script is read. ``kind`` is
    pg_dump's word (``INDEX``, ``FK CONSTRAINT``); ``name`` and ``schema`` are for messages (pg_dump replaces line ends
    in them). ``sql`` includes the settings (``SET default_…``) that are in force for it.
    """

    number: int
    kind: str
    name: str
    schema: str
    sql: bytes

    @property
    def label(self) -> str:
        """``INDEX public.some_idx``, for messages."""
        location = "" if self.schema == "-" else f"{self.schema}."
        kind = "" if self.name.startswith(f"{self.kind} ") else f"{self.kind} "
        return f"{kind}{location}{self.name}"


class Script(Struct, frozen=True):
    """A section. ``head`` are the settings under which all of it is run."""

    head: bytes
    entries: tuple[DumpEntry, ...]


def plain_sql(script: bytes, known_settings: set[str]) -> bytes:
    r"""Return a script of pg_dump's as the server takes it. It lacks psql's ``\restrict`` pair, which stands outside of
    every object, and settings at its head that an older server does not support.
    """
    head, mark, rest = script.partition(_OBJECT)
    head = _RESTRICT.sub(b"", head)
    head = _SETTING.sub(lambda match: match[0] if match[1].decode() in known_settings else b"", head)
    before, close, after = rest.rpartition(b"\n\\unrestrict ")
    if close and after.count(b"\n") <= 2:
        rest = before + b"\n"
    return head + mark + rest


def split_script(script: bytes) -> Script:
    """Cut what ``plain_sql`` returned into head and entries."""
    starts = list(_headers(script))
    head = script[: starts[0]] if starts else script
    settings = _trailing_settings(head)
    entries = []
    for number, (start, end) in enumerate(pairwise([*starts, len(script)])):
        text = script[start:end]
        entries.append(_entry(number, text, settings))
        settings = _trailing_settings(text) or settings
    return Script(head, tuple(entries))


def _entry(number: int, text: bytes, settings: bytes) -> DumpEntry:
    line, _, rest = text.removeprefix(_RULE).partition(b"\n")
    match = _HEADER.fullmatch(line)
    name, kind, schema = (match[i].decode(errors="replace") for i in (1, 2, 3)) if match else ("", "", "-")
    return DumpEntry(number, kind, name, schema, settings + b"\n" + rest if settings else rest)


def _trailing_settings(text: bytes) -> bytes:
    """Return the settings at the end of an entry's text, which pg_dump changes there for the next entries."""
    match = _TRAILING_SETTINGS.search(text) if b"\nSET default_" in text else None
    return match[0].strip() if match else b""


def _headers(script: bytes) -> Iterator[int]:
    """Yield where each entry begins: at the line before its name."""
    position = 0
    while (token := _TOKEN.search(script, position)) is not None:
        position = token.end()
        if token["comment"] is not None:
            if token["comment"].startswith(_HEADER_MARK) and script.endswith(_RULE, 0, token.start()):
                yield token.start() - len(_RULE)
        elif token["block"] is not None:
            position = _end_of_block(script, position)
        elif token["dollar"] is not None:
            end = script.find(token["dollar"], position)
            position = len(script) if end < 0 else end + len(token["dollar"])


def tokens(sql: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    """Yield where words, parentheses, commas and semicolons stand outside of quotes and comments, and which."""
    while (token := _CODE.search(sql, position)) is not None:
        position = token.end()
        if token["code"] is not None:
            yield token.start(), token["code"]
        elif token["block"] is not None:
            position = _end_of_block(sql, position)
        elif token["dollar"] is not None:
            end = sql.find(token["dollar"], position)
            position = len(sql) if end < 0 else end + len(token["dollar"])


def _end_of_block(script: bytes, position: int) -> int:
    """Comments between ``/*`` and ``*/`` nest."""
    depth = 1
    while depth:
        edge = _BLOCK_EDGE.search(script, position)
        if edge is None:
            return len(script)
        depth += 1 if edge[0] == b"/*" else -1
        position = edge.end()
    return position


def unquote(qualified: bytes) -> Name:
    """Return schema and name of what ``QUALIFIED`` matches."""
    schema, name = (without_quotes(name).decode(errors="replace") for name in re.findall(NAME, qualified))
    return schema, name


def without_quotes(name: bytes) -> bytes:
    """Return the name itself that ``NAME`` matches."""
    return name[1:-1].replace(b'""', b'"') if name.startswith(b'"') else name


def begin_as_dumped(connection: psycopg.Connection[Any], script: bytes) -> None:
    """Give schema public of a new database on an older server the privileges from which the definitions go on."""
    match = _DUMPED_BY.search(script)
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
    """Run the settings at the script's head, its encoding among them; afterwards what we send is UTF-8 again."""
    connection.execute(script.head)
    yield
    connection.execute("SET client_encoding = 'UTF8'")
