"""The files of a source that are not rows: definitions, sequences' values, roles; and what they leave out."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg

from exporters.api import Gap, Loss, Sink
from exporters.changes import FOLLOW
from exporters.errors import SourceError
from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.charset.encodings import AS_STORED, Codec, may_change
from exporters.postgres.charset.server_conversion import asking
from exporters.postgres.charset.unmappable_names import Unsayable, unsayable
from exporters.postgres.definitions import pg_dump, roles
from exporters.postgres.definitions.constraint_triggers import constraint_triggers
from exporters.postgres.definitions.extensions import read_extensions
from exporters.postgres.definitions.matview_refresh import DEFINITIONS_ONLY, with_refreshes
from exporters.postgres.definitions.sequences import read_sequences
from exporters.postgres.definitions.system_schema import FIRST_OID, undumped, with_system_objects
from exporters.postgres.definitions.unrepresented import losses_of, unreadable
from exporters.postgres.definitions.unwritten_by_pg_dump import with_unwritten
from exporters.postgres.errors import DRIVER_ERRORS, translate
from exporters.postgres.query_rows import fetch
from exporters.postgres.sessions import lock_timeouts
from exporters.postgres.sessions.snapshot_session import PostgresSession

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
LARGE_OBJECTS = "schema/large-objects.json"
EXTENSIONS = "schema/extensions.json"
CONSTRAINT_TRIGGERS = "schema/constraint-triggers.json"

_SECTIONS = (
    (pg_dump.PRE, PRE_DATA, False),
    (pg_dump.POST, POST_DATA, False),
    (pg_dump.PRE, PRE_DATA_PORTABLE, True),
    (pg_dump.POST, POST_DATA_PORTABLE, True),
)


@dataclass(frozen=True, slots=True)
class Missing:
    """What the definitions do not hold, and the items whose turn it was in vain."""

    losses: list[Loss]
    gaps: list[Gap]


@dataclass(frozen=True, slots=True)
class Dump:
    """What pg_dump says of the snapshot, in its own format; ``globals_sql``: of the roles, with what it leaves out.
    ``locked`` and ``nameless`` relations are not in it, nor are ``unread`` sequences, each with the reason.
    """

    tools: pg_dump.Tools
    environment: Mapping[str, str]
    definitions: bytes
    globals_sql: bytes | None
    losses: Sequence[Loss]
    locked: Sequence[lock_timeouts.Kept]
    nameless: Sequence[Unsayable]
    sequences: Sequence[Mapping[str, Any]]
    unread: Mapping[str, str]


def dump(
    session: PostgresSession, tables: Sequence[PostgresTable], stop: threading.Event | None = None
) -> Dump:
    """Read the definitions as of the snapshot. Who sets ``stop`` ends it. Raises ``SourceError``."""
    tools = pg_dump.find_tools(session.version // 10000)
    password = session.holder.info.password or None
    environment = dict(os.environ) | session.address.environment(password)
    environment["PGAPPNAME"] = session.session_limits.application
    environment["PGCLIENTENCODING"] = spoken = _spoken(session)
    try:
        locked = lock_timeouts.kept(
            session.holder, session.locked, seconds=session.session_limits.limits.lock_seconds
        )
        nameless = unsayable(session.holder)
        sequences, unread = read_sequences(
            session.holder, {relation.label for relation in locked}, [relation.oid for relation in nameless]
        )
        labels = [
            *(table.label for table in tables if not table.readable and not table.view),
            *unread,
            *(relation.label for relation in locked),
        ]
        without = {*_in_encoding(session.holder, labels, spoken), *(relation.quoted for relation in nameless)}
    except DRIVER_ERRORS as exc:
        raise translate(exc, session.address.url) from exc
    with ThreadPoolExecutor(session.session_limits.workers(2)) as pool:
        every_role = pool.submit(_globals, tools, environment)
        dumping = pool.submit(
            pg_dump.dump_definitions,
            tools,
            environment,
            session.exported,
            without=without,
            encoding=spoken,
            lock_seconds=session.session_limits.limits.lock_seconds,
            stop=stop,
        )
    globals_sql, losses = every_role.result()
    return Dump(
        tools,
        environment,
        dumping.result(),
        globals_sql,
        losses,
        locked,
        nameless,
        sequences,
        unread,
    )


def _spoken(session: PostgresSession) -> str:
    """Return the encoding in which pg_dump writes definitions."""
    encoding = str(session.position["encoding"])
    return encoding if may_change(encoding) or encoding == "SQL_ASCII" else "UTF8"


def write_schema(
    session: PostgresSession, tables: Sequence[PostgresTable], dumped: Dump, sink: Sink
) -> Missing:
    """Write the definitions, and return what they do not hold. Raises ``SourceError``."""
    tools, locked, nameless = dumped.tools, dumped.locked, dumped.nameless
    encoding, spoken = session.position["encoding"], _spoken(session)
    changes = may_change(encoding)
    codec = Codec(encoding, asking(session.holder, encoding))
    losses = list(dumped.losses)
    own = session.position[FOLLOW]["log"] if FOLLOW in session.position else {}
    for section, name, portable in _SECTIONS:
        script = pg_dump.section_of(tools, dumped.environment, dumped.definitions, section, portable=portable)
        try:
            if section == pg_dump.PRE:
                script = with_system_objects(script, session.holder, spoken, portable=portable)
                script = with_handlers(script, session.holder, spoken)
                script = with_unwritten(script, session.holder, spoken, portable=portable)
            elif tools.major >= DEFINITIONS_ONLY:
                left_out = [*(relation.oid for relation in locked), *(relation.oid for relation in nameless)]
                script = with_refreshes(script, session.holder, left_out, spoken, portable=portable)
            if own and section == pg_dump.POST:
                script = without_publication(script, own["publication"])
            _write(sink, name, pg_dump.in_utf8(script, codec, encoding) if changes else script)
        except DRIVER_ERRORS as exc:
            raise translate(exc, session.address.url) from exc
    if dumped.globals_sql is not None:
        _write(sink, GLOBALS, dumped.globals_sql)
    try:
        losses += _write_lists(session, dumped.sequences, tools, sink)
        losses += [
            loss
            for loss in losses_of(session.holder, tables) + undumped(session.holder)
            if not own or loss.item != f"replication slot {own['slot']}"
        ]
        losses += [
            Loss(relation.item, "definition", f"it could not be locked: {relation.reason}")
            for relation in locked
        ]
        gaps = unreadable(session.holder)
    except DRIVER_ERRORS as exc:
        raise translate(exc, session.address.url) from exc
    reason = "neither its value nor its definition can be read"
    gaps += [
        Gap(f"sequence {label}", "failed", f"{reason}: {error}") for label, error in dumped.unread.items()
    ]
    gaps += [
        Gap(relation.item, "failed", f"its definition cannot be read: {relation.reason}")
        for relation in locked
    ]
    gaps += [relation.gap for relation in nameless]
    return Missing(losses, gaps)


def _write_lists(
    session: PostgresSession, sequences: Sequence[Mapping[str, Any]], tools: pg_dump.Tools, sink: Sink
) -> list[Loss]:
    """Write what is no SQL; return the settings that are secret."""
    _write(sink, SEQUENCES, _json(sequences))
    losses = []
    for name, query in ((ROLES, roles.ROLES), (SETTINGS, roles.SETTINGS)):
        keepable, secret = roles.keepable(fetch(session.holder, query), session.position["database"])
        _write(sink, name, _json(keepable))
        losses += secret
    if session.large_objects and tools.major >= large_objects.METADATA_VERSION:
        _write(sink, LARGE_OBJECTS, _json(fetch(session.holder, large_objects.METADATA)))
    if extensions := read_extensions(session.holder, definitions=True):
        _write(sink, EXTENSIONS, _json(extensions))
    if triggers := constraint_triggers(session.holder, every=False):
        _write(sink, CONSTRAINT_TRIGGERS, _json(triggers))
    return losses


def _in_encoding(holder: psycopg.Connection[Any], names: Sequence[str], encoding: str) -> Iterator[bytes]:
    """Yield names as pg_dump reads them: in the encoding of what it writes."""
    for name in names:
        if name.isascii() or encoding in AS_STORED:
            yield name.encode()
        else:
            row = holder.execute("SELECT pg_catalog.convert_to(%s, %s)", (name, encoding)).fetchone()
            yield bytes(row[0]) if row else b""


def _globals(tools: pg_dump.Tools, environment: dict[str, str]) -> tuple[bytes | None, list[Loss]]:
    losses = [Loss("roles", "password", "a bundle holds no secrets; set the passwords on the destination")]
    try:
        return pg_dump.dump_globals(tools, environment), losses
    except SourceError as exc:
        return None, [*losses, Loss("roles", "definition in globals.sql", str(exc))]


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def _write(sink: Sink, name: str, data: bytes) -> None:
    with sink.create(name) as file:
        file.write(data)


def without_publication(script: bytes, name: str) -> bytes:
    """Return post-data without a publication that moveout has made, and without its tables."""
    head = rb"--\n-- Name: %s(?: [^\n]*)?; Type: PUBLICATION(?: TABLE)?; [^\n]*\n" % re.escape(name.encode())
    return re.sub(head + rb".*?\n(?=--\n-- )", b"", script, flags=re.DOTALL)


def with_handlers(script: bytes, holder: psycopg.Connection[Any], encoding: str) -> bytes:
    """Return pre-data in this encoding with the handlers of such languages."""
    for short, full in holder.execute(
        _LANGUAGES.encode(), {"encoding": encoding, "first": FIRST_OID}
    ).fetchall():
        script = script.replace(b"\n" + bytes(short), b"\n" + bytes(full), 1)
    return script
