"""A directory of SQLite files as one source: every file in it, and in the directories below, that is a database.

Each file is one consistent copy; they are not of one moment together, which is a loss. A table's schema in the catalog
is its file's path below the directory; its parts lie under ``files/<number>/`` as those of one file would.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from exporters.api import (
    OUTLINE,
    DoneUnit,
    Enumeration,
    Estimate,
    Gap,
    Loss,
    Outcome,
    Sink,
    Snapshot,
    SourceSummary,
    Survey,
    SurveyItem,
    Unit,
    Workspace,
)
from exporters.errors import SourceError, SourceUnreachableError, reading_state
from exporters.lossless_text import is_utf_8, printable, url_path
from exporters.rate_sampling import try_out
from exporters.sql import outline
from exporters.sql.snapshots import remember_position
from exporters.sqlite.address import SqliteAddress
from exporters.sqlite.catalog import RECORD_SUFFIX
from exporters.sqlite.errors import is_of_damage
from exporters.sqlite.files.backup import check_file, copies, is_database
from exporters.sqlite.snapshot import SqliteSnapshot, server, survey_damaged, survey_file
from exporters.structs import as_dict

FILES = "files.json"
_NUMBERS = "files.json"
COMPANION_ENDINGS = ("-wal", "-shm", "-journal", RECORD_SUFFIX)
"""Endings of the files that belong to a database next to it."""


class DirectoryListing(Struct, frozen=True):
    """What lies in a directory: paths of databases below it, and what is left out, with the reason."""

    databases: Sequence[str]
    gaps: Sequence[Gap]

    def without(self, errors: Mapping[str, SourceError]) -> DirectoryListing:
        """Return the same, with files that cannot be read among what is left out."""
        gaps = [*self.gaps, *(Gap(name, "failed", str(error)) for name, error in errors.items())]
        return DirectoryListing([name for name in self.databases if name not in errors], gaps)


def find(root: Path) -> DirectoryListing:
    """Look through a directory. Links to directories are not followed. Raises ``SourceError``."""
    databases: list[str] = []
    gaps: list[Gap] = []
    names: list[str] = []

    def refuse(error: OSError) -> None:
        reason = f"the directory cannot be read: {error.strerror}"
        if (folder := Path(error.filename)) == root:
            raise SourceError(f"{root}: {reason}", next_step="use an account that may read it") from error
        gaps.append(Gap(printable(folder.relative_to(root).as_posix()), "failed", reason))

    for folder, folders, files in os.walk(root, onerror=refuse):
        names += [(Path(folder) / file).relative_to(root).as_posix() for file in files]
        for path in (Path(folder) / name for name in sorted(folders)):
            if target := link_out(path, root):
                reason = f"it is a link to {target}: name that one, too"
                gaps.append(Gap(printable(path.relative_to(root).as_posix()), "excluded", reason))
    all_names = set(names)
    for name in sorted(names):
        if any(name.endswith(end) and name.removesuffix(end) in all_names for end in COMPANION_ENDINGS):
            continue
        if (gap := _not_taken(root / name, name)) is None:
            databases.append(name)
        else:
            gaps.append(gap)
    return DirectoryListing(databases, gaps)


def link_out(path: Path, root: Path) -> str:
    """Return where a link leads, if that is not below ``root``; "" for all else."""
    is_link = os.path.islink(path)  # noqa: PTH114  what cannot be asked is none
    if not is_link or path.resolve().is_relative_to(root.resolve()):
        return ""
    return printable(str(path.resolve()))


def _not_taken(path: Path, name: str) -> Gap | None:
    """Return why a file is not exported, None where it is a database."""
    if not is_utf_8(name):
        step = f"export it as a source of its own, sqlite://{url_path(path)}"
        return Gap(printable(name), "failed", f"its name is not UTF-8: {step}")
    try:
        if is_database(path):
            return None
    except OSError as exc:
        is_dangling = path.is_symlink() and not path.exists()
        reason = f"it is a link to {os.readlink(path)}, where nothing is" if is_dangling else ""  # noqa: PTH115
        return Gap(name, "failed", printable(reason) or f"it cannot be read: {exc.strerror}")
    reason = "it is no SQLite database, or an encrypted one"
    return Gap(name, "excluded", reason if path.is_file() else "it is no file")


class DirectorySource:
    """See ``exporters.api.Source``."""

    def __init__(self, name: str, address: SqliteAddress) -> None:
        self.name = name
        self.url = address.url
        self.identity = f"sqlite:{address.path}"
        self._address = address

    def survey(self) -> Survey:
        """Return every table of every file, with its rows counted."""
        listing = find(self._address.path)
        items: list[SurveyItem] = []
        warnings = [f"{gap.item}: {gap.reason}" for gap in listing.gaps]
        for name in listing.databases:
            try:
                file_survey = survey_file(self._address.below(name))
            except SourceUnreachableError:
                raise
            except SourceError as exc:
                warnings.append(f"{name}: {exc}")
                if is_of_damage(exc):
                    item = survey_damaged(self._address.below(name))
                    items.append(replace(item, name=f"{name}: {item.name}"))
                continue
            items += [replace(item, name=f"{name}: {item.name}") for item in file_survey.items]
            warnings += [f"{name}: {warning}" for warning in file_survey.warnings]
        return Survey(items, server(), warnings)

    def estimate(self, survey: Survey, *, seconds: float, workers: int) -> Estimate:
        """See ``exporters.api.Measurable``."""
        del survey
        return try_out(self, seconds=seconds, workers=workers)

    @contextmanager
    def snapshot(self, workspace: Workspace, *, workers: int) -> Iterator[Snapshot]:
        """Copy every file."""
        del workers
        listing = find(self._address.path)
        numbers = _number(listing.databases, workspace)
        with ExitStack() as stack:
            members = []
            addresses = {name: self._address.below(name) for name in listing.databases}
            errors: dict[str, SourceError] = {}
            for name, copy in stack.enter_context(copies(addresses, lost=errors)).items():
                folder = f"files/{numbers[name]:06d}"
                file_workspace = _Below(workspace, folder)
                try:
                    view = SqliteSnapshot(
                        copy, check_file(addresses[name]), addresses[name].url, file_workspace
                    )
                except SourceError as exc:
                    errors[name] = exc
                    continue
                stack.callback(view.close)
                view.release()
                members.append(_Member(name, folder, view))
            yield DirectorySnapshot(members, listing.without(errors), workspace)

    def close(self) -> None:
        """Do nothing: no file stays open between calls."""


def _number(names: Sequence[str], workspace: Workspace) -> dict[str, int]:
    """Return each file's number, which stays the same when other files come and go."""
    with reading_state(_NUMBERS):
        numbers = msgspec.convert(json.loads(workspace.read(_NUMBERS) or b"{}"), dict[str, int])
    before = dict(numbers)
    for name in names:
        numbers.setdefault(name, max(numbers.values(), default=0) + 1)
    if numbers != before:
        workspace.write(_NUMBERS, json.dumps(numbers).encode())
    return numbers


class _Member(Struct, frozen=True):
    """One file: its path below the directory, its folder in the bundle, its snapshot."""

    name: str
    folder: str
    snapshot: SqliteSnapshot


class _Below:
    """A ``Workspace`` and a ``Sink`` for one file: all names begin with its folder."""

    def __init__(self, workspace: Workspace, folder: str) -> None:
        self._workspace = workspace
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        return self._workspace.read(f"{self._folder}/{name}")

    def write(self, name: str, data: bytes) -> None:
        self._workspace.write(f"{self._folder}/{name}", data)

    def names(self, prefix: str = "") -> Sequence[str]:
        root = f"{self._folder}/"
        return [name.removeprefix(root) for name in self._workspace.names(root + prefix)]

    def delete(self, name: str) -> None:
        self._workspace.delete(f"{self._folder}/{name}")

    def listed(self, count: int) -> None:
        self._workspace.listed(count)


class _SinkBelow:
    def __init__(self, sink: Sink, folder: str) -> None:
        self._sink = sink
        self._folder = folder

    @contextmanager
    def create(self, name: str, *, size_bytes: int = 0) -> Iterator[BinaryIO]:
        with self._sink.create(f"{self._folder}/{name}", size_bytes=size_bytes) as file:
            yield file

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        self._sink.advance(items=items, size_bytes=size_bytes)


class DirectorySnapshot:
    """See ``exporters.api.Snapshot``."""

    def __init__(self, members: Sequence[_Member], listing: DirectoryListing, workspace: Workspace) -> None:
        self._members = {member.name: member for member in members}
        self._listing = listing
        together = hashlib.sha256(
            "".join(f"{member.name}\0{member.snapshot.position['snapshot']}\0" for member in members).encode()
        )
        self.position: Mapping[str, Any] = {
            "snapshot": together.hexdigest(),
            "files": len(members),
            "server": server(),
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
        }
        self._positions = remember_position(workspace, self.position)

    def units(self) -> Iterator[Unit]:
        """Yield the units of every file."""
        for member in self._members.values():
            for unit in member.snapshot.units():
                yield replace(unit, id=f"{member.folder}/{unit.id}", spec={**unit.spec, "file": member.name})
            member.snapshot.release()

    def export(self, unit: Unit, sink: Sink) -> Outcome:
        """Export one unit of one file."""
        member = self._members[unit.spec["file"]]
        outcome = member.snapshot.export(_inner(member.folder, unit), _SinkBelow(sink, member.folder))
        member.snapshot.release()
        parts = [{**part, "name": f"{member.folder}/{part['name']}"} for part in outcome.facts["parts"]]
        return replace(outcome, facts={**outcome.facts, "parts": parts})

    def still_holds(self, done: DoneUnit) -> bool:
        """Ask the file's snapshot; a file that is gone holds nothing."""
        member = self._members.get(done.unit.spec.get("file", ""))
        if member is None:
            return False
        is_unchanged = member.snapshot.still_holds(_inner_done(member.folder, done))
        member.snapshot.release()
        return is_unchanged

    def begin_outline(self, workspace: Workspace) -> None:
        """See ``exporters.api.Outlined``."""
        for member in self._members.values():
            member.snapshot.begin_outline(_Below(workspace, member.folder))
            member.snapshot.release()
        folders = {name: member.folder for name, member in self._members.items()}
        positions = [dict(position) for position in self._positions]
        noted = _Outline(folders, self._listing.gaps, positions)
        workspace.write(OUTLINE, json.dumps(as_dict(noted)).encode())

    def finish(self, done: Iterator[DoneUnit], sink: Sink) -> SourceSummary:
        """Finish every file, and add up."""
        folders = {name: member.folder for name, member in self._members.items()}
        by_file = _by_file(done, folders)
        accounts = {}
        for name, member in self._members.items():
            accounts[name] = member.snapshot.finish(iter(by_file[name]), _SinkBelow(sink, member.folder))
            member.snapshot.release()
        readable = {
            name: folder
            for name, folder in folders.items()
            if accounts[name].has_definitions or not accounts[name].gaps
        }
        _write_folders(sink, readable)
        return self._summary(accounts)

    def _summary(self, accounts: Mapping[str, SourceSummary]) -> SourceSummary:
        """Add up, and count the files."""
        sums: dict[tuple[str, str], int] = {}
        for summary in accounts.values():
            for enumeration in summary.enumerations:
                sums[enumeration.what, enumeration.how] = (
                    sums.get((enumeration.what, enumeration.how), 0) + enumeration.count
                )
        failed = sum(1 for gap in self._listing.gaps if gap.disposition == "failed")
        return replace(
            _joined(accounts, self._listing.gaps, self._positions),
            enumerations=[
                Enumeration("files", "databases in the directory", len(self._listing.databases) + failed),
                Enumeration("files", "exported", len(accounts)),
                *(Enumeration(what, how, count) for (what, how), count in sums.items()),
            ],
        )


class _Outline(Struct, frozen=True):
    """What is noted of the directory; each file's own outline lies below its folder."""

    folders: dict[str, str]
    gaps: Sequence[Gap]
    positions: Sequence[dict[str, Any]]


def summary_of_gone(
    workspace: Workspace, done: Iterator[DoneUnit], sink: Sink, error: SourceError
) -> SourceSummary | None:
    """See ``exporters.engine.SummaryOfGone``; of a file or of a directory."""
    with reading_state(OUTLINE):
        noted = json.loads(workspace.read(OUTLINE) or b"{}")
        directory = msgspec.convert(noted, _Outline) if "folders" in noted else None
    if directory is None:
        return outline.summary_of_gone(workspace, done, sink, error)
    by_file = _by_file(done, directory.folders)
    accounts = {}
    for name, folder in directory.folders.items():
        below = _Below(workspace, folder), by_file[name], _SinkBelow(sink, folder)
        if (account := outline.summary_of_gone(*below, error)) is not None:
            accounts[name] = account
    _write_folders(sink, {name: directory.folders[name] for name in accounts})
    return _joined(accounts, directory.gaps, directory.positions)


def _by_file(done: Iterator[DoneUnit], folders: Mapping[str, str]) -> dict[str, list[DoneUnit]]:
    """Return the units of each file, as its own snapshot names them."""
    by_file: dict[str, list[DoneUnit]] = {name: [] for name in folders}
    for done_unit in done:
        if (name := done_unit.unit.spec.get("file")) in by_file:
            by_file[name].append(_inner_done(folders[name], done_unit))
    return by_file


def _write_folders(sink: Sink, folders: Mapping[str, str]) -> None:
    """Write which folder is which file's."""
    listed = [{"name": name, "folder": folder} for name, folder in folders.items()]
    data = json.dumps({"version": 1, "files": listed}, indent=1).encode() + b"\n"
    outline.write_files(sink, {FILES: data})


def _joined(
    accounts: Mapping[str, SourceSummary], gaps: Sequence[Gap], positions: Sequence[Mapping[str, Any]]
) -> SourceSummary:
    """Join the summaries of files, without their counts. ``gaps`` of the directory."""
    several = [Loss("files", "one moment", "each file is consistent, not all of them together")]
    return SourceSummary(
        entries=[
            replace(entry, schema=name) for name, summary in accounts.items() for entry in summary.entries
        ],
        enumerations=[],
        gaps=[
            *gaps,
            *(
                replace(gap, item=f"{name}: {gap.item}")
                for name, summary in accounts.items()
                for gap in summary.gaps
            ),
        ],
        losses=[
            *(several if len(accounts) > 1 else ()),
            *(
                replace(loss, item=f"{name}: {loss.item}")
                for name, summary in accounts.items()
                for loss in summary.losses
            ),
        ],
        positions=positions,
        server=server(),
        has_definitions=any(summary.has_definitions for summary in accounts.values()),
    )


def _inner(folder: str, unit: Unit) -> Unit:
    """Return a unit as the file's own snapshot names it."""
    spec = {key: value for key, value in unit.spec.items() if key != "file"}
    return replace(unit, id=unit.id.removeprefix(f"{folder}/"), spec=spec)


def _inner_done(folder: str, done: DoneUnit) -> DoneUnit:
    return replace(done, unit=_inner(folder, done.unit))
