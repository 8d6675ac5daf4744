"""Examines a PostgreSQL database as a destination: whether it is there, empty, and like what its source needs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg
from msgspec import Struct

from exporters.doctor import (
    Examination,
    ExamineRequest,
    Finding,
    Fix,
    clock_finding,
    clock_skew,
    clock_words,
    gather,
)
from exporters.errors import SourceError, SourceGoneError
from exporters.postgres.charset.server_conversion import database_encoding
from exporters.postgres.definitions.collation import read_locale, same
from exporters.postgres.doctor import certificate_of, server_of, server_words, tls_findings
from exporters.postgres.errors import DRIVER_ERRORS, as_source_errors
from exporters.postgres.identifiers import quote_name
from exporters.postgres.query_rows import fetch
from exporters.postgres.sessions.connection import (
    MAINTENANCE_DATABASES,
    PostgresAddress,
    connect,
    connect_to_server,
    parse_url,
)
from exporters.tls import tls_facts
from migrate.restore.postgres.destination import (
    PostgresDestination,
    content,
    create_statement,
    source_clause,
    without_triggers,
)
from migrate.restore.postgres.restore_state import read_state

_NOTHING = "Nothing of it comes up."
_SESSION = """
SELECT current_user AS role, r.rolsuper AS superuser, r.rolcreaterole AS createrole, r.rolcreatedb AS createdb,
  pg_is_in_recovery() AS standby,
  clock_timestamp() AS now, current_setting('server_version') AS version, current_database() AS database,
  has_database_privilege(current_database(), 'CREATE') AS creates, has_schema_privilege('public', 'CREATE') AS public
FROM pg_roles r WHERE r.rolname = current_user
"""
_EXTENSIONS = """
SELECT e.name::text AS name, e.default_version, e.installed_version, coalesce(bool_or(v.trusted), false) AS trusted,
  array_agg(v.version::text) AS versions
FROM pg_available_extensions e LEFT JOIN pg_available_extension_versions v ON v.name = e.name GROUP BY 1, 2, 3
"""
_EXTENSIONS_BEFORE_13 = _EXTENSIONS.replace("bool_or(v.trusted)", "bool_or(NOT v.superuser)")
_TRUST_VERSION = 130000
_PARAMETER_GRANTS_VERSION = 150000
_PACKAGES = {
    "age": "age",
    "h3": "h3",
    "hll": "hll",
    "hypopg": "hypopg",
    "ip4r": "ip4r",
    "orafce": "orafce",
    "pg_cron": "cron",
    "pg_hint_plan": "pg-hint-plan",
    "pg_partman": "partman",
    "pg_repack": "repack",
    "pgaudit": "pgaudit",
    "pglogical": "pglogical",
    "pgrouting": "pgrouting",
    "pgtap": "pgtap",
    "plpgsql_check": "plpgsql-check",
    "plr": "plr",
    "postgis": "postgis-3",
    "rum": "rum",
    "vector": "pgvector",
}
"""What Debian's packages of extensions are called behind ``postgresql-15-`` (apt.postgresql.org)."""
_COLLATIONS = "SELECT collname::text AS name FROM pg_collation"
_IMPORT = "SELECT pg_import_system_collations('pg_catalog');"
_ROLES = "SELECT rolname::text AS name FROM pg_roles"


class _Destination(Struct, frozen=True):
    request: ExamineRequest
    address: PostgresAddress
    connection: psycopg.Connection[Any]
    server: str
    facts: Mapping[str, Any]

    @property
    def needs(self) -> Mapping[str, Any]:
        return self.request.needs

    @property
    def database(self) -> str:
        return str(self.facts["database"])

    @property
    def role(self) -> str:
        return quote_name(str(self.facts["role"]))

    def sql(self, text: str, database: str | None = None) -> Fix:
        return Fix("sql", text, self.server, self.database if database is None else database)


def examine(request: ExamineRequest) -> Examination:
    """Examine a destination. See ``exporters.doctor.Examine``."""
    address = parse_url(request.url, request.secrets)
    try:
        connection = connect(address)
    except SourceGoneError as exc:
        return _missing(address, request, exc)
    with closing(connection):
        with as_source_errors(address.url):
            asked = datetime.now(UTC)
            facts = fetch(connection, _SESSION)[0]
            skew = clock_skew(facts["now"], asked=asked)
        destination = _Destination(request, address, connection, server_of(connection), facts)
        certificate = certificate_of(connection)
        checks = [
            ("TLS", tls_findings(connection, certificate, request.deadline)),
            ("clock", clock_finding(destination.server, skew, destination.server)),
            ("replica", _standby(destination)),
            ("rights", _rights(destination)),
            ("contents", _contents(destination)),
            ("encoding", _encoding(destination)),
            ("extensions", _extensions(destination)),
            ("collations", _collations(destination)),
            ("version", _version(destination)),
            ("roles", _roles(destination)),
            ("changes", _changes(destination)),
        ]
        findings = gather(checks, name=address.url, errors=(*DRIVER_ERRORS, SourceError))
    words = {
        "server": server_words(facts),
        **tls_facts(certificate),
        "rights": "all" if facts["superuser"] else "ordinary",
        "ready": "not empty" if any(finding.check == "contents" for finding in findings) else "empty",
        "clock": clock_words(skew),
    }
    return Examination(words, findings)


def _missing(address: PostgresAddress, request: ExamineRequest, error: SourceError) -> Examination:
    """Say how to make the database as its source is."""
    name = address.keywords.get("dbname", "")
    words, server, may_create = "", "", True
    changes: list[Finding] = []
    try:
        with closing(connect_to_server(address)) as connection:
            session = fetch(connection, _SESSION)[0]
            words, server = server_words(session), server_of(connection)
            may_create = session["superuser"] or session["createdb"]
            changes += _changes(_Destination(request, address, connection, server, session))
    except SourceError:
        pass  # then its version stays unknown
    fix = Fix("sql", f"{_create_statement(name, request.needs)};", server, MAINTENANCE_DATABASES[0])
    finding = request.missing(name, error, fix, may_create=may_create)
    return Examination({"server": words, "ready": "missing"}, [finding, *changes])


def _create_statement(name: str, needs: Mapping[str, Any]) -> str:
    """Return the statement that makes a database like its source, as far as that is known."""
    return create_statement(name, source_clause(needs.get("encoding"), needs.get("locale")))


def _again(destination: _Destination) -> Fix:
    """Return the statements that make an empty database anew."""
    name = quote_name(destination.database)
    statements = f"DROP DATABASE {name};\n{_create_statement(destination.database, destination.needs)};"
    return destination.sql(statements, MAINTENANCE_DATABASES[0])


def _standby(destination: _Destination) -> Iterator[Finding]:
    if destination.facts["standby"]:
        advice = Fix("advice", "name the primary")
        problem = "it is a standby, which takes no changes"
        yield Finding("blocks", "replica", destination.server, problem, _NOTHING, advice)


def _rights(destination: _Destination) -> Iterator[Finding]:
    facts, role = destination.facts, destination.role
    if not facts["creates"]:
        fix = destination.sql(f"GRANT CREATE ON DATABASE {quote_name(destination.database)} TO {role};")
        problem = f"the role {role} may not create schemas"
        yield Finding(
            "loses", "rights", destination.database, problem, "Schemas are left out, and named.", fix
        )
    if facts["public"] is False:
        fix = destination.sql(f"GRANT CREATE ON SCHEMA public TO {role};")
        problem = f"the role {role} may create nothing in the schema public"
        yield Finding(
            "loses", "rights", destination.database, problem, "Its tables are left out, and named.", fix
        )


def _contents(destination: _Destination) -> Iterator[Finding]:
    restored = PostgresDestination(destination.address, destination.connection)
    if (thing := content(restored)) and read_state(restored) is None:
        advice = Fix("advice", "name an empty database, or restore with --merge")
        problem = f"it is not empty: it holds the {thing}"
        yield Finding("blocks", "contents", destination.database, problem, "A restore refuses it.", advice)


def _is_empty(destination: _Destination) -> bool:
    return not content(PostgresDestination(destination.address, destination.connection))


def _encoding(destination: _Destination) -> Iterator[Finding]:
    needed, here = destination.needs.get("encoding"), database_encoding(destination.connection)
    if not needed or here in {needed, "UTF8"}:
        return
    problem = f"its encoding is {here}, the source's is {needed}"
    advice = Fix("advice", f"name a new database: {_create_statement('NAME', destination.needs)};")
    fix = _again(destination) if _is_empty(destination) else advice
    consequence = f"Rows with characters that {here} lacks are refused."
    yield Finding("loses", "encoding", destination.database, problem, consequence, fix)


def _extensions(destination: _Destination) -> Iterator[Finding]:
    connection, superuser = destination.connection, destination.facts["superuser"]
    query = _EXTENSIONS if connection.info.server_version >= _TRUST_VERSION else _EXTENSIONS_BEFORE_13
    available = {row["name"]: row for row in fetch(connection, query)}
    for needed in destination.needs.get("extensions", ()):
        name, row = needed["name"], available.get(needed["name"])
        item = f"extension {name}"
        if row is None:
            consequence, fix = "What uses it is left out, and named.", _install(destination, name)
            yield Finding("loses", "extensions", item, "the server does not have it", consequence, fix)
        elif not row["installed_version"] and not superuser and not row["trusted"]:
            fix = destination.sql(f"CREATE EXTENSION {quote_name(name)};")
            problem = "only a superuser may create it"
            yield Finding("loses", "extensions", item, problem, "What uses it is left out, and named.", fix)
        elif needed["version"] not in row["versions"]:
            problem = f"the source has version {needed['version']}, here it is {row['default_version']}"
            consequence = "What was altered in it by hand cannot be told."
            yield Finding("info", "extensions", item, problem, consequence)


def _install(destination: _Destination, extension: str) -> Fix:
    package = _PACKAGES.get(extension)
    if package is None:
        return Fix(
            "advice", f"install the package with the extension {extension} on the server", destination.server
        )
    major = destination.connection.info.server_version // 10000
    return Fix("shell", f"apt-get install --yes postgresql-{major}-{package}", destination.server)


def _collations(destination: _Destination) -> Iterator[Finding]:
    locale = destination.needs.get("locale")
    if locale and not same(locale, here := read_locale(destination.connection)):
        problem = f"it sorts by {_locale_words(here)}, the source by {_locale_words(locale)}"
        consequence = "Text comes in another order, and ranges of partitions may hold other rows."
        fix = _again(destination) if _is_empty(destination) else None
        yield Finding("info", "collations", destination.database, problem, consequence, fix)
    known = {row["name"] for row in fetch(destination.connection, _COLLATIONS)}
    for needed in destination.needs.get("collations", ()):
        if needed["name"] in known:
            continue
        item = f"collation {quote_name(needed['name'])}"
        if needed["provider"] == "c" and needed["locale"]:
            language, name = (
                shlex.quote(word) for word in (needed["locale"].partition(".")[0], needed["locale"])
            )
            text = f"localedef -i {language} -f UTF-8 {name}\n# Then, in SQL: {_IMPORT}"
            fix = Fix("shell", text, destination.server)
        else:
            fix = destination.sql(_IMPORT)
        problem = "columns of the source use it, and the server does not know it"
        yield Finding(
            "loses",
            "collations",
            item,
            problem,
            "Their columns sort by the database's collation, and are named.",
            fix,
        )


def _locale_words(locale: Mapping[str, str]) -> str:
    return f"{locale.get('provider', '')} {locale.get('locale', '')}".strip()


def _version(destination: _Destination) -> Iterator[Finding]:
    needed = int(destination.needs.get("version", 0)) // 10000
    here = destination.connection.info.server_version // 10000
    if needed > here:
        problem = f"it is PostgreSQL {here}, the source is {needed}"
        consequence = "Definitions that only the newer one has are left out, and named."
        advice = Fix("advice", f"restore to PostgreSQL {needed} or newer")
        yield Finding("loses", "version", destination.server, problem, consequence, advice)


def _roles(destination: _Destination) -> Iterator[Finding]:
    if destination.facts["superuser"]:
        return
    known = {row["name"] for row in fetch(destination.connection, _ROLES)}
    missing = [name for name in destination.needs.get("owners", ()) if name not in known]
    if missing and not destination.facts["createrole"]:
        statements = [f"CREATE ROLE {quote_name(name)};" for name in missing]
        statements += [f"GRANT {quote_name(name)} TO {destination.role};" for name in missing]
        fix = destination.sql("\n".join(statements))
        problem = f"the role {destination.role} may not create the owners {', '.join(missing[:5])}"
        consequence = "What they own belongs to the role that restores."
        yield Finding("info", "roles", destination.server, problem, consequence, fix)


def _changes(destination: _Destination) -> Iterator[Finding]:
    """Yield why changes of a followed source cannot be applied."""
    connection, role = destination.connection, destination.role
    if without_triggers(connection):
        connection.execute("RESET session_replication_role")
        return
    if connection.info.server_version >= _PARAMETER_GRANTS_VERSION:
        fix = destination.sql(f"GRANT SET ON PARAMETER session_replication_role TO {role};")
    else:
        fix = Fix("advice", "follow as a superuser")
    problem = f"the role {role} may not keep triggers and foreign keys from firing"
    yield destination.request.not_applied(destination.server, problem, fix)
