"""Examines a PostgreSQL database as a source: what an export of it would lack, and the SQL that mends it."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg
from msgspec import Struct
from msgspec.structs import replace

from exporters.changes import NotFollowed, reason_words
from exporters.doctor import (
    Examination,
    ExamineRequest,
    Finding,
    Fix,
    Severity,
    clock_finding,
    clock_skew,
    clock_words,
    count_words,
    gather,
)
from exporters.errors import SourceUsageError
from exporters.host_address import is_local
from exporters.postgres.catalog import PostgresTable, read_tables, unreadable_partitioned
from exporters.postgres.changes.log import open_change_log
from exporters.postgres.changes.publication import followed_tables
from exporters.postgres.changes.timelines import FAILOVER_VERSION
from exporters.postgres.charset.server_conversion import database_encoding
from exporters.postgres.charset.unmappable_names import unsayable
from exporters.postgres.definitions.collation import read_locale
from exporters.postgres.definitions.dump_programs import find_tools
from exporters.postgres.definitions.sequences import read_sequences
from exporters.postgres.definitions.unrepresented import hidden_damage, unreadable
from exporters.postgres.errors import DRIVER_ERRORS, as_source_errors, in_one_line
from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.postgres.large_objects import privilege_counts_query
from exporters.postgres.query_rows import fetch
from exporters.postgres.sessions.connection import PostgresAddress, connect, parse_url
from exporters.postgres.sessions.lock_timeouts import held
from exporters.tls import (
    Certificate,
    ask_certificate,
    certificate_findings,
    clear_text,
    tls_facts,
)

_TIMEOUTS = "SET lock_timeout = '3s'; SET statement_timeout = '20s'"
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""PostgreSQL documentation, "Message Formats": SSLRequest."""
_QUOTED_NAME = re.compile(r'"(?:[^"]|"")*"')
_READS_ALL_VERSION = 140000
"""From this version on there is ``pg_read_all_data``."""
_FEW = 8
"""How many tables and sequences that may not be read are named one by one."""
_UNLOCKED = "let that session end, or export later"

_SESSION = """
SELECT current_user AS role, rolsuper AS superuser, rolconnlimit AS connection_limit,
  rolreplication OR EXISTS (SELECT FROM pg_roles g WHERE g.rolname = 'rds_replication'
    AND pg_has_role(g.oid, 'USAGE')) AS replication,
  current_database() AS database, has_database_privilege(current_database(), 'CREATE') AS creates,
  pg_is_in_recovery() AS standby, clock_timestamp() AS now,
  current_setting('server_version') AS version, current_setting('max_connections')::int AS max_connections,
  current_setting('superuser_reserved_connections')::int AS reserved,
  (SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())::int AS used,
  current_setting('wal_level') AS wal_level, current_setting('max_replication_slots')::int AS max_slots,
  (SELECT count(*) FROM pg_replication_slots)::int AS slots, current_setting('max_wal_senders')::int AS max_senders,
  (SELECT count(*) FROM pg_stat_replication)::int AS senders,
  ARRAY(SELECT slot_name::text FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary ORDER BY 1)
    AS standbys,
  coalesce(current_setting('synchronized_standby_slots', true), '') AS synchronized,
  current_setting('hot_standby_feedback') AS feedback,
  current_setting('max_standby_streaming_delay') AS standby_delay,
  pg_database_size(current_database()) AS size_bytes,
  EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_superuser') AS of_rds
FROM pg_roles WHERE rolname = current_user
"""
_RIGHTS = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, has_schema_privilege(n.oid, 'USAGE') AS enters,
  has_table_privilege(c.oid, 'SELECT') AS reads
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (%(oids)s::oid[])
"""
_LOCKERS = """
SELECT DISTINCT pid FROM pg_locks WHERE relation = %(oid)s AND mode = 'AccessExclusiveLock' AND granted
"""
_GRANT_LARGE_OBJECTS = """DO $$ DECLARE o oid; BEGIN
  FOR o IN SELECT oid FROM pg_largeobject_metadata LOOP
    EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO {role}', o);
  END LOOP;
END $$;"""
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1"
_EXTENSIONS = """
SELECT e.extname::text AS name, e.extversion AS version FROM pg_extension e WHERE e.extname <> 'plpgsql' ORDER BY 1
"""
_COLLATIONS = """
SELECT DISTINCT co.collname::text AS name, co.collprovider::text AS provider, to_jsonb(co) ->> 'collcollate' AS locale
FROM pg_attribute a JOIN pg_collation co ON co.oid = a.attcollation
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND co.collnamespace = 'pg_catalog'::regnamespace
  AND co.collprovider <> 'd' AND co.collname NOT IN ('C', 'POSIX') AND n.nspname !~ '^pg_'
ORDER BY 1
"""
_OWNERS = """
SELECT DISTINCT r.rolname::text AS name FROM pg_roles r WHERE r.oid <> 10 AND r.rolname !~ '^pg_' AND r.oid IN (
  SELECT relowner FROM pg_class UNION SELECT nspowner FROM pg_namespace UNION SELECT proowner FROM pg_proc
  UNION SELECT typowner FROM pg_type) ORDER BY 1
"""


class _ExaminedPostgres(Struct, frozen=True):
    """An open connection, what it says of itself, and what was asked for."""

    request: ExamineRequest
    address: PostgresAddress
    connection: psycopg.Connection[Any]
    server: str
    facts: Mapping[str, Any]
    tables: list[PostgresTable]
    detour: str
    """How changes are read where the replication protocol is refused, and why; "" where it is not."""

    @property
    def role(self) -> str:
        return quote_name(str(self.facts["role"]))

    def sql(self, text: str) -> Fix:
        return Fix("sql", text, self.server, str(self.facts["database"]))


def examine(request: ExamineRequest) -> Examination:
    """Examine a source. See ``exporters.doctor.Examine``."""
    address = parse_url(request.url, request.secrets)
    with closing(connect(address)) as connection:
        with as_source_errors(address.url):
            connection.execute(_TIMEOUTS.encode())
            asked = datetime.now(UTC)
            facts = fetch(connection, _SESSION)[0]
            skew = clock_skew(facts["now"], asked=asked)
            tables = read_tables(connection, held(connection, seconds=0))
        certificate = certificate_of(connection)
        detour = open_change_log(request.url, request.secrets, "doctor").detour()
        source = _ExaminedPostgres(
            request=request,
            address=address,
            connection=connection,
            server=server_of(connection),
            facts=facts,
            tables=tables,
            detour=detour,
        )
        checks = [
            ("TLS", tls_findings(connection, certificate, request.deadline)),
            ("clock", clock_finding(source.server, skew, source.server)),
            ("pg_dump", _pg_dump(source)),
            ("rights", _relations(source)),
            ("rights", _tables(source)),
            ("rights", _large_objects(source)),
            ("rights", _user_mappings(source)),
            ("damage", _hidden_damage(source)),
            ("locks", _locks(source)),
            ("snapshot", _snapshot(source)),
            ("transactions", _prepared(source)),
            ("connections", _connections(source)),
            ("replica", _standby(source)),
            ("changes", _changes(source)),
        ]
        findings = gather(checks, name=address.url, errors=DRIVER_ERRORS)
        needs = _needs(source)
    missing = sum(1 for finding in findings if finding.check == "rights" and finding.severity != "info")
    words = {
        "server": server_words(facts),
        **tls_facts(certificate),
        "rights": count_words(missing, "missing"),
        "snapshot": "no" if any(finding.check == "snapshot" for finding in findings) else "exact",
        "changes": _changes_words(source),
        "clock": clock_words(skew),
    }
    return Examination(words, findings, needs, int(facts["size_bytes"] or 0))


def server_of(connection: psycopg.Connection[Any]) -> str:
    """Return host and port of a connection."""
    info = connection.info
    return f"{info.host or info.hostaddr or 'localhost'}:{info.port}"


def server_words(facts: Mapping[str, Any]) -> str:
    """Return version and part of a server, for a table."""
    version = str(facts["version"]).split()[0]
    return f"PostgreSQL {version}{', standby' if facts['standby'] else ''}"


def certificate_of(connection: psycopg.Connection[Any]) -> Certificate | None:
    """Return the server's certificate, None where the connection has no TLS, or where it is not shown again."""
    info = connection.info
    if not connection.pgconn.ssl_in_use:
        return None
    try:
        return ask_certificate(info.hostaddr or info.host, info.port, _ask_for_tls)
    except OSError:
        return None


def _ask_for_tls(plain: socket.socket) -> None:
    plain.sendall(_SSL_REQUEST)
    if plain.recv(1) != b"S":
        raise OSError("the server has no TLS")


def tls_findings(
    connection: psycopg.Connection[Any], certificate: Certificate | None, deadline: datetime | None
) -> Iterator[Finding]:
    """Yield what is wrong with the encryption of a connection."""
    server, host = server_of(connection), connection.info.host
    if certificate is not None:
        strict = "sslmode=verify-full"
        yield from certificate_findings(certificate, host, server=server, strict=strict, deadline=deadline)
    elif not connection.pgconn.ssl_in_use and not is_local(host):
        offers = _offers_tls(host, connection.info.port)
        advice = (
            Fix("advice", "take sslmode=disable out of the URL, or write sslmode=require")
            if offers
            else Fix("sql", "ALTER SYSTEM SET ssl = on;\nSELECT pg_reload_conf();", server)
        )
        yield clear_text(server, advice)


def _offers_tls(host: str, port: int) -> bool:
    try:
        ask_certificate(host, port, _ask_for_tls)
    except OSError:
        return False
    return True


def _pg_dump(source: _ExaminedPostgres) -> Iterator[Finding]:
    major = source.connection.info.server_version // 10000
    try:
        find_tools(major, source.connection.info.get_parameters())
    except SourceUsageError as exc:
        yield Finding(
            "blocks",
            "pg_dump",
            f"pg_dump {major}",
            str(exc),
            "Without it no definitions leave, and the export refuses to begin.",
            Fix("shell", f"apt-get install --yes postgresql-client-{major}"),
        )


def _relations(source: _ExaminedPostgres) -> Iterator[Finding]:
    """Yield a finding for each table and sequence that the role may not read; where there are many, one for all. From
    PostgreSQL 14 on one privilege is enough for all of them.
    """
    forbidden = [*_forbidden_tables(source), *_partitioned(source), *_sequences(source)]
    if not forbidden or source.connection.info.server_version < _READS_ALL_VERSION:
        yield from forbidden
        return
    grant = f"GRANT pg_read_all_data TO {source.role};"
    if len(forbidden) <= _FEW:
        first, *others = forbidden
        least = first.fix.text if first.fix else ""
        yield replace(first, fix=source.sql(f"{least}\n-- Or for all tables and sequences: {grant}"))
        yield from others
        return
    names = ", ".join(finding.object for finding in forbidden[:_FEW])
    problem = f"the role {source.role} may not read {len(forbidden)} tables and sequences ({names}, …)"
    consequence = "Their definitions, and their rows or next numbers, are not exported."
    yield Finding("loses", "rights", str(source.facts["database"]), problem, consequence, source.sql(grant))


def _forbidden_tables(source: _ExaminedPostgres) -> Iterator[Finding]:
    """Yield a finding for each table that the role may not read."""
    tables = {
        table.oid: table for table in source.tables if table.gap and not (table.foreign or table.readable)
    }
    for right in fetch(source.connection, _RIGHTS, {"oids": [*tables]}):
        table = tables[right["oid"]]
        consequence = "Its definition and its rows are not exported."
        yield _forbidden(source, table.item, table.label, right, consequence)


def _tables(source: _ExaminedPostgres) -> Iterator[Finding]:
    """Yield a finding for each table that is not exported whole for another reason than that the role may not read
    it.
    """
    for table in source.tables:
        if table.foreign:
            yield Finding(
                "info",
                "foreign tables",
                table.label,
                "it is a foreign table: its rows lie on another server",
                "Only its definition leaves.",
                Fix("advice", "name the other server's database as a source of its own"),
            )
        elif not table.gap or not table.readable:
            continue
        elif table.hidden:
            problem = f"row-level security hides rows of it from {source.role}"
            fix = source.sql(f"ALTER ROLE {source.role} BYPASSRLS;")
            yield Finding("loses", "rights", table.item, problem, "Its rows are not exported.", fix)
        elif table.out_of_reach:
            advice = Fix("advice", "export from the primary")
            problem = "it is unlogged, and this server is a standby"
            yield Finding("loses", "replica", table.item, problem, "Its rows are not exported.", advice)


def _partitioned(source: _ExaminedPostgres) -> Iterator[Finding]:
    """Yield a finding for each partitioned table that the role may not read: pg_dump leaves it out."""
    labels = {oid: label for label, oid in unreadable_partitioned(source.connection).items()}
    for right in fetch(source.connection, _RIGHTS, {"oids": list(labels)}):
        label = labels[right["oid"]]
        yield _forbidden(
            source, label, label, right, "Its definition is not exported, so its partitions stand alone."
        )


def _forbidden(
    source: _ExaminedPostgres, item: str, label: str, right: Mapping[str, Any], consequence: str
) -> Finding:
    """Return the finding that the role may not read a table. ``right``: a row of ``_RIGHTS``."""
    enter = f"GRANT USAGE ON SCHEMA {quote_name(right['schema'])} TO {source.role};"
    read = f"GRANT SELECT ON TABLE {label} TO {source.role};"
    statements = [] if right["enters"] else [enter]
    statements += [] if right["reads"] else [read]
    problem = f"the role {source.role} may not read it"
    return Finding("loses", "rights", item, problem, consequence, source.sql("\n".join(statements)))


def _sequences(source: _ExaminedPostgres) -> Iterator[Finding]:
    without = [relation.oid for relation in unsayable(source.connection)]
    _, unread = read_sequences(source.connection, unsayable=without)
    for label, reason in unread.items():
        schema = _QUOTED_NAME.match(label)
        statements = f"GRANT USAGE ON SCHEMA {schema[0]} TO {source.role};\n" if schema else ""
        statements += f"GRANT SELECT ON SEQUENCE {label} TO {source.role};"
        yield Finding(
            "loses",
            "rights",
            f"sequence {label}",
            f"the role {source.role} may not read it: {reason}",
            "Its definition and its next number are not exported, and inserts collide on the new host.",
            source.sql(statements),
        )


def _large_objects(source: _ExaminedPostgres) -> Iterator[Finding]:
    version = source.connection.info.server_version
    row = fetch(source.connection, privilege_counts_query(version))[0]
    if row["unreadable"]:
        role = source.role.replace("'", "''").replace("%", "%%")
        yield Finding(
            "loses",
            "rights",
            "large objects",
            f"the role {source.role} may not read {row['unreadable']} of {row['count']}",
            "They are not exported.",
            source.sql(_GRANT_LARGE_OBJECTS.format(role=role)),
        )


def _user_mappings(source: _ExaminedPostgres) -> Iterator[Finding]:
    for gap in unreadable(source.connection):
        advice = Fix("advice", "export as a superuser, or write the mapping by hand on the destination")
        yield Finding(
            "loses", "rights", gap.item, "the role may not read them", "They are not exported.", advice
        )


def _hidden_damage(source: _ExaminedPostgres) -> Iterator[Finding]:
    for gap in hidden_damage(source.connection):
        advice = Fix("advice", "set it off, and restart the server; then an export names the damaged pages")
        yield Finding("loses", "damage", gap.item, gap.reason, "An export is not complete.", advice)


def _locks(source: _ExaminedPostgres) -> Iterator[Finding]:
    for table in source.tables:
        if not table.locked:
            continue
        pids = [row["pid"] for row in fetch(source.connection, _LOCKERS, {"oid": table.oid}) if row["pid"]]
        end = "\n".join(f"SELECT pg_terminate_backend({pid});" for pid in pids)
        fix = source.sql(end) if end else Fix("advice", _UNLOCKED)
        problem = f"another session keeps it locked: {table.locked}"
        consequence = "If it still does at the export, the rows are not exported."
        yield Finding("loses", "locks", table.item, problem, consequence, fix)


def _snapshot(source: _ExaminedPostgres) -> Iterator[Finding]:
    """Try to export a snapshot, as the export does."""
    try:
        source.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        source.connection.execute("SELECT pg_export_snapshot()")
    except psycopg.Error as exc:
        problem = f"no snapshot can be exported: {in_one_line(exc)}"
        advice = Fix("advice", "connect to the server itself, not through a pool of connections")
        yield Finding(
            "blocks", "snapshot", source.address.url, problem, "The export refuses to begin.", advice
        )
    finally:
        source.connection.execute("ROLLBACK")


def _prepared(source: _ExaminedPostgres) -> Iterator[Finding]:
    for row in fetch(source.connection, _PREPARED):
        name = str(row["gid"]).replace("'", "''")
        fix = Fix("advice", f"COMMIT PREPARED '{name}'; or ROLLBACK PREPARED '{name}'; whichever is right")
        problem = "it is neither committed nor rolled back"
        consequence = "What it wrote is not exported."
        yield Finding(
            "loses", "transactions", f"prepared transaction {row['gid']}", problem, consequence, fix
        )


def _connections(source: _ExaminedPostgres) -> Iterator[Finding]:
    facts, needed = source.facts, source.request.workers + 2
    free = facts["max_connections"] - facts["reserved"] - facts["used"]
    if 0 <= facts["connection_limit"] < needed and not facts["superuser"]:
        fix = source.sql(f"ALTER ROLE {source.role} CONNECTION LIMIT {needed + 2};")
        problem = f"the role may open {facts['connection_limit']} connections; an export wants {needed}"
        yield Finding("slow", "connections", source.server, problem, "Fewer tables are read at once.", fix)
    if free < needed:
        advice = Fix("advice", f"give --max-connections {max(free, 2)}, or end sessions that nobody needs")
        problem = f"{free} connections are free; an export wants {needed}"
        yield Finding("slow", "connections", source.server, problem, "Fewer tables are read at once.", advice)


def _standby(source: _ExaminedPostgres) -> Iterator[Finding]:
    facts = source.facts
    if facts["standby"] and facts["feedback"] == "off" and facts["standby_delay"] != "-1":
        fix = Fix(
            "sql",
            "ALTER SYSTEM SET hot_standby_feedback = on;\nSELECT pg_reload_conf();",
            source.server,
            "postgres",
        )
        problem = f"it is a standby that cancels queries after {facts['standby_delay']}"
        consequence = "A long export may be cancelled, and begins again."
        yield Finding("slow", "replica", source.server, problem, consequence, fix)


def _change_faults(source: _ExaminedPostgres) -> list[tuple[str, Fix]]:
    """Return why changes cannot be followed by logical replication, and what mends it. Amazon RDS has its own words for
    that (RDS user guide, "Performing logical replication").
    """
    facts, faults = source.facts, []
    if facts["wal_level"] != "logical" and facts["of_rds"]:
        advice = "set rds.logical_replication = 1 in the instance's parameter group, and restart the instance"
        faults.append((f"wal_level is {facts['wal_level']}", Fix("advice", advice, source.server)))
    elif facts["wal_level"] != "logical":
        fix = Fix(
            "sql",
            "ALTER SYSTEM SET wal_level = logical;\n-- It holds after a restart.",
            source.server,
            "postgres",
        )
        faults.append((f"wal_level is {facts['wal_level']}", fix))
    if facts["slots"] >= facts["max_slots"]:
        faults.append(
            ("max_replication_slots leaves none free", _more(source, "max_replication_slots", facts["slots"]))
        )
    if not facts["superuser"] and not facts["replication"]:
        of_rds = f"GRANT rds_replication TO {source.role};"
        fix = source.sql(of_rds if facts["of_rds"] else f"ALTER ROLE {source.role} REPLICATION;")
        faults.append((f"the role {source.role} has no REPLICATION", fix))
    if not facts["creates"]:
        database = quote_name(str(facts["database"]))
        fix = source.sql(f"GRANT CREATE ON DATABASE {database} TO {source.role};")
        faults.append((f"the role {source.role} has no CREATE on {database}, for a publication", fix))
    return faults


def _more(source: _ExaminedPostgres, setting: str, used: int) -> Fix:
    statement = f"ALTER SYSTEM SET {setting} = {used + 4};\n-- It holds after a restart."
    return Fix("sql", statement, source.server, "postgres")


def _changes_words(source: _ExaminedPostgres) -> str:
    """Return whether changes can be followed, and how, for a table."""
    if _change_faults(source):
        return "no"
    return "by polling" if source.detour else "possible"


def _polling(source: _ExaminedPostgres) -> Iterator[Finding]:
    """Yield that changes are read by SQL, where they can be read, and what that costs."""
    if not source.detour or _change_faults(source):
        return
    facts = source.facts
    fix = Fix("advice", "give the URL of the server itself, not of a pooler")
    if facts["senders"] >= facts["max_senders"]:
        fix = _more(source, "max_wal_senders", facts["senders"])
    consequence = "Changes follow at a higher cost: each poll decodes the log from the slot's restart_lsn on."
    yield Finding("info", "changes", source.server, source.detour, consequence, fix)


def _failover(source: _ExaminedPostgres) -> Iterator[Finding]:
    """Yield what a failover to a standby would do to a source that is followed."""
    standbys = ", ".join(source.facts["standbys"])
    if not standbys:
        return
    severity: Severity = "slow" if source.request.follow else "info"
    consequence = "After a failover following may stop, and the base must be taken again."
    if source.connection.info.server_version < FAILOVER_VERSION:
        problem = f"before PostgreSQL 17 its standbys ({standbys}) have no slot for changes"
        advice = Fix("advice", "do not fail over between the base and the cutover")
        yield Finding(severity, "changes", source.server, problem, consequence, advice)
    elif not source.facts["synchronized"]:
        problem = (
            f"its standbys ({standbys}) may lack what was captured: synchronized_standby_slots is not set"
        )
        statement = (
            f"ALTER SYSTEM SET synchronized_standby_slots = {quote_literal(standbys)};\nSELECT pg_reload_conf();\n"
            "-- While one of these standbys is away, nothing is followed."
        )
        fix = Fix("sql", statement, source.server, "postgres")
        yield Finding(severity, "changes", source.server, problem, consequence, fix)


def _changes(source: _ExaminedPostgres) -> Iterator[Finding]:
    for problem, fix in _change_faults(source):
        yield source.request.no_log(source.server, problem, fix)
    yield from _polling(source)
    yield from _failover(source)
    by_reason: dict[str, list[NotFollowed]] = {}
    for table in followed_tables(source.connection, source.tables).not_followed:
        by_reason.setdefault(table.reason, []).append(table)
    for reason, tables in by_reason.items():
        counted = "1 table" if len(tables) == 1 else f"{len(tables)} tables"
        names = ", ".join(table.name for table in tables[:3]) + (", …" if tables[3:] else "")
        remedies = "\n".join(dict.fromkeys(table.remedy for table in tables if table.remedy))
        fix = source.sql(remedies) if remedies else Fix("advice", "they are read again at the cutover")
        problem = f"{counted} cannot be followed ({names}): {reason_words(reason, len(tables))}"
        yield source.request.not_in_log(str(source.facts["database"]), problem, fix)


def _needs(source: _ExaminedPostgres) -> dict[str, Any]:
    """Return what a destination should have. See ``migrate.doctor.postgres_destination``."""
    try:
        return {
            "version": source.connection.info.server_version,
            "encoding": database_encoding(source.connection),
            "locale": read_locale(source.connection),
            "extensions": fetch(source.connection, _EXTENSIONS),
            "collations": fetch(source.connection, _COLLATIONS),
            "owners": [row["name"] for row in fetch(source.connection, _OWNERS)],
        }
    except DRIVER_ERRORS:
        return {}
