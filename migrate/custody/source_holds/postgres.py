"""A PostgreSQL database in read-only mode: ``default_transaction_read_only`` for the database, and for every role that
has a setting of its own (PostgreSQL documentation, "ALTER DATABASE", "ALTER ROLE", "pg_db_role_setting").

It is a default: new sessions begin read-only, whoever they are, and a program that just writes is refused. A session
may switch it off for itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from exporters.errors import SourceNotAllowedError, SourceUsageError
from exporters.postgres.errors import DRIVER_ERRORS, translate
from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.postgres.sessions.connection import connect, parse_url
from migrate.bundle.findings import Finding
from migrate.custody.source_holds.contract import Change, HoldRequest, SourceHold, translated
from migrate.errors import NotAllowedError, UsageError

_NAME = "default_transaction_read_only"
_DATABASE = "the database"
_ROLE = "the role "
_ON = {"on", "true", "yes", "1", "t", "y", "tru", "tr", "ye"}
"""What PostgreSQL takes for true (guc.c, parse_bool)."""
_SETTINGS = f"""
SELECT coalesce(r.rolname, ''), s.setdatabase <> 0, split_part(c.value, '=', 2)
FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole,
     unnest(s.setconfig) AS c(value)
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
  AND pg_catalog.lower(split_part(c.value, '=', 1)) = '{_NAME}'
"""
_IS_CLIENT = """(a.backend_type = 'client backend' OR (a.backend_type IS NULL AND a.usesysid IS NOT NULL
    AND a.pid NOT IN (SELECT pid FROM pg_catalog.pg_stat_replication)))"""
"""An ordinary role sees neither kind nor age of other roles' sessions, unless it has pg_read_all_stats."""
_SESSIONS = f"""
SELECT pid::text, coalesce((extract(epoch FROM backend_start) * 1000000)::bigint::text, ''), coalesce(usename, '?'),
       coalesce(application_name, '')
FROM pg_catalog.pg_stat_activity a
WHERE datname = current_database() AND pid <> pg_backend_pid() AND {_IS_CLIENT} ORDER BY pid
"""
_BEGINNING = """
SELECT pid::text, virtualtransaction FROM pg_catalog.pg_locks
WHERE locktype = 'object' AND classid = 'pg_catalog.pg_database'::regclass AND mode = 'RowExclusiveLock' AND granted
  AND objid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
"""
"""Sessions that begin. Each has this lock from before it reads the settings until after it is in pg_stat_activity
(postinit.c, InitPostgres), so it may have the settings of before.
"""
_PREPARED = "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() ORDER BY 1"
_SUBSCRIPTIONS = """
SELECT quote_ident(s.subname) FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
WHERE d.datname = current_database() AND s.subenabled ORDER BY 1
"""
_OWNERS = """
SELECT pg_catalog.pg_get_userbyid(datdba), pg_catalog.pg_has_role(datdba, 'USAGE')
FROM pg_catalog.pg_database WHERE datname = current_database()
"""
_UNENDABLE = f"""
SELECT DISTINCT r.rolname FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND {_IS_CLIENT}
  AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
  AND (r.rolsuper OR NOT (pg_catalog.pg_has_role(r.oid, 'USAGE')
    OR (pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AND pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'))))
ORDER BY 1
"""
_UNSETTABLE = """
SELECT r.rolname FROM pg_catalog.pg_roles r, pg_catalog.pg_roles me
WHERE me.rolname = current_user AND NOT me.rolsuper AND r.oid <> me.oid AND (r.rolsuper OR NOT me.rolcreaterole
  OR (current_setting('server_version_num')::int >= 160000 AND NOT pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION')))
"""
"""Roles whose settings this one may not change (PostgreSQL documentation, "ALTER ROLE")."""
_NEEDS = "use the database's owner; for roles with settings of their own, a superuser"
_GUARDS_LARGE_OBJECTS = 160000
"""From this version on a read-only transaction writes no large objects (PostgreSQL 16 release notes)."""
_ENDING_SECONDS = 10.0
_BEGINNING_SECONDS = 10.0
_MARK = "sessions"
_SHOWN = 20


class PostgresHold(SourceHold):
    """See ``SourceHold``."""

    def __init__(self, url: str, secrets: Mapping[str, str]) -> None:
        self._address = parse_url(url, secrets)
        self.url = self._address.url
        self._connection = connect(self._address, "moveout hold")
        with self._translated():
            row = self._connection.execute("SELECT current_database(), pg_is_in_recovery()").fetchone()
            assert row is not None
            if row[1]:
                self._connection.close()
                raise SourceUsageError(f"{self.url} is a standby", next_step="hold its primary")
            self._database = str(row[0])
            self._connection.execute(f"SET {_NAME} = off")

    def changes(self) -> Sequence[Change]:
        """See ``SourceHold.changes``."""
        settings = self._settings()
        changes = []
        if not _is_on(settings.get(("", True))):
            changes.append(self._change(_DATABASE, settings.get(("", True))))
        for role in self._roles():
            own_setting = settings.get((role, True))
            counts = own_setting if own_setting is not None else settings.get((role, False), "on")
            if not _is_on(counts):
                changes.append(self._change(_ROLE + role, own_setting))
        return changes

    def refusals(self) -> Iterator[NotAllowedError]:
        """See ``SourceHold.refusals``."""
        with self._translated():
            owner_row = self._connection.execute(_OWNERS.encode()).fetchone()
            assert owner_row is not None
            owner, is_owner = owner_row
            unendable = [str(row[0]) for row in self._connection.execute(_UNENDABLE.encode()).fetchall()]
            unsettable = [str(row[0]) for row in self._connection.execute(_UNSETTABLE.encode()).fetchall()]
            role = quote_name(self._connection.info.user)
        if not is_owner:
            yield SourceNotAllowedError(
                f"only the owner of the database, {owner}, may make it read-only",
                about=self.url,
                next_step=f"ALTER DATABASE {quote_name(self._database)} OWNER TO {role};",
            )
        refused = sorted({change.setting.removeprefix(_ROLE) for change in self.changes()} & {*unsettable})
        if refused:
            yield SourceNotAllowedError(
                f"only a superuser may change the settings of {', '.join(refused)}: each has a {_NAME} of its own",
                about=self.url,
                next_step="; ".join(self._sql(_ROLE + name, "on") for name in refused) + "; as a superuser",
            )
        if unendable:
            yield SourceNotAllowedError(
                f"the role {role} may not see and end the sessions of {', '.join(unendable)}",
                about=self.url,
                next_step=f"GRANT pg_signal_backend, pg_read_all_stats TO {role}; sessions of superusers have to be"
                " ended by one",
            )

    def _change(self, setting: str, before: str | None) -> Change:
        return Change(setting, before, "on", before, self._sql(setting, "on"), self._sql(setting, before))

    def _sql(self, setting: str, value: str | None) -> str:
        database = quote_name(self._database)
        alter_clause = f"ALTER DATABASE {database}"
        if setting != _DATABASE:
            alter_clause = f"ALTER ROLE {quote_name(setting.removeprefix(_ROLE))} IN DATABASE {database}"
        return (
            f"{alter_clause} RESET {_NAME}"
            if value is None
            else f"{alter_clause} SET {_NAME} = {quote_literal(value).strip()}"
        )

    def read(self, setting: str) -> Any:
        """See ``SourceHold.read``: the text of the setting, None where there is none."""
        role = "" if setting == _DATABASE else setting.removeprefix(_ROLE)
        return self._settings().get((role, True))

    def write(self, setting: str, value: Any) -> None:
        """See ``SourceHold.write``."""
        with self._translated():
            self._connection.execute(self._sql(setting, value).encode())

    def same(self, setting: str, value: Any, other: Any) -> bool:
        """See ``SourceHold.same``."""
        del setting
        return bool(value == other or (_is_on(value) and _is_on(other)))

    def mark(self) -> str:
        """See ``SourceHold.mark``: the sessions that there are, each with its start. The server's clock decides
        nothing, since it may be set back.
        """
        beginning, end = self._rows(_BEGINNING), time.monotonic() + _BEGINNING_SECONDS
        while beginning and time.monotonic() < end:
            time.sleep(0.02)
            still_there = self._rows(_BEGINNING)
            beginning = [lock for lock in beginning if lock in still_there]
        marked = [f"{pid}/" for pid, _ in beginning] + [
            f"{pid}/{start}" for pid, start, *_ in self._rows(_SESSIONS)
        ]
        return " ".join((_MARK, *marked))

    def open_write_paths(self, since: str | None) -> Sequence[Finding]:
        """See ``SourceHold.open_write_paths``: what a new session begins with, sessions from before, prepared
        transactions, and subscriptions.
        """
        with self._translated(), connect(self._address, "moveout hold") as fresh:
            row = fresh.execute(f"SELECT pg_catalog.current_setting('{_NAME}')").fetchone()
        findings = []
        if row is None or row[0] != "on":
            findings.append(Finding("a new session", "may write", "on", str(row and row[0])))
        older = self._older(since) if since else []
        findings += [
            Finding(
                f"session {pid}",
                "was opened before the hold, and may still write",
                "",
                f"{user} {program}".strip(),
            )
            for pid, user, program in older[:_SHOWN]
        ]
        if len(older) > _SHOWN:
            findings.append(Finding("sessions", f"{len(older) - _SHOWN} more were opened before the hold"))
        return findings + self._prepared() + self._subscriptions()

    def _prepared(self) -> list[Finding]:
        """Return the transactions that are prepared: COMMIT PREPARED writes, also where all is read-only."""
        return [
            Finding(
                f"prepared transaction {gid}",
                "is neither committed nor rolled back, and may still be; end it",
            )
            for (gid,) in self._rows(_PREPARED)
        ]

    def _subscriptions(self) -> list[Finding]:
        """Return the subscriptions that are enabled: what they get is written, also where all is read-only."""
        return [
            Finding(
                f"subscription {name}", f"goes on writing what it gets: ALTER SUBSCRIPTION {name} DISABLE"
            )
            for (name,) in self._rows(_SUBSCRIPTIONS)
        ]

    def _older(self, since: str) -> list[tuple[str, str, str]]:
        """Return process number, role and program of the sessions that the mark names. A start that could not be seen
        is that of any session with this number.
        """
        kind, *entries = since.split()
        if kind != _MARK:
            raise UsageError(
                "what the undo file says of older sessions cannot be read",
                about=self.url,
                next_step="moveout hold undo FILE, then hold the source again",
            )
        marked = dict(entry.split("/", 1) for entry in entries)
        return [
            (pid, user, program)
            for pid, start, user, program in self._rows(_SESSIONS)
            if pid in marked and (not start or not marked[pid] or start == marked[pid])
        ]

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with self._translated():
            return self._connection.execute(query.encode()).fetchall()

    def close_write_paths(self, since: str) -> int:
        """See ``SourceHold.close_write_paths``."""
        older_sessions = self._older(since)
        with self._translated():
            for pid, _, _ in older_sessions:
                self._connection.execute("SELECT pg_terminate_backend(%s)", (int(pid),))
        end = time.monotonic() + _ENDING_SECONDS
        while self._older(since) and time.monotonic() < end:
            time.sleep(0.05)
        return len(older_sessions)

    def limits(self) -> Sequence[str]:
        """See ``SourceHold.limits``."""
        is_guarded = self._connection.info.server_version >= _GUARDS_LARGE_OBJECTS
        unguarded = "temporary tables" if is_guarded else "temporary tables and large objects"
        return (
            "it is a default: a session that says SET default_transaction_read_only = off, or READ WRITE, may write",
            "so it stops programs that go on as before, not somebody who means to write",
            f"{unguarded} can still be written; nextval() cannot be called",
        )

    def close(self) -> None:
        """See ``SourceHold.close``."""
        self._connection.close()

    def _settings(self) -> Mapping[tuple[str, bool], str]:
        """Return the settings by (role or "", whether for this database)."""
        with self._translated():
            rows = self._connection.execute(_SETTINGS.encode()).fetchall()
        return {(str(role), bool(is_of_database)): str(value) for role, is_of_database, value in rows}

    def _roles(self) -> Sequence[str]:
        with self._translated():
            rows = self._connection.execute(
                "SELECT rolname FROM pg_catalog.pg_roles WHERE rolcanlogin ORDER BY rolname"
            ).fetchall()
        return [str(row[0]) for row in rows]

    def _translated(self) -> AbstractContextManager[None]:
        return translated(DRIVER_ERRORS, translate, self.url, needs=_NEEDS)


def _is_on(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in _ON


def open_hold(url: str, secrets: Mapping[str, str], request: HoldRequest) -> PostgresHold:
    """Open a database by its URL."""
    del request
    return PostgresHold(url, secrets)
