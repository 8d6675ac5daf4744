"""Connections: the URL, the ways to a password, TLS, and the settings under which text means one thing only."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

import pymysql

from exporters.connections.open_connections import keep_alive, shut_socket, waking_socket
from exporters.connections.silent_servers import FIRST_ANSWER_SECONDS, connected
from exporters.discovery import no_database_error
from exporters.errors import SourceError, SourceUnreachableError, SourceUsageError
from exporters.host_address import is_local
from exporters.mysql.errors import DRIVER_ERRORS, as_source_errors, is_refused, number_of, translate
from exporters.mysql.identifiers import quote_literal
from exporters.mysql.sessions.driver_connection import DriverConnection
from exporters.structs import WithSecrets

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 15
GREETING_SECONDS = FIRST_ANSWER_SECONDS
"""How long a server may send nothing in the middle of a login. Before it greets, it may ask for the client's name."""
LOCK_SECONDS = 60
SCHEMES = ("mysql", "mariadb")

DEFINING_MODE = "ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO"
"""The ``sql_mode`` of every session, and the one for what SHOW CREATE prints of tables and views: with backslashes
before quotes and backslashes. Servers read some of a definition anew by the mode of whoever opens the table: MariaDB
the clause of partitions, MySQL what defaults compute. Without escapes they would read another one, or none.
"""
_KEEPS_OPTIONS = "IGNORE_BAD_TABLE_OPTIONS"
"""Added to it on MariaDB, which keeps options of tables that it does not know, but else prints them as comments."""

PINNED: Mapping[str, str] = {
    "time_zone": "'+00:00'",
    "sql_quote_show_create": "1",
    "wait_timeout": "2147483",
    "net_read_timeout": "3600",
    "net_write_timeout": "3600",
    "lock_wait_timeout": str(LOCK_SECONDS),
    "foreign_key_checks": "0",
    "unique_checks": "1",
    "autocommit": "1",
    "completion_type": "0",
    "sql_big_selects": "1",
    "sql_select_limit": "18446744073709551615",
    "sql_safe_updates": "0",
    "sql_auto_is_null": "0",
    "lc_time_names": "'en_US'",
    "default_week_format": "0",
    "div_precision_increment": "4",
}
"""Settings on which the text of a value, what a statement returns or may do, or the life of a long session depends;
every server has them. A limit of a server, as for its customers, would cut the list of tables short. A shorter
``wait_timeout`` would free the tables of a machine that vanished, but it is not safe: a session asks nothing while its
rows are written to the location. Where that is slow (2 MB at 75 kB/s), one of 3 s has ended every session of a snapshot
twice.
"""

_OPTIONAL: Mapping[str, str] = {
    "tx_read_only": "0",
    "transaction_read_only": "0",
    "max_statement_time": "0",
    "max_execution_time": "0",
    "idle_transaction_timeout": "0",
    "idle_readonly_transaction_timeout": "0",
    "information_schema_stats_expiry": "0",
    "explicit_defaults_for_timestamp": "1",
    "sql_require_primary_key": "0",
    "sql_generate_invisible_primary_key": "0",
    "show_create_table_skip_secondary_engine": "0",
    "show_gipk_in_create_table_and_information_schema": "1",
    "check_constraint_checks": "0",
    "innodb_strict_mode": "0",
    "restrict_fk_on_non_standard_key": "0",
    "use_stat_tables": "'never'",
    "alter_algorithm": "'DEFAULT'",
    "sql_if_exists": "0",
}
"""Settings that some servers know; a server that refuses one does without."""

_optional_names_by_server: dict[tuple[str, int, str | None, str], Sequence[str]] = {}
_TAKES_HISTORY = (10, 11)
_COMMENTS_DATABASES = (10, 5)
_MODES = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
_WORDS = ("ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "socket")
_MAY_NEED_TLS = {1045, 3159}
"""Accounts that require TLS are refused like wrong passwords (1045)."""
_URL_STEP = "write it as mysql://user@host:port/database"


class MysqlAddress(WithSecrets, frozen=True):
    """Where a database is, never with a password. ``url`` is what may be shown. ``password`` is one that was given
    apart from the URL; without it MYSQL_PWD and then the option file ~/.my.cnf are asked.
    """

    SECRETS: ClassVar[frozenset[str]] = frozenset({"password"})

    url: str
    host: str
    port: int
    user: str
    database: str
    options: Mapping[str, str]
    password: str | None = None

    @property
    def local(self) -> bool:
        """Whether the server is on this machine, so that the traffic crosses no network."""
        return bool(self.options.get("socket")) or is_local(self.host)

    @property
    def ssl_mode(self) -> str:
        """How TLS is used. Who names an authority or a certificate wants it, as with MySQL's own clients."""
        usual = (
            "verify_ca"
            if "ssl-ca" in self.options
            else "required"
            if "ssl-cert" in self.options
            else "preferred"
        )
        return self.options.get("ssl-mode", usual).lower()


def parse_url(url: str, secrets: Mapping[str, str] = {}) -> MysqlAddress:
    """Read ``mysql://user@host:port/db?ssl-mode=…``. Raises ``SourceUsageError``, also for a password in it.
    ``secrets`` may have a ``password``.
    """
    address = parse_server_url(url, secrets)
    if not address.database:
        raise no_database_error(address.url)
    return address


def parse_server_url(url: str, secrets: Mapping[str, str] = {}) -> MysqlAddress:
    """Read the URL of a whole server: ``mysql://user@host:port``, perhaps with a database. Raises
    ``SourceUsageError``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
    except ValueError:
        raise SourceUsageError("the database URL cannot be read", next_step=_URL_STEP) from None
    path = parts.path.removeprefix("/")
    database = unquote(path)
    user, host = unquote(parts.username or ""), unquote(parts.hostname or "")
    if parts.scheme not in SCHEMES or "/" in path:
        raise SourceUsageError("the database URL cannot be read", next_step=_URL_STEP)
    options = {word.replace("_", "-"): value for word, value in parse_qsl(parts.query)}
    shown = _shown(parts, options)
    if "#" in url:
        raise SourceUsageError(f"{shown}: a database URL takes no #", next_step="in a name write it as %23")
    if parts.password is not None or "password" in options:
        raise SourceUsageError(
            f"the URL of {shown} contains a password, which would end up in process lists and logs",
            next_step="take it out of the URL and set MYSQL_PWD, or write it into ~/.my.cnf",
        )
    unknown = sorted(set(options) - set(_WORDS))
    if unknown:
        raise SourceUsageError(
            f"{shown}: the option {unknown[0]} is not known", next_step=f"known are {', '.join(_WORDS)}"
        )
    if options.get("ssl-mode", "preferred").lower() not in _MODES:
        raise SourceUsageError(
            f"{shown}: ssl-mode is not {options['ssl-mode']}", next_step=f"it is one of {', '.join(_MODES)}"
        )
    return MysqlAddress(
        url=shown,
        host=host,
        port=port,
        user=user,
        database=database,
        options=options,
        password=secrets.get("password"),
    )


def _shown(parts: SplitResult, options: Mapping[str, str]) -> str:
    """Return the URL as it may be shown: without a password and unknown options."""
    user, host, port = unquote(parts.username or ""), unquote(parts.hostname or ""), parts.port
    before = quote(user, safe="") + "@" if user else ""
    quoted_host = f"[{host}]" if ":" in host else quote(host, safe="")
    name = quote(unquote(parts.path.removeprefix("/")), safe="")
    shown_options = {word: options[word] for word in _WORDS if word in options}
    return f"{parts.scheme}://{before}{quoted_host}{f':{port}' if port else ''}/{name}" + (
        "?" + urlencode(shown_options, safe="/") if shown_options else ""
    )


class Connection:
    """One session with pinned settings; autocommit. Errors of the driver are the caller's to translate."""

    def __init__(self, address: MysqlAddress, raw: Any) -> None:
        self.address = address
        self.raw = raw
        self._longest_statement_bytes = 0

    @property
    def version(self) -> str:
        """What the server calls itself, e.g. ``10.11.6-MariaDB``."""
        return str(self.raw.get_server_info()).removeprefix("5.5.5-")  # MariaDB says so to old replicas

    @property
    def is_mariadb(self) -> bool:
        """Whether it is MariaDB rather than MySQL."""
        return "mariadb" in self.version.lower()

    @property
    def defining_mode(self) -> str:
        """The ``sql_mode`` of the session."""
        return f"{DEFINING_MODE},{_KEEPS_OPTIONS}" if self.is_mariadb else DEFINING_MODE

    @property
    def takes_history(self) -> bool:
        """Whether rows may be inserted together with the times between which they held: MariaDB from 10.11 on."""
        return self._is_mariadb_since(_TAKES_HISTORY)

    @property
    def comments_databases(self) -> bool:
        """Whether a database may have a comment."""
        return self._is_mariadb_since(_COMMENTS_DATABASES)

    @property
    def release(self) -> tuple[int, ...]:
        """The first two numbers of the version, e.g. ``(10, 11)``."""
        return tuple(map(int, re.findall(r"\d+", self.version)[:2]))

    def _is_mariadb_since(self, release: tuple[int, int]) -> bool:
        return self.is_mariadb and self.release >= release

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query and return all rows; text as str, binary as bytes."""
        with self.raw.cursor() as cursor:
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()]

    def named(self, query: str) -> list[dict[str, Any]]:
        """Run a query and return all rows by lower-case column names. Bytes that are not UTF-8 (a view's literals of
        other charsets) are what Python's ``surrogateescape`` makes of them.
        """
        encoding, self.raw.encoding = self.raw.encoding, "latin-1"  # the driver would stop at them
        try:
            with self.raw.cursor() as cursor:
                cursor.execute(query.encode())
                names = [_text(column[0]).lower() for column in cursor.description or ()]
                return [dict(zip(names, map(_text, row), strict=True)) for row in cursor.fetchall()]
        finally:
            self.raw.encoding = encoding

    def value(self, query: str) -> Any:
        """Return the first column of the first row, or None."""
        rows = self.rows(query)
        return rows[0][0] if rows else None

    def variable(self, name: str) -> str | None:
        """Return a global variable's text, None where the server has none of that name."""
        rows = self.rows(f"SHOW GLOBAL VARIABLES LIKE {quote_literal(name)}")
        return str(rows[0][1]) if rows else None

    def is_on(self, name: str) -> bool:
        """Tell whether a global variable is there, and is not off. ``read_only`` has more words than these from
        MariaDB 12 on, of which only OFF is none.
        """
        return (self.variable(name) or "OFF").upper() not in {"0", "OFF"}

    def longest_statement_bytes(self) -> int:
        """Return how long a statement may be at most. No session can change that of its own."""
        if not self._longest_statement_bytes:
            self._longest_statement_bytes = int(self.value("SELECT @@SESSION.max_allowed_packet"))
        return self._longest_statement_bytes

    @property
    def takes_bulk(self) -> bool:
        """Whether the session takes rows in bulk (``BulkInsert``)."""
        return bool(self.raw.takes_bulk)

    def refuse_bulk(self) -> None:
        """Send it no rows in bulk any more: the server has refused some."""
        self.raw.takes_bulk = False

    def run(self, statement: str | bytes) -> int:
        """Run a statement, return the number of affected rows."""
        with self.raw.cursor() as cursor:
            return int(cursor.execute(statement))

    def close(self) -> None:
        """End the session at once."""
        with contextlib.suppress(Exception):
            self.raw._force_close()  # noqa: SLF001  close() would wait for a server that is stuck


def _text(value: Any) -> Any:
    return value.encode("latin-1").decode("utf-8", "surrogateescape") if isinstance(value, str) else value


def folds_names(connection: Connection) -> bool:
    """Tell whether the server keeps the names of tables in lower case. Raises the driver's errors."""
    return connection.variable("lower_case_table_names") == "1"


def connect(address: MysqlAddress, *, settings: Sequence[str] = ()) -> Connection:
    """Open a session; ``settings`` are further SET assignments. Who waits for a silent server: see
    ``silent_servers``. Raises ``SourceError``.
    """
    return connected(address.url, lambda: _connect(address, settings))


def _connect(address: MysqlAddress, settings: Sequence[str] = ()) -> Connection:
    _log.info("connecting to %s", address.url)
    with as_source_errors(address.url):
        connection = Connection(address, _open(address))
    try:
        assignments = [f"SESSION {name} = {value}" for name, value in PINNED.items()]
        assignments.append(f"SESSION sql_mode = '{connection.defining_mode}'")
        connection.run("SET " + ", ".join(["NAMES utf8mb4", *assignments, *settings]))
        _set_optional(connection)
    except DRIVER_ERRORS as exc:
        connection.close()
        raise translate(exc, address.url) from exc
    return connection


def _set_optional(connection: Connection) -> None:
    """Set those of ``_OPTIONAL`` that the server has, by one statement; one by one where it refuses some."""
    assignments = [f"SESSION {name} = {_OPTIONAL[name]}" for name in _optional_names(connection)]
    try:
        if assignments:
            connection.run("SET " + ", ".join(assignments))
    except pymysql.Error:
        for assignment in assignments:
            with contextlib.suppress(pymysql.Error):
                connection.run(f"SET {assignment}")


def _optional_names(connection: Connection) -> Sequence[str]:
    """Return which of ``_OPTIONAL`` the server has. The first session asks; others of the same server do not. It is
    asked for these only: to list and read all its settings takes longer than all else that a session begins with.
    """
    address = connection.address
    server = address.host, address.port, address.options.get("socket"), connection.version
    if server not in _optional_names_by_server:
        names = ", ".join(map(quote_literal, _OPTIONAL))
        rows = connection.rows(f"SHOW VARIABLES WHERE variable_name IN ({names})")
        _optional_names_by_server[server] = [row[0].lower() for row in rows]
    return _optional_names_by_server[server]


def contact(url: str, secrets: Mapping[str, str]) -> None:
    """Log in and out again. Raises ``SourceUnreachableError`` where there is no answer; a refusal is one."""
    try:
        _connect(parse_server_url(url, secrets)).close()
    except SourceError as exc:
        is_answered = exc.__cause__ is not None and is_refused(exc.__cause__)
        if isinstance(exc, SourceUnreachableError) and not is_answered:
            raise


def _open(address: MysqlAddress) -> Any:
    """Connect by TLS as the mode says. ``preferred`` means: where the server has it; on this machine, where the traffic
    crosses no network, only if the login needs it.
    """
    mode = address.ssl_mode
    if mode != "preferred":
        context = None if mode == "disabled" else _context(address, mode)
        return _login(address, ssl=context, ssl_disabled=context is None)
    if not address.local:
        return _login(address)
    try:
        return _login(address, ssl_disabled=True)
    except RuntimeError:  # the login's password may pass only by TLS or RSA
        return _login(address)
    except pymysql.OperationalError as exc:
        if number_of(exc) not in _MAY_NEED_TLS:
            raise
        refused = exc
    try:
        return _login(address)
    except pymysql.Error:
        raise refused from None


def _context(address: MysqlAddress, mode: str) -> ssl.SSLContext:
    options = address.options
    context = ssl.create_default_context(cafile=options.get("ssl-ca"))
    # Certificates that a server made by itself do not pass it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = mode == "verify_identity"
    verify = mode in {"verify_ca", "verify_identity"} or "ssl-ca" in options
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if "ssl-cert" in options:
        context.load_cert_chain(options["ssl-cert"], options.get("ssl-key"))
    return context


def _login(address: MysqlAddress, **tls: Any) -> Any:
    password = address.password or os.environ.get("MYSQL_PWD") or _from_option_file("password")
    limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": GREETING_SECONDS}
    try:
        raw = _connect_driver(address, password or "", **limits, **tls)
    except pymysql.OperationalError as exc:
        if isinstance(exc.__context__, TimeoutError):
            silence = (
                f"the server took the connection, and then sent nothing for {GREETING_SECONDS} s,"
                " as one of another kind does"
            )
            raise TimeoutError(silence) from exc
        raise
    raw._read_timeout = None  # noqa: SLF001  a statement may take hours
    raw._sock.settimeout(None)  # noqa: SLF001  the driver sets it when it reads, but rows are read without it
    return raw


def _connect_driver(address: MysqlAddress, password: str, **options: Any) -> Any:
    """Return a session of the driver's. Whoever waits for its login can be woken, too."""
    raw = DriverConnection(
        host=address.host or "localhost",
        port=address.port,
        unix_socket=address.options.get("socket"),
        user=address.user or _from_option_file("user") or None,
        password=password.encode(),
        database=address.database,
        charset="utf8mb4",
        autocommit=True,
        max_allowed_packet=2**30,
        program_name="moveout",
        defer_connect=True,
        **options,
    )
    raw.crosses_network = not address.local
    waking_socket(address.url, raw, file_number)
    raw.connect()
    keep_alive(file_number(raw))
    return raw


def shut(raw: Any) -> None:
    """Shut the socket of a session: the driver has no other way to end what waits for it."""
    shut_socket(file_number(raw))


def file_number(raw: Any) -> int:
    """Return the number of the file of a session's socket."""
    return int(raw._sock.fileno())  # noqa: SLF001  nothing else has it


def _from_option_file(word: str) -> str | None:
    """Return what ~/.my.cnf says to clients: only the login, so that no other server is met by accident. The last line
    with the word holds; other files that it includes are not read (MySQL manual, "Using Option Files").
    """
    try:
        lines = Path("~/.my.cnf").expanduser().read_text(errors="surrogateescape").splitlines()
    except (OSError, RuntimeError):
        return None
    group, value = "", None
    for line in map(str.strip, lines):
        if line.startswith("["):
            group = line[1:].partition("]")[0]
        elif group in _OWN_GROUPS and (option := _OPTION.fullmatch(line)) and option["name"] == word:
            text = option["double"] or option["single"] or option["bare"] or ""
            value = _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[0]), text)
    return value


_OWN_GROUPS = {"client", "client-server", "client-mariadb"}
_OPTION = re.compile(
    r"""(?P<name>\w+)\s*(=\s*("(?P<double>.*?)"|'(?P<single>.*?)'|(?P<bare>[^#]*?)))?\s*(\#.*)?"""
)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "r": "\r", "s": " ", "\\": "\\"}
