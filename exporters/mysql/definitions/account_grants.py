"""What accounts may do, and how they may log in: statements without passwords."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pymysql

from exporters.api import Loss
from exporters.mysql.connection import Connection
from exporters.mysql.errors import message_of
from exporters.mysql.identifiers import quote_literal, quote_name

_ACCOUNTS = "SELECT User, Host, {is_role} FROM mysql.user WHERE {named}"
_DEFAULT_ROLES = (
    "SELECT USER, HOST, DEFAULT_ROLE_USER, DEFAULT_ROLE_HOST FROM mysql.default_roles ORDER BY 1, 2, 3, 4"
)
_EVERYBODY = "PUBLIC"
OWN_ACCOUNT = "CURRENT_USER()"
"""What is known where the accounts are hidden from this one."""
_PASSWORD = re.compile(
    r" IDENTIFIED (BY PASSWORD|BY|VIA|WITH) .*?(?= REQUIRE | WITH GRANT OPTION| WITH MAX_| ACCOUNT |$)"
)
_LOGINS = (
    "SELECT User, Host, ssl_type, CONVERT(x509_subject USING utf8mb4), CONVERT(x509_issuer USING utf8mb4),"
    " CONVERT(ssl_cipher USING utf8mb4), max_questions, max_updates, max_connections, max_user_connections"
    " FROM mysql.user WHERE ssl_type <> '' OR max_questions + max_updates + max_connections + max_user_connections > 0"
    " ORDER BY 1, 2"
)
_TLS = {"": "NONE", "ANY": "SSL", "X509": "X509"}
_CERTIFICATE = ("SUBJECT", "ISSUER", "CIPHER")
_LIMITS = (
    *("MAX_QUERIES_PER_HOUR", "MAX_UPDATES_PER_HOUR"),
    *("MAX_CONNECTIONS_PER_HOUR", "MAX_USER_CONNECTIONS"),
)

_NAMED = "User NOT IN ('', 'mariadb.sys', 'mysql.sys', 'mysql.session', 'mysql.infoschema')"
_MORE = {
    True: f"SELECT User, Host FROM mysql.global_priv WHERE {_NAMED}"
    " AND JSON_CONTAINS_PATH(Priv, 'one', '$.password_lifetime')",
    False: f"SELECT User, Host FROM mysql.user WHERE {_NAMED} AND (coalesce(password_lifetime,"
    " Password_reuse_history, Password_reuse_time, Password_require_current) IS NOT NULL"
    " OR JSON_LENGTH(JSON_REMOVE(User_attributes, '$.Restrictions')) > 0)",
}
"""Accounts with properties that are not exported, by whether the server is MariaDB."""
_PASSWORDS = "('', 'mysql_native_password', 'mysql_old_password', 'sha256_password', 'caching_sha2_password')"
_PLUGINS = {
    True: f"SELECT User, Host, CONCAT_WS(', ', JSON_VALUE(Priv, '$.plugin'), REPLACE(TRIM('[' FROM TRIM(']' FROM"
    f" JSON_EXTRACT(Priv, '$.auth_or[*].plugin'))), '\"', '')) FROM mysql.global_priv WHERE {_NAMED}"
    f" AND (JSON_VALUE(Priv, '$.plugin') NOT IN {_PASSWORDS} OR JSON_CONTAINS_PATH(Priv, 'one', '$.auth_or')"
    " AND NOT (User IN ('root', 'mysql') AND Host = 'localhost')) ORDER BY 1, 2",
    False: f"SELECT User, Host, plugin FROM mysql.user WHERE {_NAMED} AND plugin NOT IN {_PASSWORDS} ORDER BY 1, 2",
}
"""Accounts that do not log in by a password alone, by whether the server is MariaDB, which makes two of them itself."""
_ANONYMOUS = "SELECT User, Host FROM mysql.user WHERE User = '' ORDER BY 2"
_PROXY = re.compile(r"GRANT PROXY ON (?!''@|``@)")


def read_grants(connection: Connection, losses: list[Loss]) -> str:
    """Return the GRANT statements of all accounts, without passwords; an account's own ones, if others are hidden."""
    losses.append(
        Loss("accounts", "password", "a bundle holds no secrets; set the passwords on the destination")
    )
    lines = [statement for statements in _shown(connection, losses).values() for statement in statements]
    _more(connection, losses)
    if not connection.is_mariadb:
        lines += [*_default_roles(connection, losses).values(), *_logins(connection, losses).values()]
    return "\n".join(lines) + "\n" if lines else ""


def grants_by_account(connection: Connection) -> dict[str, list[str]]:
    """Return the same statements by account, as far as they can be read."""
    losses: list[Loss] = []
    statements = _shown(connection, losses)
    if not connection.is_mariadb:
        for read in (_default_roles, _logins):
            for account, statement in read(connection, losses).items():
                statements.setdefault(account, []).append(statement)
    return statements


def _shown(connection: Connection, losses: list[Loss]) -> dict[str, list[str]]:
    """Return what SHOW GRANTS has of each account."""
    try:
        query = _ACCOUNTS.format(is_role="is_role = 'Y'" if connection.is_mariadb else "0", named=_NAMED)
        accounts = [_account(*row) for row in connection.rows(query)]
    except pymysql.Error as exc:
        losses.append(Loss("accounts", "grants", f"only this account's are known: {message_of(exc)}"))
        accounts = [OWN_ACCOUNT]
    statements: dict[str, list[str]] = {}
    for account in accounts:
        try:
            grants = [str(grant) for (grant,) in connection.rows(f"SHOW GRANTS FOR {account}")]
        except pymysql.Error as exc:
            losses.append(Loss(f"account {account}", "grants", message_of(exc)))
            continue
        statements[account] = [_PASSWORD.sub("", grant) + ";" for grant in grants]
        losses += [
            Loss(f"account {account}", "PROXY", f"set it again on the destination: {grant}")
            for grant in grants
            if _PROXY.match(grant)
        ]
    return statements


def _more(connection: Connection, losses: list[Loss]) -> None:
    """Note the accounts whose passwords expire or must differ from earlier ones, that have attributes, that log in by a
    plugin, or that are anybody's.
    """
    aspect, reason = "expiry and history of its password, attributes", "set them again on the destination"
    for user, host in _rows(connection, _MORE[connection.is_mariadb], aspect, losses):
        losses.append(Loss(f"account {quote_literal(user)}@{quote_literal(host)}", aspect, reason))
    for user, host, plugin in _rows(connection, _PLUGINS[connection.is_mariadb], "plugins of logins", losses):
        reason = f"it logged in by {plugin}; set that again on the destination"
        losses.append(Loss(f"account {quote_literal(user)}@{quote_literal(host)}", "plugin", reason))
    for user, host in _rows(connection, _ANONYMOUS, "anonymous ones", losses):
        reason = "it is anonymous, and would take the logins of others; make it again on the destination"
        losses.append(Loss(f"account {quote_literal(user)}@{quote_literal(host)}", "all of it", reason))


def _rows(connection: Connection, query: str, aspect: str, losses: list[Loss]) -> Sequence[Any]:
    """Return a query's rows about all accounts; nothing, and a loss, where they are hidden."""
    try:
        return connection.rows(query)
    except pymysql.Error as exc:
        losses.append(Loss("accounts", aspect, message_of(exc)))
        return []


def _default_roles(connection: Connection, losses: list[Loss]) -> dict[str, str]:
    """Return by account what MySQL's SHOW GRANTS does not say; MariaDB's does."""
    rows = _rows(connection, _DEFAULT_ROLES, "default roles", losses)
    roles: dict[tuple[str, str], list[str]] = {}
    for user, host, role, role_host in rows:
        roles.setdefault((user, host), []).append(f"{quote_name(role)}@{quote_name(role_host)}")
    return {
        _account(user, host): f"SET DEFAULT ROLE {', '.join(names)} TO {quote_name(user)}@{quote_name(host)};"
        for (user, host), names in roles.items()
    }


def _logins(connection: Connection, losses: list[Loss]) -> dict[str, str]:
    """Return by account what else MySQL's SHOW GRANTS does not say: by which TLS it may log in, and how often."""
    statements = {}
    for user, host, tls, *details in _rows(connection, _LOGINS, "TLS and limits", losses):
        certificate = dict(zip(_CERTIFICATE, details, strict=False))
        parts = [f"{word} {quote_literal(value)}" for word, value in certificate.items() if value]
        require = _TLS.get(tls) or " AND ".join(parts)
        limits = [f" {word} {number}" for word, number in zip(_LIMITS, details[3:], strict=True) if number]
        account = f"{quote_name(user)}@{quote_name(host)}"
        words = f"ALTER USER {account} REQUIRE {require}{' WITH' * bool(limits)}{''.join(limits)};"
        statements[_account(user, host)] = words
    return statements


def _account(user: str, host: str, is_role: int = 0) -> str:
    """Return how an account is written; MariaDB's roles are of no host."""
    if is_role:
        return user if user == _EVERYBODY else quote_name(user)
    return f"{quote_literal(user)}@{quote_literal(host)}"
