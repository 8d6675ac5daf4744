"""A MySQL database in read-only mode: ``ALTER DATABASE … READ ONLY`` (MySQL manual, since 8.0.22). MariaDB and older
servers have such a mode for the whole server only: ``read_only``, and ``super_read_only`` where there is one (MySQL
manual, "read_only"; MariaDB knowledge base, "Read-Only Replicas"). Sessions that are open are bound at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from exporters.errors import SourceError
from exporters.mysql.connect import connect, parse_url
from exporters.mysql.errors import DRIVER_ERRORS, translate
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.bundle.findings import Finding
from migrate.custody.sources.contract import Change
from migrate.errors import UsageError

_VARIABLES = ("read_only", "super_read_only")
_DATABASE = "the database"
_OFF = {"0", "OFF"}
_SYSTEM = "('mysql', 'information_schema', 'performance_schema', 'sys')"
_MAY_WRITE = ("SUPER", "READ_ONLY ADMIN", "READ ONLY ADMIN", "CONNECTION_ADMIN", "CONNECTION ADMIN")
"""Privileges by which some server, of some version, lets an account write all the same."""
_HAS_MODE = """
SELECT 1 FROM information_schema.tables
WHERE table_schema = 'information_schema' AND table_name = 'SCHEMATA_EXTENSIONS'
"""
_MODE = "SELECT options FROM information_schema.schemata_extensions WHERE schema_name = {}"
_SHOWN = 10


class MysqlHold:
    """See ``SourceHold``. A value is the text of the variable, as ``SHOW GLOBAL VARIABLES`` has it; of the database, 0
    or 1.
    """

    def __init__(self, url: str, *, password: str | None = None) -> None:
        address = parse_url(url, password=password)
        self.url, self._name = address.url, address.database
        self._connection = connect(address)
        with self._translated():
            self._alone = bool(self._connection.rows(_HAS_MODE))

    def wanted(self) -> Sequence[Change]:
        """See ``SourceHold.wanted``."""
        if self._alone:
            change = Change(_DATABASE, "0", "1", "0", self._sql(_DATABASE, "1"), self._sql(_DATABASE, "0"))
            return [] if self.read(_DATABASE) == "1" else [change]
        return [
            Change(name, value, "ON", value, self._sql(name, "ON"), self._sql(name, value))
            for name in _VARIABLES
            if (value := self.read(name)) is not None and value.upper() in _OFF
        ]

    def read(self, setting: str) -> Any:
        """See ``SourceHold.read``; None where the server has no such variable."""
        if setting == _DATABASE:
            with self._translated():
                options = self._connection.value(_MODE.format(quote_literal(self._name)))
            return "1" if "READ ONLY=1" in str(options) else "0"
        if setting not in _VARIABLES:  # from a file that somebody has edited
            raise UsageError(f"{setting!r} is no setting of a MySQL source")
        with self._translated():
            rows = self._connection.rows(f"SHOW GLOBAL VARIABLES LIKE '{setting}'")
        return str(rows[0][1]) if rows else None

    def write(self, setting: str, value: Any) -> None:
        """See ``SourceHold.write``."""
        with self._translated():
            self._connection.run(self._sql(setting, value))

    def _sql(self, setting: str, value: str) -> str:
        """Return the statement. Raises ``UsageError`` for what is none of our settings' values."""
        if setting == _DATABASE and value in {"0", "1"}:
            return f"ALTER DATABASE {quote_name(self._name)} READ ONLY = {value}"
        if setting in _VARIABLES and re.fullmatch(r"[A-Za-z0-9_]+", value):
            return f"SET GLOBAL {setting} = {value}"
        raise UsageError(f"{setting} = {value!r} is no setting of a MySQL source")

    def same(self, setting: str, one: Any, other: Any) -> bool:
        """See ``SourceHold.same``."""
        del setting
        return bool(_plain(one) == _plain(other))

    def now(self) -> datetime:
        """See ``SourceHold.now``."""
        with self._translated():
            found: datetime = self._connection.value("SELECT UTC_TIMESTAMP(6)")
        return found.replace(tzinfo=UTC)

    def open_ways(self, since: datetime | None) -> Sequence[Finding]:
        """See ``SourceHold.open_ways``: the settings bind open sessions too."""
        del since
        return ()

    def close_ways(self, since: datetime) -> int:
        """See ``SourceHold.close_ways``: none is open."""
        del since
        return 0

    def beyond(self) -> str:
        """See ``SourceHold.beyond``."""
        if self._alone:
            return ""
        with self._translated():
            rows = self._connection.rows(
                f"SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN {_SYSTEM}"
                " ORDER BY schema_name"
            )
        others = [str(row[0]) for row in rows if str(row[0]) != self._name]
        if not others:
            return ""
        return f"the whole server becomes read-only, with these databases too: {_listed(others)}"

    def limits(self) -> Sequence[str]:
        """See ``SourceHold.limits``."""
        if self._alone:
            return ("whoever has the privilege ALTER on the database may lift it; replicas do not get it",)
        words = [
            "it ends when the server is restarted, unless its configuration says read_only too",
            "what a replica receives is still written, and temporary tables",
        ]
        mighty = self._mighty()
        if mighty:
            words.insert(0, f"accounts that may lift it may also write: {_listed(mighty)}")
        return words

    def _mighty(self) -> Sequence[str]:
        if (self.read("super_read_only") or "OFF").upper() not in _OFF:
            return ()
        listed = ", ".join(f"'{one}'" for one in _MAY_WRITE)
        try:
            with self._translated():
                rows = self._connection.rows(
                    "SELECT DISTINCT grantee FROM information_schema.user_privileges"
                    f" WHERE privilege_type IN ({listed}) ORDER BY grantee"
                )
        except SourceError:
            return ()
        return [str(row[0]).replace("'", "") for row in rows]

    def close(self) -> None:
        """See ``SourceHold.close``."""
        self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DRIVER_ERRORS as exc:
            raise translate(exc, self.url) from exc


def _plain(value: Any) -> Any:
    return {"0": "OFF", "1": "ON"}.get(str(value), str(value).upper())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def open_hold(url: str, secrets: Mapping[str, str]) -> MysqlHold:
    """Open a server by the URL of one of its databases."""
    return MysqlHold(url, password=secrets.get("password"))
