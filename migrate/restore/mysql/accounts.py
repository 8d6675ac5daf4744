"""Accounts and their privileges into the destination, as far as the restore's own account may grant them.

An account that the destination does not have is made without a password, and therefore locked; it gets all that it had.
One that is there gets its privileges on the database, and nothing that reaches beyond: what it may do on this host
is for its administrator to decide. The accounts that were made are recorded, so that a run after a crash finds them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import pymysql

from exporters.errors import SourceNotAllowedError
from exporters.mysql.definitions.show_create import GRANTS
from exporters.mysql.errors import message_of, translate
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.restore.common.left_out import FinishedRestore
from migrate.restore.mysql.destination import DestinationConnection, mark_done, read_done
from migrate.restore.mysql.grant_statements import Beyond, Grants, is_role

_EVERYBODY = "PUBLIC"
_LOCKED = (
    "these accounts {made} password and are locked (ALTER USER … IDENTIFIED BY … ACCOUNT UNLOCK): {accounts}"
)
_PASSWORD = re.compile(r" (?:AS|USING|BY PASSWORD|VIA)\b")
"""What SHOW CREATE USER has of an account that can log in once it is unlocked."""


def read_grants(reader: BundleReader, source: str, database: str, now: str) -> Grants:
    """Return what accounts may on the source's ``database``, which is called ``now`` at the destination. Raises
    ``DamageError``.
    """
    key = layout.source_file(source, GRANTS)
    file = next(
        (source_file for source_file in reader.source_files(source, "schema/") if source_file.key == key),
        None,
    )
    try:
        text = reader.read_checked(file).decode() if file else ""
    except UnicodeDecodeError as exc:
        raise DamageError(key, expected="UTF-8", found=f"other bytes ({exc})") from exc
    return Grants.parse(text, database, now)


def note_made(accounts: Sequence[str]) -> list[str]:
    """Return the note about new accounts."""
    return [_LOCKED.format(made="were made without a", accounts=", ".join(accounts))] if accounts else []


def note_locked(
    connection: DestinationConnection, grants: Grants, records: Sequence[FinishedRestore]
) -> list[str]:
    """Return the note about those accounts that are locked and have no password: a restore has made them so, and its
    own note may have been lost together with its process. Of those that this account may not see, it names the ones
    that restores have made, by their ``records``.
    """
    made = {account for record in records for account in record.passwordless}
    locked = []
    for account in grants.accounts:
        if account in grants.granted:
            continue
        try:
            words = "" if is_role(account) else str(connection.value(f"SHOW CREATE USER {account}"))
        except pymysql.Error as exc:
            if account in made and isinstance(translate(exc, ""), SourceNotAllowedError):
                locked.append(account)
        else:
            if " ACCOUNT LOCK" in words and not _PASSWORD.search(words):
                locked.append(account)
    return [_LOCKED.format(made="have no", accounts=", ".join(locked))] if locked else []


class AccountMaker:
    """Makes accounts, then grants. Objects that act in an account's name need it with its privileges; privileges on
    objects need these. So ``apply`` comes after the tables and before the rest, ``retry`` at the end.
    """

    def __init__(self, connection: DestinationConnection) -> None:
        self._connection = connection
        self._done = read_done(connection)
        self._refused: dict[tuple[str, str], str] = {}
        self._made: list[str] = []
        self._granted: AbstractSet[str] = frozenset()

    def apply(self, grants: Grants) -> None:
        """Make the accounts, and grant what the destination takes."""
        accounts, self._granted = grants.accounts, grants.granted
        for account in accounts:
            self._make(account)
        for grant in grants.own:
            self._try(grant.account, grant.statement(self._connection.address.database))
        harmless = set(self._made) - {grant.account for grant in grants.beyond if not grant.empty}
        too_much = set() if self._takes_partly() else grants.partial
        for beyond in grants.beyond:
            if beyond.account in too_much and not beyond.roles and (beyond.takes or not beyond.empty):
                reason = f"{beyond.statement}: the destination has no partial revokes"
                self._refused[beyond.account, ""] = reason
            elif beyond.account in self._made or (
                beyond.account in accounts and _gives_only(beyond, harmless)
            ):
                self._try(beyond.account, beyond.statement)

    def retry(self) -> None:
        """Run what was refused again, now that all objects are there."""
        for account, statement in list(self._refused):
            if statement and self._try(account, statement):
                del self._refused[account, statement]

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
            self._made.append(account)

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
            self._refused[account, statement] = message_of(exc)
            return False
        return True

    @property
    def passwordless(self) -> list[str]:
        """The accounts that were made, and are locked until they get a password; MySQL's roles stay locked."""
        return [account for account in self._made if not is_role(account) and account not in self._granted]

    def notes(self) -> list[str]:
        """Return the note about what was refused."""
        if not self._refused:
            return []
        refused = dict.fromkeys(f"{account}: {reason}" for (account, _), reason in self._refused.items())
        return [f"privileges that could not be granted (see schema/grants.sql): {'; '.join(refused)}"]


def _gives_only(grant: Beyond, roles: AbstractSet[str]) -> bool:
    """Tell whether it makes an account a member of these roles: those made here that hold nothing but privileges on
    the database.
    """
    return bool(grant.roles) and set(grant.roles) <= roles
