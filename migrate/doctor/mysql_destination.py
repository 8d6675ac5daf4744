"""Examines a MySQL or MariaDB database as a destination: whether it is there, empty, and like what its source needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from exporters.doctor import (
    Examination,
    ExamineRequest,
    Finding,
    Fix,
    FixKind,
    Severity,
    clock_finding,
    clock_words,
    count_words,
    gather,
)
from exporters.errors import SourceError, SourceGoneError
from exporters.mysql.connection import Connection, MysqlAddress, connect, parse_url
from exporters.mysql.control_tables import ControlTables, find_control_tables
from exporters.mysql.definitions.show_create import create_database_statement, defaults_of
from exporters.mysql.doctor import (
    certificate_of,
    server_clock_skew,
    server_of,
    server_words,
    tls_findings,
)
from exporters.mysql.errors import DRIVER_ERRORS, as_source_errors
from exporters.mysql.identifiers import quote_name
from exporters.mysql.sessions.account_rights import AccountRights, read_rights
from exporters.mysql.sessions.server_settings import set_statements
from exporters.tls import tls_facts
from migrate.restore.mysql.changes.apply_requirements import apply_obstacles, uncounted_writes
from migrate.restore.mysql.definitions.dialect import known_collations
from migrate.restore.mysql.destination import find_content

_NOTHING = "Nothing of it comes up."
_NEEDED = (
    "CREATE",
    "ALTER",
    "DROP",
    "INDEX",
    "INSERT",
    "SELECT",
    "UPDATE",
    "DELETE",
    "REFERENCES",
    "LOCK TABLES",
)
_OF_CODE = ("CREATE VIEW", "SHOW VIEW", "CREATE ROUTINE", "ALTER ROUTINE", "EXECUTE", "TRIGGER", "EVENT")
_MAINTENANCE = "information_schema"


class _Destination(Struct, frozen=True):
    request: ExamineRequest
    address: MysqlAddress
    connection: Connection
    rights: AccountRights

    @property
    def needs(self) -> Mapping[str, Any]:
        return self.request.needs

    @property
    def server(self) -> str:
        return server_of(self.address)

    @property
    def database(self) -> str:
        return quote_name(self.address.database)

    def sql(self, text: str) -> Fix:
        return Fix("sql", text, self.server)

    def set(self, name: str, value: str) -> Fix:
        return self.sql(set_statements(self.connection, {name: value}))

    def variable(self, name: str) -> str:
        return self.connection.variable(name) or ""


def examine(request: ExamineRequest) -> Examination:
    """Examine a destination. See ``exporters.doctor.Examine``."""
    address = parse_url(request.url, request.secrets)
    try:
        opened = connect(address)
    except SourceGoneError as exc:
        return _missing(address, request, exc)
    with closing(opened) as connection:
        with as_source_errors(address.url):
            skew = server_clock_skew(connection)
            destination = _Destination(request, address, connection, read_rights(connection))
        certificate = certificate_of(connection)
        checks = [
            ("TLS", tls_findings(connection, certificate, request.deadline)),
            ("clock", clock_finding(destination.server, skew, destination.server)),
            ("rights", _rights(destination)),
            ("contents", _contents(destination)),
            ("read only", _read_only(destination)),
            ("names", _names(destination)),
            ("collations", _collations(destination)),
            ("engines", _engines(destination)),
            ("code", _code(destination)),
            ("packets", _packets(destination)),
            ("changes", _changes(destination)),
        ]
        findings = gather(checks, name=address.url, errors=(*DRIVER_ERRORS, SourceError))
        words = server_words(connection)
    facts = {
        "server": words,
        **tls_facts(certificate),
        "rights": count_words(sum(1 for finding in findings if finding.check == "rights"), "missing"),
        "ready": "not empty" if any(finding.check == "contents" for finding in findings) else "empty",
        "clock": clock_words(skew),
    }
    return Examination(facts, findings)


def _missing(address: MysqlAddress, request: ExamineRequest, error: SourceError) -> Examination:
    words, changes = "", list[Finding]()
    try:
        with closing(connect(replace(address, database=_MAINTENANCE))) as connection:
            words = server_words(connection)
            changes += _changes(_Destination(request, address, connection, read_rights(connection)))
    except (*DRIVER_ERRORS, SourceError):
        pass  # then its version stays unknown
    defaults = defaults_of({**request.needs}) if "charset" in request.needs else ""
    fix = Fix("sql", f"{create_database_statement(address.database, defaults)};", server_of(address))
    finding = request.missing(address.database, error, fix)
    return Examination({"server": words, "ready": "missing"}, [finding, *changes])


def _rights(destination: _Destination) -> Iterator[Finding]:
    grants, database = destination.rights, destination.address.database
    for rights, consequence in (
        (_NEEDED, _NOTHING),
        (_OF_CODE, "Views, routines, triggers or events are left out."),
    ):
        lacking = [right for right in rights if not grants.has(right, database)]
        if lacking:
            fix = destination.sql(f"GRANT ALL PRIVILEGES ON {destination.database}.* TO {grants.account};")
            problem = f"{grants.account} has no {', '.join(lacking)}"
            severity: Severity = "blocks" if consequence == _NOTHING else "loses"
            yield Finding(severity, "rights", f"database {destination.database}", problem, consequence, fix)


def _contents(destination: _Destination) -> Iterator[Finding]:
    present, others = find_control_tables(destination.connection)
    control = ControlTables.apart_from(others)
    thing = find_content(destination.connection, control.names)
    if thing and control.about not in present:
        advice = Fix("advice", "name an empty database, or restore with --merge")
        problem = f"it is not empty: it holds the {thing}"
        yield Finding(
            "blocks", "contents", destination.address.database, problem, "A restore refuses it.", advice
        )


def _read_only(destination: _Destination) -> Iterator[Finding]:
    if destination.connection.is_on("read_only"):
        fix = destination.set("read_only", "OFF")
        problem = "the server takes no changes (read_only)"
        yield Finding("blocks", "read only", destination.server, problem, _NOTHING, fix)


def _names(destination: _Destination) -> Iterator[Finding]:
    """Yield the tables of the source whose names the destination takes for the same."""
    if destination.variable("lower_case_table_names") == "0":
        return
    names = destination.needs.get("tables", ())
    count = Counter(name.lower() for name in names)
    for name in names:
        if count[name.lower()] > 1:
            problem = "names that differ in case only are one name there (lower_case_table_names)"
            advice = Fix("advice", f"rename it on the source: RENAME TABLE {quote_name(name)} TO …;")
            yield Finding(
                "loses", "names", f"table {quote_name(name)}", problem, "Only one of them comes up.", advice
            )


def _collations(destination: _Destination) -> Iterator[Finding]:
    known = known_collations(destination.connection)
    for name in destination.needs.get("collations", ()):
        if name.lower() not in known:
            problem = "columns of the source use it, and the server does not know it"
            consequence = "They get the nearest one that it has; text may come in another order."
            yield Finding("loses", "collations", f"collation {name}", problem, consequence)


def _engines(destination: _Destination) -> Iterator[Finding]:
    rows = destination.connection.rows("SHOW ENGINES")
    known = {str(row[0]).upper() for row in rows if str(row[1]).upper() in {"YES", "DEFAULT"}}
    for engine in destination.needs.get("engines", ()):
        if engine.upper() not in known:
            problem = "tables of the source use it, and the server does not have it"
            consequence = "Their tables get another engine, or are left out, and named."
            yield Finding("loses", "engines", f"engine {engine}", problem, consequence)


def _code(destination: _Destination) -> Iterator[Finding]:
    """Yield why the server refuses triggers and functions of accounts without SUPER (MySQL manual, "Stored Program
    Binary Logging").
    """
    trusted = destination.variable("log_bin_trust_function_creators") in {"ON", "1"}
    logs = destination.variable("log_bin") in {"ON", "1"}
    may = any(destination.rights.has(right, "*") for right in ("SUPER", "SET USER", "SYSTEM_VARIABLES_ADMIN"))
    if destination.needs.get("code") and logs and not trusted and not may:
        fix = destination.set("log_bin_trust_function_creators", "ON")
        problem = "it writes a binary log, and the account has no SUPER"
        consequence = "Triggers and functions are left out, and named."
        yield Finding("loses", "code", destination.server, problem, consequence, fix)


def _changes(destination: _Destination) -> Iterator[Finding]:
    """Yield why changes of a followed source cannot be applied, and why the cutover would read all tables whole."""
    for obstacle in apply_obstacles(destination.connection, destination.rights):
        fix = destination.sql(obstacle.remedy)
        yield destination.request.not_applied(destination.server, obstacle.problem, fix)
    if (uncounted := uncounted_writes(destination.connection, destination.rights)) is not None:
        kind: FixKind = "sql" if uncounted.is_sql else "advice"
        fix = Fix(kind, uncounted.remedy, destination.server)
        consequence = "The switch of a followed source reads all tables whole while nothing can be written."
        severity: Severity = "slow" if destination.request.follow else "info"
        yield Finding(severity, "changes", destination.server, uncounted.problem, consequence, fix)


def _packets(destination: _Destination) -> Iterator[Finding]:
    needed = int(destination.needs.get("max_allowed_packet", 0))
    here = int(destination.variable("max_allowed_packet") or 0)
    if here < needed:
        fix = destination.set("max_allowed_packet", str(needed))
        problem = f"max_allowed_packet is {here:,}, the source's is {needed:,}"
        yield Finding("loses", "packets", destination.server, problem, "Longer rows are refused.", fix)
