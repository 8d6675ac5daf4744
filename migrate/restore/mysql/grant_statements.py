"""What accounts may do, as SHOW GRANTS spells it: the statements of ``grants.sql`` that a restore gives again. Pure.

Only statements of exactly these forms are taken: a bundle comes from elsewhere, and may not bring a password along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from msgspec import Struct

from exporters.mysql.identifiers import quote_name

_QUOTED = r"(?:`(?:[^`]|``)*`|'(?:[^']|'')*')"
_ACCOUNT = rf"(?:{_QUOTED}@{_QUOTED}|{_QUOTED}|PUBLIC)"
_ON_DATABASE = re.compile(
    rf"GRANT (?P<what>.+) ON (?P<kind>(?:PROCEDURE|FUNCTION|PACKAGE|PACKAGE BODY) )?(?P<database>`(?:[^`]|``)*`)\."
    rf"(?P<object>\*|`(?:[^`]|``)*`) TO (?P<account>{_ACCOUNT})(?P<option> WITH GRANT OPTION)?;"
)
_REQUIRE = r"(?: REQUIRE (?:NONE|SSL|X509|(?:(?:AND )?(?:ISSUER|SUBJECT|CIPHER) '(?:[^']|'')*' ?)+))?"
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


class Beyond(Struct, frozen=True):
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
    """What a script grants on one database, and the accounts that can use it. ``elsewhere`` are those that may do
    something in other databases.
    """

    own: Sequence[Grant]
    beyond: Sequence[Beyond]
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
        beyond = [_beyond(line) or _taken(line, database, now or database) for line in lines]
        return Grants(own, [grant for grant in beyond if grant is not None], elsewhere)

    @property
    def partial(self) -> set[str]:
        """The accounts that may do something everywhere but in some databases."""
        return {grant.account for grant in self.beyond if grant.takes}

    @property
    def granted(self) -> set[str]:
        """The accounts and roles that others are members of: nobody logs in by them."""
        return {role for grant in self.beyond for role in grant.roles}

    @property
    def accounts(self) -> list[str]:
        """The accounts that may do something with the database, roles before their members: by a privilege on it or on
        everything, or as members of such a role; and the roles of these that may do nothing anywhere.
        """
        reaching = dict.fromkeys(grant.account for grant in self.own)
        reaching |= dict.fromkeys(grant.account for grant in self.beyond if not (grant.empty or grant.roles))
        while more := {
            grant.account: None
            for grant in self.beyond
            if grant.account not in reaching and not reaching.keys().isdisjoint(grant.roles)
        }:
            reaching |= more
        idle = {grant.account for grant in self.beyond} - self.elsewhere
        while roles := {
            role: None
            for grant in self.beyond
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


def _beyond(line: str) -> Beyond | None:
    if (match := _EVERYWHERE.fullmatch(line)) is not None:
        return Beyond(match["account"], match["statement"], empty=match["what"] == _NOTHING)
    if (match := _MEMBER.fullmatch(line)) is not None:
        return Beyond(match["account"], match["statement"], tuple(re.findall(_ACCOUNT, match["roles"])))
    if (match := _DEFAULT.fullmatch(line) or _LOGIN.fullmatch(line)) is not None:
        return Beyond(match["account"], match["statement"], empty=True)
    return None


def _taken(line: str, database: str, now: str) -> Beyond | None:
    match = _TAKEN.fullmatch(line)
    if match is None:
        return None
    name = now if match["database"] == quote_name(database) else match["database"][1:-1].replace("``", "`")
    statement = f"REVOKE {match['what']} ON {quote_name(name)}.* FROM {match['account']}"
    return Beyond(match["account"], statement, empty=True, takes=True)
