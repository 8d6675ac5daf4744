"""What accounts and roles may do in one database of a MySQL or MariaDB, and the SQL that takes and gives it.

The server keeps it in ``mysql.db``, ``tables_priv``, ``columns_priv`` and ``procs_priv`` (MySQL manual, "Grant
Tables"; MariaDB knowledge base, "The mysql Database Tables"). A privilege on a whole database stands there with a
pattern, which may concern other databases too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.custody.hold.sources.mysql_server import Server

HARMLESS = frozenset(
    {"SELECT", "SHOW VIEW", "LOCK TABLES", "CREATE TEMPORARY TABLES", "REFERENCES", "SHOW CREATE ROUTINE",
     "GRANT OPTION"}
)  # fmt: skip
"""What a hold leaves; whoever has the grant option can pass on no more than this. Not EXECUTE: a routine may write with
the rights of whoever defined it.
"""
_WORDS = {
    "CREATE TMP TABLE": "CREATE TEMPORARY TABLES",
    "DELETE VERSIONING ROWS": "DELETE HISTORY",
    "GRANT": "GRANT OPTION",
}
_QUOTED = r"`(?:[^`]|``)*`"
_SETTING = re.compile(
    rf"(?P<account>{_QUOTED}(?:@{_QUOTED})?) on (?P<kind>(?:PROCEDURE|FUNCTION|PACKAGE|PACKAGE BODY) )?"
    rf"(?P<database>{_QUOTED})\.(?P<object>\*|{_QUOTED})(?: \((?P<column>{_QUOTED})\))?"
)
_PRIVILEGE = re.compile(r"[A-Z]+(?: [A-Z]+)*")


@dataclass(frozen=True, slots=True)
class Right:
    """Somebody's privileges on one thing, all parts quoted as SQL has them: ``account`` a user with a host, or a role;
    ``kind`` of a routine, with a space; ``thing`` ``*`` for the whole database; ``column`` or "".
    """

    account: str
    kind: str
    database: str
    thing: str
    column: str = ""

    @property
    def setting(self) -> str:
        """What an undo file calls it."""
        return f"{self.account} on {self.kind}{self.database}.{self.thing}" + (
            f" ({self.column})" if self.column else ""
        )

    def statements(self, have: Sequence[str], want: Sequence[str]) -> list[str]:
        """Return the SQL that brings privileges from ``have`` to ``want``."""
        words = []
        for verb, names, way in (
            ("GRANT", set(want) - set(have), "TO"),
            ("REVOKE", set(have) - set(want), "FROM"),
        ):
            if names:
                what = ", ".join(f"{name} ({self.column})" if self.column else name for name in sorted(names))
                words.append(f"{verb} {what} ON {self.kind}{self.database}.{self.thing} {way} {self.account}")
        return words

    def matches(self, database: str) -> bool:
        """Tell whether it concerns a database: of a privilege on a whole one the name is a pattern."""
        name = self.database[1:-1].replace("``", "`")
        return bool(re.fullmatch(_pattern(name), database)) if self.thing == "*" else name == database


def parse(setting: str) -> Right:
    """Read what ``Right.setting`` wrote. Raises ``ValueError``."""
    match = _SETTING.fullmatch(setting)
    if match is None:
        raise ValueError("no privileges of an account")
    account, kind, database, thing, column = match.groups(default="")
    return Right(account, kind, database, thing, column)


def is_privileges(value: Any) -> bool:
    """Tell whether a value of an undo file is a list of privileges' names."""
    return isinstance(value, list) and all(
        isinstance(one, str) and _PRIVILEGE.fullmatch(one) for one in value
    )


def _pattern(name: str) -> str:
    """Return a pattern of LIKE's, with a backslash for an escape, as a regular expression."""
    parts = re.findall(r"\\.|.", name, re.DOTALL)
    return "".join({"%": ".*", "_": "."}.get(one, re.escape(one[-1])) for one in parts)


def read(server: Server) -> Mapping[Right, list[str]]:
    """Return all privileges that concern the server's database and are not ``ON *.*``, sorted."""
    found: dict[Right, list[str]] = {}
    for row in server.named("SELECT * FROM mysql.db"):
        right = Right(account_of(row), "", quote_name(str(row["db"])), "*")
        if right.matches(server.name):
            found[right] = names_of(row)
    for table, thing, privileges in (
        ("tables_priv", "table_name", "table_priv"),
        ("columns_priv", "table_name", "column_priv"),
        ("procs_priv", "routine_name", "proc_priv"),
    ):
        for row in server.named(f"SELECT * FROM mysql.{table} WHERE Db = {quote_literal(server.name)}"):
            kind = f"{row['routine_type']} " if "routine_type" in row else ""
            column = quote_name(str(row["column_name"])) if "column_name" in row else ""
            right = Right(account_of(row), kind, quote_name(server.name), quote_name(str(row[thing])), column)
            found[right] = sorted(_word(one) for one in str(row[privileges]).split(",") if one)
    return {right: names for right, names in found.items() if names}


def names_of(row: Mapping[str, Any]) -> list[str]:
    """Return the privileges of a row that has a column for each, such as ``insert_priv``."""
    return sorted(
        _word(name.removesuffix("_priv").replace("_", " "))
        for name, value in row.items()
        if name.endswith("_priv") and value == "Y"
    )


def account_of(row: Mapping[str, Any]) -> str:
    """Return whose a row of a grant table is, quoted; what has no host is a role of MariaDB's."""
    user, host = quote_name(str(row["user"])), str(row["host"])
    return f"{user}@{quote_name(host)}" if host else user


def _word(name: str) -> str:
    word = name.upper()
    return _WORDS.get(word, word)
