"""The session that holds a snapshot ends while units are read, as an administrator or a timeout ends it: what is
missing is read under a new snapshot at once, and nothing is tried in vain.
"""

import threading
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass

import psycopg
import pymysql
import pytest

from exporters.api import PreparesFinish
from exporters.changes import FOLLOW
from exporters.errors import SourceSnapshotLostError, SourceUnreachableError
from exporters.mysql import consistent_snapshot
from exporters.postgres.definitions import pg_dump
from exporters.postgres.rows.chunk_export import digest_rows
from exporters.postgres.rows.copy_feed import Feeds
from exporters.postgres.server_counts import Counting
from exporters.postgres.sessions.connection import parse_url
from exporters.postgres.sessions.snapshot_session import open_snapshot
from exporters.testing import MemorySink, MemoryWorkspace
from migrate.bundle.reader import BundleReader
from migrate.bundle.source_workspace import StoreWorkspace
from migrate.bundle.unit_sink import StoreSink
from migrate.case.model import Endpoint
from migrate.changes.change_logs import followable
from migrate.cli.common.sources import open_sources
from migrate.export import source_export as source_export_module
from migrate.export.outcome import ExportOptions
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.cli.conftest import call
from tests.export.sources import Numbers
from tests.exporters.mysql.databases import fetch as mysql_rows
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.processes import kill_server
from tests.tools.waiting import eventually

TABLES = 3
SLOTS = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
SLOT_NAMES = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"


class Watching(Silent):
    """Keeps the notes; calls the next one of ``on_export`` when a snapshot has been taken."""

    def __init__(self, on_export):
        self.on_export, self.notes = iter(on_export), []

    def begin(self, what, **_):
        if what == "export app":
            next(self.on_export)()

    def note(self, message):
        self.notes.append(message)


def postgres_source(server, rows=1000):
    url = server.database()
    connection = psycopg.connect(url, autocommit=True)
    for number in range(TABLES):
        connection.execute(f"CREATE TABLE t{number} AS SELECT g FROM generate_series(1, {rows}) g")

    def end_sessions():
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'moveout-%' AND datname = current_database()"
        )

    return url, end_sessions, connection


def mariadb_source(server, rows=1000):
    url = server.database()
    connection = server.connect(url.rpartition("/")[2])
    with connection.cursor() as cursor:
        for number in range(TABLES):
            cursor.execute(f"CREATE TABLE t{number} (g int PRIMARY KEY) SELECT seq AS g FROM seq_1_to_{rows}")

    def end_sessions():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            )
            for (session,) in cursor.fetchall():
                with suppress(pymysql.OperationalError):  # it may have ended since
                    cursor.execute(f"KILL {session}")

    return url, end_sessions, connection


MOST_KINDS = pytest.mark.parametrize(
    ("kind", "make"),
    [("postgres", postgres_source), pytest.param("mariadb", mariadb_source, marks=pytest.mark.torture)],
)
"""What happens after a session was lost is the same for both."""


@pytest.mark.parametrize(("kind", "make"), [("postgres", postgres_source), ("mariadb", mariadb_source)])
def test_what_is_missing_is_read_under_a_new_snapshot(kind, make, request, tmp_path):
    url, end_sessions, connection = make(request.getfixturevalue(kind))
    progress = Watching([end_sessions, lambda: None])
    store = open_location(str(tmp_path / "bundle"))
    with connection, open_sources({"app": Endpoint(url)}) as opened:
        outcome = export(opened, store, workers=2, progress=progress, options=ExportOptions())
    assert outcome.complete, outcome.broken
    assert sum(row.items for row in BundleReader(store).catalog() if row.kind == "table") == 1000 * TABLES
    news = [note for note in progress.notes if "new snapshot" in note]
    assert len(news) == 1, progress.notes
    assert "what is missing of app is read under a new snapshot" in news[0]


WAITING = {
    "postgres": "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'moveout-%' AND wait_event_type = 'Lock'"
    " AND datname = current_database()",
    "mariadb": "SELECT id FROM information_schema.processlist WHERE info LIKE 'FLUSH TABLES WITH READ LOCK%'",
}


@pytest.mark.parametrize(
    ("kind", "make", "lock", "kill", "unlock"),
    [
        (
            *("postgres", postgres_source, "BEGIN; LOCK TABLE t0 IN ACCESS EXCLUSIVE MODE"),
            *("SELECT pg_terminate_backend({})", "ROLLBACK"),
        ),
        ("mariadb", mariadb_source, "LOCK TABLES t0 WRITE", "KILL {}", "UNLOCK TABLES"),
    ],
)
def test_a_session_that_ends_while_the_first_snapshot_begins_costs_a_new_one(
    kind, make, lock, kill, unlock, request, tmp_path
):
    url, _, connection = make(request.getfixturevalue(kind))

    def run(statement):
        with connection.cursor() as cursor:
            cursor.execute(statement)

    def waiting():
        rows = fetch(url, WAITING[kind]) if kind == "postgres" else mysql_rows(url, WAITING[kind])
        return [number for (number,) in rows]

    def end_whoever_waits():
        session = eventually(waiting)[0]
        run(kill.format(session))
        eventually(lambda: session not in waiting())  # the next one may wait already
        run(unlock)

    run(lock)
    ending = threading.Thread(target=end_whoever_waits)
    ending.start()
    progress, store = Watching([lambda: None]), open_location(str(tmp_path / "bundle"))
    with connection, open_sources({"app": Endpoint(url)}) as opened:
        outcome = export(opened, store, workers=2, progress=progress, options=ExportOptions())
        ending.join()
    assert outcome.complete, outcome.broken
    assert len([note for note in progress.notes if "new snapshot" in note]) == 1, progress.notes


@dataclass
class LostAtOnce(Numbers):
    """Its first snapshot is lost while it begins; after that it is gone, or breaks off when all units were replaced."""

    is_gone: bool = True
    opened: int = 0

    @contextmanager
    def snapshot(self, workspace, *, workers):
        self.opened += 1
        if self.opened == 1:
            raise SourceSnapshotLostError("the session has ended")
        if self.is_gone:
            raise SourceUnreachableError("it is gone")
        with super().snapshot(workspace, workers=workers) as snapshot:
            yield snapshot


@pytest.mark.parametrize("is_gone", [True, False])
def test_what_an_earlier_run_has_stays_where_the_first_snapshot_is_lost_and_nothing_comes(
    store, monkeypatch, is_gone
):
    monkeypatch.setattr(source_export_module, "RESTART_SECONDS", 0.0)
    assert export([Numbers(counted=96)], store, workers=1, progress=Silent()).exit_code == 3

    def break_off():
        raise SourceUnreachableError("it is gone")

    source = LostAtOnce(holds=False, padding=b"0", on_finish=break_off, is_gone=is_gone)
    assert export([source], store, workers=1, progress=Silent()).exit_code == 3
    assert source.opened == 2
    reader = BundleReader(store)
    assert [row.items for row in reader.catalog()] == ([95] if is_gone else [])
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []


def test_units_of_an_earlier_run_do_not_count_as_what_the_first_snapshot_brought(store):
    """Else those that a lost snapshot brings would be fewer, and the source would be left."""
    assert export([Numbers(counted=96)], store, workers=1, progress=Silent()).exit_code == 3
    lost = set()

    def lose(unit):
        if unit.id not in lost:
            lost.add(unit.id)
            raise SourceSnapshotLostError("the session has ended")

    source = LostAtOnce(holds=False, padding=b"0", on_export=lose, is_gone=False, count=45)
    assert export([source], store, workers=1, progress=Silent(), options=ExportOptions()).complete


@pytest.mark.torture
def test_what_is_followed_gets_a_new_base_and_the_old_one_is_removed_from_the_server(postgres, tmp_path):
    url, end_sessions, connection = postgres_source(postgres)
    endpoint, positions = Endpoint(url), []

    def count_slots():
        positions.append(connection.execute(SLOTS).fetchone()[0])

    def end_and_count():
        count_slots()
        end_sessions()

    store = open_location(str(tmp_path / "bundle"))
    options = ExportOptions(follow=followable({"app": endpoint}))
    with connection, open_sources({"app": endpoint}) as opened:
        progress = Watching([end_and_count, count_slots])
        outcome = export(opened, store, workers=2, progress=progress, options=options)
        assert outcome.complete, outcome.broken
        (base,) = [row[FOLLOW] for row in BundleReader(store).reconciliation()[0].summary.positions]
        assert positions == [1, 1]
        assert fetch(url, SLOT_NAMES) == [(base["log"]["slot"],)]
        connection.execute("SELECT pg_drop_replication_slot(%s)", (base["log"]["slot"],))


@pytest.mark.torture
@MOST_KINDS
def test_a_server_that_takes_a_while_to_begin_anew_is_waited_for(kind, make, servers, tmp_path):
    server = getattr(servers, kind)(f"anew-{kind}")
    url, _, connection = make(server)
    connection.close()
    is_over = threading.Event()

    def start_again():
        is_over.wait(15)
        server.child.start_again(server.accepts)
        is_over.wait()  # the server ends with the thread that has started it
        server.child.stop()

    again = threading.Thread(target=start_again)

    def kill_for_a_while():
        kill_server(server)
        again.start()

    store = open_location(str(tmp_path / "bundle"))
    progress = Watching([kill_for_a_while, lambda: None])
    with open_sources({"app": Endpoint(url)}) as opened:
        outcome = export(opened, store, workers=2, progress=progress, options=ExportOptions())
    is_over.set()
    again.join()
    assert outcome.complete, outcome.broken
    assert len([note for note in progress.notes if "new snapshot" in note]) == 1, progress.notes


@dataclass
class Restarting(Numbers):
    """Its snapshot is lost with the first unit; then it cannot be opened so many times."""

    refusals: int = 0
    opened: int = 0

    @contextmanager
    def snapshot(self, workspace, *, workers):
        self.opened += 1
        if 1 < self.opened <= 1 + self.refusals:
            raise SourceUnreachableError("it is starting")
        with super().snapshot(workspace, workers=workers) as snapshot:
            yield snapshot

    def lose_first(self, _):
        if self.opened == 1:
            raise SourceSnapshotLostError("the session has ended")


@pytest.mark.parametrize(
    ("refusals", "ended"),
    [(3, nullcontext()), (10**6, pytest.raises(SourceUnreachableError, match="it is starting"))],
    ids=["a while", "for ever"],
)
def test_a_source_is_waited_for_until_it_begins_anew_but_not_for_ever(tmp_path, monkeypatch, refusals, ended):
    monkeypatch.setattr(source_export_module, "RESTART_SECONDS", 60.0 if refusals == 3 else 1.0)
    monkeypatch.setattr(source_export_module, "RESTART_POLL_SECONDS", 0.02)
    source = Restarting(refusals=refusals)
    source.on_export = source.lose_first
    with ended:
        assert export([source], open_location(str(tmp_path)), workers=1, progress=Silent()).complete
    assert source.opened > (3 if refusals == 3 else 1)


@MOST_KINDS
def test_a_holder_that_ends_after_the_last_row_costs_a_new_snapshot_too(kind, make, request, tmp_path):
    """Its locks are gone with it: a table that was replaced since would look empty, and be counted as empty."""
    url, end_sessions, connection = make(request.getfixturevalue(kind))
    store = open_location(str(tmp_path / "bundle"))
    with (
        connection,
        open_sources({"app": Endpoint(url)}) as (source,),
        pytest.raises(SourceSnapshotLostError),
    ):
        read_to_the_end(source, store, end_sessions)


def read_to_the_end(source, store, before_the_end):
    """Count while the snapshot is held; end its holder, then finish."""
    workspace = StoreWorkspace(store, "app")
    with source.snapshot(workspace, workers=1) as snapshot:
        snapshot.begin_outline(workspace)
        if isinstance(snapshot, PreparesFinish):
            snapshot.prepare_finish()
        snapshot._counting.result()
        snapshot._defining.result()
        before_the_end()
        snapshot.finish(iter(()), StoreSink(store, "app"))


def test_a_statement_that_is_ended_in_place_of_a_count_does_not_end_the_holder(mariadb, tmp_path):
    url, _, connection = mariadb_source(mariadb)
    workspace, store = MemoryWorkspace(), open_location(str(tmp_path / "bundle"))
    with (
        connection,
        open_sources({"app": Endpoint(url)}) as (source,),
        source.snapshot(workspace, workers=1) as snapshot,
    ):
        holder, errors = (
            snapshot._session.holder,
            [pymysql.OperationalError(1317, "Query execution was interrupted")],
        )
        run = holder.run

        def interrupted(statement):
            while statement == "DO 0" and errors:
                raise errors.pop()
            return run(statement)

        holder.run = interrupted
        assert snapshot.finish(iter(()), StoreSink(store, "app")).entries
        assert not errors


def test_a_mariadb_table_that_was_truncated_once_the_holder_had_ended_is_read_under_a_new_snapshot(
    mariadb, tmp_path, monkeypatch
):
    # Others would wait for the readers, too.
    monkeypatch.setattr(consistent_snapshot, "_keep", lambda *_: True)
    url, _, connection = mariadb_source(mariadb)
    with connection, open_sources({"app": Endpoint(url)}) as (source,):
        workspace, store = MemoryWorkspace(), open_location(str(tmp_path / "bundle"))
        with source.snapshot(workspace, workers=1) as snapshot:
            snapshot._session.holder.close()
            with connection.cursor() as cursor:
                cursor.execute("TRUNCATE t1")
            unit = next(unit for unit in snapshot.units() if "t1" in unit.id)
            with pytest.raises(SourceSnapshotLostError, match="altered since the snapshot"):
                snapshot.export(unit, StoreSink(store, "app"))


@pytest.mark.parametrize(
    "replacing",
    [
        "TRUNCATE t1",
        pytest.param("VACUUM FULL t1", marks=pytest.mark.torture),
        pytest.param(
            "CREATE TABLE new (LIKE t1); ALTER TABLE t1 RENAME TO old; ALTER TABLE new RENAME TO t1",
            marks=pytest.mark.torture,
        ),
    ],
)
def test_a_table_that_is_replaced_once_the_holder_has_ended_is_not_read(postgres, replacing):
    """Whoever has the snapshot already goes on with it, and would see no row, or rows at other places."""
    url, _, connection = postgres_source(postgres)
    with connection, open_snapshot(parse_url(url)) as (session, tables):
        chunks = [(table, (0, None)) for table in tables]
        with closing(Feeds(session, workers=1)) as feeds:
            assert [rows.sent_rows for rows in feeds.read_all([chunks[0], chunks[2]])] == [1000, 1000]
            session.holder.close()
            for statement in replacing.split(";"):
                connection.execute(statement)
            assert feeds.read_all(chunks) == []
            with pytest.raises(SourceSnapshotLostError):
                digest_rows(feeds.rows(*chunks[1]), None, has_columns=True)


RENAMED = "ALTER SCHEMA one RENAME TO other"
SWAPPED = "ALTER SCHEMA one RENAME TO old; ALTER SCHEMA two RENAME TO one"


def two_schemas(server, rows):
    """Each has a table of the same name, with so many rows."""
    url = server.database()
    for name, count in zip(("one", "two"), rows, strict=True):
        run_sql(
            url, f"CREATE SCHEMA {name}; CREATE TABLE {name}.t AS SELECT generate_series(1, {count}) AS g"
        )
        run_sql(url, f"CREATE VIEW {name}.v AS SELECT count(*) FROM {name}.t")
    return url


@pytest.mark.parametrize("change", [pytest.param(RENAMED, marks=pytest.mark.torture), SWAPPED])
def test_a_schema_that_is_renamed_behind_the_snapshot_costs_a_new_one(
    postgres, other_postgres, tmp_path, change
):
    """No lock keeps it from that, and tables are read by their names."""
    url, store = two_schemas(postgres, (2_000, 3_000)), open_location(str(tmp_path / "bundle"))
    progress = Watching([lambda: run_sql(url, change), lambda: None])
    with open_sources({"app": Endpoint(url)}) as opened:
        outcome = export(opened, store, workers=1, progress=progress, options=ExportOptions())
    assert outcome.complete, (outcome.broken, outcome.sources[0].reasons)
    assert len([note for note in progress.notes if "or it or its schema was renamed" in note]) == 1, (
        progress.notes
    )
    new = other_postgres.database()
    assert call("restore", tmp_path / "bundle", new).code == 0
    for schema in {RENAMED: ("other", "two"), SWAPPED: ("old", "one")}[change]:
        query = f"SELECT (SELECT count(*) FROM {schema}.t), * FROM {schema}.v"
        assert fetch(new, query) == fetch(url, query)


def test_rows_are_not_read_nor_counted_by_a_name_that_is_another_tables_meanwhile(postgres):
    url = two_schemas(postgres, (10, 10))
    with open_snapshot(parse_url(url)) as (session, tables):
        run_sql(url, SWAPPED)
        with (
            closing(Feeds(session, workers=1)) as feeds,
            pytest.raises(SourceSnapshotLostError, match="its schema was renamed"),
        ):
            digest_rows(feeds.rows(tables[0], (0, None)), None, has_columns=True)
        with (
            closing(Counting(session, {1: tables[0]}, workers=1)) as counting,
            pytest.raises(SourceSnapshotLostError, match="its schema was renamed"),
        ):
            counting.result()


def test_a_table_that_lacks_a_column_since_its_name_is_another_tables_costs_a_new_snapshot(postgres):
    url = two_schemas(postgres, (10, 10))
    run_sql(url, "ALTER TABLE two.t RENAME g TO other")
    with (
        open_sources({"app": Endpoint(url)}) as (opened,),
        opened.snapshot(MemoryWorkspace(), workers=1) as snapshot,
    ):
        unit, _ = snapshot.units()
        run_sql(url, SWAPPED)
        with pytest.raises(SourceSnapshotLostError, match="its schema was renamed"):
            snapshot.export(unit, MemorySink())


@pytest.mark.parametrize("is_early", [True, pytest.param(False, marks=pytest.mark.torture)])
def test_a_schema_that_is_renamed_while_definitions_are_read_costs_a_new_snapshot(
    postgres, other_postgres, tmp_path, monkeypatch, is_early
):
    """The server prints some of them with the names of now."""
    url, renames = two_schemas(postgres, (10, 20)), [RENAMED]
    dump = pg_dump.dump_definitions

    def dumped(*of, **options):
        if renames and is_early:
            run_sql(url, renames.pop())
        definitions = dump(*of, **options)
        if renames:
            run_sql(url, renames.pop())
        return definitions

    monkeypatch.setattr(pg_dump, "dump_definitions", dumped)
    store, progress = open_location(str(tmp_path / "bundle")), Watching([lambda: None, lambda: None])
    with open_sources({"app": Endpoint(url)}) as opened:
        assert export(opened, store, workers=1, progress=progress, options=ExportOptions()).complete
    new = other_postgres.database()
    assert call("restore", tmp_path / "bundle", new).code == 0
    assert fetch(new, "SELECT * FROM other.v") == [(10,)]


def test_units_that_were_committed_together_stay_where_the_snapshot_is_lost(store):
    """Also where nothing more can be read, under no snapshot."""
    tries = []

    def lose(unit):
        tries.append(unit.id)
        if unit.spec["start"] >= 50:
            raise (
                SourceSnapshotLostError("the session has ended")
                if len(tries) < 8
                else SourceUnreachableError("gone")
            )

    source = Numbers(on_export=lose)
    outcome = export([source], store, workers=1, progress=Silent(), options=ExportOptions(attempts=1))
    assert (outcome.exit_code, outcome.sources[0].items) == (3, 50)
    assert tries[:5] == [f"chunk/{start:08d}" for start in range(0, 50, 10)]
    assert not {*tries[:5]} & {*tries[5:]}
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []
    assert export([Numbers()], store, workers=1, progress=Silent()).complete


def test_a_source_that_loses_every_snapshot_in_vain_is_left(store):
    tries = []

    def lose(unit):
        tries.append(unit.id)
        raise SourceSnapshotLostError("the session has ended")

    source = Numbers(on_export=lambda unit: lose(unit) if unit.spec["start"] >= 50 else None)
    outcome = export([source], store, workers=1, progress=Silent(), options=ExportOptions())
    assert (outcome.exit_code, outcome.sources[0].items) == (3, 50)
    assert tries.count("chunk/00000050") == 1 + source_export_module.LOST_IN_VAIN
    assert export([Numbers()], store, workers=1, progress=Silent()).complete
