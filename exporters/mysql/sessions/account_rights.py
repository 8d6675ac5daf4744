"""What an account may do, as SHOW GRANTS says it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pymysql
from msgspec import Struct

from exporters.mysql.connection import Connection
from exporters.mysql.errors import number_of
from exporters.mysql.identifiers import quote_literal

_GRANT = re.compile(
    r"GRANT (?P<rights>.+?) ON (?:TABLE )?(?P<database>\*|`(?:[^`]|``)+`)\.(?P<item>\*|`(?:[^`]|``)+`) TO "
)
_COLUMNS = re.compile(r" ?\([^)]*\)")
_ALL = "ALL PRIVILEGES"
_NO_FUNCTION = 1305


class AccountRights(Struct, frozen=True):
    """What the current account may do, by SHOW GRANTS. ``account`` is as GRANT names it."""

    account: str
    rows: Sequence[tuple[frozenset[str], str, str]]
    """Rights, database (a pattern, or ``*``) and item (or ``*``)."""

    def on(self, database: str) -> frozenset[str]:
        """Return the rights on all of a database; those on single tables do not count."""
        rights = [r for r, pattern, item in self.rows if item == "*" and _covers(pattern, database)]
        return frozenset().union(*rights)

    def has(self, right: str, database: str) -> bool:
        """Tell whether the account has a right on all of a database; ``*`` asks for all databases."""
        return bool({right, _ALL} & self.on(database))

    def lists_tables_of(self, database: str) -> bool:
        """Tell whether the server lists all tables of a database: to who has any right on all of it, or SELECT on all
        databases.
        """
        return self.has("SELECT", "*") or bool(self.on(database) - self.on("*"))


def read_rights(connection: Connection) -> AccountRights:
    """Return the rights of the session's account, those of its roles included. Raises the driver's errors."""
    user, _, host = str(connection.value("SELECT CURRENT_USER()")).rpartition("@")
    account = f"{quote_literal(user)}@{quote_literal(host)}"
    query = "SHOW GRANTS"
    if not connection.is_mariadb and (roles := _active_roles(connection)):
        query += f" FOR CURRENT_USER() USING {roles}"
    rows = []
    for (line,) in connection.rows(query):
        if match := _GRANT.match(str(line)):
            rights = frozenset(word.strip() for word in _COLUMNS.sub("", match["rights"]).split(","))
            rows.append((rights, _unquoted(match["database"]), _unquoted(match["item"])))
    return AccountRights(account, rows)


def _active_roles(connection: Connection) -> str:
    """Return the active roles as SHOW GRANTS takes them; "" without any, also at a MySQL before 8.0, which has none."""
    try:
        roles = str(connection.value("SELECT CURRENT_ROLE()"))
    except pymysql.Error as exc:
        if number_of(exc) != _NO_FUNCTION:
            raise
        return ""
    return "" if roles == "NONE" else roles


def _unquoted(name: str) -> str:
    return name if name == "*" else name[1:-1].replace("``", "`")


def _covers(pattern: str, database: str) -> bool:
    """Tell whether the database of a grant, in which ``_`` and ``%`` are wild, covers a database."""
    if pattern == "*":
        return True
    if database == "*":
        return False
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    wild = {"%": ".*", "_": "."}
    return (
        re.fullmatch("".join(wild.get(p, re.escape(p.removeprefix("\\"))) for p in parts), database)
        is not None
    )
