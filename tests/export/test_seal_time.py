"""An export that is to be sealed before the deadline: what was read is sealed and named, and the next run goes on."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from exporters.errors import SourceUnreachableError
from exporters.mysql import server_counts as mysql_counts
from exporters.postgres import server_counts as postgres_counts
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.changes.change_logs import followable
from migrate.cli.common.sources import open_sources
from migrate.export import source_export
from migrate.export.outcome import ExportOptions
from migrate.export.run import export
from migrate.export.seal_time import SealTime, SealTimeError
from migrate.export.source_units import SourceUnits
from migrate.progress.meter import Meter
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Silent
from migrate.storage.rate_limit import SMALL_BYTES, RateLimiter
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.export.sources import Numbers
from tests.exporters.postgres.databases import run_sql
from tests.faults import Fault, FaultPlan, Faulty
from tests.tools.waiting import eventually

START = datetime(2026, 11, 25, 18, tzinfo=UTC)


class Clock:
    """A clock that strikes when it is told to."""

    def __init__(self):
        self.time = START

    def __call__(self):
        return self.time

    def strike(self):
        self.time += timedelta(hours=1)


@pytest.fixture
def stopped(monkeypatch):
    """Is set when a run has stopped what is under way: its bytes come to nothing from then on."""
    event, stop = threading.Event(), SourceUnits._stop

    def stop_and_tell(run, error):
        stop(run, error)
        event.set()

    monkeypatch.setattr(SourceUnits, "_stop", stop_and_tell)
    return event


def go(store, sources, progress=None, **options):
    return export(sources, store, workers=1, progress=progress or Silent(), options=ExportOptions(**options))


def test_what_was_read_in_time_is_sealed_and_the_next_run_reads_the_rest(store, stopped):
    clock = Clock()

    def slow(unit):
        if unit.spec["start"] == 50:
            clock.strike()
            assert stopped.wait(60)

    big = Numbers("big", "numbers://host/big", item_bytes=10**6, on_export=slow)
    sources = [Numbers("first", "numbers://host/first"), big, Numbers("last", "numbers://host/last")]
    moment = SealTime(START + timedelta(minutes=30), clock)
    sealed = go(store, sources, seal_time=moment)
    assert (sealed.complete, sealed.exit_code, sealed.stopped_early) == (False, 3, True)
    assert {source.name: source.items for source in sealed.sources} == {"first": 95, "big": 50, "last": 0}
    assert {source.name for source in sealed.broken} == {"big", "last"}
    assert all("sealed now, to leave before the deadline" in str(source.error) for source in sealed.broken)
    assert "last" in {source for source, _ in BundleReader(store).gaps()}
    checked = verify(store, Level.FULL, workers=2, progress=Silent())
    assert checked.findings == []

    big.exported.clear()
    meter, fractions = Meter(), {}
    meter.open("export")
    meter.expect([source.name for source in sources])
    meter.on_event = lambda event, words: fractions.update({(event, words): meter.state().fraction})
    whole = go(store, sources, meter)
    assert fractions["end", "export first"] >= 0.3, "what an earlier run has exported counts"
    assert (whole.complete, whole.stopped_early) == (True, False)
    assert big.exported[0] == "chunk/00000050"


def test_small_units_that_were_committed_when_the_time_came_are_in_the_bundle(store, stopped):
    """They are committed together, by a worker that is ended then."""
    clock, source = Clock(), Numbers()

    def slow(unit):
        if unit.spec["start"] == 50:
            clock.strike()
            assert stopped.wait(60)

    source.on_export = slow
    sealed = go(store, [source], seal_time=SealTime(START + timedelta(minutes=30), clock))
    assert (sealed.exit_code, sealed.sources[0].items) == (3, 50)
    assert verify(store, Level.FULL, workers=2, progress=Silent()).findings == []
    source.exported.clear()
    assert go(store, [source]).complete
    assert source.exported[0] == "chunk/00000050"


def test_units_under_way_end_at_the_seal_also_where_their_source_was_left_before(store, stopped, monkeypatch):
    clock, is_left, take = Clock(), threading.Event(), SourceUnits._take

    def take_and_tell(run, unit, result):
        take(run, unit, result)
        if isinstance(result, SourceUnreachableError):
            is_left.set()

    def on_export(unit):
        if unit.spec["start"] == 10:
            raise SourceUnreachableError("no answer")
        assert is_left.wait(60)
        clock.strike()
        assert stopped.wait(60)

    monkeypatch.setattr(SourceUnits, "_take", take_and_tell)

    big = Numbers("big", "numbers://host/big", count=20, item_bytes=10**6, on_export=on_export)
    options = ExportOptions(attempts=1, seal_time=SealTime(START + timedelta(minutes=30), clock))
    sources = [Numbers("first", "numbers://host/first"), big]
    sealed = export(sources, store, workers=2, progress=Silent(), options=options)
    assert [(source.name, source.items) for source in sealed.sources] == [("first", 95), ("big", 0)]
    assert [str(source.error) for source in sealed.broken] == ["no answer"]


def test_the_seal_waits_for_no_bytes_that_wait_for_the_rate_limit(tmp_path):
    """The time comes when three units of 10 MB each are under way, at 256 KiB a second: that would take two minutes."""
    limiter, clock, together, struck_at = RateLimiter(2**18), Clock(), threading.Barrier(3), []

    def strike_when_all_are_under_way(_):
        if together.wait(60) == 0:
            struck_at.append(time.monotonic())
            clock.strike()

    def open_store(cancellation):
        return open_location(
            str(tmp_path / "location"),
            rate_limiter=limiter,
            at_once_bytes=SMALL_BYTES,
            cancellation=cancellation,
        )

    sources = [
        Numbers("first", "numbers://host/first"),
        Numbers(
            "big", "numbers://host/big", padding=bytes(10**6), item_bytes=10**6, index_padding=bytes(10**6),
            on_export=strike_when_all_are_under_way,
        ),
    ]  # fmt: skip
    cancellation, moment = CancellationToken(), SealTime(START + timedelta(minutes=30), clock)
    options = ExportOptions(seal_time=moment, open_unit_store=open_store, rate_limiter=limiter)
    sealed = export(
        sources,
        open_store(cancellation),
        workers=3,
        progress=Silent(),
        options=options,
        cancellation=cancellation,
    )
    assert time.monotonic() - struck_at[0] < 60
    assert (sealed.stopped_early, sealed.exit_code) == (True, 3)
    assert {source.name: source.complete for source in sealed.sources} == {"first": True, "big": False}
    assert verify(open_store(cancellation), Level.FULL, workers=2, progress=Silent()).findings == []


def test_what_is_under_way_at_once_takes_a_tenth_of_the_time_that_is_left():
    clock = Clock()
    moment = SealTime(START + timedelta(seconds=100), clock)
    assert moment.may_begin(500, under_way_bytes=500, bytes_per_second=100)
    assert not moment.may_begin(501, under_way_bytes=500, bytes_per_second=100)
    assert moment.may_begin(10**9, under_way_bytes=0, bytes_per_second=100), "some of it arrives"
    assert moment.may_begin(10**9, under_way_bytes=500, bytes_per_second=None)
    assert SealTime(None).may_begin(10**9, under_way_bytes=500, bytes_per_second=100)
    clock.strike()
    assert not moment.may_begin(0, under_way_bytes=1, bytes_per_second=100)


def test_what_has_ended_is_not_under_way(store):
    """Ten units of 3 MB each, at most 10 MB of which may be under way."""
    moment = SealTime(START + timedelta(seconds=100), Clock())
    limiter = RateLimiter(10**6)
    sealed = go(store, [Numbers(item_bytes=300_000)], seal_time=moment, rate_limiter=limiter)
    assert (sealed.complete, limiter.present_rate) == (True, 10**6), (
        "the limit holds until it is time to seal"
    )


def test_a_unit_waits_where_those_under_way_take_what_time_is_left(store):
    """Of units of 9 MB each, 10 MB may be under way: one at a time, though there are two workers."""
    together, met = threading.Barrier(2), []

    def on_export(unit):
        try:
            together.wait(0.3)
            met.append(unit.id)
        except threading.BrokenBarrierError:
            together.reset()

    source = Numbers(count=40, item_bytes=900_000, on_export=on_export)
    seal_time = SealTime(START + timedelta(seconds=100), Clock())
    options = ExportOptions(seal_time=seal_time, rate_limiter=RateLimiter(10**6))
    assert export([source], store, workers=2, progress=Silent(), options=options).complete
    assert met == []


def test_a_source_whose_last_unit_ends_in_time_is_complete(store):
    clock = Clock()

    def last(unit):
        if unit.spec["start"] == 90:
            clock.strike()

    moment = SealTime(START + timedelta(minutes=30), clock)
    sealed = go(store, [Numbers(on_export=last)], seal_time=moment)
    assert (sealed.complete, sealed.stopped_early) == (True, False)


@pytest.mark.parametrize("count", [95, 2995])
def test_a_source_whose_last_unit_is_being_recorded_when_the_time_comes_is_complete(store, count, stopped):
    clock = Clock()

    def record(put):
        clock.strike()
        assert stopped.wait(60)
        return put()

    plan = FaultPlan(Fault("put", record, prefix=layout.commit_record("app", f"chunk/{count - 5:08}")))
    moment = SealTime(START + timedelta(minutes=30), clock)
    sealed = go(Faulty(store, plan), [Numbers(count=count, item_bytes=10**6)], seal_time=moment)
    assert (sealed.complete, sealed.stopped_early) == (True, False)
    plan.assert_all_fired()


def test_nothing_is_sealed_where_nothing_was_read_in_time(store):
    clock = Clock()
    clock.strike()
    with pytest.raises(SealTimeError, match="app was not read to its end") as raised:
        go(store, [Numbers()], seal_time=SealTime(START, clock))
    assert raised.value.exit_code == 3
    assert go(store, [Numbers()]).complete


def test_a_slot_that_waits_for_a_transaction_of_others_holds_up_no_seal(postgres, store):
    url, slots = postgres.database(), "SELECT slot_name FROM pg_replication_slots WHERE database = %s"
    endpoint, first, clock = Endpoint(url), Numbers("first", "numbers://host/first"), Clock()
    seal_time = SealTime(START + timedelta(minutes=30), clock)
    options = ExportOptions(follow=followable({"app": endpoint}), seal_time=seal_time)

    def slots_there():
        with psycopg.connect(url) as connection:
            return connection.execute(slots, (url.rpartition("/")[2],)).fetchall()

    def strike_when_the_slot_waits():
        eventually(slots_there)
        clock.strike()
        return time.monotonic()

    with psycopg.connect(url) as other, ThreadPoolExecutor(1) as threads:
        other.execute("CREATE TABLE t (id int PRIMARY KEY)")
        other.commit()
        other.execute("INSERT INTO t VALUES (1)")
        struck_at = threads.submit(strike_when_the_slot_waits)
        with open_sources({"app": endpoint}) as (app,):
            sealed = export([first, app], store, workers=1, progress=Silent(), options=options)
        assert time.monotonic() - struck_at.result() < 30
        assert {source.name: source.items for source in sealed.sources} == {"first": 95, "app": 0}
        (source,) = sealed.broken
        assert isinstance(source.error, SealTimeError)
        other.commit()
        eventually(lambda: slots_there() == [])


def slow_postgres(server, monkeypatch):
    url = server.database()
    run_sql(url, "CREATE TABLE t (id int PRIMARY KEY, x text); INSERT INTO t VALUES (1, 'a')")
    slow_rows = "FROM public.t, (SELECT pg_sleep(40)) AS slow"
    monkeypatch.setattr(postgres_counts, "rows_of", lambda *_: slow_rows)
    return url


def slow_mariadb(server, monkeypatch):
    url = server.database()
    with server.connect(url.rpartition("/")[2]) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id int PRIMARY KEY, x text)")
        cursor.execute("INSERT INTO t VALUES (1, 'a')")
        connection.commit()
    monkeypatch.setattr(mysql_counts, "_SUM", f"SLEEP(40) + {mysql_counts._SUM}")
    return url


@pytest.mark.parametrize(
    ("kind", "slow"),
    [("postgres", slow_postgres), pytest.param("mariadb", slow_mariadb, marks=pytest.mark.torture)],
)
def test_a_count_that_takes_longer_than_there_is_time_is_given_up(kind, slow, request, store, monkeypatch):
    """What was read is sealed with its definitions; that it was not counted is a gap. The time comes as soon as all was
    read, however long that takes.
    """
    endpoint = Endpoint(slow(request.getfixturevalue(kind), monkeypatch))
    clock, finish, begun = Clock(), source_export._finish_source, []

    def finish_late(*words, **options):
        begun.append(time.monotonic())
        threading.Timer(0.5, clock.strike).start()
        return finish(*words, **options)

    monkeypatch.setattr(source_export, "_finish_source", finish_late)
    seal_time = SealTime(START + timedelta(minutes=30), clock, reserve_seconds=6)
    with open_sources({"app": endpoint}) as opened:
        options = ExportOptions(seal_time=seal_time)
        sealed = export(opened, store, workers=2, progress=Silent(), options=options)
    assert time.monotonic() - begun[0] < 30
    ((source,),) = [sealed.sources]
    assert (sealed.exit_code, source.items) == (3, 1)
    assert [gap.reason for _, gap in BundleReader(store).gaps()] == [
        "its rows cannot be counted: there was no time left before the deadline"
    ]
    assert any(
        file.key.startswith("data/app/schema/") for file in BundleReader(store).source_files("app", "")
    )
    monkeypatch.undo()
    with open_sources({"app": endpoint}) as opened:
        assert export(opened, store, workers=2, progress=Silent(), options=ExportOptions()).complete
