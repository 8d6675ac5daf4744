"""A follow sees that a cutover is at work, or has made the switch; one that was killed holds nobody up."""

import dataclasses

import pytest

from migrate.bundle import layout, lease
from migrate.errors import BusyError
from migrate.follow.cutover import CutoverRecord, write_record
from migrate.follow.handover import CutoverWatch, cutover_lease
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location


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
    write_record(store, CutoverRecord("2026-11-28T00:00:00", "2026-11-28T00:00:09", 9.0, []))
    assert watch.is_requested()


def test_a_cutover_that_was_killed_holds_no_follow_up(tmp_path):
    store = open_location(str(tmp_path))
    with cutover_lease(store, Silent()):
        state, _ = lease.look(store)
    killed = dataclasses.replace(state, process=dataclasses.replace(state.process, started="1"))
    store.put(layout.LEASE, lease.encode(killed))
    watch = CutoverWatch(store, Silent())
    assert not watch.is_requested()
    with cutover_lease(store, Silent()):
        assert watch.is_requested()
