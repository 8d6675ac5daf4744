"""How a cutover takes over from a follow that is at work, on the same machine or another one.

The cutover holds the lease of the bundle's location. A follow looks there from time to time: it ends as soon as it sees
the lease of a cutover, and so gives up the change log and the destination.
"""

from __future__ import annotations

from collections.abc import Callable

from migrate.bundle import lease
from migrate.bundle.lease import Lease, LeaseState
from migrate.errors import BusyError, UsageError
from migrate.follow.cutover_record import read_record
from migrate.follow.delta import DeltaSource
from migrate.follow.followed import FollowedSource
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.storage.api import Store

_PURPOSE = "cutover"
_HANDOVER_SECONDS = 60.0
"""How long a follow may take to end: it writes its last segment, and applies its last batch."""
_POLL_SECONDS = 0.5


def cutover_lease(store: Store, progress: Progress) -> Lease:
    """Return the lease under which a cutover works."""
    return Lease(store, _PURPOSE, progress=progress)


def refuse_after_switch(store: Store, case_option: str) -> None:
    """Raise ``UsageError`` where the switch was made: what the old side is written then must not arrive.
    ``case_option`` names the case file, for a shell.
    """
    if (record := read_record(store)) is not None:
        raise UsageError(
            f"the switch was made at {record.switched_at}: changes are not followed any more",
            next_step=f"moveout cutover {case_option} --undo goes back to the old databases; then they can be followed"
            " again",
        )


class CutoverWatch:
    """Tells a follow whether a cutover is at work. Raises ``BusyError`` where one was before the follow began."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._dead = ""
        if (state := self._cutover()) is not None:
            lease.refuse_live(store, progress=progress)
            self._dead = state.id

    def is_requested(self) -> bool:
        """Tell whether a cutover has begun since, or has even made the switch."""
        state = self._cutover()
        is_at_work = state is not None and state.id != self._dead
        return is_at_work or read_record(self._store) is not None

    def _cutover(self) -> LeaseState | None:
        lease_and_file = lease.look(self._store)
        state = lease_and_file[0] if lease_and_file else None
        return state if state is not None and state.purpose == _PURPOSE else None


def take_over(
    followed: FollowedSource | DeltaSource,
    cancellation: CancellationToken,
    note: Callable[[str], None],
) -> None:
    """Return once no follow is at work on a source. Raises ``BusyError`` where it does not end."""
    waited = 0.0
    while followed.is_at_work():
        if not waited:
            note("waiting until moveout follow has ended")
        if waited >= _HANDOVER_SECONDS:
            raise BusyError(
                f"{followed.name} is still followed by another moveout",
                next_step="end moveout follow there, or the sessions of moveout at the servers; then give the command"
                " again",
            )
        cancellation.wait(_POLL_SECONDS)
        cancellation.check()
        waited += _POLL_SECONDS
