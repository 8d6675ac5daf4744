"""A PostgreSQL database as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial

from exporters.api import Estimate, Json, Snapshot, Survey, SurveyItem, Workspace
from exporters.changes import ChangeLog
from exporters.errors import SourceGoneError, SourceNotAllowedError, SourceSnapshotLostError
from exporters.postgres.catalog import PostgresTable, read_tables
from exporters.postgres.chunk_plan import make_plan
from exporters.postgres.errors import STANDBY_STEP, as_source_errors
from exporters.postgres.sessions import lock_timeouts
from exporters.postgres.sessions.connection import PostgresAddress, connect
from exporters.postgres.sessions.session_limits import SessionLimits
from exporters.postgres.sessions.snapshot_session import join_snapshot, open_snapshot
from exporters.postgres.snapshot import PostgresSnapshot
from exporters.rate_sampling import try_out
from exporters.sql.chunk_plan import NAME as PLAN
from exporters.sql.chunk_plan import Plan
from exporters.sql.snapshots import remember_position

_GENTLY = (
    "{name} is read gently: short statements, with pauses that follow the server's load. Its snapshot is held until the"
    " last row is read, and so long VACUUM removes nothing that was deleted since."
)


class PostgresSource:
    """See ``exporters.api.Source``. Opened by ``PostgresExporter``."""

    def __init__(
        self,
        name: str,
        address: PostgresAddress,
        session_limits: SessionLimits | None,
        identity: str,
    ) -> None:
        self.name = name
        self.url = address.url
        self.identity = identity
        self._address = address
        self._session_limits = session_limits or SessionLimits()

    def survey(self) -> Survey:
        """Return the planner's estimates of every table."""
        with connect(self._address, settings=self._session_limits.timeouts()) as connection:
            with as_source_errors(self.url):
                read = partial(read_tables, connection)
                tables = lock_timeouts.around(
                    connection, read, seconds=self._session_limits.limits.lock_seconds
                )
            server = f"PostgreSQL {connection.info.parameter_status('server_version')}"
        items = [
            SurveyItem(
                f"{table.schema}.{table.name}", table.kind, table.estimate, table.size_bytes, exact=False
            )
            for table in tables
            if not table.foreign
        ]
        return Survey(items, server, _warnings(tables))

    def estimate(self, survey: Survey, *, seconds: float, workers: int) -> Estimate:
        """See ``exporters.api.Measurable``: exports the largest chunks to nowhere."""
        del survey
        return try_out(self, seconds=seconds, workers=workers)

    def snapshot(self, workspace: Workspace, *, workers: int) -> AbstractContextManager[Snapshot]:
        """Take a snapshot; the plan of an earlier one is used again where it still fits."""
        return self.base(workspace, None, workers=workers)

    @contextmanager
    def base(self, workspace: Workspace, log: ChangeLog | None, *, workers: int) -> Iterator[Snapshot]:
        """See ``exporters.api.Followable``. Without a log nothing is followed."""
        with open_snapshot(self._address, self._session_limits, tolerant=True, log=log) as (session, tables):
            exported = [table for table in tables if table.exported]
            refused = any(table.hidden or not table.readable for table in tables)
            if not exported and refused and not session.locked:
                raise SourceNotAllowedError(
                    f"the role may read no table ({len(tables)} in all)",
                    about=self.url,
                    next_step="use the owner, a superuser, or a member of pg_read_all_data that has BYPASSRLS where"
                    " tables have row-level security",
                )
            former = Plan.load(workspace.read(PLAN))
            plan = make_plan(exported, former, workers)
            if plan != former:
                workspace.write(PLAN, plan.dump())
            if self._session_limits.limits.gentle:
                self._session_limits.note(_GENTLY.format(name=self.name))
            positions = remember_position(workspace, session.position)
            with closing(PostgresSnapshot(session, tables, plan, positions, workers)) as view:
                try:
                    yield view
                except SourceSnapshotLostError as exc:
                    exc.next_step = STANDBY_STEP if session.position["standby"] else exc.next_step
                    raise

    @property
    def shareable(self) -> bool:
        """See ``exporters.api.Shareable``: not under a limit of connections, which several machines could exceed."""
        return self._session_limits.limits.max_connections is None

    @contextmanager
    def join(self, workspace: Workspace, ticket: Json, *, workers: int) -> Iterator[Snapshot]:
        """See ``exporters.api.Shareable``: by the name under which the holder exported its snapshot."""
        with join_snapshot(self._address, ticket, self._session_limits) as (session, tables):
            plan = Plan.load(workspace.read(PLAN))
            if plan is None:
                raise SourceGoneError("there is no plan of this export here", about=self.url)
            with closing(PostgresSnapshot(session, tables, plan, [session.position], workers)) as view:
                yield view

    def close(self) -> None:
        """Do nothing: no connection stays open between calls."""


def _warnings(tables: Sequence[PostgresTable]) -> list[str]:
    return [
        *(f"{t.label} is a foreign table: only its definition is exported" for t in tables if t.foreign),
        *(f"{t.label} is not exported: {t.gap}" for t in tables if t.gap),
    ]
