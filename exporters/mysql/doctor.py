"""Examines a MySQL or MariaDB database as a source: what an export of it would lack, and the SQL that mends it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pymysql
from msgspec import Struct

from exporters.changes import NotFollowed
from exporters.discovery import sentence_of_tables
from exporters.doctor import (
    Examination,
    ExamineRequest,
    Finding,
    Fix,
    clock_finding,
    clock_skew,
    clock_words,
    count_words,
    gather,
)
from exporters.mysql.catalog import MysqlTable, read_tables
from exporters.mysql.changes.log_requirements import kept_hours, obstacles, tables_apart
from exporters.mysql.connection import Connection, MysqlAddress, connect, parse_url
from exporters.mysql.definitions.show_create import hidden_routines, hidden_tables, unlisted_kinds
from exporters.mysql.errors import DRIVER_ERRORS, UPGRADE_STEP, as_source_errors
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.sessions.account_rights import AccountRights, read_rights
from exporters.mysql.sessions.prepared_transactions import HOW_TO_END, UNENDED, prepared_transactions
from exporters.mysql.sessions.server_settings import set_statements
from exporters.mysql.sessions.snapshot_locks import GLOBAL_LOCK, ONE_SESSION, TABLE_LOCKS, unreadable_tables
from exporters.tls import Certificate, certificate_findings, clear_text, read_certificate, tls_facts

_DEFINITIONS = {
    "SHOW VIEW": ("views", "SELECT count(*) FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {schema}"),
    "TRIGGER": ("triggers", ""),
    "EVENT": ("events", ""),
}
"""Rights, what they show, and how to count what is there; servers list no triggers and events without the right."""
_MANY_TABLES = 2_000
_USED_COLLATIONS = """
SELECT DISTINCT COLLATION_NAME FROM information_schema.COLUMNS
WHERE TABLE_SCHEMA = {schema} AND COLLATION_NAME IS NOT NULL
UNION SELECT TABLE_COLLATION FROM information_schema.TABLES
WHERE TABLE_SCHEMA = {schema} AND TABLE_COLLATION IS NOT NULL ORDER BY 1
"""
_DATABASE = """
SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {schema}
"""
_CODE = """
SELECT (SELECT count(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {schema})
  + (SELECT count(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {schema})
"""


class _ExaminedMysql(Struct, frozen=True):
    request: ExamineRequest
    address: MysqlAddress
    connection: Connection
    rights: AccountRights
    tables: Sequence[MysqlTable]

    @property
    def server(self) -> str:
        return server_of(self.address)

    @property
    def database(self) -> str:
        return quote_name(self.address.database)

    def grant(self, rights: str, on: str) -> Fix:
        return Fix("sql", f"GRANT {rights} ON {on} TO {self.rights.account};", self.server)

    @property
    def snapshot(self) -> str:
        """The strongest way to a snapshot that the account may go."""
        if self.rights.has("RELOAD", "*"):
            return GLOBAL_LOCK
        return TABLE_LOCKS if self.rights.has("LOCK TABLES", self.address.database) else ONE_SESSION


def examine(request: ExamineRequest) -> Examination:
    """Examine a source. See ``exporters.doctor.Examine``."""
    address = parse_url(request.url, request.secrets)
    with closing(connect(address)) as connection:
        with as_source_errors(address.url):
            skew, hours = server_clock_skew(connection), kept_hours(connection)
            source = _ExaminedMysql(
                request, address, connection, read_rights(connection), read_tables(connection)
            )
        certificate = certificate_of(connection)
        checks = [
            ("TLS", tls_findings(connection, certificate, request.deadline)),
            ("clock", clock_finding(source.server, skew, source.server)),
            ("rights", _database_rights(source)),
            ("rights", _hidden_tables(source)),
            ("rights", _tables(source)),
            ("rights", _routines(source)),
            ("system tables", _system_tables(source)),
            ("accounts", _accounts(source)),
            ("snapshot", _snapshot(source)),
            ("transactions", _prepared(source)),
            ("engines", _engines(source)),
            ("connections", _connections(source)),
            ("replica", _replica(source)),
            ("changes", _changes(source)),
        ]
        findings = gather(checks, name=address.url, errors=DRIVER_ERRORS)
        needs = _needs(source)
    missing = sum(1 for finding in findings if finding.check == "rights")
    words = {
        "server": server_words(connection),
        **tls_facts(certificate),
        "rights": count_words(missing, "missing"),
        "snapshot": {GLOBAL_LOCK: "exact"}.get(source.snapshot, source.snapshot),
        "changes": _changes_words(source, findings, hours),
        "clock": clock_words(skew),
    }
    return Examination(words, findings, needs, sum(table.size_bytes for table in source.tables))


def server_of(address: MysqlAddress) -> str:
    """Return host and port of an address."""
    return f"{address.host or 'localhost'}:{address.port}"


def server_words(connection: Connection) -> str:
    """Return the server's name and version, for a table."""
    name = "MariaDB" if connection.is_mariadb else "MySQL"
    return f"{name} {connection.version.partition('-')[0]}"


def server_clock_skew(connection: Connection) -> float:
    """Return by how many seconds the server's clock is ahead of this machine's. Raises the driver's errors."""
    asked = datetime.now(UTC)
    there = float(connection.value("SELECT UNIX_TIMESTAMP(NOW(6))"))
    return clock_skew(datetime.fromtimestamp(there, UTC), asked=asked)


def certificate_of(connection: Connection) -> Certificate | None:
    """Return the server's certificate, None where the connection has no TLS."""
    plug = connection.raw._sock  # noqa: SLF001  the driver has no other way to it
    if not isinstance(plug, ssl.SSLSocket):
        return None
    der = plug.getpeercert(binary_form=True)
    return read_certificate(der, plug.version() or "") if der else None


def tls_findings(
    connection: Connection, certificate: Certificate | None, deadline: datetime | None
) -> Iterator[Finding]:
    """Yield what is wrong with the encryption of a connection."""
    address = connection.address
    if certificate is not None:
        strict, server = "ssl-mode=verify_identity", server_of(address)
        yield from certificate_findings(
            certificate, address.host, server=server, strict=strict, deadline=deadline
        )
    elif not address.local:
        advice = "give the server a certificate (ssl_cert, ssl_key), and write ssl-mode=required into the URL"
        yield clear_text(server_of(address), Fix("advice", advice, server_of(address)))


def _database_rights(source: _ExaminedMysql) -> Iterator[Finding]:
    """Yield the rights that the account lacks on the whole database: what they would show is not even listed."""
    database = source.address.database
    if not source.rights.has("SELECT", database):
        yield Finding(
            "loses",
            "rights",
            f"database {source.database}",
            f"{source.rights.account} has no SELECT on all of it",
            "Tables on which the account has no right are not even listed.",
            source.grant("SELECT", f"{source.database}.*"),
        )
    for right, (kinds, query) in _DEFINITIONS.items():
        if source.rights.has(right, database):
            continue
        if query and not source.connection.value(query.format(schema=quote_literal(database))):
            continue
        yield Finding(
            "loses",
            "rights",
            f"{kinds} of {source.database}",
            f"{source.rights.account} has no {right}",
            f"Definitions of {kinds} are not exported.",
            source.grant(right, f"{source.database}.*"),
        )


def _hidden_tables(source: _ExaminedMysql) -> Iterator[Finding]:
    """Yield the tables that the server hides from the account, as far as others show that they are there."""
    if source.rights.lists_tables_of(source.address.database):
        return
    for name, reason in hidden_tables(source.connection, source.tables).items():
        label = f"{source.database}.{quote_name(name)}"
        consequence = "Neither its definition nor its rows are exported."
        yield Finding("loses", "rights", label, reason, consequence, source.grant("SELECT", label))


def _tables(source: _ExaminedMysql) -> Iterator[Finding]:
    if len(source.tables) > _MANY_TABLES and source.rights.has("SELECT", source.address.database):
        return  # a question for each of them takes too long
    unreadable = unreadable_tables(source.connection, source.tables)
    for table in source.tables:
        if table.name not in unreadable or table.elsewhere:
            continue
        reason = unreadable[table.name]
        denied = reason == "the account may not read it"
        label = f"{source.database}.{table.label}"
        repair = Fix("sql", f"REPAIR TABLE {label};", source.server)
        fix = source.grant("SELECT", label) if denied else repair
        yield Finding(
            "loses", "rights" if denied else "damage", label, reason, "Its rows are not exported.", fix
        )


def _routines(source: _ExaminedMysql) -> Iterator[Finding]:
    for loss in hidden_routines(source.connection):
        fix = (
            source.grant("SELECT", "`mysql`.`proc`")
            if source.connection.is_mariadb
            else source.grant("SHOW_ROUTINE", "*.*")
        )
        yield Finding("loses", "rights", "routines", loss.reason, "They are not exported.", fix)


def _prepared(source: _ExaminedMysql) -> Iterator[Finding]:
    for name in prepared_transactions(source.connection) or ():
        fix = Fix("advice", HOW_TO_END.format(name=name))
        consequence = "If it wrote to this database, that is not exported."
        yield Finding("loses", "transactions", f"prepared transaction {name}", UNENDED, consequence, fix)


def _system_tables(source: _ExaminedMysql) -> Iterator[Finding]:
    for gap in unlisted_kinds(source.connection):
        fix = Fix("advice", UPGRADE_STEP, source.server)
        yield Finding("loses", "system tables", gap.item, gap.reason, "They are not exported.", fix)


def _accounts(source: _ExaminedMysql) -> Iterator[Finding]:
    if not source.rights.has("SELECT", "mysql"):
        yield Finding(
            "info",
            "accounts",
            source.server,
            f"{source.rights.account} may not read the accounts of the server",
            "The accounts of the database and their rights are not exported.",
            source.grant("SELECT", "`mysql`.*"),
        )


def _snapshot(source: _ExaminedMysql) -> Iterator[Finding]:
    way = source.snapshot
    if way == GLOBAL_LOCK:
        return
    account, lock = (
        source.rights.account,
        f"GRANT LOCK TABLES ON {source.database}.* TO {source.rights.account};\n",
    )
    statements = f"{lock if way == ONE_SESSION else ''}GRANT RELOAD ON *.* TO {account};"
    problem = f"{account} has no RELOAD{' and no LOCK TABLES' if way == ONE_SESSION else ''}"
    consequence = (
        "One session reads everything, one table after the other."
        if way == ONE_SESSION
        else "Tables are locked one by one, and the position in the binary log is not exact."
    )
    yield Finding(
        "slow", "snapshot", source.server, problem, consequence, Fix("sql", statements, source.server)
    )


def _engines(source: _ExaminedMysql) -> Iterator[Finding]:
    for table in source.tables:
        label = f"{source.database}.{table.label}"
        if table.elsewhere:
            problem = f"{table.engine}: its rows lie elsewhere"
            advice = Fix(
                "advice", "where another database or server holds its rows, name that as a source, too"
            )
            yield Finding("info", "engines", label, problem, "Only its definition leaves.", advice)
        elif table.engine and not table.transactional:
            fix = Fix("sql", f"ALTER TABLE {label} ENGINE = InnoDB;", source.server)
            problem = f"{table.engine} has no snapshots"
            consequence = "Its rows are those of the moment of reading. Do not write to it during the export."
            yield Finding("info", "engines", label, problem, consequence, fix)


def _connections(source: _ExaminedMysql) -> Iterator[Finding]:
    most = int(source.connection.variable("max_connections") or 0)
    used = int(source.connection.rows("SHOW GLOBAL STATUS LIKE 'Threads_connected'")[0][1])
    needed = source.request.workers + 2
    if most - used < needed:
        statement = set_statements(source.connection, {"max_connections": str(most + needed)})
        fix = Fix("sql", statement, source.server)
        problem = f"{most - used} connections are free; an export wants {needed}"
        yield Finding(
            "slow", "connections", source.server, problem, "The export may be refused a session.", fix
        )


def _replica(source: _ExaminedMysql) -> Iterator[Finding]:
    try:
        rows = source.connection.named(
            "SHOW SLAVE STATUS" if source.connection.is_mariadb else "SHOW REPLICA STATUS"
        )
    except pymysql.Error:
        return  # the account may not know
    for row in rows:
        running = str(row.get("slave_sql_running") or row.get("replica_sql_running") or "")
        if running != "Yes":
            fix = Fix(
                "sql", "START SLAVE;" if source.connection.is_mariadb else "START REPLICA;", source.server
            )
            problem = f"it is a replica, and replication stands still: {row.get('last_sql_error') or 'it was stopped'}"
            consequence = "What the primary has written since is not exported."
            yield Finding("loses", "replica", source.server, problem, consequence, fix)


def _changes(source: _ExaminedMysql) -> Iterator[Finding]:
    """Yield why changes cannot be followed by the binary log."""
    for obstacle in obstacles(source.connection, source.rights):
        fix = Fix("sql" if obstacle.is_sql else "advice", obstacle.remedy, source.server)
        yield source.request.no_log(source.server, obstacle.problem, fix)
    if source.snapshot == ONE_SESSION:
        problem = f"{source.rights.account} has neither RELOAD nor LOCK TABLES"
        fix = source.grant("RELOAD", "*.*")
        yield source.request.no_log(source.server, problem, fix)
    by_reason: dict[str, list[NotFollowed]] = {}
    for table, lack in tables_apart(source.connection, source.tables):
        if table.transactional:  # others are named for having no snapshot
            by_reason.setdefault(lack.reason, []).append(lack)
    for reason, lacks in by_reason.items():
        [words] = sentence_of_tables([lack.name for lack in lacks], "cannot be followed")
        problem = f"{words} ({reason})"
        fix = Fix("advice", "\n".join(lack.remedy for lack in lacks), source.server)
        yield source.request.not_in_log(f"database {source.database}", problem, fix)


def _changes_words(source: _ExaminedMysql, findings: Sequence[Finding], hours: float | None) -> str:
    """Return whether changes can be followed, and for how long the server keeps its log."""
    if any((finding.check, finding.object) == ("changes", source.server) for finding in findings):
        return "no"
    return "possible" if hours is None else f"possible; binary log kept for {hours:.0f} h"


def _needs(source: _ExaminedMysql) -> dict[str, Any]:
    """Return what a destination should have. See ``migrate.doctor.mysql_destination``."""
    connection, schema = source.connection, quote_literal(source.address.database)
    try:
        charset, collation = connection.rows(_DATABASE.format(schema=schema))[0]
        return {
            "mariadb": connection.is_mariadb,
            "charset": str(charset),
            "collation": str(collation),
            "collations": [str(row[0]) for row in connection.rows(_USED_COLLATIONS.format(schema=schema))],
            "engines": sorted({table.engine for table in source.tables if table.engine}),
            "tables": [table.name for table in source.tables],
            "code": int(connection.value(_CODE.format(schema=schema)) or 0),
            "max_allowed_packet": int(connection.variable("max_allowed_packet") or 0),
        }
    except DRIVER_ERRORS:
        return {}
