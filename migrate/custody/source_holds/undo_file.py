"""The undo file of holds on sources: which settings a hold changes, how each was and how it is to be.

It is written whole, 0600 and durable, before the first change; what of it is done is what the sources say when asked.
So a run that died anywhere is finished by the same command, or undone. It holds no secrets.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.bundle import canonical_json
from migrate.custody.source_holds.contract import Change
from migrate.errors import BusyError, DamageError, UsageError
from migrate.storage.local.whole_file import replace_file, sync_directory

VERSION = 1
KIND = "undo of holds on sources"


class Recorded(Struct, frozen=True):
    """A source in the file. ``since`` is the source's mark of when all of its settings were in force; None before."""

    url: str
    changes: Sequence[Change] = ()
    since: str | None = None


class UndoFile(Struct, frozen=True):
    """What the file says. ``sources`` by name."""

    reason: str
    made: str
    sources: Mapping[str, Recorded] = field(default_factory=dict)

    def with_source(self, name: str, recorded: Recorded) -> UndoFile:
        """Return the same with this source."""
        return replace(self, sources={**self.sources, name: recorded})


def new(reason: str) -> UndoFile:
    """Return a file that says nothing yet."""
    return UndoFile(reason, datetime.now(UTC).isoformat(timespec="seconds"))


def read(path: Path) -> UndoFile | None:
    """Return what the file says, None where there is none. Raises ``DamageError``, ``UsageError``."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise UsageError(f"the undo file {path} cannot be read: {exc.strerror}") from exc
    value = canonical_json.decode(data, str(path))
    if value.get("kind") != KIND:
        raise DamageError(str(path), expected="an undo file of moveout hold source", found="another file")
    canonical_json.check_version(value, str(path), VERSION)
    try:
        sources = {name: _recorded(source_value) for name, source_value in value["sources"].items()}
        return UndoFile(str(value["reason"]), str(value["made"]), sources)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise DamageError(str(path), expected="an undo file", found=f"one that was changed ({exc})") from exc


def _recorded(value: Mapping[str, Any]) -> Recorded:
    since = str(value["since"]) if value["since"] else None
    return Recorded(str(value["url"]), tuple(Change(**change) for change in value["changes"]), since)


def write(path: Path, undo_file: UndoFile, *, undone: Collection[str] = ()) -> None:
    """Write or replace the file: whole, durable, readable by its owner alone. Nothing that it says goes but the sources
    that are ``undone``. Raises ``UsageError``, ``BusyError`` where another run has written there meanwhile.
    """
    sources = {name: _plain(recorded) for name, recorded in undo_file.sources.items()}
    value = {
        "kind": KIND, "version": VERSION, "reason": undo_file.reason, "made": undo_file.made, "sources": sources,
    }  # fmt: skip
    data = json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
    try:
        with _alone(path.parent):
            _check_kept(path, undo_file, undone)
            replace_file(path, data, crash_point="hold.undo_file", mode=0o600)
            sync_directory(path.parent)
    except OSError as exc:
        raise UsageError(
            f"the undo file {path} cannot be written: {exc.strerror}; nothing was changed",
            next_step="name another: --undo FILE",
        ) from exc


def _plain(recorded: Recorded) -> Any:
    value = {
        "url": recorded.url,
        "since": recorded.since,
        "changes": [as_dict(change) for change in recorded.changes],
    }
    return json.loads(json.dumps(value, allow_nan=False))


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep other runs from looking and writing between our look and our writing."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # file systems of other machines may know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_kept(path: Path, undo_file: UndoFile, undone: Collection[str]) -> None:
    earlier = read(path)
    for name, recorded in earlier.sources.items() if earlier else ():
        kept_changes = _plain(undo_file.sources.get(name, Recorded("")))["changes"]
        if name not in undone and any(change not in kept_changes for change in _plain(recorded)["changes"]):
            raise BusyError(
                f"another run has written how {name} was into {path} meanwhile",
                next_step="wait for its end, then run the same command again",
            )


def remove(path: Path, undone: UndoFile) -> None:
    """Remove the file: all of what it said is undone. Raises ``BusyError`` where it says more by now."""
    with _alone(path.parent):
        _check_kept(path, undone, ())
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
