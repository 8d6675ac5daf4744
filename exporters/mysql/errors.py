"""Translates PyMySQL's errors into the source errors, by the server's error number (MySQL error reference)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pymysql
from pymysql.constants import CR

from exporters.connections.silent_servers import silence_of
from exporters.errors import (
    SourceError,
    SourceGoneError,
    SourceNotAllowedError,
    SourceSnapshotLostError,
    SourceUnreachableError,
)
from exporters.sql.snapshots import snapshot_lost

DRIVER_ERRORS = (pymysql.Error, OSError, EOFError)
"""What the driver may raise while it talks to a server."""

_LOGIN = {1045, 1698, 1862, 1820, 3118, 4151, 2059, 2061}
_EXPIRED = {1820, 1862}
_NOT_GRANTED = {1044, 1142, 1143, 1227, 1370, 1095, 1290}
_NO_DATABASE = {1049}
_NO_TABLE = {1146, 1109, 1051}
_CHANGED = {1412}
_TOO_MANY = {1040, 1203, 1226}
_PASSING = {*_TOO_MANY, 1205, 1213, 1053, 1077, 1152, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 4031}
_ENDED = {1053, 1077, 1927, 4031}
"""The server shuts down, or has ended the session."""
_CLIENT_FROM, _CLIENT_TO = 2000, 2100
_ANSWERS = (pymysql.DatabaseError, pymysql.Warning)
"""The driver's errors that a server may have sent. The others are of a connection that an earlier error has closed."""
_NOT_CONNECTED = 2003
_TOO_LARGE = {1153, 1301}
_SYSTEM_TABLES = {1545, 1547, 1548, 1558, 1728, 1805}

_PASSWORD_STEP = "check user and password: the case file's, else MYSQL_PWD or ~/.my.cnf ([client] password=…)"  # noqa: S105
_EXPIRED_STEP = (
    "the password has expired: set a new one as this account (SET PASSWORD = …), and give that one here"
)
_GRANT_STEP = (
    "check the database's name; use an account with SELECT, SHOW VIEW, TRIGGER, EVENT and LOCK TABLES on it"
)
UPGRADE_STEP = (
    "system tables of the server are damaged or of another version: run mariadb-upgrade there (MySQL before 8.0.16: "
    "mysql_upgrade), then run the same command again"
)
_TOO_MANY_STEP = (
    "add --workers 1, or end other sessions of the account, or raise its limits"
    " (MAX_USER_CONNECTIONS); then run the same command again: finished work is kept"
)
LOCK_TIMEOUT = 1205
_LOCKED_STEP = (
    "another session has a lock: SHOW FULL PROCESSLIST lists all. End it, then run the same command again: finished"
    " work is kept"
)
_AGAIN_STEP = "check host, port and network, then run the same command again: finished work is kept"
_STEPS = {**dict.fromkeys(_TOO_MANY, _TOO_MANY_STEP), LOCK_TIMEOUT: _LOCKED_STEP}


_CLEAR_STEP = "write ssl-mode=verify_identity, or at least ssl-mode=required, into the URL"


class ClearPasswordError(pymysql.OperationalError):  # type: ignore[misc]  # PyMySQL has no types
    """A server asks for the password in clear, where others could read it."""

    def __init__(self) -> None:
        words = "the server asks for the password in clear, and the connection is not encrypted, so it was not sent"
        super().__init__(CR.CR_AUTH_PLUGIN_ERR, words)


def number_of(error: BaseException) -> int:
    """Return the server's or the client library's error number, or 0."""
    first = error.args[0] if isinstance(error, pymysql.Error) and error.args else 0
    return first if isinstance(first, int) else 0


def is_refused(error: BaseException) -> bool:
    """Tell whether the server has refused a statement, rather than gone away in the middle of it."""
    number = number_of(error)
    return number > 0 and not _CLIENT_FROM <= number < _CLIENT_TO


def is_about_the_thing(error: BaseException) -> bool:
    """Tell whether a statement was refused for what it names, and others may be fine: none that would pass later."""
    return is_refused(error) and number_of(error) not in _PASSING


def message_of(error: BaseException) -> str:
    """Return the server's message as one line."""
    text = str(error.args[1]) if isinstance(error, pymysql.Error) and len(error.args) > 1 else str(error)
    if isinstance(error, pymysql.err.InterfaceError):
        return "the connection has ended"
    return " ".join(text.split()) or type(error).__name__


def last_session_error(error: BaseException, source: str) -> SourceError:
    """Return the source error of the last session of a snapshot: it has ended, unless it has only refused something."""
    return translate(error, source) if is_refused(error) else snapshot_lost(source, message_of(error))


def has_ended(error: SourceUnreachableError) -> bool:
    """Tell whether a session has ended, by whomever."""
    cause = error.__cause__
    return cause is not None and (not is_refused(cause) or number_of(cause) in _ENDED)


@contextmanager
def as_source_errors(source: str) -> Iterator[None]:
    """Raise the drivers' errors as the source errors that they stand for; ``source``: see ``translate``."""
    try:
        yield
    except DRIVER_ERRORS as exc:
        raise translate(exc, source) from exc


def _login_error(error: BaseException, source: str) -> SourceNotAllowedError:
    if isinstance(error, ClearPasswordError):
        return SourceNotAllowedError(message_of(error), about=source, next_step=_CLEAR_STEP)
    return SourceNotAllowedError(
        f"the server refuses the login: {message_of(error)}",
        about=source,
        next_step=_EXPIRED_STEP if number_of(error) in _EXPIRED else _PASSWORD_STEP,
    )


def translate(error: BaseException, source: str) -> SourceError:
    """Return the source error that ``error`` stands for; ``where`` names what was being done or read."""
    number, message = number_of(error), message_of(error)
    if number in _LOGIN:
        return _login_error(error, source)
    if number in _NOT_GRANTED:
        return SourceNotAllowedError(message, about=source, next_step=_GRANT_STEP)
    if number in _NO_DATABASE:
        return SourceGoneError(message, about=source, next_step="check the database name in the URL")
    if number in _NO_TABLE:
        return SourceGoneError(
            message, about=source, next_step="it was dropped meanwhile; run the same command again"
        )
    if number in _CHANGED:
        return SourceSnapshotLostError(f"a table was altered since the snapshot: {message}", about=source)
    if number in _TOO_LARGE:
        return SourceError(
            message,
            about=source,
            next_step="raise max_allowed_packet on the server, then run the same command again",
        )
    if number in _SYSTEM_TABLES:
        return SourceError(message, about=source, next_step=UPGRADE_STEP)
    silence = silence_of(getattr(error, "original_exception", error))
    if number in {0, _NOT_CONNECTED} and silence is not None:
        return silence(message, about=source, next_step=_AGAIN_STEP)
    if number in _PASSING or _CLIENT_FROM <= number < _CLIENT_TO or not isinstance(error, _ANSWERS):
        step = _STEPS.get(number, _AGAIN_STEP)
        return SourceUnreachableError(message, about=source, next_step=step)
    return SourceError(message, about=source, next_step="the server's log says more")
