"""Placing, reading back and undoing holds on sources, whatever kind they are.

The undo file names every setting with its value before and after, and the source says which of the two it has: that is
all the state there is. A setting that is neither was changed by somebody else, and is left alone by default.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from exporters.engine import load_part
from migrate.bundle.findings import Finding
from migrate.case.model import Endpoint
from migrate.custody.source_holds import undo_file
from migrate.custody.source_holds.contract import Change, HoldRequest, OpenHold, SourceHold
from migrate.custody.source_holds.undo_file import Recorded, UndoFile
from migrate.engines import registry
from migrate.errors import DamageError, UsageError

Holds = Mapping[str, SourceHold]
_SETTLES_SECONDS, _LOOKS_SECONDS = 10.0, 0.25
"""Settings of a bucket at AWS need a while until every answer has them."""


class Standing(Struct, frozen=True):
    """What a source says of its hold. ``in_force`` are the settings that the undo file names and that are as they
    should be; ``findings`` why it is not held; ``limits`` what this kind of hold cannot do.
    """

    name: str
    url: str
    in_force: Sequence[str]
    findings: Sequence[Finding]
    limits: Sequence[str]

    @property
    def is_held(self) -> bool:
        """Whether every setting is in force and no way around them was found."""
        return not self.findings


def open_hold(endpoint: Endpoint, request: HoldRequest) -> SourceHold:
    """Open a source to be held. Raises ``UsageError`` where its engine cannot be held."""
    reference = registry.require(endpoint.engine, endpoint.engine.hold, "held")
    return cast("OpenHold", load_part(reference))(endpoint.url, endpoint.reveal(), request)


def planned(path: Path, holds: Holds, known: UndoFile) -> UndoFile:
    """Return the undo file with what has to be changed now added to what it says. Nothing is changed.

    Raises ``UsageError`` where a source of this name is another one, or a setting was changed by somebody else since;
    ``NotAllowedError`` where the role may not make the changes.
    """
    for name, hold in holds.items():
        recorded = known.sources.get(name, Recorded(hold.url))
        if recorded.url != hold.url:
            raise UsageError(
                f"the undo file has {name} as {recorded.url}, not {hold.url}",
                next_step="name the source differently, or another file: --undo FILE",
            )
        _refuse_foreign(path, name, hold, recorded.changes)
        settings = {change.setting for change in recorded.changes}
        new_changes = [change for change in permitted_changes(hold) if change.setting not in settings]
        known = known.with_source(name, replace(recorded, changes=(*recorded.changes, *new_changes)))
    return known


def permitted_changes(hold: SourceHold) -> Sequence[Change]:
    """Return what has to change. Raises ``NotAllowedError`` where it is known that the role may not do that."""
    changes = hold.changes()
    for refusal in hold.refusals() if changes else ():
        raise refusal
    return changes


def pending(holds: Holds, plan: UndoFile) -> list[tuple[str, Change]]:
    """Return the changes that are still to be made, by the names of their sources."""
    return [
        (name, change)
        for name, hold in holds.items()
        for change in plan.sources[name].changes
        if not hold.same(change.setting, hold.read(change.setting), change.after)
    ]


def place(path: Path, holds: Holds, plan: UndoFile) -> None:
    """Write the undo file, then make each change that is not made, and read it back.

    Raises ``DamageError`` where a source does not have a setting that it took.
    """
    if not any(recorded.changes for recorded in plan.sources.values()):
        return
    undo_file.write(path, plan)
    for name, hold in holds.items():
        recorded = plan.sources[name]
        changed = False
        for change in recorded.changes:
            changed |= _bring(name, hold, change, change.after)
        if changed or recorded.since is None:
            plan = plan.with_source(name, replace(recorded, since=hold.mark()))
            undo_file.write(path, plan)


def older_sessions(holds: Holds, plan: UndoFile) -> list[str]:
    """Return, in words, the sessions that ``close_write_paths`` ends."""
    texts = []
    for name, hold in holds.items():
        since = plan.sources[name].since if name in plan.sources else None
        open_write_paths = hold.open_write_paths(since or hold.mark())
        texts += [
            f"{name}: end {open_way.key} {open_way.found}".rstrip()
            for open_way in open_write_paths
            if open_way.key.startswith("session")
        ]
    return texts


def close_write_paths(holds: Holds, plan: UndoFile) -> int:
    """End what was begun before the settings were in force; return how many sessions that were."""
    ended_count = 0
    for name, hold in holds.items():
        since = plan.sources[name].since if name in plan.sources else None
        ended_count += hold.close_write_paths(since or hold.mark())
    return ended_count


def survey(holds: Holds, known: UndoFile | None) -> list[Standing]:
    """Ask every source what is in force, and try what must not be possible. Nothing is taken from the file but since
    when the settings hold.
    """
    standings = []
    for name, hold in holds.items():
        recorded = known.sources.get(name, Recorded(hold.url)) if known else Recorded(hold.url)
        missing = [
            Finding(f"{name}: {change.setting}", "is not in force", change.says) for change in hold.changes()
        ]
        in_force = [
            change.says for change in recorded.changes
            if hold.same(change.setting, hold.read(change.setting), change.after)
        ]  # fmt: skip
        findings = [
            replace(finding, key=f"{name}: {finding.key}")
            for finding in hold.open_write_paths(recorded.since)
        ]
        standings.append(Standing(name, hold.url, in_force, [*missing, *findings], hold.limits()))
    return standings


def undoable(path: Path, holds: Holds, known: UndoFile, *, force: bool) -> list[tuple[str, Change]]:
    """Return the changes that an undo takes back, in its order: the last first.

    Raises ``UsageError`` where somebody else has changed a setting since, unless ``force``.
    """
    statements = []
    for name, hold in reversed(list(holds.items())):
        changes = known.sources[name].changes
        if not force:
            _refuse_foreign(path, name, hold, changes)
        statements += [
            (name, change) for change in reversed(changes)
            if not _is_back(hold, change, hold.read(change.setting))
        ]  # fmt: skip
    return statements


def take_back(path: Path, holds: Holds, known: UndoFile, *, force: bool) -> None:
    """Bring every setting back to what it was, read each back, and remove what is undone from the file; the file goes
    with its last source. Raises like ``undoable``.
    """
    for name, change in undoable(path, holds, known, force=force):
        _bring(name, holds[name], change, change.back)
    left = {name: recorded for name, recorded in known.sources.items() if name not in holds}
    if left:
        undo_file.write(path, replace(known, sources=left), undone=list(holds))
    else:
        undo_file.remove(path, known)


def _is_back(hold: SourceHold, change: Change, value: object) -> bool:
    return hold.same(change.setting, value, change.back) or hold.same(change.setting, value, change.before)


def _refuse_foreign(path: Path, name: str, hold: SourceHold, changes: Sequence[Change]) -> None:
    for change in changes:
        value = hold.read(change.setting)
        if not _is_back(hold, change, value) and not hold.same(change.setting, value, change.after):
            raise UsageError(
                f"{name}: {change.setting} was changed since by somebody else: it is {_shown(value)}; before the hold"
                f" it was {_shown(change.before)}, in the hold {_shown(change.after)}",
                next_step=f"ask who did; then moveout hold undo {shlex.quote(str(path))} --force puts back what was"
                " before the hold",
            )


def _bring(name: str, hold: SourceHold, change: Change, value: object) -> bool:
    """Set it where it is not so, and read it back; tell whether it had to be set."""
    if hold.same(change.setting, hold.read(change.setting), value):
        return False
    hold.write(change.setting, value)
    end = time.monotonic() + _SETTLES_SECONDS
    while not hold.same(change.setting, current := hold.read(change.setting), value):
        if time.monotonic() < end:
            time.sleep(_LOOKS_SECONDS)
            continue
        raise DamageError(
            f"{name}: {change.setting}", expected=_shown(value), found=_shown(current),
            next_step="the server took the setting and does not have it; look there, then run the same command again",
        )  # fmt: skip
    return True


def _shown(value: object) -> str:
    return "not set" if value in (None, {}, []) else str(value)
