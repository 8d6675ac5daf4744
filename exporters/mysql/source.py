"""A MySQL or MariaDB database as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager

from exporters.api import Estimate, Host, Snapshot, Survey, SurveyItem, Workspace
from exporters.changes import ChangeLog
from exporters.errors import SourceNotAllowedError
from exporters.limits import Limits, Note, limits_of, note_of
from exporters.mysql.catalog import MysqlTable, read_tables
from exporters.mysql.chunk_plan import make_plan
from exporters.mysql.connection import MysqlAddress, connect, parse_url
from exporters.mysql.consistent_snapshot import open_snapshot
from exporters.mysql.discovery import server_identity
from exporters.mysql.errors import as_source_errors
from exporters.mysql.snapshot import MysqlSnapshot
from exporters.rate_sampling import try_out
from exporters.sql.chunk_plan import NAME as PLAN
from exporters.sql.chunk_plan import Plan


class MysqlExporter:
    """Opens ``mysql://user@host:port/database``. See ``exporters.api.Exporter``."""

    def open(self, name: str, url: str, host: Host) -> MysqlSource:
        """Connect once, to prove that the database can be reached."""
        address = parse_url(url, {"password": host.secret("password") or ""})
        with closing(connect(address)) as connection:
            identity = f"mysql:{server_identity(connection)}/{address.database}"
        return MysqlSource(name, address, limits_of(host), identity, note_of(host))


class MysqlSource:
    """See ``exporters.api.Source``."""

    def __init__(
        self,
        name: str,
        address: MysqlAddress,
        limits: Limits | None,
        identity: str,
        note: Note,
    ) -> None:
        self.name = name
        self.url = address.url
        self.identity = identity
        self._address = address
        self._limits = limits or Limits()
        self._note = note

    def survey(self) -> Survey:
        """Return the server's estimates of every table."""
        with closing(connect(self._address)) as connection, as_source_errors(self.url):
            tables = read_tables(connection)
            server = f"{'MariaDB' if connection.is_mariadb else 'MySQL'} {connection.version}"
        items = [
            SurveyItem(table.name, "table", table.estimate, table.size_bytes, exact=False)
            for table in tables
            if not table.elsewhere
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
        workers = self._limits.allowed(1, requested=workers)
        with open_snapshot(self._address, workers=workers, log=log, note=self._note) as (session, tables):
            local_tables = [table for table in tables if not table.elsewhere]
            exported = [table for table in local_tables if table.name not in session.unreadable]
            if local_tables and not exported:
                raise SourceNotAllowedError(
                    f"no table can be read ({len(local_tables)} in all), not even {local_tables[0].label}:"
                    f" {session.unreadable[local_tables[0].name]}",
                    about=self.url,
                    next_step="grant the account SELECT on the database, or let the server repair the tables",
                )
            former = Plan.load(workspace.read(PLAN))
            with as_source_errors(self.url):
                plan = make_plan(session.holder, exported, former, workers)
            if plan != former:
                workspace.write(PLAN, plan.dump())
            with closing(MysqlSnapshot(session, tables, plan, workspace, workers)) as snapshot:
                yield snapshot

    def close(self) -> None:
        """Do nothing: no connection stays open between calls."""


def _warnings(tables: Sequence[MysqlTable]) -> list[str]:
    return [
        *(
            f"{t.label} ({t.engine}): its rows lie elsewhere; only its definition is exported"
            for t in tables
            if t.elsewhere
        ),
        *(
            f"{t.label} ({t.engine}) has no snapshots: do not write to it during the export"
            for t in tables
            if not t.transactional and not t.elsewhere
        ),
        *(
            f"{t.label} is versioned by transaction numbers: only its current rows are exported"
            for t in tables
            if t.versioned and not t.history
        ),
    ]
