"""Accounts and their privileges into the destination, as far as the restore's own account may grant them.

An account that the destination does not have is made without a password, and therefore locked; it gets all that it had.
One that is there gets its privileges on the database, and nothing that reaches beyond: what it may do on this host
is for its administrator to decide. The accounts that were made are recorded, so that a run after a crash finds them.

What accounts may do is as SHOW GRANTS spells it. Only statements of exactly these forms are taken from grants.sql:
a bundle comes from elsewhere, and may not bring a password along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import pymysql
from msgspec import Struct

from exporters.errors import SourceNotAllowedError
from exporters.mysql.definitions.show_create import GRANTS
from exporters.mysql.errors import message_of, translate
from exporters.mysql.identifiers import quote_name
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.restore.common.left_out import FinishedRestore
from migrate.restore.mysql.destination import DestinationConnection
from migrate.restore.mysql.restore_state import mark_done, read_done

_TEXT = r"'(?:[^'\\]|\\.|'')*'"
_QUOTED = rf"(?:`(?:[^`]|``)*`|{_TEXT})"
_ACCOUNT = rf"(?:{_QUOTED}@{_QUOTED}|{_QUOTED}|PUBLIC)"
_COLUMN = r"(?:`(?:[^`]|``)*`|[\w$]+)"
_PRIVILEGE = rf"[A-Z][A-Z0-9_ ]*(?:\({_COLUMN}(?:, ?{_COLUMN})*\))?"
_ON_DATABASE = re.compile(
    rf"GRANT (?P<what>{_PRIVILEGE}(?:, ?{_PRIVILEGE})*) ON "
    rf"(?P<kind>(?:PROCEDURE|FUNCTION|PACKAGE|PACKAGE BODY) )?(?P<database>`(?:[^`]|``)*`)\."
    rf"(?P<object>\*|`(?:[^`]|``)*`) TO (?P<account>{_ACCOUNT})(?P<option> WITH GRANT OPTION)?;"
)
_REQUIRE = rf"(?: REQUIRE (?:NONE|SSL|X509|(?:(?:AND )?(?:ISSUER|SUBJECT|CIPHER) {_TEXT} ?)+))?"
_LIMITS = r"(?: WITH(?: GRANT OPTION| MAX_[A-Z_]+ [0-9.]+)+)?"
_EVERYWHERE = re.compile(
    rf"(?P<statement>GRANT (?P<what>[A-Z0-9_, ]+) ON \*\.\* TO (?P<account>{_ACCOUNT}){_REQUIRE}{_LIMITS});"
)
_MEMBER = re.compile(
    rf"(?P<statement>GRANT (?P<roles>{_ACCOUNT}(?:, ?{_ACCOUNT})*) TO (?P<account>{_ACCOUNT})(?: WITH ADMIN OPTION)?);"
)
_DEFAULT = re.compile(
    rf"(?P<statement>SET DEFAULT ROLE {_ACCOUNT}(?:, {_ACCOUNT})* (?:FOR|TO) (?P<account>{_ACCOUNT}));"
)
_LOGIN = re.compile(rf"(?P<statement>ALTER USER (?P<account>{_ACCOUNT}){_REQUIRE}{_LIMITS});")
_TAKEN = re.compile(
    rf"REVOKE (?P<what>[A-Z0-9_, ]+) ON (?P<database>`(?:[^`]|``)*`)\.\* FROM (?P<account>{_ACCOUNT});"
)
_NOTHING = "USAGE"
_EVERYBODY = "PUBLIC"
_LOCKED = (
    "these accounts {made} password and are locked (ALTER USER … IDENTIFIED BY … ACCOUNT UNLOCK): {accounts}"
)
_PASSWORD = re.compile(r" (?:AS|USING|BY PASSWORD|VIA)\b")
"""What SHOW CREATE USER has of an account that can log in once it is unlocked."""


class Grant(Struct, frozen=True):
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


class ServerWideGrant(Struct, frozen=True):
    """A statement that reaches beyond the database: privileges on everything, membership in ``roles``, the default
    role, how to log in. ``empty``: it gives nothing by itself. ``takes``: from privileges on everything it takes those
    on one database, which MySQL alone can (``partial_revokes``).
    """

    account: str
    statement: str
    roles: tuple[str, ...] = ()
    empty: bool = False
    takes: bool = False


class Grants(Struct, frozen=True):
    """What a script grants on one database. ``elsewhere``: the accounts that may do something in others."""

    own: Sequence[Grant]
    server_wide: Sequence[ServerWideGrant]
    elsewhere: AbstractSet[str] = frozenset()

    @staticmethod
    def parse(script: str, database: str, now: str = "") -> Grants:
        """Read a ``grants.sql`` of a database, which is called ``now`` here, if it is not called the same."""
        lines = script.splitlines()
        own, elsewhere = [], set()
        for line in lines:
            if (match := _ON_DATABASE.fullmatch(line)) is None:
                continue
            if (grant := _own(match, database)) is not None:
                own.append(grant)
            else:
                elsewhere.add(match["account"])
        server_wide = [_server_wide(line) or _taken(line, database, now or database) for line in lines]
        return Grants(own, [grant for grant in server_wide if grant is not None], elsewhere)

    @property
    def partial(self) -> set[str]:
        """The accounts that may do something everywhere but in some databases."""
        return {grant.account for grant in self.server_wide if grant.takes}

    @property
    def granted(self) -> set[str]:
        """The accounts and roles that others are members of: nobody logs in by them."""
        return {role for grant in self.server_wide for role in grant.roles}

    @property
    def accounts(self) -> list[str]:
        """The accounts that may do something with the database, roles before their members: by a privilege on it or on
        everything, or as members of such a role; and the roles of these that may do nothing anywhere.
        """
        reaching = dict.fromkeys(grant.account for grant in self.own)
        reaching |= dict.fromkeys(
            grant.account for grant in self.server_wide if not (grant.empty or grant.roles)
        )
        while more := {
            grant.account: None
            for grant in self.server_wide
            if grant.account not in reaching and not reaching.keys().isdisjoint(grant.roles)
        }:
            reaching |= more
        idle = {grant.account for grant in self.server_wide} - self.elsewhere
        while roles := {
            role: None
            for grant in self.server_wide
            if grant.account in reaching
            for role in grant.roles
            if role in idle and role not in reaching
        }:
            reaching |= roles
        return sorted(reaching, key=lambda account: "@" in account)


def is_role(account: str) -> bool:
    """Tell MariaDB's roles by their having no host; MySQL's are accounts like others."""
    return re.fullmatch(_QUOTED, account) is not None


def _own(match: re.Match[str], database: str) -> Grant | None:
    name = match["database"][1:-1].replace("``", "`")
    if match["object"] == "*":
        name = re.sub(r"\\([\\_%])", r"\1", name)
    if name != database:
        return None
    words = (match["what"], match["kind"], match["object"], match["account"], match["option"])
    return Grant(*(word or "" for word in words))


def _server_wide(line: str) -> ServerWideGrant | None:
    if (match := _EVERYWHERE.fullmatch(line)) is not None:
        return ServerWideGrant(match["account"], match["statement"], empty=match["what"] == _NOTHING)
    if (match := _MEMBER.fullmatch(line)) is not None:
        return ServerWideGrant(
            match["account"], match["statement"], tuple(re.findall(_ACCOUNT, match["roles"]))
        )
    if (match := _DEFAULT.fullmatch(line) or _LOGIN.fullmatch(line)) is not None:
        return ServerWideGrant(match["account"], match["statement"], empty=True)
    return None


def _taken(line: str, database: str, now: str) -> ServerWideGrant | None:
    match = _TAKEN.fullmatch(line)
    if match is None:
        return None
    name = now if match["database"] == quote_name(database) else match["database"][1:-1].replace("``", "`")
    statement = f"REVOKE {match['what']} ON {quote_name(name)}.* FROM {match['account']}"
    return ServerWideGrant(match["account"], statement, empty=True, takes=True)


def read_grants(reader: BundleReader, source: str, database: str, now: str) -> Grants:
    """Return what accounts may on ``database``, which is called ``now`` here. Raises ``DamageError``."""
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
        harmless = set(self._made) - {grant.account for grant in grants.server_wide if not grant.empty}
        too_much = set() if self._takes_partly() else grants.partial
        for wide in grants.server_wide:
            if wide.account in too_much and not wide.roles and (wide.takes or not wide.empty):
                reason = f"{wide.statement}: the destination has no partial revokes"
                self._refused[wide.account, ""] = reason
            elif wide.account in self._made or (wide.account in accounts and _gives_only(wide, harmless)):
                self._try(wide.account, wide.statement)

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


def _gives_only(grant: ServerWideGrant, roles: AbstractSet[str]) -> bool:
    """Tell whether it gives nothing but membership in these roles, which may only use the database."""
    return bool(grant.roles) and set(grant.roles) <= roles
