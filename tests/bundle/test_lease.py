"""One run at a time on a location."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
from msgspec.structs import replace

from migrate.bundle import layout, lease
from migrate.bundle.lease import Lease, LeaseState
from migrate.errors import AlreadyExistsError, BusyError, NoSpaceError, UnreachableError, UsageError
from migrate.runtime import process_identity
from migrate.runtime.process_identity import ProcessName
from migrate.runtime.progress import Silent
from migrate.storage.local.store import LocalStore
from migrate.storage.registry import open_location
from migrate.storage.retry import Retrying, RetryPolicy
from scripts.servers import S3Server
from tests.exporters.objects.test_history import make_old_shop
from tests.faults import Fault, FaultPlan, Faulty, fail, lose_answer

ELSEWHERE = ProcessName("other-host", "another machine", 4711, "1")
QUICK = {"beat_seconds": 0.1, "stale_seconds": 1.0}


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


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
        time.sleep(0.5)
        assert lease.look(store)[1].etag != info.etag, "the heartbeat changes it"
        held.check()
    assert lease.look(store) is None


def test_a_living_process_of_this_machine_is_refused_at_once(store):
    with Lease(store, "transfer", **QUICK):
        began = time.monotonic()
        with pytest.raises(BusyError, match=rf"transfer on .*, process {os.getpid()}, since 20") as caught:
            Lease(store, "export", **QUICK).__enter__()
        assert time.monotonic() - began < 0.9
    assert "moveout status" in caught.value.next_step


def test_a_stale_lease_of_another_machine_is_taken_over_after_a_while(store):
    """Its clock is never asked: only whether the lease changes while we watch."""
    left_by(store, ELSEWHERE)
    notes = Notes()
    began = time.monotonic()
    with Lease(store, "export", progress=notes, **QUICK):
        assert 1.0 <= time.monotonic() - began < 5
    assert "waiting up to 1 s" in notes.said[0]
    assert "took over" in notes.said[1]


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
            Lease(directory, "export", beat_seconds=0.1, stale_seconds=5).__enter__()
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
    began = time.monotonic()
    with Lease(directory, "export", **QUICK):
        assert time.monotonic() - began < 0.9


def test_a_process_id_that_is_used_again_means_nothing(directory):
    """Our own id, but another start time: the holder is dead."""
    left_by(directory, replace(process_identity.this_process(), started="1"))
    with Lease(directory, "export", **QUICK) as held:
        held.check()


def test_garbage_in_the_lease_is_waited_for_like_a_stranger(directory):
    directory.put(layout.LEASE, b"\xff{")
    with Lease(directory, "export", **QUICK) as held:
        held.check()


def test_a_run_that_lost_its_lease_is_told_and_leaves_the_other_alone(directory):
    with Lease(directory, "export", **QUICK) as held:
        left_by(directory, ELSEWHERE)
        time.sleep(0.4)
        with pytest.raises(BusyError, match="other-host"):
            held.check()
    assert lease.look(directory)[0].process == ELSEWHERE


def test_a_run_that_slept_finds_out_before_it_commits(directory):
    """No heartbeat for long (a suspended laptop): ``check`` asks the location first."""
    with Lease(directory, "export", beat_seconds=60, stale_seconds=0.2) as held:
        left_by(directory, ELSEWHERE)
        time.sleep(0.3)
        with pytest.raises(BusyError, match="other-host"):
            held.check()


@pytest.mark.parametrize("harm", ["delete", "garble"])
def test_a_lease_that_is_gone_or_unreadable_is_lost(directory, harm):
    with Lease(directory, "export", beat_seconds=60, stale_seconds=0.01) as held:
        if harm == "delete":
            directory.delete(layout.LEASE)
        else:
            directory.put(layout.LEASE, b"{")
        time.sleep(0.02)
        with pytest.raises(BusyError, match="in use: another run"):
            held.check()
    assert (lease.look(directory) is None) == (harm == "delete")


def test_a_heartbeat_whose_answer_was_lost_is_no_loss(directory):
    plan = FaultPlan(Fault("replace", lose_answer()))
    with Lease(Faulty(directory, plan), "export", **QUICK) as held:
        time.sleep(0.5)
        held.check()
    plan.assert_all_fired()
    assert lease.look(directory) is None


def test_a_location_out_of_reach_stops_the_run_only_once_others_may_take_over(directory):
    plan = FaultPlan(Fault("replace", fail(UnreachableError("no answer")), times=1000))
    with Lease(Faulty(directory, plan), "export", beat_seconds=0.05, stale_seconds=0.6) as held:
        time.sleep(0.2)
        held.check()
        time.sleep(0.4)
        with pytest.raises(UnreachableError, match="no answer"):
            held.check()


def test_a_run_whose_location_went_away_does_not_wait_for_its_lease(directory, monkeypatch):
    monkeypatch.setattr(lease, "_RELEASE_SECONDS", 0.2)
    plan, is_back = FaultPlan(Fault("delete", fail(UnreachableError("no answer")))), threading.Event()
    policy = RetryPolicy(sleep=lambda _: is_back.wait(60))
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

    monkeypatch.setattr(threading.Thread, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Lease(directory, "export", **QUICK).__enter__()
    assert lease.look(directory) is None


def test_a_retried_create_is_not_mistaken_for_another_run(tmp_path):
    plan = FaultPlan(Fault("create", lose_answer()))
    store = Retrying(Faulty(LocalStore(tmp_path), plan), RetryPolicy(first_wait=0.01))
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
