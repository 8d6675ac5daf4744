"""The place that a bundle travels to: whose it is, and what it remembers of a transfer under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from migrate.bundle import canonical, layout
from migrate.errors import DamageError, GoneError, NotEmptyError
from migrate.store.base import Store
from migrate.transfer.origin import Sealed, bundle_id
from migrate.transfer.plan import foreign

VERSION = 1


@dataclass(frozen=True, slots=True)
class TransferState:
    """``_work/transfer.json``: which bundle comes from where, and how much it is. ``origin`` is without
    secrets.
    """

    id: str
    origin: str
    files: int
    size_bytes: int


def write_state(store: Store, state: TransferState) -> None:
    """Write or replace the state; the lease must be held."""
    value = {
        "version": VERSION,
        "id": state.id,
        "origin": state.origin,
        "files": state.files,
        "size_bytes": state.size_bytes,
    }
    store.put(layout.TRANSFER_STATE, canonical.encode(value))


def read_state(store: Store) -> TransferState | None:
    """Return the transfer that is under way at the place, None without one. Raises ``DamageError``."""
    try:
        data = store.read(layout.TRANSFER_STATE)
    except GoneError:
        return None
    value = canonical.decode(data, layout.TRANSFER_STATE)
    canonical.check_version(value, layout.TRANSFER_STATE, VERSION)
    try:
        return TransferState(
            str(value["id"]), str(value["origin"]), int(value["files"]), int(value["size_bytes"])
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise DamageError(layout.TRANSFER_STATE, expected="a transfer", found=repr(data[:80])) from exc


def survey(target: Store, sealed: Sealed) -> tuple[dict[str, int], bool]:
    """Return (key -> size of what lies at the target, whether a transfer of this bundle was begun).

    Raises ``NotEmptyError`` if the place holds anything but (a part of) this very bundle.
    """
    present = {info.key: info.size_bytes for info in target.list()}
    state = read_state(target) if layout.TRANSFER_STATE in present else None
    _check_owner(target, sealed, present, state)
    wanted = {file.key for file in sealed.files}
    stranger = next(foreign(present, wanted), None)
    if stranger is not None:
        raise NotEmptyError(
            f"{target.place} holds {stranger!r}, which is no file of the bundle",
            next_step="choose an empty place, or remove what lies there",
        )
    return present, state is not None


def _check_owner(
    target: Store, sealed: Sealed, present: Mapping[str, int], state: TransferState | None
) -> None:
    other = None
    if layout.EXPORT_STATE in present:
        other = "an export"
    elif state is not None and state.id != sealed.id:
        other = f"the transfer of another bundle ({state.id}, from {state.origin})"
    elif state is None and layout.BUNDLE_META in present:
        found = bundle_id(target.read(layout.BUNDLE_META))
        if found != sealed.id:
            other = f"another bundle ({found})"
    if other is not None:
        raise NotEmptyError(
            f"{target.place} holds {other}, not bundle {sealed.id}", next_step="choose an empty place"
        )
