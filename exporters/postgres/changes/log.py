"""The change log of a PostgreSQL database. See ``exporters.changes.ChangeLog``.

A logical replication slot keeps what is written from the moment on at which it was made, and exports a snapshot of that
moment. A publication says of which tables. Both have one name.

Where the server, or a pooler before it, refuses the replication protocol, the same slot is made and read by SQL. Which
way is taken is decided each time anew: a slot can be read both ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from secrets import token_hex
from typing import Annotated, Any, TypeVar

import psycopg
from msgspec import Meta, Struct, field
from msgspec.structs import replace

from exporters.changes import (
    BASE_AGAIN,
    PUT_BACK_STEP,
    CapturedChanges,
    ChangeBase,
    ChangeStream,
    LogState,
    Message,
    NotFollowed,
)
from exporters.engine import RereadSnapshot
from exporters.errors import (
    SourceError,
    SourceGoneError,
    SourceNotAllowedError,
    SourceReplacedError,
    SourceUsageError,
)
from exporters.limits import Note
from exporters.postgres.catalog import PostgresTable, read_tables
from exporters.postgres.changes.base_snapshot import BaseSnapshot, take_snapshot
from exporters.postgres.changes.captured_again import CapturedAgain
from exporters.postgres.changes.polling import PollingStream
from exporters.postgres.changes.publication import (
    BaseTable,
    FollowedTables,
    followed_tables,
    make_publication,
    publish_table,
    published_tables,
    troubled_tables,
)
from exporters.postgres.changes.replication import ReplicationStream
from exporters.postgres.changes.slot import (
    OBJECT_IN_USE,
    drop_slot,
    end_reader,
    in_use,
    lsn_text,
    own_name,
    parse_lsn,
    read_state,
)
from exporters.postgres.changes.timelines import (
    FAILOVER_VERSION,
    HISTORY_GRANT,
    Timeline,
    read_timeline,
    read_timeline_by_sql,
)
from exporters.postgres.changes.touched_rows import touched_rows
from exporters.postgres.definitions.object_access import (
    ACCESS,
    TRANSACTION,
    digests_of,
    next_transaction,
    read_access,
)
from exporters.postgres.errors import DRIVER_ERRORS, as_source_errors, in_one_line, sqlstate, translate
from exporters.postgres.identifiers import quote_name
from exporters.postgres.live_rows import live_rows
from exporters.postgres.query_rows import fetch
from exporters.postgres.sessions.connection import (
    PostgresAddress,
    connect,
    parse_url,
    pinned,
    system_identifier,
)
from exporters.postgres.sessions.lock_timeouts import holder, kept_locked, stays_locked
from exporters.postgres.sessions.lock_waits import WaitWatch
from exporters.postgres.sessions.session_limits import SessionLimits
from exporters.postgres.sessions.snapshot_transaction import begin_statement
from exporters.touched_rows import TouchedRows

Answer = TypeVar("Answer")

_EXPORTED = "EXPORT_SNAPSHOT"
"""The option in the form that all servers read (PostgreSQL, "Streaming Replication Protocol")."""
_LONGEST_NAME = 50
_ATTEMPTS, _ATTEMPT_SECONDS = 2, 1.0
"""The replication protocol is asked for so often before it counts as refused."""
_LOCK_SECONDS = 1.0
"""How long the lock of a table is waited for at once: whoever wants to write to it waits meanwhile, too."""
_WAIT_SECONDS = 60.0
"""How long it is waited for in all."""
_STUCK_SECONDS = 2.0
"""How long a table has to be locked before its changes are done without: a TRUNCATE is over by then."""
_SHORT_QUESTION = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}
"""A question about the log ends half a minute after the network has begun to drop packets (libpq, "Database Connection
Control Functions")."""
_SETTINGS = """
SELECT current_setting('wal_level') AS wal_level, pg_is_in_recovery() AS standby, current_database() AS database,
  current_user::text AS role, has_database_privilege(current_database(), 'CREATE') AS creates,
  rolreplication OR rolsuper OR EXISTS (SELECT FROM pg_roles g WHERE g.rolname = 'rds_replication'
    AND pg_has_role(g.oid, 'USAGE')) AS replicates
FROM pg_roles WHERE rolname = current_user
"""


class LogBase(Struct, frozen=True):
    """What ``ChangeBase.log`` has: the slot and the publication, and at which server; ``access``: see ``ACCESS``;
    ``tables`` and ``generated``: see ``FollowedTables.described``. Where the snapshot was taken behind the slot,
    ``snapshot`` says which transactions it shows.
    """

    slot: str
    publication: str
    system: str
    timeline: Annotated[int, Meta(ge=0, lt=2**32)] = 1
    snapshot: Annotated[str, Meta(pattern=r"^\d{1,20}:\d{1,20}:[\d,]*$")] = "0:0:"
    snapshot_end: Annotated[int, Meta(ge=0)] = 0
    access: dict[str, str] = field(default_factory=dict)
    tables: dict[str, BaseTable] = field(default_factory=dict)
    generated: bool = False


def open_change_log(url: str, secrets: Mapping[str, str], name: str) -> PostgresChangeLog:
    """Return the change log of a database. Raises ``SourceUsageError`` for the URL."""
    return PostgresChangeLog(parse_url(url, secrets), name)


class PostgresChangeLog:
    """See ``exporters.changes.ChangeLog``."""

    leaves_objects = True

    def __init__(self, address: PostgresAddress, name: str) -> None:
        self._address = address
        self._given_name = name
        self._name = own_name(name)
        self._timeline = 0
        self._detour = ""

    @contextmanager
    def open_base(self, note: Note = lambda _: None) -> Iterator[ChangeBase]:
        """See ``ChangeLog``. The slot waits for the end of all transactions that are open."""
        limits, maker = SessionLimits(), 0
        with ExitStack() as stack:
            try:
                with closing(connect(self._address)) as control:
                    control.execute(limits.timeouts().encode())
                    _require_logical(control, self._address.url)
                    self._drop(control)
                    followed = followed_tables(
                        control, read_tables(control, kept_locked(control, seconds=_STUCK_SECONDS))
                    )
                    make_publication(control, self._name, followed)
                    access = digests_of(read_access(control))
                replication = self._replication(stack, limits.application)
                with WaitWatch(self._address, limits.application, note):
                    if replication is not None:
                        maker = replication.info.backend_pid
                        base = self._make_slot(replication, followed)
                    else:
                        note(f"! {self._name}: {self._detour}")
                        control = stack.enter_context(closing(connect(self._address, limits.application)))
                        maker = control.info.backend_pid
                        base = self._make_slot_by_sql(control, followed, note)
            except DRIVER_ERRORS as exc:
                self._discard(maker)
                raise translate(exc, self._address.url) from exc
            except BaseException:
                self._discard(maker)
                raise
            try:
                yield replace(base, log={**base.log, **followed.described, ACCESS: access})
            except BaseException:
                stack.close()
                self._discard()
                raise

    @contextmanager
    def stream(
        self, log: Mapping[str, Any], after: int, captured: CapturedChanges | None = None
    ) -> Iterator[ChangeStream]:
        """See ``ChangeLog``."""
        begin = after if captured is None else min(after, self.state(log).acknowledged or after)
        with ExitStack() as stack:
            replication = self._replication(stack)
            control = replication or stack.enter_context(closing(connect(self._address, **_SHORT_QUESTION)))
            with as_source_errors(self._address.url):
                timeline = self._timeline_of(control, log, by_sql=replication is None)
                if control.info.parameter_status("server_encoding") == "SQL_ASCII":
                    control.execute("SET client_encoding TO 'SQL_ASCII'")  # its bytes may be no UTF-8
            stream = self._open_stream(control, log, begin, by_sql=replication is None)
            state = self.state(log)
            self._require_history(timeline, state, after, max(self._timeline, log.get("timeline", 1)))
            self._require_continuity(state, after)
            self._timeline = timeline.number
            with stream:
                if captured is None or state.acknowledged == after:
                    yield stream
                elif state.acknowledged != begin:
                    raise in_use(self._address.url, "the slot has moved on meanwhile")
                else:
                    yield CapturedAgain(stream, self._address.url, captured, begin, after)

    def _timeline_of(
        self, control: psycopg.Connection[Any], log: Mapping[str, Any], *, by_sql: bool
    ) -> Timeline:
        """Return on which timeline the server writes. Raises where it is another server than that of the base."""
        known = log.get("timeline", 1)
        system, number = (system_identifier(control), 0) if by_sql else _identify(control)
        if system and log["system"] and system != log["system"]:
            raise SourceReplacedError(
                f"{self._address.url} is another server than the one whose changes were kept",
                next_step="check the URL. If it is right: moveout export --follow to a new location",
            )
        return read_timeline_by_sql(control, known) if by_sql else read_timeline(control, number, known)

    def _open_stream(
        self, control: psycopg.Connection[Any], log: Mapping[str, Any], after: int, *, by_sql: bool
    ) -> ReplicationStream | PollingStream:
        base = BaseSnapshot.recorded(log)
        what = (self._address.url, log["slot"], log["publication"], after)
        try:
            if by_sql:
                return PollingStream(control, *what, base)
            return ReplicationStream(control, *what, base.shows if base else None)
        except SourceError as exc:
            raise self._explained(exc, log, after) from exc

    @contextmanager
    def reread(
        self, log: Mapping[str, Any], schema: str, name: str, note: Note = lambda _: None
    ) -> Iterator[RereadSnapshot]:
        """See ``exporters.engine.RereadableLog``. A slot for a moment exports the snapshot; it waits for the end of all
        transactions that are open, for a minute each at most. What these wrote to a table that is only now published is
        in the snapshot. Without the replication protocol a lock makes the position exact: for a moment nobody writes to
        the table.
        """
        limits = SessionLimits()
        with ExitStack() as stack:
            with as_source_errors(self._address.url):
                with closing(connect(self._address)) as control:
                    table = next(
                        (t for t in read_tables(control) if (t.schema, t.name) == (schema, name)), None
                    )
                    if table is None:
                        label = ".".join(filter(None, (schema, name)))
                        raise SourceUsageError(
                            f"{self._address.url} has no table {label}",
                            next_step="NAME:SCHEMA.TABLE names one",
                        )
                    if obstacle := publish_table(control, log["publication"], table):
                        raise SourceUsageError(f"{table.label} cannot be followed: {obstacle}")
                replication = self._replication(stack, limits.application)
                if replication is None:
                    lock = stack.enter_context(closing(connect(self._address, limits.application)))
                    position, snapshot = _locked_moment(lock, table, note)
                else:
                    moment = f"{self._name[:_LONGEST_NAME]}_{token_hex(4)}"
                    with WaitWatch(self._address, limits.application, note) as watch:
                        position, snapshot = _patiently(replication, f'"{moment}" TEMPORARY', table, watch)
            server = pinned(self._address, lock if replication is None else replication)
            rows = stack.enter_context(live_rows(server, snapshot))
            if replication is None:
                lock.close()  # the snapshot is held by the sessions of the rows from here on
            yield RereadSnapshot(position, rows, [(schema, name)])

    def state(self, log: Mapping[str, Any], after: int = 0) -> LogState:
        """See ``ChangeLog``. The server itself knows what is acknowledged; ``after`` tells whether it was put back."""
        state = self._asked(lambda control: read_state(control, log["slot"], log["publication"]))
        if state.lost or state.end >= after:
            return state
        return replace(state, lost=_ends_before(state.end, after))

    def detour(self) -> str:
        """See ``ChangeLog``."""
        with ExitStack() as stack:
            return "" if self._replication(stack, attempts=1) else self._detour

    def end(self, log: Mapping[str, Any]) -> int:
        """See ``ChangeLog``. What is not flushed yet is not sent, and readers leave such records, too: where nobody
        commits any more, that takes up to 15 seconds (LOG_SNAPSHOT_INTERVAL_MS in src/backend/postmaster/bgwriter.c).
        A commit without rows has all before it flushed.
        """

        def ask(control: psycopg.Connection[Any]) -> int:
            end = read_state(control, log["slot"], log["publication"]).end
            control.execute("SELECT pg_catalog.txid_current()")
            return end

        return self._asked(ask)

    def logged_tables(self, log: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
        """See ``ChangeLog``: those of the publication."""
        return self._asked(lambda control: published_tables(control, log["publication"]))

    def touched_rows(
        self, log: Mapping[str, Any], messages: Iterable[Message]
    ) -> Mapping[tuple[str, str], TouchedRows]:
        """See ``ChangeLog``."""
        del log
        return touched_rows(messages)

    def troubled_tables(self, log: Mapping[str, Any]) -> Sequence[NotFollowed]:
        """See ``ChangeLog``."""
        return self._asked(lambda control: troubled_tables(control, log))

    def distance_bytes(self, after: int, end: int) -> int:
        """See ``ChangeLog``."""
        return max(end - after, 0)

    def drop(self, log: Mapping[str, Any], *, even_if_read: bool = False) -> bool:
        """See ``ChangeLog``."""
        with closing(connect(self._address)) as control, as_source_errors(self._address.url):
            if even_if_read:
                end_reader(control, log.get("slot", self._name))
            return self._drop(control, log.get("slot", ""), log.get("publication", ""))

    def show(self, position: int) -> str:
        """See ``ChangeLog``."""
        return lsn_text(position)

    def _asked(self, question: Callable[[psycopg.Connection[Any]], Answer]) -> Answer:
        """Ask the server something short."""
        with (
            closing(connect(self._address, **_SHORT_QUESTION)) as control,
            as_source_errors(self._address.url),
        ):
            return question(control)

    def _replication(
        self, stack: ExitStack, application: str = "moveout", *, attempts: int = _ATTEMPTS
    ) -> psycopg.Connection[Any] | None:
        """Return a connection that speaks the replication protocol; None where an ordinary one is let in, and this one
        is not. Raises ``SourceError`` where neither is.
        """
        for attempt in range(attempts):
            time.sleep(attempt * _ATTEMPT_SECONDS)
            try:
                connection = connect(self._address, application, replication="database")
                stack.callback(connection.close)
                _identify(connection)  # a pooler may have passed over what it does not know
            except (SourceError, *DRIVER_ERRORS) as exc:
                refusal = exc
            else:
                return connection
        with closing(connect(self._address)):
            self._detour = _polling_words(refusal)
        return None

    def _make_slot(self, replication: psycopg.Connection[Any], followed: FollowedTables) -> ChangeBase:
        failover = replication.info.server_version >= FAILOVER_VERSION
        options = "(SNAPSHOT 'export', FAILOVER true)" if failover else _EXPORTED
        system, timeline = _identify(replication)
        begun = {TRANSACTION: next_transaction(replication)}
        position, snapshot = _create_slot(replication, f'"{self._name}"', options)
        names = {"slot": self._name, "publication": self._name}
        log = names | {"system": system, "timeline": timeline} | begun
        return ChangeBase(self._given_name, position, snapshot, log, followed.not_followed)

    def _make_slot_by_sql(
        self, control: psycopg.Connection[Any], followed: FollowedTables, note: Note
    ) -> ChangeBase:
        """Make the slot, then take a snapshot that has all before it, and export it."""
        options = ", failover => true" if control.info.server_version >= FAILOVER_VERSION else ""
        system = system_identifier(control)
        timeline = read_timeline_by_sql(control, 2**32).number
        begun = {TRANSACTION: next_transaction(control)}
        (position,) = _first(
            control,
            "SELECT lsn::text FROM pg_catalog.pg_create_logical_replication_slot("
            f"'{self._name}', 'pgoutput'{options})",
        )
        shown = take_snapshot(control, note)
        (snapshot,) = _first(control, "SELECT pg_catalog.pg_export_snapshot()")
        names = {"slot": self._name, "publication": self._name}
        log = {**names, "system": system, "timeline": timeline, **begun, **shown.described}
        return ChangeBase(self._given_name, parse_lsn(position), snapshot, log, followed.not_followed)

    def _drop(self, control: psycopg.Connection[Any], slot: str = "", publication: str = "") -> bool:
        publication = publication or self._name
        had_slot = drop_slot(control, slot or self._name)
        control.execute("SET default_transaction_read_only = off")  # a cutover may have held the database
        named = control.execute("SELECT FROM pg_publication WHERE pubname = %s", (publication,))
        had_publication = named.rowcount > 0
        control.execute(f"DROP PUBLICATION IF EXISTS {quote_name(publication)}".encode())
        return had_slot or had_publication

    def _discard(self, maker: int = 0) -> None:
        """Remove what was begun, as far as the server still answers. The process ``maker`` of the server may still make
        the slot, although our connection to it is gone: it waits for transactions of others. So it is ended first.
        """
        with suppress(*DRIVER_ERRORS, SourceError), closing(connect(self._address)) as control:
            if maker:
                control.execute("SELECT pg_terminate_backend(%s)", (maker,))
            self._drop(control)

    def _explained(self, error: SourceError, log: Mapping[str, Any], after: int) -> SourceError:
        """Return why a stream could not be opened, as far as the state of the slot says it."""
        if sqlstate(error) == OBJECT_IN_USE:
            return in_use(self._address.url, str(error))
        state = self.state(log)
        return self._gone(state.lost, after) if state.lost else error

    def _gone(self, reason: str, after: int) -> SourceGoneError:
        return SourceGoneError(
            f"{reason}: what was committed after {lsn_text(after)} cannot be read",
            about=self._address.url,
            next_step=BASE_AGAIN,
        )

    def _require_history(self, timeline: Timeline, state: LogState, after: int, known: int) -> None:
        """Raise where the server has failed over to one that lacks what was captured. Its log may be longer by now, and
        what it wrote before ``after`` would be left out without a word. ``known``: the newest timeline that was read.
        """
        left_at = timeline.lost_from(state.acknowledged, after)
        if left_at is None and timeline.number >= known:
            return
        if left_at is not None and not timeline.is_known:
            role = quote_name(
                self._asked(lambda control: str(_first(control, "SELECT current_user::text")[0]))
            )
            raise SourceGoneError(
                f"{self._address.url} has failed over to a standby, and this role may not read where: whether it has"
                f" what was captured after {lsn_text(left_at)} is not known",
                next_step=f"{HISTORY_GRANT.format(role=role)} then run the same command again",
            )
        lacks = "" if left_at is None else f": it lacks what was captured after {lsn_text(left_at)}"
        raise SourceGoneError(
            f"{self._address.url} has failed over to a standby whose log is another one than the captured one{lacks}",
            next_step=f"{PUT_BACK_STEP}. To prevent it, set synchronized_standby_slots at the primary",
        )

    def _require_continuity(self, state: LogState, after: int) -> None:
        """Raise where the server would leave out transactions after ``after``: it does so without a word."""
        if state.lost:
            raise self._gone(state.lost, after)
        if state.acknowledged > after:
            raise SourceGoneError(
                f"the changes from {lsn_text(after)} to {lsn_text(state.acknowledged)} are gone:"
                " the slot was read by somebody else, or was made anew",
                about=self._address.url,
                next_step=BASE_AGAIN,
            )
        if state.end < after:
            raise SourceGoneError(
                _ends_before(state.end, after),
                about=self._address.url,
                next_step=PUT_BACK_STEP,
            )


def _ends_before(end: int, after: int) -> str:
    return (
        f"the log ends at {lsn_text(end)}, before {lsn_text(after)}, up to which it was read: the server was put back"
        " to an earlier state"
    )


def _require_logical(control: psycopg.Connection[Any], url: str) -> None:
    """Raise where settings or role do not allow logical replication; the error names the statement that does."""
    settings = fetch(control, _SETTINGS)[0]
    role, database = quote_name(settings["role"]), quote_name(settings["database"])
    if settings["standby"]:
        raise SourceUsageError(
            f"{url} is a standby, and its changes can only be followed at the primary",
            next_step="give the URL of the primary",
        )
    if settings["wal_level"] != "logical":
        raise SourceUsageError(
            f"changes cannot be followed: wal_level is {settings['wal_level']}",
            about=url,
            next_step="ALTER SYSTEM SET wal_level = logical; then restart the server; moveout doctor says more",
        )
    for allowed, lacks, statement in (
        (settings["replicates"], "REPLICATION", f"ALTER ROLE {role} REPLICATION;"),
        (settings["creates"], f"CREATE on {database}", f"GRANT CREATE ON DATABASE {database} TO {role};"),
    ):
        if not allowed:
            raise SourceNotAllowedError(
                f"changes cannot be followed: the role {role} has no {lacks}", about=url, next_step=statement
            )


def _create_slot(
    replication: psycopg.Connection[Any], slot: str, options: str = _EXPORTED
) -> tuple[int, str]:
    """Create a slot; return the position from which on it sends changes, and the snapshot of that moment."""
    _, position, snapshot, _ = _first(
        replication, f"CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput {options}"
    )
    return parse_lsn(position), snapshot


def _patiently(
    replication: psycopg.Connection[Any], slot: str, table: PostgresTable, watch: WaitWatch
) -> tuple[int, str]:
    """Create a slot, as ``_create_slot`` does. Raises ``SourceUnreachableError`` where a transaction stays open: the
    slot waits for it by a lock.
    """
    replication.execute(f"SET lock_timeout = '{round(_WAIT_SECONDS * 1000)}ms'".encode())
    try:
        return _create_slot(replication, slot)
    except psycopg.errors.LockNotAvailable as exc:
        raise stays_locked(table.label, watch.last, "cannot be read again") from exc


def _polling_words(refusal: BaseException) -> str:
    """Return how changes are read where the replication protocol is refused, and why."""
    reason = in_one_line(refusal).rsplit("failed: ", 1)[-1]  # libpq says first where it has connected to
    return f"changes are read by polling, since the replication protocol is refused: {reason}"


def _identify(replication: psycopg.Connection[Any]) -> tuple[str, int]:
    """Return what identifies a server, and its timeline."""
    system, timeline = _first(replication, "IDENTIFY_SYSTEM")[:2]
    return str(system), int(timeline)


def _locked_moment(lock: psycopg.Connection[Any], table: PostgresTable, note: Note) -> tuple[int, str]:
    """Lock a table against writers, and export a snapshot; return the position at which it is exact for this table, and
    its name. Who has written to the table has ended then, also for others, and so lies before that position. Raises
    ``SourceUnreachableError`` where others keep it locked.
    """
    note(f"{table.label} is locked against writing for a moment, for a snapshot at an exact position")
    lock.execute(f"SET lock_timeout = '{_LOCK_SECONDS}s'".encode())
    started, is_named = time.monotonic(), False
    while True:
        lock.execute(begin_statement("").encode())
        try:
            lock.execute(f"LOCK TABLE ONLY {table.label} IN SHARE MODE".encode())
        except psycopg.errors.LockNotAvailable:
            lock.execute("ROLLBACK")
            waited = time.monotonic() - started
            wait = holder(lock, table.oid, "ShareLock", seconds=waited)
            if waited > _WAIT_SECONDS:
                raise stays_locked(table.label, wait, "cannot be read again") from None
            if wait and not is_named:
                note(wait.note())
                is_named = True
            time.sleep(_LOCK_SECONDS)
        else:
            snapshot, position = _first(
                lock, "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_current_wal_insert_lsn()::text"
            )
            return parse_lsn(position), snapshot


def _first(connection: psycopg.Connection[Any], statement: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row
