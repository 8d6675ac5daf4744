"""How far a transfer is, read from the destination alone: also while it runs elsewhere, and after a crash."""

from __future__ import annotations

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.lease import look
from migrate.errors import GoneError
from migrate.runtime.process_identity import is_dead
from migrate.storage.api import MultipartStore
from migrate.transfer.destination import read_state


class TransferStatus(Struct, frozen=True):
    """Files and bytes that are durable at the destination and that are still to come. ``holder`` names the run that
    holds the location, "" where none does (or where it is known to be dead). ``origin`` is a URL without secrets.
    """

    id: str
    origin: str
    files_done: int
    files_left: int
    bytes_done: int
    bytes_left: int
    holder: str


def transfer_status(store: MultipartStore) -> TransferStatus | None:
    """Return how far the transfer to this location is; None if there is none under way (never begun, or
    finished).
    """
    state = read_state(store)
    if state is None:
        return None
    files_done = bytes_done = 0
    for info in store.list():
        if not info.key.startswith(layout.LOCAL):
            files_done += 1
            bytes_done += info.size_bytes
    for upload in store.uploads():
        try:
            bytes_done += sum(part.size_bytes for part in store.parts(upload.key, upload.id))
        except GoneError:  # completed since
            continue
    return TransferStatus(
        id=state.id,
        origin=state.origin,
        files_done=min(files_done, state.files),
        files_left=max(0, state.files - files_done),
        bytes_done=min(bytes_done, state.size_bytes),
        bytes_left=max(0, state.size_bytes - bytes_done),
        holder=_holder(store),
    )


def _holder(store: MultipartStore) -> str:
    lease_and_file = look(store)
    if lease_and_file is None or lease_and_file[0] is None or is_dead(lease_and_file[0].process):
        return ""
    return str(lease_and_file[0])
