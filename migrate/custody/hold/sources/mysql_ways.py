"""By what ways somebody may still write into one database of a MySQL or MariaDB though no account has the privilege to
on it: by privileges on everything, by programs that write with somebody else's rights, by foreign keys that cascade,
by sessions and transactions from before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporters.errors import SourceError
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.bundle.findings import Finding
from migrate.custody.hold.sources import mysql_rights
from migrate.custody.hold.sources.mysql_server import Server

_WRITING = frozenset(
    {"INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "TRIGGER", "EVENT", "CREATE VIEW",
     "CREATE ROUTINE", "ALTER ROUTINE", "DELETE HISTORY"}
)  # fmt: skip
_ROUTINES = """
SELECT definer FROM information_schema.routines WHERE security_type = 'DEFINER' AND routine_schema = {here}
"""
_PROGRAMS = """
SELECT lower(routine_type), routine_schema, routine_name, definer FROM information_schema.routines
WHERE security_type = 'DEFINER' AND routine_schema <> {here} AND instr(routine_definition, {here}) > 0
UNION ALL SELECT 'trigger', trigger_schema, trigger_name, definer FROM information_schema.triggers
WHERE trigger_schema <> {here} AND instr(action_statement, {here}) > 0
UNION ALL SELECT 'event', event_schema, event_name, definer FROM information_schema.events
WHERE status = 'ENABLED' AND event_schema <> {here} AND instr(event_definition, {here}) > 0
UNION ALL SELECT 'view', table_schema, table_name, definer FROM information_schema.views
WHERE security_type = 'DEFINER' AND is_updatable = 'YES' AND table_schema <> {here}
  AND instr(view_definition, {here}) > 0
"""
_CASCADES = """
SELECT unique_constraint_schema, referenced_table_name, table_name FROM information_schema.referential_constraints
WHERE constraint_schema = {here} AND unique_constraint_schema <> {here}
  AND (delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT') OR update_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT'))
"""
_SESSIONS = """
SELECT id, user, db FROM information_schema.processlist
WHERE id < {before} AND id <> connection_id() AND user NOT IN ('system user', 'event_scheduler')
  AND command NOT IN ('Daemon', 'Binlog Dump', 'Binlog Dump GTID') ORDER BY id
"""
_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = {here} AND table_type = 'BASE TABLE'"
_WAITS_SECONDS = 2
_SERVER = "read_only for the whole server (--whole-server) would bind it"


@dataclass(frozen=True, slots=True)
class Mighty:
    """Who has privileges on everything, by the account as SQL has it: ``administrators``, whom nothing binds, others
    who may write (``writers``) or call routines (``callers``); ``accounts`` are all there are.
    """

    administrators: Sequence[str]
    writers: Sequence[str]
    callers: Sequence[str]
    accounts: Sequence[str]

    def may_write(self, definer: str) -> bool:
        """Tell whether who defined a program, as ``user@host``, may write everywhere."""
        user, _, host = definer.rpartition("@")
        names = {f"{quote_name(user)}@{quote_name(host)}", quote_name(definer)}
        return not names.isdisjoint((*self.administrators, *self.writers))

    def is_free(self, user: str) -> bool:
        """Tell whether all accounts of a user's name are administrators."""
        own = [one for one in self.accounts if one.partition("@")[0] == quote_name(user)]
        return bool(own) and set(own) <= set(self.administrators)


def mighty(server: Server) -> Mighty:
    """Return who may do what everywhere."""
    rows: dict[str, set[str]] = {
        mysql_rights.account_of(row): set(mysql_rights.names_of(row))
        for row in server.named("SELECT * FROM mysql.user")
    }
    administrators = [one for one, names in rows.items() if "SUPER" in names]
    others = {one: names for one, names in rows.items() if "SUPER" not in names}
    return Mighty(
        administrators,
        [one for one, names in others.items() if names & _WRITING],
        [one for one, names in others.items() if "EXECUTE" in names and not names & _WRITING],
        list(rows),
    )


def by_privileges(
    server: Server, who: Mighty, shared: Mapping[mysql_rights.Right, Sequence[str]]
) -> Iterator[Finding]:
    """Yield accounts that write by what they may do elsewhere too. ``shared`` are privileges on a pattern that fits
    other databases.
    """
    for account in who.writers:
        yield Finding(
            account, f"may write by privileges ON *.*, which concern other databases too; {_SERVER}"
        )
    for right in shared:
        if right.account not in who.administrators:
            what = (
                f"may write by privileges ON {right.database}.*, which concern other databases too; {_SERVER}"
            )
            yield Finding(right.account, what)
    definers = {str(row[0]) for row in server.rows(_ROUTINES.format(here=quote_literal(server.name)))}
    for definer in sorted(one for one in definers if who.may_write(one)):
        for account in who.callers:
            yield Finding(
                account, f"may call routines that write with the rights of {definer}, by EXECUTE ON *.*"
            )


def by_programs(server: Server, who: Mighty) -> Iterator[Finding]:
    """Yield what of other databases reaches into this one."""
    here = quote_literal(server.name)
    for kind, schema, name, definer in server.rows(_PROGRAMS.format(here=here)):
        if who.may_write(str(definer)):
            what = f"names this database, and runs with the rights of {definer}, who may write"
            yield Finding(f"the {kind} {schema}.{name}", what)
    for schema, parent, child in server.rows(_CASCADES.format(here=here)):
        what = f"is changed when {schema}.{parent} is, by a foreign key"
        yield Finding(f"the table {child}", what)


def older_sessions(server: Server, who: Mighty, before: int) -> list[tuple[int, str, str]]:
    """Return (number, user, database) of sessions from before the connection ``before``, but for administrators'."""
    found = server.rows(_SESSIONS.format(before=before))
    return [(int(a), str(b), str(c or "")) for a, b, c in found if not who.is_free(str(b))]


def open_transaction(server: Server) -> Finding | None:
    """Return a finding where a transaction has the database's tables open for writing: to lock them for reading waits
    for its end.
    """
    rows: list[tuple[Any, ...]] = server.rows(_TABLES.format(here=quote_literal(server.name)))
    if not rows:
        return None
    tables = ", ".join(f"{quote_name(server.name)}.{quote_name(str(row[0]))} READ" for row in rows)
    server.run(f"SET SESSION lock_wait_timeout = {_WAITS_SECONDS}")
    try:
        server.run(f"LOCK TABLES {tables}")
    except SourceError as exc:
        what = "from before the hold may have written here, and may still commit; wait for its end"
        return Finding("a transaction", what, "", str(exc))
    finally:
        server.run("UNLOCK TABLES")
    return None
