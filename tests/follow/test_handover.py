"""A follow sees that a cutover is at work, or has made the switch; one that was killed holds nobody up."""

import time

import msgspec
import pytest

from migrate.bundle import layout, lease
from migrate.bundle.lease import Lease
from migrate.errors import BusyError, UnreachableError, UsageError
from migrate.follow import handover
from migrate.follow.cutover_record import CutoverRecord, read_record, write_record
from migrate.follow.handover import CutoverWatch, cutover_lease, refuse_after_switch, take_over
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location


def switch(store):
    """Make a switch without sources."""
    with cutover_lease(store, Silent()) as cutover:
        write_record(store, CutoverRecord("2026-11-28T00:00:00", "2026-11-28T00:00:09", 9.0, []), cutover)


def test_a_switch_whose_record_was_written_while_the_location_was_away_is_none(tmp_path, monkeypatch):
    """As where a disk is not mounted for a while."""
    home, away = tmp_path / "home", tmp_path / "away"
    store = open_location(str(home))
    read_lease = Lease.is_there

    def bring_back_and_read(self):
        home.rename(tmp_path / "lost")
        away.rename(home)
        return read_lease(self)

    record = CutoverRecord("2026-11-28T00:00:00", "2026-11-28T00:00:09", 9.0, [])
    with cutover_lease(store, Silent()) as cutover:
        home.rename(away)
        with pytest.raises(UnreachableError, match="was away"):
            write_record(store, record, cutover)
        assert not list(home.rglob("cutover.json"))
        monkeypatch.setattr(Lease, "is_there", bring_back_and_read)
        with pytest.raises(UnreachableError, match="was away"):
            write_record(store, record, cutover)
    assert read_record(store) is None


def test_a_follow_sees_the_cutover_and_the_switch(tmp_path):
    store = open_location(str(tmp_path))
    watch = CutoverWatch(store, Silent())
    assert not watch.is_requested()
    with lease.Lease(store, "export"):
        assert not watch.is_requested()
    with cutover_lease(store, Silent()):
        assert watch.is_requested()
        with pytest.raises(BusyError, match="cutover"):
            CutoverWatch(store, Silent())
    assert not watch.is_requested()
    switch(store)
    assert watch.is_requested()


@pytest.mark.parametrize("id_", ["0", "zz"])
def test_a_cutover_that_was_killed_holds_no_follow_up(tmp_path, id_):
    store = open_location(str(tmp_path))
    with cutover_lease(store, Silent()):
        state, _ = lease.look(store)
    killed = msgspec.structs.replace(
        state, id=id_, process=msgspec.structs.replace(state.process, started="1")
    )
    store.put(layout.LEASE, lease.encode(killed))
    watch = CutoverWatch(store, Silent())
    assert not watch.is_requested()
    with cutover_lease(store, Silent()):
        assert watch.is_requested()


class Followed:
    """A follow that ends when it was asked some times."""

    name = "app"

    def __init__(self, times):
        self.times = times

    def is_at_work(self):
        self.times -= 1
        return self.times >= 0


def test_a_cutover_waits_for_a_follow_and_says_so_once(monkeypatch):
    monkeypatch.setattr(handover, "_POLL_SECONDS", 0.01)
    notes, followed, began = [], Followed(3), time.monotonic()
    take_over(followed, CancellationToken(), notes.append)
    assert (notes, followed.times) == (["waiting until moveout follow has ended"], -1)
    assert time.monotonic() - began >= 0.03
    take_over(Followed(0), CancellationToken(), notes.append)
    assert len(notes) == 1


def test_a_follow_that_does_not_end_is_busy(monkeypatch):
    monkeypatch.setattr(handover, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(handover, "_HANDOVER_SECONDS", 0.01)
    followed = Followed(100)
    with pytest.raises(BusyError, match="app is still followed by another moveout"):
        take_over(followed, CancellationToken(), Silent().note)
    assert followed.times == 98


def test_a_cutover_that_is_stopped_waits_no_longer():
    stopped = CancellationToken()
    stopped.cancel()
    with pytest.raises(Cancelled):
        take_over(Followed(100), stopped, Silent().note)


def test_nothing_is_followed_after_the_switch(tmp_path):
    store = open_location(str(tmp_path))
    refuse_after_switch(store, "-c move.toml")
    switch(store)
    with pytest.raises(UsageError, match="the switch was made at 2026-11-28T00:00:09") as refused:
        refuse_after_switch(store, "-c move.toml")
    assert "moveout cutover -c move.toml --undo" in refused.value.next_step
