"""A worker commits only as long as the lead's lease is at the location and moves."""

from __future__ import annotations

import pytest

from migrate.bundle import layout
from migrate.bundle.lease import Lease, look
from migrate.cluster.lease_guard import LeaseFence
from migrate.errors import BusyError
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.process_identity import is_dead
from migrate.storage.registry import open_location
from tests.tools.waiting import eventually


@pytest.fixture
def store(tmp_path):
    return open_location(str(tmp_path))


def fence(store, lease_id, **more):
    return LeaseFence(store, lease_id, CancellationToken(), **more)


def test_the_lease_of_the_lead_lets_pass(store):
    with Lease(store, "export", alone=False) as lease:
        fence(store, lease.id).check()


def test_no_lease_or_anothers_stops(store):
    """Where the directory is not the lead's at all, the error says what to look at."""
    stop = CancellationToken()
    with pytest.raises(BusyError, match="no lease of this run") as caught:
        LeaseFence(store, "mine", stop).start()
    assert "shared directory" in caught.value.next_step
    with Lease(store, "export"), pytest.raises(BusyError, match="in use"):
        LeaseFence(store, "mine", stop).check()
    assert stop.is_cancelled


def test_a_takeover_is_noticed_between_commits(store):
    """By looking, so that what is being written ends."""
    stop = CancellationToken()
    with Lease(store, "export", alone=False) as lease:
        watch = LeaseFence(store, lease.id, stop, look_seconds=0.02)
        watch.start()
        watch.check()
        assert not stop.is_cancelled
        store.delete(layout.LEASE)
        eventually(lambda: stop.is_cancelled)


def test_a_lease_that_does_not_move_stops(store):
    """The lead may be dead: another may take over soon."""
    stop = CancellationToken()
    with Lease(store, "export", alone=False, beat_seconds=1000) as lease:
        watch = LeaseFence(store, lease.id, stop, look_seconds=0.02, silence_seconds=0.2)
        watch.start()
        eventually(lambda: stop.is_cancelled)
        with pytest.raises(BusyError, match="no sign of life"):
            watch.check()


def test_a_lease_that_moves_goes_on(store):
    stop = CancellationToken()
    with Lease(store, "export", alone=False, beat_seconds=0.05) as lease:
        watch = LeaseFence(store, lease.id, stop, look_seconds=0.02, silence_seconds=60)
        watch.start()
        before = look(store)[0].beats
        eventually(lambda: look(store)[0].beats > before + 5)
        watch.check()
        assert not stop.is_cancelled


def test_the_lease_of_a_dead_lead_is_not_taken_over_at_once(store):
    """Its workers may still write, so it has to grow stale, though the process is known to be dead."""
    with Lease(store, "export", alone=False):
        assert look(store)[0].process.machine == ""
        assert not is_dead(look(store)[0].process)
