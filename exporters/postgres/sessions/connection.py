"""Connections: the URL, libpq's ways to a password, and the settings under which text means one thing only.

psycopg (libpq) is for control: it supports PGPASSWORD, ~/.pgpass, service files, sslmode. asyncpg is for the
stream of rows: it returns blocks where libpq returns one row a call. Both connect to the same server
as the same user.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import closing, suppress
from functools import partial
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import psycopg
from msgspec.structs import replace
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo, ExecStatus
from psycopg.pq.abc import PGconn

from exporters.connections.open_connections import keep_alive, waking, waking_socket
from exporters.connections.silent_servers import connected, silence_of
from exporters.discovery import no_database_error
from exporters.errors import (
    SourceError,
    SourceGoneError,
    SourceNotAllowedError,
    SourceSilentError,
    SourceUnreachableError,
    SourceUsageError,
)
from exporters.postgres.errors import DRIVER_ERRORS, in_one_line, silent_error, sqlstate, translate
from exporters.postgres.identifiers import quote_name
from exporters.structs import WithSecrets

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 15
_PORTS = 2**16
_UNKNOWN_OPTION = re.compile(r'invalid URI query parameter: "([^"]*)"')
MAINTENANCE_DATABASES = ("postgres", "template1")
"""Databases that every server has: by one of them the others are listed and made."""

PINNED: Mapping[str, str] = {
    "datestyle": "ISO, MDY",
    "intervalstyle": "iso_8601",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "search_path": "",
    "lc_monetary": "C",
    "xmloption": "content",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "quote_all_identifiers": "off",
    "client_min_messages": "error",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "row_security": "off",
    "synchronize_seqscans": "off",
    "exit_on_error": "off",
    "jit": "off",
}
"""Settings on which the text of a value, or the life of a long session, depends. ``row_security = off``
makes a policy that would hide rows an error. A server that does not know one of them does without.
"""


_OWN_SESSIONS: set[str] = set()
"""The databases, by their URLs, of which it is known that a connection keeps its session."""
_PROCESS = b"SELECT pg_catalog.pg_backend_pid()"
_PROCESS_QUESTIONS, _PROCESS_SECONDS = 3, 2.0
"""How often it is asked for that: the application may just use the same session. How long we wait for the answer of
another connection.
"""
_CANCELLED_SECONDS = 5.0
"""How long the first statements of a connection are repeated where the server cancels them."""
_QUERY_CANCELED = "57014"
AS_BEGUN = ("datestyle", "intervalstyle", "timezone", "extra_float_digits", "bytea_output", "xmloption")
"""Settings on which the text depends that a database's own code makes of values, in a materialized view say: there hold
those with which the source's sessions begin.
"""
_MEANING = (
    "array_nulls", "backslash_quote", "default_text_search_config", "default_transaction_isolation",
    "idle_in_transaction_session_timeout", "lo_compat_privileges", "lock_timeout", "search_path",
    "session_replication_role", "standard_conforming_strings", "statement_timeout", "transform_null_equals",
    "xmlbinary",
)  # fmt: skip
"""More settings on which it depends what an application's statements do."""
_OF_ALL_SESSIONS = ("PGTZ", "PGDATESTYLE")
"""Variables by which libpq changes what a session begins with, here and in pg_dump: we ask what that is."""
_BEGUN = "SELECT lower(name), reset_val FROM pg_catalog.pg_settings WHERE lower(name) = ANY (%s)"


def pin_statement() -> str:
    """Return the statements that pin every setting the server has, and set UTF-8, for one request. They ask for single
    settings: to list all of them takes a server longer than all else that a session begins with. A short timeout of the
    role's goes first: it would end the others (from PostgreSQL 11 on each statement has its own).
    """
    values = ", ".join(f"('{name}', '{value}')" for name, value in PINNED.items())
    return (
        "SET statement_timeout = 0;"
        " SELECT pg_catalog.count(pg_catalog.set_config(w.name, w.value, false))"
        f" FROM (VALUES {values}) AS w(name, value) WHERE pg_catalog.current_setting(w.name, true) IS NOT NULL;"
        " SELECT pg_catalog.set_config('client_encoding', 'UTF8', false)"
    )


class PostgresAddress(WithSecrets, frozen=True):
    """Where a database is: libpq's keywords, never with a password. ``url`` is what may be shown.
    ``password`` is one that was given apart from the URL; without it libpq looks where it always looks.
    """

    SECRETS: ClassVar[frozenset[str]] = frozenset({"password"})

    url: str
    keywords: Mapping[str, str]
    password: str | None = None

    @property
    def secrets(self) -> dict[str, str]:
        """The password as a keyword argument of a driver, where one was given."""
        return {"password": self.password} if self.password else {}

    def to_database(self, name: str) -> PostgresAddress:
        """Return the address of another database of the same server. ``url`` stays as it is."""
        return replace(self, keywords={**self.keywords, "dbname": name})

    def environment(self, connection: psycopg.Connection[Any]) -> dict[str, str]:
        """Return the variables with which libpq programs (pg_dump) reach the same database as a ``connection`` to it,
        without a secret on their command line. For them a service file would count for more than what the URL says.
        """
        options = Conninfo.get_defaults()
        names = {option.keyword.decode(): option.envvar.decode() for option in options if option.envvar}
        words = {option.keyword.decode(): (option.val or b"").decode() for option in connection.pgconn.info}
        words |= {**self.keywords, "password": connection.info.password, "service": ""}
        variables = {name: value for name, value in os.environ.items() if name not in names.values()}
        return variables | {names[word]: value for word, value in words.items() if word in names and value}


def parse_url(url: str, secrets: Mapping[str, str] = {}) -> PostgresAddress:
    """Read ``postgresql://user@host:port/db?sslmode=…``. Raises ``SourceUsageError``, also for a password in it, and
    where nothing names a database: libpq would take the one that is called like the user. ``secrets`` may have a
    ``password``.
    """
    address = parse_server_url(url, secrets)
    if not {"dbname", "service"} & {*address.keywords} and not {"PGDATABASE", "PGSERVICE"} & {*os.environ}:
        raise no_database_error(address.url)
    return address


def _unreadable(url: str, reason: str) -> SourceUsageError:
    """Return the error of a URL that libpq cannot take apart, for its ``reason``. What may be a password is not
    repeated.
    """
    unknown = _UNKNOWN_OPTION.search(reason)
    if unknown is not None and "@" not in url.partition("?")[2]:
        from difflib import get_close_matches  # noqa: PLC0415  few options are misspelt

        close = get_close_matches(
            unknown[1], [option.keyword.decode() for option in Conninfo.get_defaults()], 1
        )
        return SourceUsageError(
            f"the database URL has an option {unknown[1]!r}, which PostgreSQL does not have",
            next_step=f"did you mean {close[0]!r}?" if close else "correct it, or take it out of the URL",
        )
    if " " in url and ":" not in url.partition("://")[2].rpartition("@")[0]:
        return SourceUsageError(
            f"{url!r}: a URL has no spaces", next_step=f"write it as {url.replace(' ', '%20')}"
        )
    return SourceUsageError(
        "the database URL cannot be read", next_step="write it as postgresql://user@host:port/database"
    )


def parse_server_url(url: str, secrets: Mapping[str, str] = {}) -> PostgresAddress:
    """Read the URL of a whole server: ``postgresql://user@host:port``. A database that it names is one to connect to.
    Raises ``SourceUsageError``.
    """
    try:
        keywords = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error as exc:
        raise _unreadable(url, str(exc)) from None
    if "password" in keywords:
        raise SourceUsageError(
            f"the URL of {_shown(keywords)} contains a password, which would end up in process lists and logs",
            next_step="take it out of the URL and set PGPASSWORD, or add it to ~/.pgpass",
        )
    for port in filter(None, keywords.get("port", "").split(",")):
        if not (port.isdecimal() and 0 < int(port) < _PORTS):
            raise SourceUsageError(
                f"{_shown(keywords)}: {port} is no port", next_step="a port is a number from 1 to 65535"
            )
    return PostgresAddress(_shown(keywords), keywords, secrets.get("password"))


def _shown(keywords: Mapping[str, str]) -> str:
    user = quote(keywords["user"], safe="") + "@" if keywords.get("user") else ""
    hosts = (keywords.get("host") or keywords.get("hostaddr") or "").split(",")
    ports = keywords.get("port", "").split(",")
    ports *= len(hosts) if len(ports) == 1 else 1
    addresses = ",".join(map(_shown_address, hosts, ports))
    database = quote(keywords.get("dbname", ""), safe="")
    options = ("hostaddr", "service", "sslmode") if keywords.get("host") else ("service", "sslmode")
    shown_options = {word: keywords[word] for word in options if word in keywords}
    return f"postgresql://{user}{addresses}/{database}" + (
        "?" + urlencode(shown_options) if shown_options else ""
    )


def _shown_address(host: str, port: str) -> str:
    return (f"[{host}]" if ":" in host else quote(host, safe="")) + (f":{port}" if port else "")


def connect(
    address: PostgresAddress, application: str = "moveout", *, settings: str = "", **own: str
) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a control connection, autocommit, with pinned settings. ``settings``: statements that set more of them;
    ``own``: more keywords of libpq. Who waits for a silent server: see ``silent_servers``. Raises ``SourceError``.
    """
    return connected(address.url, lambda: connect_once(address, application, settings=settings, **own))


def pinned(address: PostgresAddress, connection: psycopg.Connection[Any]) -> PostgresAddress:
    """Return the address of the one server that a connection has reached, where a name has several addresses. Its
    certificate is still compared with the name.
    """
    info = connection.info
    server = {"host": info.host, "hostaddr": info.hostaddr, "port": str(info.port)}
    others = {word: value for word, value in address.keywords.items() if word not in server}
    return replace(address, keywords={**others, **{word: value for word, value in server.items() if value}})


def file_number(connection: psycopg.Connection[Any]) -> int:
    """Return the number of the file of a connection's socket."""
    return connection.fileno()


def connect_once(
    address: PostgresAddress, application: str = "moveout", *, settings: str = "", **own: str
) -> psycopg.Connection[tuple[Any, ...]]:
    """Like ``connect``, but do not wait for a silent server."""
    for variable in _OF_ALL_SESSIONS:
        os.environ.pop(variable, None)
    # Python has no codec for some other encodings.
    own_keywords = {"application_name": application, "client_encoding": "UTF8", **own}
    keywords = {"connect_timeout": str(CONNECT_SECONDS), **address.keywords, **own_keywords}
    _log.info("connecting to %s, database %s", address.url, keywords.get("dbname", ""))
    log_in = partial(psycopg.connect, "", autocommit=True, **keywords, **address.secrets)  # type: ignore[arg-type]
    try:
        connection = _logged_in(address.url, log_in)
    except psycopg.errors.ConnectionTimeout as exc:
        raise silent_error(exc, address.url) from exc
    except psycopg.Error as exc:
        raise _why_not(address, exc, log_in) from exc
    waking_socket(address.url, connection, file_number)
    try:
        _require_own_session(address.url, connection, log_in)
        uncancelled(lambda: connection.execute(f"{pin_statement()}; {settings}".encode()))
    except psycopg.Error as exc:
        connection.close()
        raise _refused(exc, address.url) from exc
    except SourceUsageError:
        connection.close()
        raise
    connection.prepare_threshold = None
    if not any(word.startswith("keepalives") for word in (*own, *address.keywords)):
        keep_alive(connection.fileno())
    return connection


def uncancelled(statements: Callable[[], Any]) -> Any:
    """Run the first statements of a connection, again where they are cancelled, and return their result. A role's
    timeout of a few milliseconds ends any of them at random, even the one that switches it off, and as a request of the
    user where its signal is late (ProcessInterrupts in src/backend/tcop/postgres.c). Raises the driver's errors.
    """
    deadline = time.monotonic() + _CANCELLED_SECONDS
    while True:
        try:
            return statements()
        except Exception as exc:
            if sqlstate(exc) != _QUERY_CANCELED or time.monotonic() > deadline:
                raise


def _logged_in(
    url: str, log_in: Callable[[], psycopg.Connection[tuple[Any, ...]]]
) -> psycopg.Connection[tuple[Any, ...]]:
    """Log in by a thread of its own: whoever waits for that can be woken, which libpq cannot."""
    login = waking(url, Future[psycopg.Connection[tuple[Any, ...]]](), _give_up)

    def run() -> None:
        try:
            connection = log_in()
        except BaseException as exc:
            with suppress(InvalidStateError):
                login.set_exception(exc)
            return
        try:
            login.set_result(connection)
        except InvalidStateError:
            connection.close()

    threading.Thread(target=run, name="moveout-login", daemon=True).start()
    return login.result()


def _give_up(login: Future[Any]) -> None:
    login.set_exception(psycopg.errors.ConnectionTimeout("the login was ended"))


def _require_own_session(
    url: str, connection: psycopg.Connection[Any], log_in: Callable[[], psycopg.Connection[Any]]
) -> None:
    """Raise ``SourceUsageError`` where a pooler gives each transaction a session of its own: our settings would reach
    the application, and ours would not be there in our next transaction. A pooler shows, since it names itself where a
    server names its process.
    """
    if url in _OWN_SESSIONS:
        return
    process = _own_process(connection)
    if process != connection.info.backend_pid:
        with suppress(psycopg.Error), closing(log_in()) as other:
            for _ in range(_PROCESS_QUESTIONS):
                others = uncancelled(lambda: _process_of(other.pgconn))
                if others is None:
                    break  # it waits for a session of its own
                if others == process or _own_process(connection) != process:
                    raise session_changes(url)
    _OWN_SESSIONS.add(url)


def _own_process(connection: psycopg.Connection[Any]) -> int:
    """Return the number of the process of the server that answers now. Raises the driver's errors."""
    (process,) = uncancelled(lambda: connection.execute(_PROCESS).fetchone())
    return int(process)


def _process_of(wire: PGconn) -> int | None:
    """Like ``_own_process``, but return None where no process answers soon."""
    wire.send_query(_PROCESS)
    deadline = time.monotonic() + _PROCESS_SECONDS
    while wire.flush() or wire.is_busy():
        if time.monotonic() > deadline:
            return None
        wait_for_server(wire, deadline - time.monotonic())
        wire.consume_input()
    result = wire.get_result()
    while wire.get_result() is not None:
        pass
    if result is None or result.status != ExecStatus.TUPLES_OK:
        raise psycopg.errors.error_from_result(result) if result else psycopg.OperationalError("no answer")
    return int(result.get_value(0, 0) or 0)


def session_changes(url: str) -> SourceUsageError:
    """Return the error that a pooler does not keep sessions."""
    return SourceUsageError(
        "a pooler gives each transaction a session of its own, so settings would reach others",
        about=url,
        next_step="let the pooler keep sessions (pool_mode = session), or give the URL of the server itself",
    )


def connect_to_server(
    address: PostgresAddress, databases: Iterable[str] = MAINTENANCE_DATABASES
) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect to the first of some databases of a server that lets this role in. Raises the first ``SourceError``."""
    refusals: list[SourceError] = []
    for database in databases:
        try:
            return connect(address.to_database(database))
        except (SourceNotAllowedError, SourceGoneError) as exc:
            refusals.append(exc)
    raise refusals[0]


_SETTINGS_STEP = "check the settings in the URL and in variables (PGSSLMODE, PGSERVICE, PGOPTIONS, …)"


def session_settings(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Return with which settings a session of the database begins, of those on which its values and an application's
    statements depend: without what PGOPTIONS or the URL set in ours, where it gets in so. Raises the driver's errors.
    """
    parameters = connection.info.get_parameters()
    if parameters.get("options"):
        address = PostgresAddress(_shown(parameters), parameters, connection.info.password or None)
        with suppress(SourceError), closing(connect(address, options="")) as plain:
            return dict(plain.execute(_BEGUN, ([*AS_BEGUN, *_MEANING],)).fetchall())
    return dict(connection.execute(_BEGUN, ([*AS_BEGUN, *_MEANING],)).fetchall())


_SYSTEM_IDENTIFIER = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"


def wait_for_server(wire: PGconn, seconds: float) -> None:
    """Wait until a server has sent something, for so long at most. Any number of files may be open."""
    poll = select.poll()  # select.select takes no file beyond the number 1023
    poll.register(wire.socket, select.POLLIN)
    poll.poll(max(seconds, 0) * 1000)


def system_identifier(connection: psycopg.Connection[Any]) -> str:
    """Return what identifies the server, "" where this role may not read it."""
    with suppress(*DRIVER_ERRORS):
        row = connection.execute(_SYSTEM_IDENTIFIER).fetchone()
        if row is not None:
            return str(row[0])
    return ""


def _why_not(
    address: PostgresAddress, error: psycopg.Error, log_in: Callable[[], psycopg.Connection[Any]]
) -> SourceError:
    """Find out why libpq could not connect. Its messages are in the server's language only, so the reason is asked
    for a second time by the driver that returns the SQLSTATE. Where that one gets in, and libpq once more does not, the
    reason is one of libpq's settings.
    """
    if sqlstate(error):
        return translate(error, address.url)
    import asyncpg  # noqa: PLC0415  a login is rarely refused, and rows are read later

    parameters = _parameters(error)
    # What libpq demands holds here, too: whoever answers in the server's place is given no password.
    needs_libpq = _only_libpq_keeps({**address.keywords, **parameters})
    try:
        # libpq has warned of a password file that others may read.
        with warnings.catch_warnings(action="ignore"):
            asyncio.run(_log_in_and_out(_probe_options(address, error, parameters, needs_libpq=needs_libpq)))
        log_in().close()
    except (psycopg.Error, ValueError, ssl.SSLError):
        return _kept_out(address, error)
    except asyncpg.PostgresError as exc:
        if needs_libpq and sqlstate(exc).startswith("28"):
            step = f"check user and password, and {_SETTINGS_STEP.removeprefix('check ')}"
            return SourceNotAllowedError(in_one_line(error), about=address.url, next_step=step)
        refusal = _refused(exc, address.url)
        if isinstance(exc, asyncpg.InsufficientPrivilegeError) and error.pgconn:
            names = (error.pgconn.db, error.pgconn.user)
            database, role = (quote_name(name.decode(errors="replace")) for name in names)
            grant = f"as its owner or a superuser: GRANT CONNECT ON DATABASE {database} TO {role}"
            refusal.next_step = grant if exc.server_source_function == _ASKS_FOR_CONNECT else _HOOK_STEP
        return refusal
    except (*DRIVER_ERRORS, asyncpg.InterfaceError, RuntimeError) as exc:
        if (silence := silence_of(exc)) is not None:
            return _unanswered(address, error, silence)
        if _REFUSES_TLS in str(exc):
            return _kept_out(address, error)
    message = str(error)
    if "no password supplied" in message:  # libpq's own sentence, raised before the server could answer
        return translate(asyncpg.InvalidPasswordError(message), address.url)
    return translate(error, address.url)


def _refused(error: BaseException, url: str) -> SourceError:
    """Return the error of a login or of a first statement that is refused, maybe by a pooler."""
    refusal = translate(error, url)
    if sqlstate(error) == _BY_A_POOLER:
        refusal.next_step = _POOLER_STEP
    return refusal


def _unanswered(address: PostgresAddress, error: psycopg.Error, kind: type[SourceSilentError]) -> SourceError:
    """Return the error where the second login has had no answer; libpq may have had one."""
    if not _OF_A_SERVER.search(str(error)):
        return silent_error(error, address.url, kind)
    return SourceUnreachableError(in_one_line(error), about=address.url, next_step=_POOLER_STEP)


_ASKS_FOR_CONNECT = "CheckMyDatabase"
"""The function of a server that asks for the right CONNECT (src/backend/utils/init/postinit.c)."""
_HOOK_STEP = (
    "code of the database refuses this role when it logs in (an event trigger ON login, or a module): let it in there,"
    " or use a role that it lets in"
)
_OF_A_SERVER = re.compile(r": \w+:  ")
"""How libpq begins what a server has answered: ``FATAL:  ``, in the server's language."""
_POOLER_STEP = (
    "a pooler answers for the server, which has not let it in: see the pooler's log, or give the URL of the server"
    " itself"
)
_BY_A_POOLER = psycopg.errors.ProtocolViolation.sqlstate
"""PgBouncer has this code for all its errors. It may let us in, and answer the first statement with the
server's refusal.
"""
_REFUSES_TLS = "rejected SSL upgrade"
"""asyncpg's words; its minor version is pinned."""


def _kept_out(address: PostgresAddress, error: psycopg.Error) -> SourceUsageError:
    return SourceUsageError(in_one_line(error), about=address.url, next_step=_SETTINGS_STEP)


def _parameters(error: psycopg.Error) -> dict[str, str]:
    """Return by what libpq has tried to connect: keywords of the URL, of variables and of service files."""
    options = error.pgconn.info if error.pgconn else []
    return {option.keyword.decode(): option.val.decode(errors="replace") for option in options if option.val}


def _probe_options(
    address: PostgresAddress, error: psycopg.Error, parameters: Mapping[str, str], *, needs_libpq: bool
) -> dict[str, Any]:
    """Return asyncpg's arguments for the login that libpq has failed at; ``needs_libpq``: without the password."""
    keywords = address.keywords
    password = error.pgconn.password if error.pgconn else b""  # also where it stood in a file
    given = (password.decode(errors="replace") if password else address.password) or None
    host = keywords.get("host") or keywords.get("hostaddr")
    is_socket = (host or "").startswith("/")
    return {
        "host": host,
        "port": int(keywords["port"]) if "port" in keywords else None,
        "user": keywords.get("user"),
        "database": keywords.get("dbname"),
        "password": "" if needs_libpq else given,
        "target_session_attrs": "any",
        "timeout": CONNECT_SECONDS,
    } | ({"ssl": False} if is_socket else _tls_options(parameters))


async def _log_in_and_out(options: dict[str, Any]) -> None:
    import asyncpg  # noqa: PLC0415  as above

    connection = await asyncpg.connect(**options)
    await connection.close()


_TLS_WORDS = (
    "sslrootcert", "sslcert", "sslkey", "sslcrl", "ssl_min_protocol_version", "ssl_max_protocol_version",
)  # fmt: skip
_LIBPQ_DEMANDS = ("require_auth", "requirepeer", "sslcrldir")
_DEMANDING = ("channel_binding", "gssencmode", "sslcertmode")


def _only_libpq_keeps(parameters: Mapping[str, str]) -> bool:
    """Tell whether a connection is to have a property that asyncpg does not see to."""
    return any(parameters.get(word) for word in _LIBPQ_DEMANDS) or any(
        parameters.get(word) == "require" for word in _DEMANDING
    )


def needs_libpq(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether another driver must not log in where ``connection`` is: see ``_only_libpq_keeps``."""
    return _only_libpq_keeps(connection.info.get_parameters())


def _tls_options(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return asyncpg's arguments for TLS as libpq's parameters say."""
    mode = parameters.get("sslmode", "prefer")
    files = {word: parameters[word] for word in _TLS_WORDS if word in parameters}
    return {"dsn": "postgresql:///?" + urlencode({**files, "sslmode": mode})} if files else {"ssl": mode}


def row_connection_options(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """Return asyncpg's arguments for a connection to where ``connection`` is, as the same user."""
    info = connection.info
    parameters = info.get_parameters()
    options: dict[str, Any] = {
        "host": info.host or parameters.get("hostaddr"),
        "port": info.port,
        "user": info.user,
        "password": info.password or "",  # of None asyncpg asks files of its own
        "database": info.dbname,
        "timeout": CONNECT_SECONDS,
        "target_session_attrs": "any",
        "statement_cache_size": 0,
        "server_settings": {"application_name": parameters.get("application_name", "moveout")},
    }
    if not connection.pgconn.ssl_in_use:
        return options | {"ssl": False}
    is_advised = parameters.get("sslmode", "prefer") in {"prefer", "allow"}
    return options | _tls_options(parameters | ({"sslmode": "require"} if is_advised else {}))
