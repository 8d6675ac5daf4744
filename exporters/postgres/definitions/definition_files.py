"""The files of a source that are not rows: definitions, sequences' values, roles; and what they leave out."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import psycopg
from msgspec import Struct

from exporters.api import Gap, Loss
from exporters.changes import FOLLOW
from exporters.errors import SourceError
from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable, unreadable_partitioned
from exporters.postgres.charset.encodings import AS_STORED, Codec, may_change
from exporters.postgres.charset.server_conversion import asking
from exporters.postgres.charset.unmappable_names import unsayable
from exporters.postgres.definitions import pg_dump, roles
from exporters.postgres.definitions.constraint_triggers import constraint_triggers
from exporters.postgres.definitions.dump_programs import Tools, find_tools
from exporters.postgres.definitions.extensions import read_extensions
from exporters.postgres.definitions.matview_refresh import DEFINITIONS_ONLY, read_refreshes
from exporters.postgres.definitions.sequences import read_sequences
from exporters.postgres.definitions.system_schema import FIRST_OID, read_system_objects, undumped
from exporters.postgres.definitions.unrepresented import (
    hidden_damage,
    labels_of_large_objects,
    losses_of,
    unreadable,
)
from exporters.postgres.definitions.unwritten_by_pg_dump import read_unwritten
from exporters.postgres.errors import as_source_errors
from exporters.postgres.identifiers import quote_name
from exporters.postgres.query_rows import fetch
from exporters.postgres.sessions import lock_timeouts
from exporters.postgres.sessions.snapshot_session import PostgresSession
from exporters.sql.outline import NO_DEFINITIONS

_LANGUAGES = """
SELECT pg_catalog.convert_to(
    pg_catalog.format(E'CREATE OR REPLACE PROCEDURAL LANGUAGE %%I;\\n', l.lanname), %(encoding)s),
  pg_catalog.convert_to(pg_catalog.format(E'CREATE %%sPROCEDURAL LANGUAGE %%I HANDLER %%s%%s%%s;\\n',
    CASE WHEN l.lanpltrusted THEN 'TRUSTED ' ELSE '' END, l.lanname,
    (SELECT pg_catalog.format('%%I.%%I', n.nspname, p.proname) FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = l.lanplcallfoid),
    (SELECT pg_catalog.format(' INLINE %%I.%%I', n.nspname, p.proname) FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = l.laninline),
    (SELECT pg_catalog.format(' VALIDATOR %%I.%%I', n.nspname, p.proname) FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = l.lanvalidator)), %(encoding)s)
FROM pg_catalog.pg_language l WHERE l.lanispl AND l.oid >= %(first)s AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
  WHERE d.classid = 'pg_catalog.pg_language'::pg_catalog.regclass AND d.objid = l.oid AND d.deptype = 'e')
"""


PRE_DATA = "schema/pre-data.sql"
POST_DATA = "schema/post-data.sql"
PRE_DATA_PORTABLE = "schema/pre-data-portable.sql"
POST_DATA_PORTABLE = "schema/post-data-portable.sql"
GLOBALS = "schema/globals.sql"
SEQUENCES = "schema/sequences.json"
ROLES = "schema/roles.json"
SETTINGS = "schema/settings.json"
DATABASE = "schema/database.json"
LARGE_OBJECTS = "schema/large-objects.json"
EXTENSIONS = "schema/extensions.json"
CONSTRAINT_TRIGGERS = "schema/constraint-triggers.json"

_NO_DEFINITION = "its definition cannot be read"
_NO_SEQUENCE = "neither its value nor its definition can be read"
_FIRST_ENTRY = b"\n--\n-- Name: "
_END = b"--\n-- PostgreSQL database dump complete\n"
"""What stands in each script of pg_dump's: before its first entry, and behind its last one."""
_LINE_ENDS = str.maketrans("\n\r", "  ")
_SECTIONS = (
    (pg_dump.PRE, PRE_DATA, False),
    (pg_dump.POST, POST_DATA, False),
    (pg_dump.PRE, PRE_DATA_PORTABLE, True),
    (pg_dump.POST, POST_DATA_PORTABLE, True),
)


class _Additions(Struct, frozen=True):
    """What a script of pg_dump's lacks: entries that come before all others, entries behind them, and statements, each
    with what stands in its place.
    """

    first: bytes = b""
    last: bytes = b""
    instead: Sequence[tuple[bytes, bytes]] = ()

    def to(self, script: bytes) -> bytes:
        """Return the script with them."""
        for short, full in self.instead:
            script = script.replace(b"\n" + short, b"\n" + full, 1)
        head, end, tail = script.rpartition(_END)
        start = head.find(_FIRST_ENTRY)
        cut = len(head) if start < 0 else start + 1
        return head[:cut] + self.first + head[cut:] + self.last + end + tail


class DefinitionFiles(Struct, frozen=True):
    """The files, by name; what they lack, and the items that could not be made."""

    files: Mapping[str, bytes]
    losses: Sequence[Loss]
    gaps: Sequence[Gap]


def read_definitions(
    session: PostgresSession, tables: Sequence[PostgresTable], stop: threading.Event | None = None
) -> DefinitionFiles:
    """Read the definitions as of the snapshot. Who sets ``stop`` ends it. Raises ``SourceError``; then they can be read
    again.
    """
    with as_source_errors(session.address.url), session.holder.transaction():
        return _read(session, tables, stop)


def bare_definitions(tables: Iterable[PostgresTable]) -> DefinitionFiles:
    """Return what stands for the definitions until they have been read: schemas, and tables with their columns. Nothing
    makes the types of users, so their values are text.
    """
    entries: dict[str, str] = {}
    for table in tables:
        if not (table.view or table.extension or table.condition):
            schema = quote_name(table.schema)
            if table.schema != "public":
                entries[schema] = _bare_entry("SCHEMA", table.schema, "-", f"CREATE SCHEMA {schema}")
            columns = ",\n".join(
                f"    {quote_name(column.name)} {_bare_type(column.sql_type)}{' NOT NULL' * column.not_null}"
                for column in table.columns
            )
            sql = f"CREATE TABLE {table.label} (\n{columns}\n)"
            entries[table.label] = _bare_entry("TABLE", table.name, table.schema, sql)
    pre_data = "".join(entries.values()).encode() + _END
    scripts = {name: pre_data if section == pg_dump.PRE else _END for section, name, _ in _SECTIONS}
    return DefinitionFiles({**scripts, SEQUENCES: _json([]), ROLES: _json([])}, [], [NO_DEFINITIONS])


def _bare_type(sql_type: str) -> str:
    """Return a type that every server has. Those of users stand in a schema."""
    return "text" if "." in sql_type else sql_type


def _bare_entry(kind: str, name: str, schema: str, sql: str) -> str:
    """Return an entry as pg_dump writes it. It replaces line ends in names: what stands behind them would be SQL."""
    header = f"Name: {name}; Type: {kind}; Schema: {schema}; Owner: -".translate(_LINE_ENDS)
    return f"--\n-- {header}\n--\n\n{sql};\n\n\n"


def _read(
    session: PostgresSession, tables: Sequence[PostgresTable], stop: threading.Event | None
) -> DefinitionFiles:
    """Run pg_dump, and ask for what it leaves out meanwhile."""
    holder, seconds = session.holder, session.session_limits.limits.lock_seconds
    tools = find_tools(session.version // 10000, holder.info.get_parameters())
    environment = _environment(session)
    locked = lock_timeouts.kept(holder, session.locked, seconds=seconds)
    nameless = unsayable(holder)
    sequences, unread = read_sequences(
        holder, {relation.label for relation in locked}, [relation.oid for relation in nameless]
    )
    left_out = {relation.oid for relation in locked} | {relation.oid for relation in nameless}
    forbidden = [label for label, oid in unreadable_partitioned(holder).items() if oid not in left_out]
    labels = [
        *(table.label for table in tables if not table.readable and not table.view),
        *forbidden,
        *unread,
        *(relation.label for relation in locked),
    ]
    without = {
        *_in_encoding(holder, labels, _spoken(session)),
        *(relation.quoted for relation in nameless),
    }
    with ThreadPoolExecutor(session.session_limits.workers(2)) as pool:
        every_role = pool.submit(_globals, tools, environment, session.address.url)
        dumping = pool.submit(
            pg_dump.dump_definitions,
            tools,
            environment,
            session.exported,
            without=without,
            encoding=_spoken(session),
            lock_seconds=seconds,
            about=session.address.url,
            stop=stop,
        )
        additions = _additions(session, tools, [*left_out])
        lists, secrets = _lists(session, sequences, tools)
        losses = [*secrets, *_losses(session, tables)]
        gaps = unreadable(holder) + hidden_damage(holder)
        globals_sql, losses_of_roles = every_role.result()
        scripts = _scripts(session, tools, dumping.result(), additions, pool)
    losses += [
        Loss(relation.item, "definition", f"it could not be locked: {relation.reason}") for relation in locked
    ]
    gaps += [
        *(Gap(f"sequence {label}", "failed", f"{_NO_SEQUENCE}: {error}") for label, error in unread.items()),
        *(Gap(relation.item, "failed", f"{_NO_DEFINITION}: {relation.reason}") for relation in locked),
        *(relation.gap for relation in nameless),
        *(Gap(label, "failed", f"{_NO_DEFINITION}: the role may not read it") for label in forbidden),
    ]
    written_roles = {} if globals_sql is None else {GLOBALS: globals_sql}
    return DefinitionFiles({**scripts, **written_roles, **lists}, [*losses_of_roles, *losses], gaps)


def _environment(session: PostgresSession) -> dict[str, str]:
    """Return the variables with which pg_dump reaches the server on which the snapshot is. It begins, and pg_dumpall
    ends, under the timeout that the role has.
    """
    environment = session.address.environment(session.holder)
    if session.position["sessions"]["statement_timeout"] != "0":
        environment["PGOPTIONS"] = f"{environment.get('PGOPTIONS', '')} {pg_dump.NO_TIMEOUT}"
    return {
        **environment,
        "PGAPPNAME": session.session_limits.application,
        "PGCLIENTENCODING": _spoken(session),
        "LC_ALL": "C",  # its messages are read
    }


def _spoken(session: PostgresSession) -> str:
    """Return the encoding in which pg_dump writes definitions."""
    encoding = str(session.position["encoding"])
    return encoding if may_change(encoding) or encoding == "SQL_ASCII" else "UTF8"


def _additions(
    session: PostgresSession, tools: Tools, left_out: Sequence[int]
) -> Mapping[tuple[str, bool], _Additions]:
    """Return what each script lacks, by its section and whether it is the portable one."""
    holder, spoken = session.holder, _spoken(session)
    handlers = _handlers(holder, spoken)
    additions = {}
    for portable in (False, True):
        first, last = read_system_objects(holder, spoken, portable=portable)
        last += read_unwritten(holder, spoken, portable=portable)
        additions[pg_dump.PRE, portable] = _Additions(first, last, handlers)
        refreshes = (
            read_refreshes(holder, left_out, spoken, portable=portable)
            if tools.major >= DEFINITIONS_ONLY
            else b""
        )
        additions[pg_dump.POST, portable] = _Additions(last=refreshes)
    return additions


def _scripts(
    session: PostgresSession,
    tools: Tools,
    definitions: bytes,
    additions: Mapping[tuple[str, bool], _Additions],
    pool: Executor,
) -> dict[str, bytes]:
    """Return the scripts of what pg_dump has read, by their names."""
    encoding, environment = session.position["encoding"], _environment(session)
    codec = Codec(encoding, asking(session.holder, encoding))
    own = _own_log(session)
    printed = [
        pool.submit(pg_dump.section_of, tools, environment, definitions, section, portable=portable)
        for section, _, portable in _SECTIONS
    ]
    scripts = {}
    for (section, name, portable), script_of_section in zip(_SECTIONS, printed, strict=True):
        script = additions[section, portable].to(script_of_section.result())
        if own and section == pg_dump.POST:
            script = without_publication(script, own["publication"])
        scripts[name] = pg_dump.in_utf8(script, codec, encoding) if may_change(encoding) else script
    return scripts


def _own_log(session: PostgresSession) -> Mapping[str, Any]:
    """Return the names of what moveout itself has made in the source, to follow it."""
    return session.position[FOLLOW]["log"] if FOLLOW in session.position else {}


def _losses(session: PostgresSession, tables: Sequence[PostgresTable]) -> list[Loss]:
    """Return what the definitions do not hold, but moveout's own slot."""
    own = _own_log(session)
    losses = losses_of(session.holder, tables) + undumped(session.holder)
    return [loss for loss in losses if not own or loss.item != f"replication slot {own['slot']}"]


def _lists(
    session: PostgresSession, sequences: Sequence[Mapping[str, Any]], tools: Tools
) -> tuple[dict[str, bytes], list[Loss]]:
    """Return the files that are no SQL, by their names, and the settings that are secret."""
    holder = session.holder
    lists, losses = {SEQUENCES: _json(sequences), DATABASE: _json(fetch(holder, roles.DATABASE))}, []
    for name, query in ((ROLES, roles.ROLES), (SETTINGS, roles.SETTINGS)):
        keepable, secret = roles.keepable(fetch(holder, query), session.position["database"])
        lists[name] = _json(keepable)
        losses += secret
    if session.large_objects and tools.major >= large_objects.METADATA_VERSION:
        lists[LARGE_OBJECTS] = _json(fetch(holder, large_objects.METADATA))
        losses += labels_of_large_objects(holder)
    if extensions := read_extensions(holder, definitions=True):
        lists[EXTENSIONS] = _json(extensions)
    if triggers := constraint_triggers(holder, every=False):
        lists[CONSTRAINT_TRIGGERS] = _json(triggers)
    return lists, losses


def _in_encoding(holder: psycopg.Connection[Any], names: Sequence[str], encoding: str) -> Iterator[bytes]:
    """Yield names as pg_dump reads them: in the encoding of what it writes."""
    for name in names:
        if name.isascii() or encoding in AS_STORED:
            yield name.encode()
        else:
            row = holder.execute("SELECT pg_catalog.convert_to(%s, %s)", (name, encoding)).fetchone()
            yield bytes(row[0]) if row else b""


def _globals(tools: Tools, environment: dict[str, str], source: str) -> tuple[bytes | None, list[Loss]]:
    losses = [Loss("roles", "password", "a bundle holds no secrets; set the passwords on the destination")]
    try:
        return pg_dump.dump_globals(tools, environment, about=source), losses
    except SourceError as exc:
        return None, [*losses, Loss("roles", "definition in globals.sql", str(exc))]


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def without_publication(script: bytes, name: str) -> bytes:
    """Return post-data without a publication that moveout has made, and without its tables."""
    head = rb"--\n-- Name: %s(?: [^\n]*)?; Type: PUBLICATION(?: TABLE)?; [^\n]*\n" % re.escape(name.encode())
    return re.sub(head + rb".*?\n(?=--\n-- )", b"", script, flags=re.DOTALL)


def _handlers(holder: psycopg.Connection[Any], encoding: str) -> Sequence[tuple[bytes, bytes]]:
    """Return how pg_dump makes such languages, and how each is made with its handlers, in this encoding."""
    rows = holder.execute(_LANGUAGES.encode(), {"encoding": encoding, "first": FIRST_OID})
    return [(bytes(short), bytes(full)) for short, full in rows]
