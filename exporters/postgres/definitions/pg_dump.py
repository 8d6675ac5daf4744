"""The database's definitions, by the real pg_dump, and what pg_dump leaves out."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from exporters.errors import SourceError, SourceNotAllowedError, SourceUnreachableError
from exporters.limits import LOCK_SECONDS
from exporters.postgres.charset.encodings import Codec
from exporters.postgres.definitions import roles
from exporters.postgres.definitions.dump_programs import Tools
from exporters.postgres.definitions.matview_refresh import DEFINITIONS_ONLY
from exporters.postgres.errors import LOCKS_STEP, names_snapshot
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.sql.snapshots import snapshot_lost

_log = logging.getLogger(__name__)

_VALUE = rb"E?'(?:[^']|'')*'"
_OPTION = rb'    (?:"(?:[^"]|"")+"|\w+) ' + _VALUE
_OPTIONS = re.compile(
    rb"^-- Name: [^\n]*; Type: (?:SERVER|USER MAPPING); [^\n]*\n--\n\n"
    rb"CREATE (?:USER MAPPING FOR|SERVER) [^\n]* OPTIONS \(\n"
    + _OPTION
    + rb"(?:,\n"
    + _OPTION
    + rb")*\n\);\n",
    re.MULTILINE,
)
_SECRET = re.compile(rb'^(    "?' + roles.TELLTALE.encode() + rb'"?) ' + _VALUE, re.MULTILINE | re.IGNORECASE)
_SETTING = re.compile(
    rb"^ALTER (?:ROLE|DATABASE) [^\n]* SET \"?"
    + roles.TELLTALE.encode()
    + rb'"? (?:TO|=) [^\n]*?'
    + _VALUE
    + rb";\n",
    re.MULTILINE | re.IGNORECASE,
)

_RESTRICT = re.compile(rb"^\\restrict (\w+)$", re.MULTILINE)
_NAME = rb'(?:"(?:[^"]|"")+"|[\w$]+)'
_MULTIRANGE = re.compile(rb",\n    multirange_type_name = " + _NAME + rb"\." + _NAME)

PRE, POST = "pre-data", "post-data"
"""Sections, as pg_dump calls them."""
_LEFT_OUT = ("--no-tablespaces", "--no-subscriptions")
_NOT_OURS = f"--exclude-schema={PROGRESS_SCHEMA}"
_ENDS_WHEN_DROPPED = (
    "connect_timeout=60 keepalives_idle=15 keepalives_interval=15 keepalives_count=4 tcp_user_timeout=75000"
)
"""Where the network drops a connection without a word, libpq ends it after a minute or a little more (libpq, "Parameter
Key Words"). The other system answers, not the server, so a statement may take hours.
"""
_NO_LOGIN = "could not connect"
"""What pg_dumpall says of any login that has failed, without the reason."""
_ENDED = (
    _NO_LOGIN,
    "connection to server",
    "could not receive data from server",
    "could not send data to server",
    "server closed the connection",
    "SSL SYSCALL error",
    "SSL connection has been closed",
    "terminating connection",
)
"""What libpq and the server say of a connection that there is not, or no more."""
_LOGIN_REFUSED = re.compile("connection to (server|database) .* failed: FATAL:")
"""What libpq says of a login that the server has answered: the next one would get the same answer."""
NO_TIMEOUT = "-c statement_timeout=0"
"""At the end of PGOPTIONS it ends the timeout of a role. Most poolers refuse options; then it is done without."""
_CANCELLED, _CANCELLED_PAUSE_SECONDS, _CANCELLED_SECONDS = "due to statement timeout", 0.1, 60.0
"""Where a pooler keeps options from the server, a role's timeout of a few milliseconds may end a program's first
statements, until the program switches it off: it is tried again for so long.
"""
_NAMES_STDOUT = 12
"""From this version on pg_restore needs an option to write to stdout."""
_AGAIN_SECONDS = (1.0, 5.0)
"""A program whose connection was ended is run again after this time."""
_STOP_SECONDS = 0.5
"""How often a program that runs is asked to stop, where it is to."""


def dump_definitions(
    tools: Tools,
    environment: Mapping[str, str],
    snapshot: str,
    *,
    without: Iterable[bytes] = (),
    encoding: str = "UTF8",
    lock_seconds: float = LOCK_SECONDS,
    about: str = "",
    stop: threading.Event | None = None,
) -> bytes:
    """Return all definitions as of ``snapshot``, in pg_dump's own format: so the server is asked once for what
    ``section_of`` then prints. ``without``: quoted names of relations that cannot be read, because pg_dump locks all
    that it dumps. ``encoding`` of names and definitions; ``about``: the source, for errors. Who sets ``stop`` ends it.
    Raises ``SourceError``.
    """
    options = (b"--exclude-table=", b"--exclude-table-data=")  # of what a table owns, only the data
    unread = [option + name for name in without for option in options]
    extra = [f"--encoding={encoding}", f"--lock-wait-timeout={max(1, round(lock_seconds * 1000))}"]
    format_options = ["--format=custom", "--compress=0", *(f"--section={section}" for section in (PRE, POST))]
    format_options += ["--schema-only"] if tools.major >= DEFINITIONS_ONLY else []
    arguments = [
        tools.pg_dump,
        *format_options,
        f"--snapshot={snapshot}",
        f"--dbname={_ENDS_WHEN_DROPPED}",
        "--no-password",
        *_LEFT_OUT,
        _NOT_OURS,
        *extra,
    ]
    return _run([*arguments, *unread], environment, about=about, stop=stop)


def section_of(
    tools: Tools, environment: Mapping[str, str], definitions: bytes, section: str, *, portable: bool
) -> bytes:
    """Return the SQL of one section of what ``dump_definitions`` returned, as pg_dump prints it. ``portable`` leaves
    owners and privileges out, for a destination on which the roles cannot be made. Raises ``SourceError``.
    """
    extra = ["--no-owner", "--no-privileges"] if portable else []
    extra += ["--file=-"] if tools.major >= _NAMES_STDOUT else []
    arguments = [tools.pg_restore, f"--section={section}", *_LEFT_OUT, *extra]
    return with_steady_key(without_cut_names(without_secrets(_run(arguments, environment, definitions))))


def with_steady_key(script: bytes) -> bytes:
    r"""Return a script in which the random key of psql's ``\restrict`` is a digest of the rest: equal definitions give
    equal bytes, and nobody can write a definition that contains its own digest.
    """
    match = _RESTRICT.search(script)
    if match is None:
        return script
    rest = script.replace(match[1], b"")
    return script.replace(match[1], hashlib.sha256(rest).hexdigest().encode())


def in_utf8(script: bytes, codec: Codec, encoding: str) -> bytes:
    """Return a script that is in this encoding in UTF-8, if all of it comes through that as it is."""
    if not codec.is_faithful(script):
        return script
    statement = b"SET client_encoding = '%b';"
    return codec.converted(script).replace(statement % encoding.encode(), statement % b"UTF8", 1)


def without_cut_names(script: bytes) -> bytes:
    """Return a script without names that a server made and cut within a character, as 14 and newer do with that of a
    range's multirange (makeMultirangeTypeName in src/backend/catalog/pg_type.c). No statement can contain such a name,
    so nothing else refers to it; the next server makes it by itself.
    """
    return _MULTIRANGE.sub(lambda match: match[0] if _is_text(match[0]) else b"", script)


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def without_secrets(script: bytes) -> bytes:
    """Return a script of pg_dump's with the passwords of foreign servers and of their users emptied: where they are
    made, and not where the code of a function does the same.
    """
    return _OPTIONS.sub(lambda match: _SECRET.sub(rb"\1 ''", match[0]), script)


def dump_globals(tools: Tools, environment: Mapping[str, str], *, about: str) -> bytes:
    """Return roles and their memberships, without passwords and settings that are secret; ``about``: the source, for
    errors. Raises ``SourceNotAllowedError`` if that is not permitted.
    """
    database = environment.get("PGDATABASE", "postgres")
    for special in ("\\", "'"):
        database = database.replace(special, f"\\{special}")
    arguments = [
        tools.pg_dumpall,
        "--globals-only",
        "--no-role-passwords",
        "--no-tablespaces",
        # A service file may set another encoding, which counts for more than the variable.
        f"--dbname={_ENDS_WHEN_DROPPED} client_encoding={environment['PGCLIENTENCODING']}",
        "--no-password",
        f"--database=dbname='{database}'",  # it would take a name with "=" for a server to connect to
    ]
    return with_steady_key(_SETTING.sub(b"", _run(arguments, environment, about=about)))


def _run(
    arguments: Sequence[str | bytes],
    environment: Mapping[str, str],
    stdin: bytes = b"",
    *,
    about: str = "",
    stop: threading.Event | None = None,
) -> bytes:
    _log.info("running %s", " ".join(map(os.fsdecode, arguments)))
    program, ended = Path(os.fsdecode(arguments[0])).name, stop or threading.Event()
    pauses, deadline = iter(_AGAIN_SECONDS), time.monotonic() + _CANCELLED_SECONDS
    while True:
        status, output, errors = _ran(arguments, environment, stdin, ended)
        if status == 0:
            return output
        lines = errors.decode(errors="replace").replace(f"{program}: error: ", "").replace(f"{program}: ", "")
        message = " ".join(lines.split())
        is_refused, options = _LOGIN_REFUSED.search(message), environment.get("PGOPTIONS", "")
        if options.endswith(NO_TIMEOUT) and (is_refused or _NO_LOGIN in message):
            environment = {**environment, "PGOPTIONS": options.removesuffix(NO_TIMEOUT).strip()}
            return _run(arguments, environment, stdin, about=about, stop=stop)
        if _CANCELLED in message and time.monotonic() < deadline and not ended.wait(_CANCELLED_PAUSE_SECONDS):
            continue
        is_passing = _has_ended(message) and not is_refused
        pause_seconds = next(pauses, None)
        if pause_seconds is None or not is_passing or ended.wait(pause_seconds):
            break
    raise _error(program, message, about)


def _ran(
    arguments: Sequence[str | bytes], environment: Mapping[str, str], stdin: bytes, stop: threading.Event
) -> tuple[int, bytes, bytes]:
    """Run a program; return its exit status, what it printed, and its errors."""
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
    )
    with process:
        output, errors = _communicated(process, stdin, stop)
    return process.returncode, output, errors


def _has_ended(message: str) -> bool:
    """Tell whether a program has no connection, or has lost it: by whoever has ended it, it may have another one."""
    return any(words in message for words in _ENDED) and not names_snapshot(message)


def _error(program: str, message: str, about: str) -> SourceError:
    """Return the source error of what a program says of its failure."""
    if "permission denied" in message:
        return SourceNotAllowedError(
            f"{program}: {message}",
            about=about,
            next_step="use a role that may read the whole database; moveout doctor has the SQL for this one",
        )
    if names_snapshot(message):
        return snapshot_lost(program, message)
    if "out of shared memory" in message:
        return SourceUnreachableError(f"{program}: {message}", about=about, next_step=LOCKS_STEP)
    if "lock timeout" in message:
        return SourceUnreachableError(
            f"{program}: {message}",
            about=about,
            next_step="find the session that waits for or holds the lock (pg_locks), and run the same command again",
        )
    if _has_ended(message):
        return SourceUnreachableError(
            f"{program}: {message}",
            about=about,
            next_step="check the server and the network, then run the same command again",
        )
    return SourceError(
        f"{program} failed: {message}",
        about=about,
        next_step="run it by hand with the same database to see more",
    )


def _communicated(
    process: subprocess.Popen[bytes], stdin: bytes, stop: threading.Event
) -> tuple[bytes, bytes]:
    """Return what a process printed, and its errors, once it has ended; kill it where ``stop`` is set and
    it has no ``stdin``.
    """
    try:
        if stdin:  # without a timeout: after one CPython sends no more of the input (Popen._communicate)
            return process.communicate(stdin)
        while True:
            try:
                return process.communicate(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                if stop.is_set():
                    process.kill()
    except BaseException:
        process.kill()
        raise
