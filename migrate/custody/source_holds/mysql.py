"""A MySQL database in read-only mode: ``ALTER DATABASE … READ ONLY`` (MySQL manual, since 8.0.22). MariaDB and older
servers have such a mode for the whole server only: ``read_only``, and ``super_read_only`` where there is one (MySQL
manual, "read_only"; MariaDB knowledge base, "Read-Only Replicas"). Where other databases are on such a server, that is
done only if the caller asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from exporters.errors import SourceError, SourceNotAllowedError, SourceUnreachableError
from exporters.mysql.connection import MysqlAddress, connect, parse_url
from exporters.mysql.definitions.event_status import (
    DISABLED,
    ENABLED,
    Event,
    is_read_only,
    read_events,
    set_status,
)
from exporters.mysql.errors import DRIVER_ERRORS, LOCK_TIMEOUT, number_of, translate
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.sessions.account_rights import AccountRights, read_rights
from migrate.bundle.findings import Finding
from migrate.custody.source_holds.contract import Change, HoldRequest, SourceHold, translated
from migrate.errors import GoneError, NotAllowedError, UsageError
from migrate.number_text import list_words

_VARIABLES = ("read_only", "super_read_only")
_DATABASE = "the database"
_EVENT = "the event "
_OFF = {"0", "OFF"}
_MAY_WRITE = ("SUPER", "READ_ONLY ADMIN", "READ ONLY ADMIN", "CONNECTION_ADMIN", "CONNECTION ADMIN")
"""Privileges by which some server, of some version, lets an account write all the same."""
_HAS_MODE = """
SELECT 1 FROM information_schema.tables
WHERE table_schema = 'information_schema' AND table_name = 'SCHEMATA_EXTENSIONS'
"""
_WRITERS = """
SELECT DISTINCT user, host FROM mysql.db WHERE {name} LIKE db AND host <> ''
AND 'Y' IN (insert_priv, update_priv, delete_priv, create_priv, drop_priv, alter_priv, execute_priv) ORDER BY user, host
"""
"""Accounts with privileges on the database; its name there is a pattern of LIKE's. Roles have no host."""

_DEFINES_FOR_OTHERS = ("SUPER", "SET USER", "SET_ANY_DEFINER", "SET_USER_ID")
"""Privileges by which some server, of some version, lets an account change what others have defined."""
_SYSTEM = ("mysql", "information_schema", "performance_schema", "sys")
_NEEDS = (
    "use an account with the privilege SUPER; else with READ_ONLY ADMIN (MariaDB), or ALTER on the database (MySQL)."
    " Events of other accounts need SET USER (MariaDB), SET_ANY_DEFINER (MySQL) or SET_USER_ID (before 8.2), too"
)
_SHOWN = 10
_LOCK_SECONDS = 15
_STATEMENTS = """
SELECT ID, USER, HOST FROM information_schema.PROCESSLIST
WHERE COMMAND IN ('Query', 'Execute') AND TIME >= {} AND ID <> CONNECTION_ID()
AND (INFO NOT LIKE 'SELECT%' OR INFO LIKE '%FOR UPDATE%') ORDER BY 1
"""
"""A statement that only reads is not waited for."""
_TRANSACTIONS = """
SELECT DISTINCT PROCESSLIST_ID, PROCESSLIST_USER, PROCESSLIST_HOST FROM performance_schema.metadata_locks
JOIN performance_schema.threads ON THREAD_ID = OWNER_THREAD_ID
WHERE OBJECT_SCHEMA = {} AND LOCK_STATUS = 'GRANTED' AND PROCESSLIST_ID <> CONNECTION_ID() ORDER BY 1
"""


class Server:
    """``name`` is the database that is to be held. Methods raise ``SourceError``."""

    def __init__(self, address: MysqlAddress) -> None:
        self.url, self.name = address.url, address.database
        self._connection = connect(address)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._translated():
            return self._connection.rows(query)

    def value(self, query: str) -> Any:
        """Return the first value, None where there is none."""
        with self._translated():
            return self._connection.value(query)

    def run(self, statement: str | bytes) -> None:
        """Run a statement."""
        with self._translated():
            self._connection.run(statement)

    def variable(self, name: str) -> str | None:
        """Return a global variable's text, None where the server has none of that name."""
        with self._translated():
            return self._connection.variable(name)

    def is_on(self, name: str) -> bool:
        """Tell whether a global variable is there, and is not off."""
        with self._translated():
            return self._connection.is_on(name)

    def is_read_only(self) -> bool:
        """Tell whether its database is read-only, by MySQL's own mode."""
        with self._translated():
            return is_read_only(self._connection)

    def rights(self) -> AccountRights:
        """Return what the account may do."""
        with self._translated():
            return read_rights(self._connection)

    def neighbours(self) -> list[str]:
        """Return the other databases of the server, without its own."""
        rows = self.rows("SELECT schema_name FROM information_schema.schemata ORDER BY schema_name")
        return [str(row[0]) for row in rows if str(row[0]) not in (*_SYSTEM, self.name)]

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    def _translated(self) -> AbstractContextManager[None]:
        return translated(DRIVER_ERRORS, translate, self.url, needs=_NEEDS)


class _ServerMode(SourceHold):
    """What both kinds of holds share: the server binds open sessions at once, and events run no more."""

    def __init__(self, server: Server) -> None:
        self.url, self._server = server.url, server
        self._events = _Events(server)

    def read(self, setting: str) -> Any:
        """See ``SourceHold.read``; None where the server has no such variable or event."""
        return self._events.read(setting) if self._events.has(setting) else self._read_mode(setting)

    def write(self, setting: str, value: Any) -> None:
        """See ``SourceHold.write``."""
        if self._events.has(setting):
            self._events.write(setting, value)
        else:
            self._write_mode(setting, value)

    def _read_mode(self, setting: str) -> Any:
        raise NotImplementedError

    def _write_mode(self, setting: str, value: Any) -> None:
        raise NotImplementedError

    def _run(self, statement: str, in_the_way: str) -> None:
        """Run a statement that waits for others, and new ones behind it. ``in_the_way`` lists their sessions, as far
        as the account may see them. Raises ``SourceUnreachableError`` where that takes too long.
        """
        self._server.run(f"SET SESSION lock_wait_timeout = {_LOCK_SECONDS}")
        try:
            self._server.run(statement)
        except SourceUnreachableError as exc:
            if exc.__cause__ is None or number_of(exc.__cause__) != LOCK_TIMEOUT:
                raise
            raise self._not_ended(in_the_way) from exc

    def _not_ended(self, in_the_way: str) -> SourceUnreachableError:
        try:
            rows = self._server.rows(in_the_way)
        except SourceError:
            rows = []
        sessions = [f"{user}@{host} (KILL {number};)" for number, user, host in rows]
        whose = f": {list_words(sessions, _SHOWN)}" if sessions else ""
        return SourceUnreachableError(
            f"transactions, statements that write or LOCK TABLES have not ended within {_LOCK_SECONDS} s{whose}",
            about=self.url,
            next_step="let the application end them, or end these sessions; then run the same command again",
        )

    def mark(self) -> str:
        """See ``SourceHold.mark``."""
        return str(self._server.value("SELECT UTC_TIMESTAMP(6)"))

    def open_write_paths(self, since: str | None) -> Sequence[Finding]:
        """See ``SourceHold.open_write_paths``."""
        del since
        return ()

    def close(self) -> None:
        """See ``SourceHold.close``."""
        self._server.close()


class DatabaseHold(_ServerMode):
    """See ``SourceHold``: MySQL's own mode for one database. Its value is 0 or 1. The scheduler of the server ends at
    the first event that is due in such a database, and those of all others run no more, also after the hold.
    """

    def changes(self) -> Sequence[Change]:
        """See ``SourceHold.changes``. Nobody can change an event in that mode."""
        change = Change(_DATABASE, "0", "1", "0", self._sql("1"), self._sql("0"))
        return [] if self.read(_DATABASE) == "1" else [*self._events.changes(), change]

    def refusals(self) -> Iterator[NotAllowedError]:
        """See ``SourceHold.refusals``."""
        rights = self._server.rights()
        if not rights.has("ALTER", self._server.name):
            yield SourceNotAllowedError(
                f"the account {rights.account} may not make the database read-only: it has no ALTER on it",
                about=self.url,
                next_step=f"GRANT ALTER ON {quote_name(self._server.name)}.* TO {rights.account};",
            )
        yield from self._events.refusals()

    def _read_mode(self, setting: str) -> Any:
        _need(setting == _DATABASE, setting)
        return "1" if self._server.is_read_only() else "0"

    def _write_mode(self, setting: str, value: Any) -> None:
        _need(setting == _DATABASE and value in {"0", "1"}, setting)
        self._run(self._sql(value), _TRANSACTIONS.format(quote_literal(self._server.name)))

    def _sql(self, value: str) -> str:
        return f"ALTER DATABASE {quote_name(self._server.name)} READ ONLY = {value}"

    def limits(self) -> Sequence[str]:
        """See ``SourceHold.limits``."""
        return ("whoever has the privilege ALTER on the database may lift it; replicas do not get it",)


class ServerHold(_ServerMode):
    """See ``SourceHold``: a server that is read-only as a whole. A value is the text of the variable."""

    def changes(self) -> Sequence[Change]:
        """See ``SourceHold.changes``."""
        variables = [
            Change(name, value, "ON", value, _sql(name, "ON"), _sql(name, value))
            for name in _VARIABLES
            if (value := self._server.variable(name)) is not None and value.upper() in _OFF
        ]
        return [*self._events.changes(), *variables]

    def refusals(self) -> Iterator[NotAllowedError]:
        """See ``SourceHold.refusals``: only who may change a variable may set it to what it is."""
        for change in self.changes():
            if change.setting in _VARIABLES:
                try:
                    self._server.run(_sql(change.setting, f"@@GLOBAL.{change.setting}"))
                except SourceNotAllowedError as exc:
                    yield exc
        yield from self._events.refusals()

    def _read_mode(self, setting: str) -> Any:
        _need(setting in _VARIABLES, setting)
        return self._server.variable(setting)

    def _write_mode(self, setting: str, value: Any) -> None:
        _need(setting in _VARIABLES and bool(re.fullmatch(r"[A-Za-z0-9_]+", str(value))), setting)
        self._run(_sql(setting, value), _STATEMENTS.format(_LOCK_SECONDS))

    def same(self, setting: str, value: Any, other: Any) -> bool:
        """See ``SourceHold.same``."""
        del setting
        return bool(_plain(value) == _plain(other))

    def limits(self) -> Sequence[str]:
        """See ``SourceHold.limits``."""
        texts = [
            "it ends when the server is restarted, unless its configuration says read_only too",
            "what a replica receives is still written, and temporary tables",
        ]
        other_databases, mighty = self._server.neighbours(), self._privileged_accounts()
        if other_databases:
            texts.insert(
                0, f"these databases of the server are read-only too: {list_words(other_databases, _SHOWN)}"
            )
        if mighty:
            texts.insert(0, f"accounts that may lift it may also write: {list_words(mighty, _SHOWN)}")
        return texts

    def _privileged_accounts(self) -> list[str]:
        if self._server.is_on("super_read_only"):
            return []
        privileges = ", ".join(f"'{privilege}'" for privilege in _MAY_WRITE)
        try:
            rows = self._server.rows(
                "SELECT DISTINCT grantee FROM information_schema.user_privileges"
                f" WHERE privilege_type IN ({privileges}) ORDER BY grantee"
            )
        except SourceError:
            return []
        return [str(row[0]).replace("'", "") for row in rows]


class _Events:
    """Events of the database: programs that the server runs by its clock, whatever accounts may do. An event's setting
    is its status; None where it is gone.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    @staticmethod
    def has(setting: str) -> bool:
        """Tell whether a setting is an event's."""
        return setting.startswith(_EVENT)

    def changes(self) -> Sequence[Change]:
        """Return what has to change so that no event runs."""
        return [
            Change(
                _EVENT + event.name, ENABLED, DISABLED, ENABLED,
                *(f"{event.settings}; {event.statement(status, self._server.name)}" for status in (DISABLED, ENABLED)),
            )
            for event in self._events().values()
            if event.status == ENABLED
        ]  # fmt: skip

    def read(self, setting: str) -> Any:
        """Return an event's status."""
        event = self._events().get(setting.removeprefix(_EVENT))
        return event.status if event else None

    def write(self, setting: str, value: Any) -> None:
        """Set an event's status. Raises ``UsageError``, ``GoneError``."""
        name = setting.removeprefix(_EVENT)
        event = self._events().get(name)
        if value not in {ENABLED, DISABLED}:
            raise UsageError(f"{value!r} is not a setting of an event")
        if event is None:
            raise GoneError(
                f"{self._server.url} has no event {name} any more", next_step="take it out of the undo file"
            )
        set_status(event, value, run=self._server.run, rows=self._server.rows)

    def refusals(self) -> Iterator[NotAllowedError]:
        """Yield that the account may not disable the events of others."""
        rights = self._server.rights()
        others = [
            event.name
            for event in self._events().values()
            if event.status == ENABLED and event.account != rights.account
        ]
        if others and not any(rights.has(right, "*") for right in _DEFINES_FOR_OTHERS):
            yield SourceNotAllowedError(
                f"the account {rights.account} may not disable events of other accounts:"
                f" {list_words(others, _SHOWN)}",
                about=self._server.url,
                next_step=f"GRANT SET_ANY_DEFINER ON *.* TO {rights.account}; (before MySQL 8.2 SET_USER_ID, in MariaDB"
                " SET USER)",
            )

    def _events(self) -> dict[str, Event]:
        return {event.name: event for event in read_events(self._server.rows, self._server.name)}


def _sql(name: str, value: str) -> str:
    return f"SET GLOBAL {name} = {value}"


def _plain(value: Any) -> Any:
    return {"0": "OFF", "1": "ON"}.get(str(value), str(value).upper())


def _need(known: bool, setting: str) -> None:
    if not known:  # from a file that somebody has edited
        raise UsageError(f"{setting!r} is not a setting of this hold on a MySQL source, or has no such value")


def open_hold(url: str, secrets: Mapping[str, str], request: HoldRequest) -> SourceHold:
    """Open a server by the URL of one of its databases. Raises ``UsageError`` where only the whole server could be
    held, which has other databases, and nobody asked for that.
    """
    server = Server(parse_url(url, secrets))
    if server.value(_HAS_MODE):
        return DatabaseHold(server)
    is_server_wide = (
        request.whole_server
        or server.is_on("read_only")
        or any(setting in _VARIABLES for setting in request.settings)
    )
    other_databases = [] if is_server_wide else server.neighbours()
    if not other_databases:
        return ServerHold(server)
    statements = _locks(server)
    server.close()
    raise UsageError(
        f"this server cannot make one database read-only; it also has {list_words(other_databases, _SHOWN)}",
        about=server.url,
        next_step="add --whole-server: all databases of the server become read-only. Or stop what writes and let an"
        f" administrator lock its accounts: {statements}",
    )


def _locks(server: Server) -> str:
    """Return the SQL that keeps the accounts out that may write into the database."""
    try:
        rows = server.rows(_WRITERS.format(name=quote_literal(server.name)))
    except SourceError:
        rows = []
    accounts = [f"{quote_literal(str(user))}@{quote_literal(str(host))}" for user, host in rows]
    return (
        " ".join(f"ALTER USER {account} ACCOUNT LOCK;" for account in accounts) or "ALTER USER … ACCOUNT LOCK"
    )
