"""One run at a time on a location."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from migrate.bundle import layout, lease
from migrate.bundle.lease import Lease, LeaseState
from migrate.errors import (
    AlreadyExistsError,
    BusyError,
    DamageError,
    NoSpaceError,
    UnreachableError,
    UsageError,
)
from migrate.runtime import process_identity
from migrate.runtime.process_identity import ProcessName
from migrate.storage import retry
from migrate.storage.local.store import LocalStore
from migrate.storage.registry import open_location
from migrate.storage.retry import Retrying, RetryPolicy
from scripts.servers import S3Server
from tests.exporters.objects.test_history import make_old_shop
from tests.faults import Fault, FaultPlan, Faulty, fail, lose_answer
from tests.tools.counting import Notes
from tests.tools.waiting import eventually

ELSEWHERE = ProcessName("other-host", "another machine", 4711, "1")
QUICK = {"beat_seconds": 0.1, "stale_seconds": 1.0}


@pytest.fixture(params=["directory", "bucket"])
def store(request, tmp_path):
    if request.param == "directory":
        return open_location(str(tmp_path))
    minio = request.getfixturevalue("minio")
    return open_location(f"s3://{request.getfixturevalue('bucket')}/p?profile={minio.profile}")


@pytest.fixture
def directory(tmp_path):
    return LocalStore(tmp_path)


def left_by(store, holder: ProcessName, beats: int = 3) -> LeaseState:
    """Leave a lease as a run of ``holder`` would."""
    state = LeaseState("someone", "export", holder, "2026-01-01T00:00:00+00:00", beats)
    store.put(layout.LEASE, lease.encode(state))
    return state


def test_the_lease_is_there_while_held_and_gone_after(store):
    with Lease(store, "export", **QUICK) as held:
        state, info = lease.look(store)
        assert state.process == process_identity.this_process()
        eventually(lambda: lease.look(store)[1].etag != info.etag)  # the heartbeat changes it
        held.check()
    assert lease.look(store) is None


def test_a_living_process_of_this_machine_is_refused_at_once(store):
    """Also where its heartbeat is late."""
    notes = Notes()
    with Lease(store, "transfer", beat_seconds=60):
        with pytest.raises(BusyError, match=rf"transfer on .*, process {os.getpid()}, since 20") as caught:
            Lease(store, "export", progress=notes, **QUICK).__enter__()
        assert notes.lines == []  # who waits says so
    assert "moveout status" in caught.value.next_step


def test_a_stale_lease_of_another_machine_is_taken_over_after_a_while(store):
    """Its clock is never asked: only whether the lease changes while we watch."""
    left_by(store, ELSEWHERE)
    notes = Notes()
    began = time.monotonic()
    with Lease(store, "export", progress=notes, **QUICK):
        assert time.monotonic() - began >= 1.0
    for note, words in zip(notes.lines, ("waiting up to 1 s", "took over"), strict=True):
        assert words in note
        assert "other-host, process 4711" in note


def test_a_beating_lease_of_another_machine_is_refused(directory):
    """As soon as it moves; who holds it now is named."""
    state = left_by(directory, ELSEWHERE)
    taken_over = replace(state, process=replace(ELSEWHERE, pid=4712))
    ended = threading.Event()

    def beat():
        for beats in range(1000):
            if ended.wait(0.2):
                return
            directory.put(layout.LEASE, lease.encode(replace(taken_over, beats=beats)))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(BusyError, match="export on other-host, process 4712, since 2026"):
            Lease(directory, "export", beat_seconds=0.1, stale_seconds=60).__enter__()
    finally:
        ended.set()
        thread.join()


def test_a_dead_process_of_this_machine_is_taken_over_at_once(directory):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine = process_identity.this_process()
    theirs = replace(mine, pid=child.pid, started=process_identity.start_time(child.pid))
    assert process_identity.is_alive(theirs)
    child.kill()
    child.communicate()
    left_by(directory, theirs)
    notes = Notes()
    with Lease(directory, "export", progress=notes, **QUICK):
        (note,) = notes.lines  # who waits says so first
        assert "took over" in note


def test_a_process_id_that_is_used_again_means_nothing(directory):
    """Our own id, but another start time: the holder is dead."""
    left_by(directory, replace(process_identity.this_process(), started="1"))
    with Lease(directory, "export", **QUICK) as held:
        held.check()


def test_garbage_in_the_lease_is_waited_for_like_a_stranger(directory):
    directory.put(layout.LEASE, b"\xff{")
    notes = Notes()
    with Lease(directory, "export", progress=notes, **QUICK) as held:
        held.check()
    assert ["unreadable lease" in note for note in notes.lines] == [True, True]


def test_a_lease_that_goes_while_it_is_watched_is_free(directory, monkeypatch):
    """It is asked for every second until it counts as stale; here it is gone at the third time."""
    left_by(directory, ELSEWHERE)
    plan = FaultPlan(Fault("stat", lambda call: (directory.delete(layout.LEASE), call()), nth=5))
    notes, waits = Notes(), []
    monkeypatch.setattr(lease, "time", SimpleNamespace(sleep=waits.append))
    with Lease(Faulty(directory, plan), "export", progress=notes, beat_seconds=60, stale_seconds=60):
        assert waits == [1.0, 1.0, 1.0]
    plan.assert_all_fired()
    assert len(notes.lines) == 1


def test_a_lease_that_exists_and_is_not_shown_is_asked_for_a_few_times(directory, monkeypatch):
    monkeypatch.setattr(lease, "_UNSEEN", 3)
    exists = fail(AlreadyExistsError(layout.LEASE))
    with Lease(Faulty(directory, FaultPlan(Fault("create", exists, times=2))), "export", **QUICK) as held:
        assert held.is_there()
    plan, began = FaultPlan(Fault("create", exists, times=4)), time.monotonic()
    with pytest.raises(UsageError, match="neither takes"):
        Lease(Faulty(directory, plan), "export", **QUICK).__enter__()
    assert time.monotonic() - began >= 0.2
    assert plan._calls == [3]


def test_a_lease_that_changes_while_it_is_read_is_read_again(directory):
    state = left_by(directory, ELSEWHERE)

    def beat_after(call):
        data = call()
        directory.put(layout.LEASE, lease.encode(replace(state, beats=4)))
        return data

    plan = FaultPlan(Fault("read", beat_after))
    seen, info = lease.look(Faulty(directory, plan))
    plan.assert_all_fired()
    assert (seen.beats, info.etag) == (4, directory.stat(layout.LEASE).etag)


@pytest.mark.parametrize(
    ("change", "value"), [("beats", "many"), ("beats", None), ("process", 3), ("process", {}), ("id", ...)]
)
def test_a_malformed_lease_is_damage(change, value):
    state = LeaseState("someone", "export", ELSEWHERE, "2026-01-01T00:00:00+00:00", 3)
    content = json.loads(lease.encode(state))
    assert content["version"] == 1
    assert lease.decode(lease.encode(state)) == state
    content[change] = value
    if value is ...:
        del content[change]
    with pytest.raises(DamageError, match="a lease"):
        lease.decode(json.dumps(content).encode())


def test_a_lease_is_there_where_its_own_location_has_it(directory, tmp_path):
    with Lease(directory, "export") as held:
        assert lease.look(directory)[0].beats == 0
        assert held._etag == lease.look(directory)[1].etag
        for beats in (1, 2):
            held._beat()
            assert lease.look(directory)[0].beats == beats
        assert held.is_there()
        assert held.is_there(LocalStore(tmp_path))
        assert not held.is_there(LocalStore(tmp_path / "elsewhere"))
        directory.put(layout.LEASE, b"{")
        assert not held.is_there()
        left_by(directory, ELSEWHERE)
        assert not held.is_there()


def test_a_takeover_leaves_a_lease_that_beats(directory):
    left_by(directory, replace(process_identity.this_process(), started="1"))
    with Lease(directory, "export") as held:
        assert held._etag == lease.look(directory)[1].etag


def test_a_process_that_does_not_release_its_lease_ends(tmp_path):
    code = (
        "import sys; from migrate.bundle.lease import Lease; from migrate.storage.local.store import LocalStore;"
        "Lease(LocalStore(sys.argv[1]), 'export').__enter__()"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=60)
    state, _ = lease.look(LocalStore(tmp_path))
    assert process_identity.is_dead(state.process)
    lease.clear_dead(LocalStore(tmp_path))
    assert lease.look(LocalStore(tmp_path)) is None


@pytest.mark.parametrize("content", [None, b"{", "elsewhere", "alive"])
def test_only_the_lease_of_a_dead_process_of_this_machine_is_cleared(directory, content):
    if isinstance(content, bytes):
        directory.put(layout.LEASE, content)
    elif content is not None:
        left_by(directory, ELSEWHERE if content == "elsewhere" else process_identity.this_process())
    before = lease.look(directory)
    lease.clear_dead(directory)
    assert lease.look(directory) == before


def test_who_does_not_take_the_lease_waits_until_nobody_has_it(directory):
    def refuse_live() -> tuple[float, list[str]]:
        notes, began = Notes(), time.monotonic()
        lease.refuse_live(directory, progress=notes, stale_seconds=0.5)
        return time.monotonic() - began, notes.lines

    assert refuse_live()[1] == []
    left_by(directory, replace(process_identity.this_process(), started="1"))
    assert refuse_live()[1] == []
    with Lease(directory, "export"), pytest.raises(BusyError, match="in use: export"):
        refuse_live()
    for leave in (lambda: left_by(directory, ELSEWHERE), lambda: directory.put(layout.LEASE, b"{")):
        leave()
        seconds, (note,) = refuse_live()
        assert seconds >= 0.5
        assert "waiting up to" in note
    lease.refuse_live(directory, stale_seconds=0.1)


def test_a_run_that_lost_its_lease_is_told_and_leaves_the_other_alone(directory):
    with Lease(directory, "export", **QUICK) as held:
        left_by(directory, ELSEWHERE)
        with pytest.raises(BusyError, match="other-host"):
            eventually(held.check)
    assert lease.look(directory)[0].process == ELSEWHERE


def test_a_run_that_slept_finds_out_before_it_commits(directory):
    """No heartbeat for long (a suspended laptop): ``check`` asks the location first."""
    with Lease(directory, "export", beat_seconds=60, stale_seconds=0.2) as held:
        left_by(directory, ELSEWHERE)
        time.sleep(0.3)
        with pytest.raises(BusyError, match="other-host"):
            held.check()


@pytest.mark.parametrize(
    ("harm", "words"), [("delete", "the lease of this run is gone"), ("garble", "in use: another run")]
)
def test_a_lease_that_is_gone_or_unreadable_is_lost(directory, harm, words):
    with Lease(directory, "export", beat_seconds=60, stale_seconds=0.01) as held:
        if harm == "delete":
            directory.delete(layout.LEASE)
        else:
            directory.put(layout.LEASE, b"{")
        time.sleep(0.02)
        with pytest.raises(BusyError, match=words):
            held.check()
    assert (lease.look(directory) is None) == (harm == "delete")


def test_a_heartbeat_whose_answer_was_lost_is_no_loss(directory):
    plan = FaultPlan(Fault("replace", lose_answer()))
    with Lease(Faulty(directory, plan), "export", **QUICK) as held:
        eventually(lambda: not plan.unfired())
        held.check()
    plan.assert_all_fired()
    assert lease.look(directory) is None


def test_a_location_out_of_reach_stops_the_run_only_once_others_may_take_over(directory, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(lease, "uptime", lambda: now[0])
    plan = FaultPlan(Fault("replace", fail(UnreachableError("no answer")), times=1000))
    with Lease(Faulty(directory, plan), "export", beat_seconds=0.05, stale_seconds=10) as held:
        eventually(lambda: plan._fired[0] >= 2)
        now[0] += 6.9
        held.check()
        now[0] += 0.2
        with pytest.raises(UnreachableError, match="no answer"):
            held.check()


def test_a_run_whose_location_went_away_does_not_wait_for_its_lease(directory, monkeypatch):
    monkeypatch.setattr(lease, "_RELEASE_SECONDS", 0.2)
    plan, is_back = FaultPlan(Fault("delete", fail(UnreachableError("no answer")))), threading.Event()
    policy = RetryPolicy()
    monkeypatch.setattr(policy.cancellation, "sleep", lambda _: is_back.wait(60))
    with (
        pytest.raises(UnreachableError, match="cut"),
        Lease(Retrying(Faulty(directory, plan), policy), "export"),
    ):
        raise UnreachableError("cut")
    assert lease.look(directory) is not None
    is_back.set()
    end = time.monotonic() + 60
    while lease.look(directory) is not None:
        assert time.monotonic() < end
        time.sleep(0.05)
    plan.assert_all_fired()


def test_a_lease_is_released_at_a_full_location(directory):
    plan = FaultPlan(Fault("replace", fail(NoSpaceError("no space"))))
    with Lease(Faulty(directory, plan), "export", beat_seconds=0.2):
        time.sleep(0.15)  # one that was refreshed just now needs no beat
    assert lease.look(directory) is None
    plan.assert_all_fired()


def test_of_many_runs_that_start_at_once_one_wins(store):
    """Also of those that all want to take over the same dead run's lease."""
    left_by(store, replace(process_identity.this_process(), started="1"))
    won, lost = [], []
    done = threading.Barrier(6)

    def contend():
        try:
            with Lease(store, "export", **QUICK):
                won.append(1)
                done.wait(20)
        except BusyError:
            lost.append(1)
            done.wait(20)

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 5)


@pytest.mark.parametrize("taken", [False, True])
def test_an_interrupted_start_leaves_no_lease_of_its_own(directory, taken):
    if taken:
        left_by(directory, ELSEWHERE)

    def interrupt(create):
        with suppress(AlreadyExistsError):
            create()
        raise KeyboardInterrupt

    plan = FaultPlan(Fault("create", interrupt))
    with pytest.raises(KeyboardInterrupt):
        Lease(Faulty(directory, plan), "export", **QUICK).__enter__()
    left = lease.look(directory)
    assert (left and left[0].process) == (ELSEWHERE if taken else None)


def test_an_interrupt_while_the_heartbeat_begins_leaves_no_lease(directory, monkeypatch):
    start = threading.Thread.start

    def interrupt(thread):
        start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Lease(directory, "export", beat_seconds=1000).__enter__()
    assert lease.look(directory) is None
    eventually(lambda: "moveout-lease" not in {thread.name for thread in threading.enumerate()})


def test_a_retried_create_is_not_mistaken_for_another_run(tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    plan = FaultPlan(Fault("create", lose_answer()))
    store = Retrying(Faulty(LocalStore(tmp_path), plan), RetryPolicy())
    with Lease(store, "export", **QUICK) as held:
        held.check()
    store.create("a", b"1")
    with pytest.raises(AlreadyExistsError):
        store.create("a", b"2")


def test_a_location_that_takes_no_file_below_a_delete_marker(versitygw: S3Server) -> None:
    """Said at once, with what to do; it was tried without end."""
    shop = make_old_shop(versitygw, lock=False)
    location = open_location(shop.url)
    with Lease(location, "test"):
        pass
    with pytest.raises(UsageError, match="delete marker") as raised, Lease(location, "test"):
        pass
    assert layout.LEASE in raised.value.next_step
    for kind in ("Versions", "DeleteMarkers"):
        for one in shop.boto.list_object_versions(Bucket=shop.name)[kind]:
            shop.boto.delete_object(Bucket=shop.name, Key=one["Key"], VersionId=one["VersionId"])
    with Lease(location, "test") as lease_again:
        lease_again.check()
