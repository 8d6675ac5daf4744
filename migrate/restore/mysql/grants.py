"""Privileges on the database into the target, as far as its account may grant them.

An account that the target does not have is made without a password, and therefore locked. Privileges on everything
(``ON *.*``) are not touched: what an account may do on another host is its administrator's to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pymysql

from exporters.mysql.connect import Connection
from exporters.mysql.errors import said_by
from exporters.mysql.identifiers import quote_name
from exporters.mysql.schema import GRANTS
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader

_QUOTED = r"(?:`(?:[^`]|``)*`|'(?:[^']|'')*')"
_GRANT = re.compile(
    rf"GRANT (?P<what>.+) ON (?P<kind>(?:PROCEDURE|FUNCTION|PACKAGE|PACKAGE BODY) )?(?P<database>`(?:[^`]|``)*`)\."
    rf"(?P<object>\*|`(?:[^`]|``)*`) TO (?P<account>{_QUOTED}@{_QUOTED})(?P<option> WITH GRANT OPTION)?;"
)


@dataclass(frozen=True, slots=True)
class Grant:
    """``what`` on an object (``*`` for the whole database) to an account, all as SHOW GRANTS spells them."""

    what: str
    kind: str
    object: str
    account: str
    option: str

    def statement(self, database: str) -> str:
        """Return the GRANT for a database of this name."""
        # in a GRANT on a whole database its name is a pattern (MySQL manual, 15.7.1.6)
        name = re.sub(r"([\\_%])", r"\\\1", database) if self.object == "*" else database
        return (
            f"GRANT {self.what} ON {self.kind}{quote_name(name)}.{self.object} TO {self.account}{self.option}"
        )


def parse_grants(script: str, database: str) -> list[Grant]:
    """Return the privileges on a database that a ``grants.sql`` gives."""
    found = []
    for line in script.splitlines():
        match = _GRANT.fullmatch(line)
        if match is None:
            continue
        name = match["database"][1:-1].replace("``", "`")
        if match["object"] == "*":
            name = re.sub(r"\\([\\_%])", r"\1", name)
        if name == database:
            found.append(
                Grant(
                    match["what"],
                    match["kind"] or "",
                    match["object"],
                    match["account"],
                    match["option"] or "",
                )
            )
    return found


def restore_grants(reader: BundleReader, source: str, database: str, connection: Connection) -> list[str]:
    """Grant on the target what accounts may on the source's ``database``; return sentences for the user."""
    key = layout.source_file(source, GRANTS)
    file = next((one for one in reader.source_files(source, "schema/") if one.key == key), None)
    if file is None:
        return []
    grants = parse_grants(reader.read_checked(file).decode(), database)
    return _apply(grants, connection) if grants else []


def _apply(grants: Sequence[Grant], connection: Connection) -> list[str]:
    made: list[str] = []
    refused: list[str] = []
    for account in dict.fromkeys(grant.account for grant in grants):
        try:
            connection.rows(f"SHOW CREATE USER {account}")
        except pymysql.Error:
            try:
                connection.run(f"CREATE USER {account} ACCOUNT LOCK")
                made.append(account)
            except pymysql.Error as exc:
                refused.append(f"{account}: {said_by(exc)}")
    for grant in grants:
        try:
            connection.run(grant.statement(connection.address.database))
        except pymysql.Error as exc:
            refused.append(f"{grant.account}: {said_by(exc)}")
    notes = []
    if made:
        notes.append(
            f"these accounts were made without a password and are locked (ALTER USER … IDENTIFIED BY … ACCOUNT UNLOCK):"
            f" {', '.join(made)}"
        )
    if refused:
        notes.append(
            f"privileges that could not be granted (see schema/grants.sql): {'; '.join(dict.fromkeys(refused))}"
        )
    return notes
