"""Accounts and their privileges into the destination, as far as the restore's own account may grant them.

An account that the destination does not have is made without a password, and therefore locked; it gets all that it had.
One that is there gets its privileges on the database, and nothing that reaches beyond: what it may do on this host
is for its administrator to decide. The accounts that were made are recorded, so that a run after a crash finds them.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import pymysql

from exporters.mysql.definitions.show_create import GRANTS
from exporters.mysql.errors import message_of
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.restore.mysql.destination import DestinationConnection, mark_done, read_done
from migrate.restore.mysql.grant_statements import Beyond, Grants, is_role

_EVERYBODY = "PUBLIC"


def restore_accounts(
    reader: BundleReader, source: str, database: str, connection: DestinationConnection
) -> list[str]:
    """Grant on the destination what accounts may on the source's ``database``; return sentences for the user."""
    key = layout.source_file(source, GRANTS)
    file = next(
        (source_file for source_file in reader.source_files(source, "schema/") if source_file.key == key),
        None,
    )
    if file is None:
        return []
    maker = _Maker(connection)
    now = connection.address.database
    maker.apply(Grants.parse(reader.read_checked(file).decode(), database, now))
    return maker.notes()


class _Maker:
    """Makes accounts and grants; ``made`` and ``refused`` hold the results."""

    def __init__(self, connection: DestinationConnection) -> None:
        self._connection = connection
        self._done = read_done(connection)
        self.made: list[str] = []
        self.refused: list[str] = []

    def apply(self, grants: Grants) -> None:
        accounts = grants.accounts
        for account in accounts:
            self._make(account)
        for grant in grants.own:
            self._try(grant.account, grant.statement(self._connection.address.database))
        harmless = set(self.made) - {grant.account for grant in grants.beyond if not grant.empty}
        too_much = set() if self._takes_partly() else grants.partial
        for beyond in grants.beyond:
            if beyond.account in too_much and not beyond.roles and (beyond.takes or not beyond.empty):
                self.refused.append(
                    f"{beyond.account}: {beyond.statement}: the destination has no partial revokes"
                )
            elif beyond.account in self.made or (
                beyond.account in accounts and _gives_only(beyond, harmless)
            ):
                self._try(beyond.account, beyond.statement)

    def _takes_partly(self) -> bool:
        """Tell whether the destination takes single databases from privileges on everything."""
        try:
            return bool(self._connection.value("SELECT @@GLOBAL.partial_revokes"))
        except pymysql.Error:
            return False

    def _make(self, account: str) -> None:
        step = f"account {account}"
        if step not in self._done:
            if self._is_there(account):
                return
            mark_done(self._connection, step)
        words = (
            f"CREATE ROLE IF NOT EXISTS {account}"
            if is_role(account)
            else f"CREATE USER IF NOT EXISTS {account} ACCOUNT LOCK"
        )
        if self._try(account, words):
            self.made.append(account)

    def _is_there(self, account: str) -> bool:
        if account == _EVERYBODY:
            return True
        show = "SHOW GRANTS FOR" if is_role(account) else "SHOW CREATE USER"
        try:
            self._connection.rows(f"{show} {account}")
        except pymysql.Error:
            return False
        return True

    def _try(self, account: str, statement: str) -> bool:
        try:
            self._connection.run(statement)
        except pymysql.Error as exc:
            self.refused.append(f"{account}: {message_of(exc)}")
            return False
        return True

    def notes(self) -> list[str]:
        """Return sentences for the user."""
        sentences = []
        users = [account for account in self.made if not is_role(account)]
        if users:
            sentences.append(
                f"these accounts were made without a password and are locked (ALTER USER … IDENTIFIED BY … ACCOUNT"
                f" UNLOCK): {', '.join(users)}"
            )
        if self.refused:
            sentences.append(
                "privileges that could not be granted (see schema/grants.sql):"
                f" {'; '.join(dict.fromkeys(self.refused))}"
            )
        return sentences


def _gives_only(grant: Beyond, roles: AbstractSet[str]) -> bool:
    """Tell whether it makes an account a member of these roles: those made here that hold nothing but privileges on
    the database.
    """
    return bool(grant.roles) and set(grant.roles) <= roles
