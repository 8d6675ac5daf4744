"""The steps of a cutover one by one, each without the command; and its record."""

import contextlib
import json
import re
import sqlite3
import threading
import time
from types import SimpleNamespace

import psycopg
import pytest
from msgspec.structs import replace

from exporters.engine import LiveTables, WriteState
from exporters.errors import (
    SourceGoneError,
    SourceNoRouteError,
    SourceSilentError,
    SourceUnreachableError,
)
from exporters.row_digest import RowsDigest
from migrate.bundle.findings import Finding
from migrate.case.model import Endpoint
from migrate.case.secrets import Secret
from migrate.changes import remainder
from migrate.changes.apply import Mark
from migrate.changes.remainder import BothSides, Carried, RemainderRequest, carry_remainder
from migrate.changes.segments import START, Place, SegmentFolder
from migrate.errors import (
    AlreadyExistsError,
    BusyError,
    DamageError,
    IncompleteError,
    NoSpaceError,
    UnreachableError,
    UsageError,
)
from migrate.follow import cutover
from migrate.follow.all_cutovers import AllCutovers
from migrate.follow.cutover import Cutover
from migrate.follow.cutover_record import (
    RECORD,
    CutoverRecord,
    ProvenBucket,
    ProvenSource,
    read_record,
    remove_record,
    write_record,
    written_since,
)
from migrate.follow.early_comparison import EarlyComparison
from migrate.follow.followed import FollowedSource
from migrate.follow.handover import cutover_lease
from migrate.follow.table_digests import recorded_digests
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.changes.test_apply import transaction
from tests.changes.test_capture_rules import TRANSACTIONS, Log
from tests.changes.test_capture_thread import OpenLog
from tests.exporters.postgres.databases import fetch, run_sql
from tests.faults import Fault, FaultPlan, Faulty
from tests.tools.waiting import eventually

SCRIPT = """
CREATE TABLE goods (id int PRIMARY KEY, n int); INSERT INTO goods SELECT g, g FROM generate_series(1, 20) g;
CREATE TABLE still (id int PRIMARY KEY); INSERT INTO still VALUES (1);
ANALYZE;
"""
UNREACHED = FollowedSource(
    "app", Endpoint("postgresql://nowhere/a"), Endpoint("postgresql://nowhere/b"), 0, {}, "case"
)


class Counted(Silent):
    """Sums up what it hears."""

    def __init__(self):
        self.total = self.done = 0

    def grow(self, *, items=0, size_bytes=0):
        self.total += items

    def advance(self, *, items=0, size_bytes=0):
        self.done += items


def written_after(function, url, statement):
    """Let a function of the cutover write to a database when it has ended."""
    call = getattr(cutover, function)

    def call_and_write(*words, **options):
        result = call(*words, **options)
        run_sql(url, statement)
        return result

    return call_and_write


def counted_calls(patch, owner, name):
    """Return a list that gets an item at each call of a method."""
    call, calls = getattr(owner, name), []

    def call_and_count(*words, **options):
        calls.append(name)
        return call(*words, **options)

    patch.setattr(owner, name, call_and_count)
    return calls


def test_rows_that_change_while_they_are_compared_are_left_to_the_next_time_and_under_the_hold_are_an_error(
    make_followed, tmp_path, monkeypatch
):
    monkeypatch.setattr(cutover, "_COUNTED_SECONDS", 0.5)
    followed, store, reports = make_followed(SCRIPT), open_location(str(tmp_path)), []
    followed.folder(store).begin()
    progress = Counted()
    with contextlib.closing(
        Cutover(followed, store, CancellationToken(), 2, report=reports.append, progress=progress)
    ) as steps:
        run_sql(followed.source.url, "UPDATE goods SET n = 0 WHERE id = 1")
        steps.catch_up()
        assert fetch(followed.destination.url, "SELECT n FROM goods WHERE id = 1") == [(0,)]
        with monkeypatch.context() as patch:
            for function, statement in (
                ("read_states", "UPDATE goods SET n = -7 WHERE id = 7"),
                ("read_digests", "UPDATE goods SET n = -8 WHERE id = 8"),
            ):
                patch.setattr(cutover, function, written_after(function, followed.source.url, statement))
            steps.compare_early()
        assert (progress.total, progress.done) == (42, 42)
        run_sql(followed.source.url, "UPDATE goods SET n = -1 WHERE id < 4")
        apply = Cutover._apply

        def apply_and_write(self, touched=()):
            mark = apply(self, touched)
            run_sql(followed.source.url, "UPDATE goods SET n = -2 WHERE id < 3")
            return mark

        with monkeypatch.context() as patch:
            patch.setattr(Cutover, "_apply", apply_and_write)
            steps.catch_up()
        assert fetch(followed.destination.url, "SELECT n FROM goods WHERE id = 1") == [(-1,)]
        reports.clear()
        begun = time.monotonic()
        with monkeypatch.context() as patch:
            captured = counted_calls(patch, Cutover, "_capture")
            proven = steps.prove()
        seconds = time.monotonic() - begun
        assert len(captured) == 2, "what is held needs no third look at its log"
        reports_of_proof = [*reports]
        still_equal = Cutover._still_equal

        def write_and_look(self, mark):
            run_sql(followed.source.url, "INSERT INTO goods VALUES (99, 99)")
            return still_equal(self, mark)

        with monkeypatch.context() as patch:
            patch.setattr(Cutover, "_still_equal", write_and_look)
            with pytest.raises(BusyError, match="app was written to while it was compared"):
                steps.prove()
    assert (proven.differences, proven.rows, proven.read_whole) == ([], 21, {})
    assert (proven.carried.missing, bool(re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", proven.end))) == ([], True)
    assert (proven.compared_early, proven.compared_by_key) == (
        ["public.goods", "public.still"],
        {"public.goods": 2},
    )
    assert reports_of_proof == [
        "drain",
        "compare rows that were written to",
        "ask both servers what was written",
        "carry over what the log lacks",
        "compare whole tables",
        "drain",
    ]
    assert {*proven.seconds} == {*reports_of_proof}
    assert min(proven.seconds.values()) >= 0
    assert sum(proven.seconds.values()) <= seconds


def test_a_connection_that_breaks_is_made_anew_and_a_stop_is_obeyed(make_followed, tmp_path, monkeypatch):
    """Changes after another snapshot than that of the destination are not applied."""
    monkeypatch.setattr(cutover, "_AGAIN_SECONDS", 0.1)
    followed, store, token = make_followed(SCRIPT), open_location(str(tmp_path)), CancellationToken()
    readers = "FROM pg_replication_slots WHERE active AND database = current_database()"
    with contextlib.closing(Cutover(followed, store, token, 2)) as steps:
        with pytest.raises(UnreachableError, match="has no folder"):
            steps.catch_up()
        followed.folder(store).begin()
        steps.catch_up()
        fetch(followed.source.url, f"SELECT pg_terminate_backend(active_pid) {readers}")
        run_sql(followed.source.url, "DELETE FROM still")
        steps.catch_up()
        assert fetch(followed.destination.url, "SELECT * FROM still") == []
        token.cancel()
        for step in (steps.catch_up, steps.prove):
            with pytest.raises(Cancelled):
                step()
    eventually(lambda: fetch(followed.source.url, f"SELECT slot_name {readers}") == [])
    later = replace(followed, base=followed.open_log().end(followed.log))
    later.folder(store).begin()
    with (
        contextlib.closing(Cutover(later, store, CancellationToken(), 2)) as steps,
        pytest.raises(IncompleteError, match="was restored from a snapshot at"),
    ):
        steps.catch_up()


def read_until(ended):
    """Read a table until something ends that, for a minute at most."""

    def read(request):
        for _ in range(60_000):
            if ended():
                return LiveTables({("", "t"): RowsDigest(2)})
            request.advance(1, 1)
            time.sleep(0.001)
        return LiveTables({})

    return read


def test_changes_are_captured_as_long_as_both_sides_are_read(monkeypatch):
    monkeypatch.setattr(cutover, "_CAPTURE_SECONDS", 0.001)
    captured = []
    monkeypatch.setattr(Cutover, "_capture", lambda _: captured.append(1))
    steps = Cutover(UNREACHED, None, CancellationToken(), 2)
    read = read_until(lambda: len(captured) > 1)
    assert steps._read_and_capture(read, read) == ({("", "t"): RowsDigest(2)},) * 2


@pytest.mark.parametrize("is_stopped", [False, True])
def test_the_reading_ends_where_changes_cannot_be_captured_or_the_run_is_stopped(monkeypatch, is_stopped):
    monkeypatch.setattr(cutover, "_CAPTURE_SECONDS", 0.001)
    token, reading = CancellationToken(), []

    def capture(_):
        if is_stopped:
            token.cancel()
        else:
            raise NoSpaceError("full")

    def read(request):
        try:
            read_until(lambda: False)(request)
        except Cancelled:
            reading.append("ended")
            raise

    monkeypatch.setattr(Cutover, "_capture", capture)
    with pytest.raises(Cancelled if is_stopped else NoSpaceError):
        Cutover(UNREACHED, None, token, 2)._read_and_capture(read, read)
    assert reading == ["ended", "ended"]


NAME = ("public", "t")
LAGGING = {NAME: (WriteState("s", 10), WriteState("d", 22))}
COUNTED = {NAME: (WriteState("s", 10), WriteState("d", 23))}
STRANGER = "somebody else may have written to it at the destination"


@pytest.mark.parametrize(
    ("states", "logged", "sessions", "reason"),
    [
        ([LAGGING, LAGGING, COUNTED], {NAME}, [], ""),
        ([LAGGING], {NAME}, [], STRANGER),
        ([COUNTED], set(), [], "not all of its changes are in the log"),
        (
            [COUNTED], {NAME}, ["a (b)", "c"],
            "a (b) is connected to the destination, and may have written to it",
        ),
    ],
)  # fmt: skip
def test_what_the_servers_say_is_waited_for_a_while(monkeypatch, states, logged, sessions, reason):
    monkeypatch.setattr(cutover, "_COUNTED_SECONDS", 0.2 if reason else 60.0)
    log = SimpleNamespace(logged_tables=lambda _: logged)
    monkeypatch.setattr(FollowedSource, "open_log", lambda _: log)
    monkeypatch.setattr(Cutover, "recent_sessions", lambda _: sessions)
    monkeypatch.setattr(cutover, "read_states", lambda *_: states.pop(0) if len(states) > 1 else states[0])
    steps, digests = Cutover(UNREACHED, None, CancellationToken(), 2), {NAME: RowsDigest(1)}
    assert steps._still_equal(Mark(0)) == ({}, {})
    before = {NAME: (WriteState("s", 10), WriteState("d", 20))}
    steps._early = EarlyComparison(Mark(0), before, digests=dict(digests), written={NAME: 3})
    expected = ({}, {NAME: reason}) if reason else (digests, {})
    assert steps._still_equal(Mark(0)) == expected


RECORDED = CutoverRecord(
    "2026-11-28T00:00:00.000+00:00",
    "2026-11-28T00:00:09.000+00:00",
    9.0,
    [
        ProvenSource(
            "app",
            "0/17",
            Carried({"sequences": 2}, ["a note"], ["a view"]),
            [Finding("public.t", "has other rows", "2", "3")],
            {"public.s": [5, "f0"], "public.t": [2, "0f"]},
            {"drain": 1.0, "compare whole tables": 2.5, "a stage of later": 0.5},
            ["public.m"],
            ["public.s"],
            {"public.s": 1},
            {"public.t": "it was emptied"},
        )
    ],
    [ProvenBucket("media", 3, 42, "", 0.5)],
)


def test_a_record_is_read_as_it_was_written_and_can_be_removed(tmp_path):
    store = open_location(str(tmp_path))
    assert read_record(store) is None
    with cutover_lease(store, Silent()) as lease:
        write_record(store, RECORDED, lease)
    assert json.loads(store.read(RECORD))["version"] == 1
    record = read_record(store)
    assert record == RECORDED
    assert [*record.sources[0].seconds] == [*RECORDED.sources[0].seconds]
    assert record.sources[0].rows == 5
    remove_record(store)
    assert read_record(store) is None


def test_a_record_at_a_location_that_was_away_meanwhile_makes_no_switch(tmp_path):
    """What is written there is removed, since the disk may come back."""
    store, elsewhere = (open_location(str(tmp_path / name)) for name in ("a", "b"))
    with cutover_lease(store, Silent()) as lease:
        with pytest.raises(UnreachableError, match="was away while the record"):
            write_record(elsewhere, RECORDED, cutover_lease(elsewhere, Silent()))
        assert read_record(elsewhere) is None
        lost = FaultPlan(Fault("put", lambda _: None, prefix=RECORD))
        with pytest.raises(UnreachableError, match="was away while the record"):
            write_record(Faulty(store, lost), RECORDED, lease)


@pytest.mark.parametrize("sources", ["", '"sources": 5, ', '"sources": [{}], '])
def test_a_record_that_is_something_else_is_damage(tmp_path, sources):
    store = open_location(str(tmp_path))
    store.put(RECORD, f'{{{sources}"version": 1}}'.encode())
    with pytest.raises(DamageError, match="a record of a cutover"):
        read_record(store)


def test_what_was_written_since_the_cutover_is_named(tmp_path):
    endpoint = Endpoint(f"sqlite://{tmp_path}/app.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as database:
        database.executescript("CREATE TABLE t (id); CREATE TABLE u (id); INSERT INTO t VALUES (1), (2)")
        tables = recorded_digests(endpoint, workers=1)
        sources = [
            ProvenSource(name, "", Carried(), [], recorded, {})
            for name, recorded in (("other", {}), ("app", tables), ("an", {}))
        ]
        record = CutoverRecord("", "", 0.0, sources)
        assert written_since(record, "app", endpoint, workers=1) == []
        database.executescript("UPDATE t SET id = 3 WHERE id = 2; CREATE TABLE v (id)")
    later = [
        Finding("main.t", "was written to since", "2", "2"),
        Finding("main.v", "was written to since", "0", "0"),
    ]
    assert written_since(record, "app", endpoint, workers=1) == later
    assert written_since(record, "unknown", endpoint, workers=1) == []


@pytest.mark.parametrize(
    "error", [BusyError, AlreadyExistsError, SourceGoneError, SourceUnreachableError, NoSpaceError]
)
def test_a_follow_that_has_just_begun_is_waited_for_a_while(monkeypatch, error):
    monkeypatch.setattr(cutover, "_AGAIN_SECONDS", 1 / 128)
    monkeypatch.setattr(cutover, "_CONTENTION_SECONDS", 4 / 128)
    tries, token = [], CancellationToken()

    def capture(_):
        tries.append(1)
        if len(tries) == 9:
            token.cancel()
        if len(tries) != 3:
            raise error("a follow is at work")
        return "end"

    monkeypatch.setattr(Cutover, "_capture", capture)
    monkeypatch.setattr(Cutover, "_apply", lambda _: "mark")
    steps = Cutover(UNREACHED, None, token, 1)
    if error is NoSpaceError:
        with pytest.raises(error):
            steps.catch_up()
        assert tries == [1]
        return
    begun = time.monotonic()
    assert steps.catch_up() == "mark"
    assert time.monotonic() - begun >= 2 / 128
    with pytest.raises(error, match="at work"):
        steps.catch_up()
    assert len(tries) == 3 + 5
    with pytest.raises(Cancelled):
        steps.catch_up()


@pytest.mark.parametrize(
    ("step_seconds", "waits"),
    [(0.0, [3, 3]), (40.0, [3, 3]), (57.0, [3]), (60.0, [3]), (5.0, [3, 3])],
    ids=["quick", "slow", "just as long", "too slow", "rather quick"],
)
def test_a_step_that_fails_is_done_again_for_some_seconds_or_a_minute(monkeypatch, step_seconds, waits):
    class Token:
        now, waited = 0.0, ()

        def monotonic(self):
            return self.now

        def wait(self, seconds):
            self.waited, self.now = (*self.waited, seconds), self.now + seconds

        def check(self):
            if len(self.waited) > 5:
                raise Cancelled

    def step():
        token.now += step_seconds
        raise SourceUnreachableError("the network is cut")

    token = Token()
    monkeypatch.setattr(cutover, "time", token)
    monkeypatch.setattr(cutover, "_AGAIN_SECONDS", 3)
    monkeypatch.setattr(cutover, "_CONTENTION_SECONDS", 4 if step_seconds < 10 else 1000)
    with pytest.raises(SourceUnreachableError):
        cutover.retried(step, token)
    assert list(token.waited) == waits
    monkeypatch.setattr(cutover, "_CONTENTION_SECONDS", 1000)
    step_seconds = 0.0
    with pytest.raises(Cancelled):
        cutover.retried(step, token)


def test_a_server_that_was_waited_for_is_not_asked_again():
    """An application may stand still meanwhile."""
    asked = []

    def step():
        asked.append(1)
        raise SourceSilentError("the server has not answered for 30 s")

    with pytest.raises(SourceSilentError):
        cutover.retried(step, CancellationToken())
    assert asked == [1]


def test_a_server_to_which_no_way_leads_for_a_moment_is_asked_again(monkeypatch):
    """The network has said so at once, as while the address of a server moves: nobody has waited for it."""
    monkeypatch.setattr(cutover, "_AGAIN_SECONDS", 0.01)
    answers = [SourceNoRouteError("no route to host"), SourceNoRouteError("no route to host"), None]

    def step():
        if (answer := answers.pop(0)) is not None:
            raise answer

    cutover.retried(step, CancellationToken())
    assert answers == []


def test_a_step_of_a_cancelled_run_may_be_done_by_half_and_does_not_count():
    token = CancellationToken()
    with pytest.raises(Cancelled):
        Cutover(UNREACHED, None, token, 2)._retried(token.cancel)


def test_after_a_network_error_both_sides_are_compared_anew(monkeypatch):
    """Changes may have been applied whose rows were not compared."""
    steps, done = Cutover(UNREACHED, None, CancellationToken(), 2), []

    def drain(_, __, *, is_held):
        done.append(("drain", is_held))
        if len(done) in {2, 3}:
            raise SourceUnreachableError("the network is cut")
        return "mark", "end"

    monkeypatch.setattr(Cutover, "_drain", drain)
    monkeypatch.setattr(Cutover, "compare_early", lambda _: done.append("compare"))
    assert steps.catch_up() == "mark"
    with pytest.raises(SourceUnreachableError):
        steps.catch_up()
    steps._early = object()
    with pytest.raises(SourceUnreachableError):
        steps.catch_up()
    assert done == [("drain", False)] * 3, "what was not compared before is not compared by that"
    assert steps.catch_up() == "mark"
    assert done[3:] == ["compare", ("drain", False)]


@pytest.mark.parametrize("fails", [False, True])
def test_a_comparison_before_the_hold_reads_one_moment_of_each_side(monkeypatch, fails):
    asked, begun = [], []

    @contextlib.contextmanager
    def keyed_rows(endpoint, *, is_one_moment):
        asked.append((endpoint.url[-1], is_one_moment))
        yield SimpleNamespace(tables=lambda: {("", "t"): 5, ("", "u"): 2}, digests=endpoint.url[-1])

    def begin(early, source, destination, digests, touched, check):
        begun.append((early.mark, digests, touched))
        if fails:
            raise SourceUnreachableError("the network is cut")

    def read_states(source, destination, *, is_settled):
        asked.append(is_settled)
        return {}

    for name, value in (("keyed_rows", keyed_rows), ("read_states", read_states), ("_COUNTED_SECONDS", 0.0)):
        monkeypatch.setattr(cutover, name, value)
    for name, value in (
        ("recent_sessions", lambda _: []),
        ("_capture", lambda _: "end"),
        ("_apply", lambda _: Mark(7)),
        ("_read_and_capture", lambda _, *sides: sides),
        ("_touched_since", lambda _, mark: {"since": mark}),
    ):
        monkeypatch.setattr(Cutover, name, value)
    monkeypatch.setattr(EarlyComparison, "begin", begin)
    steps = Cutover(UNREACHED, None, CancellationToken(), 2, progress=(progress := Counted()))
    with pytest.raises(SourceUnreachableError) if fails else contextlib.nullcontext():
        steps.compare_early()
    assert (asked, progress.total) == ([True, ("a", True), ("b", True)], 14)
    assert begun == [(Mark(7), ("a", "b"), {"since": Mark(7)})]
    assert (steps._early is None, steps._is_unknown) == (fails, fails)


def test_who_waits_for_sessions_at_the_destination_says_so_and_can_be_stopped(monkeypatch):
    token, reports = CancellationToken(), []

    def report(text):
        reports.append(text)
        if "pool" in text:
            token.cancel()

    monkeypatch.setattr(Cutover, "recent_sessions", lambda _: ["mover (pool)", "another"])
    with pytest.raises(Cancelled):
        Cutover(UNREACHED, None, token, 2, report=report).compare_early()
    waiting = "waiting until mover (pool) has been idle at the destination for a while"
    assert reports == ["compare before the hold", waiting]


def test_sessions_that_stay_at_the_destination_are_waited_for_a_while_only(monkeypatch):
    monkeypatch.setattr(cutover, "COUNTED_AFTER_SECONDS", 0.02)
    monkeypatch.setattr(cutover, "_COUNTED_SECONDS", 0.01)
    monkeypatch.setattr(Cutover, "recent_sessions", lambda _: ["mover (pool)"])

    def capture(_):
        raise NoSpaceError("it goes on")

    monkeypatch.setattr(Cutover, "_capture", capture)
    with pytest.raises(NoSpaceError, match="it goes on"):
        Cutover(UNREACHED, None, CancellationToken(), 2).compare_early()


def test_who_is_at_work_at_the_destination_is_asked_of_its_server(make_followed, tmp_path):
    followed = make_followed(SCRIPT)
    steps = Cutover(followed, open_location(str(tmp_path)), CancellationToken(), 2)
    with psycopg.connect(followed.destination.url, application_name="mover") as connection:
        connection.execute("INSERT INTO still VALUES (9)")
        assert ["mover" in session for session in steps.recent_sessions()] == [True]
        connection.rollback()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(cutover, "read_digests", marks=pytest.mark.torture),
        (EarlyComparison, "begin"),
        pytest.param(cutover, "digests_with_keys", marks=pytest.mark.torture),
        pytest.param(EarlyComparison, "take_round", marks=pytest.mark.torture),
    ],
    ids=["reading both sides", "first comparison", "before changes are applied", "after they were"],
)
def test_a_network_that_is_away_for_a_moment_before_the_hold_ends_nothing(
    make_followed, tmp_path, monkeypatch, toxiproxy, postgres, owner, name
):
    """Nothing has been changed yet. Afterwards wrong rows are seen as before."""
    monkeypatch.setenv("OLD_PASSWORD", postgres.password)
    direct, store = make_followed(SCRIPT), open_location(str(tmp_path))
    proxy = toxiproxy.proxy(direct.source.url)
    url = direct.source.url.replace(f":{postgres.port}/", f":{proxy.port}/")
    followed = replace(direct, source=Endpoint(url, {"password": Secret("env:OLD_PASSWORD")}))
    followed.folder(store).begin()
    call, cuts = getattr(owner, name), []

    def cut_and_call(*words, **options):
        if not cuts:
            cuts.append(threading.Timer(0.7, proxy.mend))
            proxy.cut()
            cuts[0].start()
        return call(*words, **options)

    monkeypatch.setattr(owner, name, cut_and_call)
    sources = AllCutovers([followed], store, 2, Silent(), CancellationToken())
    with contextlib.closing(sources):
        sources.take_over()
        sources.compare_early()
        run_sql(direct.source.url, "UPDATE goods SET n = 0 WHERE id < 4; DELETE FROM goods WHERE id = 20")
        sources.catch_up()
        run_sql(direct.source.url, "INSERT INTO goods VALUES (21, 21)")
        (equal,) = sources.each(lambda steps: steps.prove())
        run_sql(direct.destination.url, "UPDATE goods SET n = 5 WHERE id = 4; UPDATE still SET id = 2")
        (different,) = sources.each(lambda steps: steps.prove())
    assert len(cuts) == 1
    assert (equal.differences, equal.compared_early) == ([], ["public.goods", "public.still"])
    assert [finding.key for finding in different.differences] == ["public.goods", "public.still"]


def test_changes_are_captured_up_to_now_by_one_stream_until_it_breaks(tmp_path):
    store = open_location(str(tmp_path))
    folder = SegmentFolder(store, "app", 7)
    folder.begin()
    log = OpenLog(*(Log(folder, TRANSACTIONS, quiet_until=end) for end in (45, 60)))
    log.ends = iter([40, 45, 50, 60])
    log.end = lambda objects: next(log.ends)
    followed = SimpleNamespace(folder=lambda _: folder, open_log=lambda: log, log={"slot": "s"}, base=7)
    one = Cutover(followed, store, CancellationToken(), 2)
    assert [one._capture(), one._capture()] == ["position 40", "position 45"]
    assert (log.opened_after, len(log.attempts)) == ([7], 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Log, "receive", lambda *_: (_ for _ in ()).throw(SourceUnreachableError("cut")))
        with pytest.raises(SourceUnreachableError, match="cut"):
            one._capture()
    assert one._capture() == "position 60"
    assert log.opened_after == [7, 45]


def test_what_the_log_lacks_is_carried_by_the_destinations_engine(monkeypatch):
    for side in ("old", "new"):
        monkeypatch.setenv(side.upper(), side)
    source, destination = (
        Endpoint(f"postgresql://{side}/app", secrets={"password": Secret(f"env:{side.upper()}")})
        for side in ("old", "new")
    )
    requests, carried = [], Carried({"sequences": 2})
    monkeypatch.setattr(remainder, "load_part", lambda _: lambda request: requests.append(request) or carried)
    done = carry_remainder(source, destination, log={"slot": "s"}, workers=3, skipped=("t",))
    assert done is carried
    assert requests == [
        RemainderRequest(
            BothSides(source.url, {"password": "old"}, destination.url, {"password": "new"}),
            {"slot": "s"},
            3,
            ("t",),
        )
    ]
    with pytest.raises(UsageError, match="followed"):
        carry_remainder(source, Endpoint("sqlite:///new.db"), log=None, workers=1)


def test_rows_that_were_touched_are_those_of_the_changes_after_a_mark(tmp_path):
    store = open_location(str(tmp_path))
    folder, place = SegmentFolder(store, "app", 7), START
    folder.begin()
    for position in (10, 20, 30):
        last = folder.write(transaction(position, b"%d" % position), folder.last(), place, position)
        place = last.boundary
    seen, fails = [], False

    def touched_rows(log, messages):
        for message in messages:
            seen.append(message.payload)
            if fails and message.payload == b"30":
                raise ValueError("odd")
        return log

    log = SimpleNamespace(touched_rows=touched_rows)
    followed = SimpleNamespace(folder=lambda _: folder, open_log=lambda: log, log={"slot": "s"})
    steps = Cutover(followed, store, CancellationToken(), 2)
    assert steps._touched_since(Mark(7, Place(1, 3), 10)) == {"slot": "s"}
    assert [payload for payload in seen if payload] == [b"20", b"30"]
    fails = True
    with pytest.raises(DamageError, match=f"0000000003-{last.sha256[:16]}"):
        steps._touched_since(Mark(7, Place(1, 3), 10))
