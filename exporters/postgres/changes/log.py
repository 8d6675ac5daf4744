"""The change log of a PostgreSQL database. See ``exporters.changes.ChangeLog``.

A logical replication slot keeps what is written from the moment on at which it was made, and exports a snapshot of that
moment. A publication says of which tables. Both have one name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from secrets import token_hex
from typing import Any, TypeVar

import psycopg

from exporters.changes import (
    BASE_AGAIN,
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
    SourceUnreachableError,
    SourceUsageError,
)
from exporters.limits import Note
from exporters.postgres.catalog import read_tables
from exporters.postgres.changes.captured_again import CapturedAgain
from exporters.postgres.changes.publication import (
    FollowedTables,
    followed_tables,
    make_publication,
    publish_table,
    published_tables,
    refusing_tables,
)
from exporters.postgres.changes.replication import ReplicationStream
from exporters.postgres.changes.slot import (
    OBJECT_IN_USE,
    drop_slot,
    end_reader,
    lsn_text,
    own_name,
    parse_lsn,
    read_state,
)
from exporters.postgres.changes.timelines import FAILOVER_VERSION, Timeline, read_timeline
from exporters.postgres.changes.touched_rows import touched_rows
from exporters.postgres.errors import DRIVER_ERRORS, sqlstate, translate
from exporters.postgres.identifiers import quote_name
from exporters.postgres.live_rows import live_rows
from exporters.postgres.query_rows import fetch
from exporters.postgres.sessions.connection import PostgresAddress, connect, parse_url
from exporters.postgres.sessions.lock_timeouts import held
from exporters.postgres.sessions.lock_waits import WaitWatch
from exporters.postgres.sessions.session_limits import SessionLimits
from exporters.touched_rows import TouchedRows

Answer = TypeVar("Answer")

_EXPORTED = "EXPORT_SNAPSHOT"
"""The option in the form that all servers read (PostgreSQL, "Streaming Replication Protocol")."""
_LONGEST_NAME = 50
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


def open_change_log(url: str, secrets: Mapping[str, str], name: str) -> PostgresChangeLog:
    """Return the change log of a database. Raises ``SourceUsageError`` for the URL."""
    return PostgresChangeLog(parse_url(url, password=secrets.get("password")), name)


class PostgresChangeLog:
    """See ``exporters.changes.ChangeLog``."""

    def __init__(self, address: PostgresAddress, name: str) -> None:
        self._address = address
        self._given_name = name
        self._name = own_name(name)
        self._timeline = 0

    @contextmanager
    def open_base(self, note: Note = lambda _: None) -> Iterator[ChangeBase]:
        """See ``ChangeLog``. The slot waits for the end of all transactions that are open."""
        limits = SessionLimits()
        with ExitStack() as stack:
            try:
                with closing(connect(self._address)) as control:
                    control.execute(limits.timeouts().encode())
                    _require_logical(control, self._address.url)
                    self._drop(control)
                    followed = followed_tables(control, read_tables(control, held(control, seconds=0)))
                    make_publication(control, self._name, followed)
                replication = stack.enter_context(closing(self._replication(limits.application)))
                with WaitWatch(self._address, limits.application, note):
                    base = self._make_slot(replication, followed)
            except DRIVER_ERRORS as exc:
                self._discard()
                raise translate(exc, self._address.url) from exc
            except BaseException:
                self._discard()
                raise
            try:
                yield base
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
        with closing(self._replication()) as replication:
            system, number = _first(replication, "IDENTIFY_SYSTEM")[:2]
            if system != log["system"]:
                raise SourceReplacedError(
                    f"{self._address.url} is another server than the one whose changes were kept",
                    next_step="Check the URL. If it is right: moveout export --follow to a new location.",
                )
            try:
                timeline = read_timeline(replication, int(number), log.get("timeline", 1))
            except DRIVER_ERRORS as exc:
                raise translate(exc, self._address.url) from exc
            if replication.info.parameter_status("server_encoding") == "SQL_ASCII":
                replication.execute("SET client_encoding TO 'SQL_ASCII'")  # its bytes may be no UTF-8
            try:
                stream = ReplicationStream(
                    replication, self._address.url, log["slot"], log["publication"], begin
                )
            except SourceError as exc:
                raise self._explained(exc, log, after) from exc
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

    @contextmanager
    def reread(
        self, log: Mapping[str, Any], schema: str, name: str, note: Note = lambda _: None
    ) -> Iterator[RereadSnapshot]:
        """See ``exporters.engine.RereadableLog``. A slot for a moment exports the snapshot; it waits for the end of all
        transactions that are open. What these wrote to a table that is only now published is in the snapshot.
        """
        limits = SessionLimits()
        with ExitStack() as stack:
            try:
                with closing(connect(self._address)) as control:
                    table = next(
                        (t for t in read_tables(control) if (t.schema, t.name) == (schema, name)), None
                    )
                    if table is None:
                        label = ".".join(filter(None, (schema, name)))
                        raise SourceUsageError(
                            f"{self._address.url} has no table {label}",
                            next_step="NAME:SCHEMA.TABLE names one.",
                        )
                    if obstacle := publish_table(control, log["publication"], table):
                        raise SourceUsageError(f"{table.label} cannot be followed: {obstacle}")
                replication = stack.enter_context(closing(self._replication(limits.application)))
                moment = f"{self._name[:_LONGEST_NAME]}_{token_hex(4)}"
                with WaitWatch(self._address, limits.application, note):
                    position, snapshot = _create_slot(replication, f'"{moment}" TEMPORARY')
            except DRIVER_ERRORS as exc:
                raise translate(exc, self._address.url) from exc
            rows = stack.enter_context(live_rows(self._address, snapshot))
            yield RereadSnapshot(position, rows, [(schema, name)])

    def state(self, log: Mapping[str, Any], after: int = 0) -> LogState:
        """See ``ChangeLog``. The server itself knows what is acknowledged; ``after`` tells whether it was put back."""
        state = self._asked(lambda control: read_state(control, log["slot"], log["publication"]))
        if state.lost or state.end >= after:
            return state
        return replace(state, lost=_ends_before(state.end, after))

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

    def refusing_tables(self, log: Mapping[str, Any]) -> Sequence[NotFollowed]:
        """See ``ChangeLog``."""
        return self._asked(lambda control: refusing_tables(control, log["publication"]))

    def distance_bytes(self, after: int, end: int) -> int:
        """See ``ChangeLog``."""
        return max(end - after, 0)

    def drop(self, log: Mapping[str, Any], *, even_if_read: bool = False) -> bool:
        """See ``ChangeLog``."""
        with closing(connect(self._address)) as control:
            try:
                if even_if_read:
                    end_reader(control, log["slot"])
                return self._drop(control, log["slot"], log["publication"])
            except DRIVER_ERRORS as exc:
                raise translate(exc, self._address.url) from exc

    def show(self, position: int) -> str:
        """See ``ChangeLog``."""
        return lsn_text(position)

    def _asked(self, question: Callable[[psycopg.Connection[Any]], Answer]) -> Answer:
        """Ask the server something short."""
        with closing(connect(self._address, **_SHORT_QUESTION)) as control:
            try:
                return question(control)
            except DRIVER_ERRORS as exc:
                raise translate(exc, self._address.url) from exc

    def _replication(self, application: str = "moveout") -> psycopg.Connection[Any]:
        return connect(self._address, application, replication="database")

    def _make_slot(self, replication: psycopg.Connection[Any], followed: FollowedTables) -> ChangeBase:
        failover = replication.info.server_version >= FAILOVER_VERSION
        options = "(SNAPSHOT 'export', FAILOVER true)" if failover else _EXPORTED
        system, timeline = _first(replication, "IDENTIFY_SYSTEM")[:2]
        position, snapshot = _create_slot(replication, f'"{self._name}"', options)
        names = {"slot": self._name, "publication": self._name}
        log = names | {"system": system, "timeline": int(timeline)}
        return ChangeBase(self._given_name, position, snapshot, log, followed.not_followed)

    def _drop(self, control: psycopg.Connection[Any], slot: str = "", publication: str = "") -> bool:
        publication = publication or self._name
        had_slot = drop_slot(control, slot or self._name)
        control.execute("SET default_transaction_read_only = off")  # a cutover may have held the database
        named = control.execute("SELECT FROM pg_publication WHERE pubname = %s", (publication,))
        had_publication = named.rowcount > 0
        control.execute(f"DROP PUBLICATION IF EXISTS {quote_name(publication)}".encode())
        return had_slot or had_publication

    def _discard(self) -> None:
        """Remove what was begun, as far as the server still answers."""
        with suppress(*DRIVER_ERRORS, SourceError), closing(connect(self._address)) as control:
            self._drop(control)

    def _explained(self, error: SourceError, log: Mapping[str, Any], after: int) -> SourceError:
        """Return why a stream could not be opened, as far as the state of the slot says it."""
        if sqlstate(error) == OBJECT_IN_USE:
            return in_use(self._address.url, str(error))
        state = self.state(log)
        return self._gone(state.lost, after) if state.lost else error

    def _gone(self, reason: str, after: int) -> SourceGoneError:
        return SourceGoneError(
            f"{self._address.url}: {reason}: what was committed after {lsn_text(after)} cannot be read",
            next_step=BASE_AGAIN,
        )

    def _require_history(self, timeline: Timeline, state: LogState, after: int, known: int) -> None:
        """Raise where the server has failed over to one that lacks what was captured. Its log may be longer by now, and
        what it wrote before ``after`` would be left out without a word. ``known``: the newest timeline that was read.
        """
        left_at = timeline.lost_from(state.acknowledged, after)
        if left_at is None and timeline.number >= known:
            return
        lacks = "" if left_at is None else f": it lacks what was captured after {lsn_text(left_at)}"
        raise SourceGoneError(
            f"{self._address.url} has failed over to a standby whose log is another one than the captured one{lacks}",
            next_step=f"The destination may have rows that this server lacks. {BASE_AGAIN} To prevent it, set"
            " synchronized_standby_slots at the primary.",
        )

    def _require_continuity(self, state: LogState, after: int) -> None:
        """Raise where the server would leave out transactions after ``after``: it does so without a word."""
        if state.lost:
            raise self._gone(state.lost, after)
        if state.acknowledged > after:
            raise SourceGoneError(
                f"{self._address.url}: the changes from {lsn_text(after)} to {lsn_text(state.acknowledged)} are gone:"
                " the slot was read by somebody else, or was made anew",
                next_step=BASE_AGAIN,
            )
        if state.end < after:
            raise SourceGoneError(
                f"{self._address.url}: {_ends_before(state.end, after)}",
                next_step=f"The destination may have rows that this server lacks. {BASE_AGAIN}",
            )


def _ends_before(end: int, after: int) -> str:
    return (
        f"the log ends at {lsn_text(end)}, before {lsn_text(after)}, up to which it was read: the server was put back"
        " to an earlier state"
    )


def in_use(url: str, reason: str) -> SourceUnreachableError:
    """Return the error that another one reads a slot."""
    return SourceUnreachableError(
        f"{url}: somebody else reads the changes: {reason}",
        next_step="Stop the other moveout that follows this source.",
    )


def _require_logical(control: psycopg.Connection[Any], url: str) -> None:
    """Raise where settings or role do not allow logical replication; the error names the statement that does."""
    settings = fetch(control, _SETTINGS)[0]
    role, database = quote_name(settings["role"]), quote_name(settings["database"])
    if settings["standby"]:
        raise SourceUsageError(
            f"{url} is a standby, and its changes can only be followed at the primary",
            next_step="Give the URL of the primary.",
        )
    if settings["wal_level"] != "logical":
        raise SourceUsageError(
            f"{url}: changes cannot be followed: wal_level is {settings['wal_level']}",
            next_step="ALTER SYSTEM SET wal_level = logical; then restart the server. moveout doctor says more.",
        )
    for allowed, lacks, statement in (
        (settings["replicates"], "REPLICATION", f"ALTER ROLE {role} REPLICATION;"),
        (settings["creates"], f"CREATE on {database}", f"GRANT CREATE ON DATABASE {database} TO {role};"),
    ):
        if not allowed:
            raise SourceNotAllowedError(
                f"{url}: changes cannot be followed: the role {role} has no {lacks}", next_step=statement
            )


def _create_slot(
    replication: psycopg.Connection[Any], slot: str, options: str = _EXPORTED
) -> tuple[int, str]:
    """Create a slot; return the position from which on it sends changes, and the snapshot of that moment."""
    _, position, snapshot, _ = _first(
        replication, f"CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput {options}"
    )
    return parse_lsn(position), snapshot


def _first(connection: psycopg.Connection[Any], statement: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row
