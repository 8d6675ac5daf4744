"""One database of several on a MariaDB, or a MySQL before 8.0.22, that nobody writes into: accounts and roles lose the
privileges by which they do, and get them back exactly. These servers know no read-only mode of one database.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from exporters.errors import SourceError, SourceNotAllowedError
from migrate.bundle.findings import Finding
from migrate.custody.hold.sources import mysql_rights, mysql_ways
from migrate.custody.hold.sources.contract import Change
from migrate.custody.hold.sources.mysql_events import Events
from migrate.custody.hold.sources.mysql_rights import HARMLESS, Right
from migrate.custody.hold.sources.mysql_server import Server, listed
from migrate.errors import GoneError, UsageError

_EVERYBODY = "`PUBLIC`"
_SHOWN = 20
_ENDING_SECONDS = 10.0


class AccountsHold:
    """See ``SourceHold``. A setting is an account's privileges on one thing, its value their names; or an event."""

    def __init__(self, server: Server) -> None:
        self.url, self._server, self._events = server.url, server, Events(server)
        self._need_rights()
        with suppress(SourceError):  # a GRANT makes no account; newer MySQL has no such mode, nor the habit
            server.run("SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_CREATE_USER')")

    @staticmethod
    def has(setting: str) -> bool:
        """Tell whether a setting is of such a hold alone."""
        try:
            mysql_rights.parse(setting)
        except ValueError:
            return False
        return True

    def _need_rights(self) -> None:
        """Raise ``SourceNotAllowedError`` unless our own account can give back what it takes: nobody gives what he has
        not, and on everything, for on this database it is taken from us too.
        """
        takes = set(mysql_rights.names_of(dict.fromkeys(self._columns(), "Y"))) - HARMLESS
        user, _, host = str(self._server.value("SELECT CURRENT_USER()")).rpartition("@")
        for row in self._server.named("SELECT * FROM mysql.user"):
            if (row["user"], row["host"]) == (user, host) and takes | {"GRANT OPTION"} <= set(
                mysql_rights.names_of(row)
            ):
                return
        self._server.close()
        raise SourceNotAllowedError(
            f"{self.url}: the account {user}@{host} could not give back the privileges that it takes",
            next_step="use one with ALL PRIVILEGES ON *.* WITH GRANT OPTION, or hold the whole server: --whole-server",
        )

    def _columns(self) -> list[str]:
        return [str(row[0]).lower() for row in self._server.rows("SHOW COLUMNS FROM mysql.db")]

    def wanted(self) -> Sequence[Change]:
        """See ``SourceHold.wanted``."""
        found = []
        for right, before in self._rights(shared=False).items():
            after = [one for one in before if one in HARMLESS]
            if after != before:
                says, undo_says = (
                    "; ".join(right.statements(*pair)) for pair in ((before, after), (after, before))
                )
                found.append(Change(right.setting, before, after, before, says, undo_says))
        return [*found, *self._events.wanted()]

    def _rights(self, *, shared: bool) -> Mapping[Right, list[str]]:
        """Return what is granted on our database, by patterns that fit others too (``shared``) or by none of these."""
        others = self._server.neighbours()
        return {
            right: names
            for right, names in mysql_rights.read(self._server).items()
            if any(right.thing == "*" and right.matches(one) for one in others) == shared
        }

    def read(self, setting: str) -> Any:
        """See ``SourceHold.read``: sorted names; of what is not there, none."""
        if self._events.has(setting):
            return self._events.read(setting)
        return mysql_rights.read(self._server).get(self._right(setting), [])

    def write(self, setting: str, value: Any) -> None:
        """See ``SourceHold.write``."""
        if self._events.has(setting):
            self._events.write(setting, value)
            return
        right = self._right(setting)
        if not mysql_rights.is_privileges(value):
            raise UsageError(f"{value!r} is no setting of an account's privileges")
        accounts = {*mysql_ways.mighty(self._server).accounts, _EVERYBODY}
        if right.account not in accounts:
            raise GoneError(
                f"{self.url}: the account {right.account} is gone",
                next_step="make it again, or take what concerns it out of the undo file",
            )
        for statement in right.statements(self.read(setting), value):
            self._server.run(statement)

    def _right(self, setting: str) -> Right:
        try:
            right = mysql_rights.parse(setting)
        except ValueError as exc:
            raise UsageError(f"{setting!r} is no setting of a MySQL source") from exc
        if not right.matches(self._server.name):
            raise UsageError(f"{setting!r} is no setting of {self.url}")
        return right

    def same(self, setting: str, one: Any, other: Any) -> bool:
        """See ``SourceHold.same``."""
        del setting
        return bool(one == other)

    def mark(self) -> str:
        """See ``SourceHold.mark``: the number of a connection that was made now."""
        fresh = self._server.again()
        try:
            return str(fresh.value("SELECT CONNECTION_ID()"))
        finally:
            fresh.close()

    def open_ways(self, since: str | None) -> Sequence[Finding]:
        """See ``SourceHold.open_ways``."""
        who = mysql_ways.mighty(self._server)
        shared = {
            right: names for right, names in self._rights(shared=True).items() if not set(names) <= HARMLESS
        }
        return [
            *mysql_ways.by_privileges(self._server, who, shared),
            *mysql_ways.by_programs(self._server, who),
            *(self._from_before(who, int(since)) if since else ()),
        ]

    def _from_before(self, who: mysql_ways.Mighty, since: int) -> Sequence[Finding]:
        older = self._older(who, since)
        inside = [one for one in older if one[2] == self._server.name]
        found = [
            Finding(f"session {number}", "was opened before the hold, and may still write", "", user)
            for number, user, _ in inside[:_SHOWN]
        ]
        if len(inside) > _SHOWN:
            found.append(Finding("sessions", f"{len(inside) - _SHOWN} more were opened before the hold"))
        transaction = mysql_ways.open_transaction(self._server) if len(older) > len(inside) else None
        return [*found, *([transaction] if transaction else ())]

    def _older(self, who: mysql_ways.Mighty, since: int) -> list[tuple[int, str, str]]:
        """Return sessions from before; none where the server counts from the beginning again: it was restarted."""
        return mysql_ways.older_sessions(self._server, who, since) if int(self.mark()) > since else []

    def close_ways(self, since: str) -> int:
        """See ``SourceHold.close_ways``: a session keeps the privileges on the database that it has chosen."""
        who = mysql_ways.mighty(self._server)
        older = self._older(who, int(since))
        inside = [number for number, _, database in older if database == self._server.name]
        for number in inside:
            self._server.end(number)
        limit = time.monotonic() + _ENDING_SECONDS
        while time.monotonic() < limit:
            if not {one[0] for one in self._older(who, int(since))} & set(inside):
                break
            time.sleep(0.05)
        return len(inside)

    def limits(self) -> Sequence[str]:
        """See ``SourceHold.limits``."""
        administrators = [one.replace("`", "") for one in mysql_ways.mighty(self._server).administrators]
        return (
            f"administrators may write, and lift it: {listed(administrators)}",
            "what gets privileges from now on, or is made, may write: the same command, or status, finds it",
            "of other databases' programs those are known whose text names this one; a replica writes what it gets",
        )

    def close(self) -> None:
        """See ``SourceHold.close``."""
        self._server.close()
