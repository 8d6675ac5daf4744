"""``moveout hold source`` and ``undo``: the sources themselves, for the time before the export is finished."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.case.model import Case, Endpoint
from migrate.cli.common.findings import draw_findings
from migrate.cli.common.options import CaseFile, Yes
from migrate.cli.common.session import Session
from migrate.cli.common.source_words import locations_and_sources, parse_pairs
from migrate.cli.common.sources import chosen_sources, expanded, load_case, typed_sources
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.custody.source_holds import source_hold, undo_file
from migrate.custody.source_holds.contract import Change, HoldRequest, SourceHold
from migrate.custody.source_holds.source_hold import Standing
from migrate.custody.source_holds.undo_file import UndoFile
from migrate.errors import OK, IncompleteError, UsageError

group = typer.Typer(help="Protect a bundle, or its sources, from changes for a time.", no_args_is_help=True)

TryAs = Annotated[
    str,
    typer.Option(
        metavar="PROFILE", help="Buckets only: try a deletion with this AWS profile of an ordinary account."
    ),
]


class SourceHolds(Struct, frozen=True):
    """What sources say of their holds. ``file`` is the undo file, "" where there is none."""

    standings: Sequence[Standing]
    file: str

    @property
    def exit_code(self) -> int:
        """3 where some source is not held."""
        return OK if all(standing.is_held for standing in self.standings) else IncompleteError.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return each source with what is in force and what is not."""
        sources = [{"held": standing.is_held, **as_dict(standing)} for standing in self.standings]
        return {"held": self.exit_code == OK, "undo": self.file or None, "sources": sources}

    def draw(self, console: Console) -> None:
        """Print for each source whether it is held, and the limits of the hold."""
        for standing in self.standings:
            if standing.is_held:
                console.print(Text(f"HELD: {standing.name} ({standing.url}), each setting read back"))
            else:
                console.print(Text(f"NOT HELD: {standing.name} ({standing.url})", style="bold red"))
            for setting in standing.in_force:
                console.print(Text(plain(f"  in force: {setting}")))
            if standing.findings:
                draw_findings(console, standing.findings)
            for limit in standing.limits:
                console.print(Text(f"  note: {limit}", style="dim"))
        if self.file:
            console.print(f"→ to take it back: moveout hold undo {self.file}")
        if before := [
            standing.name for standing in self.standings if standing.is_held and not standing.in_force
        ]:
            names = ", ".join(before)
            console.print(
                Text(
                    f"→ {names}: held before. To take that back: moveout hold undo FILE, with the undo file of then"
                )
            )
            console.print(
                "  (moveout-hold.json in the directory where it was placed, unless --undo named another)"
            )


@verb(
    group,
    "source",
    title="hold source",
    examples=('hold source postgresql://me@old/app --reason "notice of 24 November"',),
)
def source_command(
    session: Session,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for the undo file.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=]URL …", help="The sources to hold.")
    ] = None,
    *,
    file: Annotated[
        Path, typer.Option("--undo", metavar="FILE", help="The file that records the old settings.")
    ] = Path("moveout-hold.json"),
    end_sessions: Annotated[
        bool,
        typer.Option("--end-sessions", help="End open sessions of a database, because they may still write."),
    ] = False,
    whole_server: Annotated[
        bool,
        typer.Option(
            "--whole-server",
            help="MariaDB, old MySQL: make the whole server read-only.",
        ),
    ] = False,
    try_as: TryAs = "",
    case: CaseFile = None,
    yes: Yes = False,
) -> SourceHolds:
    """Hold the sources until they are exported.

    Nothing can be deleted from a bucket, and a database becomes read-only. The changes are shown first. The old
    settings are written to the undo file before anything is changed. If it was interrupted, repeat the command to
    finish; `moveout hold undo FILE` reverts it at any time.
    """
    loaded = load_case(case)
    endpoints = expanded(session, chosen_sources(typed_sources(words or [], loaded), loaded), loaded)
    known = undo_file.read(file) or undo_file.new(reason)
    with _opened(session, endpoints, known, HoldRequest(try_as, whole_server)) as holds:
        plan = source_hold.planned(file, holds, known)
        pending = source_hold.pending(holds, plan)
        sessions = source_hold.older_sessions(holds, plan) if end_sessions else []
        if pending or sessions:
            _show(session, [*(f"{name}: {change.says}" for name, change in pending), *sessions])
            _ask(session, "Hold the sources by these changes?", yes=yes)
        with _pointing_to(session, file):
            source_hold.place(file, holds, plan)
        known = undo_file.read(file) or plan
        if end_sessions:
            source_hold.close_write_paths(holds, known)
        return SourceHolds(source_hold.survey(holds, known), str(file) if file.exists() else "")


class Undone(Struct, frozen=True):
    """Sources that are as they were."""

    names: Sequence[str]
    changes: Sequence[Change]
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return the settings that were restored."""
        return {"sources": list(self.names), "undone": [change.undo_says for change in self.changes]}

    def draw(self, console: Console) -> None:
        """Print the result."""
        for change in self.changes:
            console.print(Text(f"  done: {change.undo_says}"))
        console.print(f"{', '.join(self.names)}: each setting read back as it was; the undo file is gone")


@verb(group, "undo", title="hold undo", examples=("hold undo moveout-hold.json",))
def undo_command(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The undo file of `moveout hold source`.")],
    *,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also restore settings that somebody else has changed since."),
    ] = False,
    case: CaseFile = None,
    yes: Yes = False,
) -> Undone:
    """Undo a hold on sources.

    Restores every setting, also of a hold that was interrupted. A setting that somebody else has changed since is
    left alone and named. If it was interrupted, repeat the command to finish.
    """
    known = _need_file(file)
    endpoints = _recorded(known, load_case(case))
    with _opened(session, endpoints, known, HoldRequest()) as holds:
        for name, hold in holds.items():
            if hold.url != known.sources[name].url:
                raise UsageError(f"the case's {name} is {hold.url}, the file's {known.sources[name].url}")
        changes = source_hold.undoable(file, holds, known, force=force)
        if changes:
            _show(session, [f"{name}: {change.undo_says}" for name, change in changes])
            _ask(session, "Take the hold back by these changes?", yes=yes)
        source_hold.take_back(file, holds, known, force=force)
    return Undone(tuple(known.sources), [change for _, change in changes])


def source_status(
    session: Session, words: Sequence[str], case: Case | None, try_as: str
) -> SourceHolds | None:
    """Return what is in force of a hold on sources, None where the words name no sources but a location. Next to a
    source a bucket is a source, too.
    """
    if locations_and_sources(words)[1]:
        pairs = parse_pairs(words)
        with _opened(session, pairs, undo_file.new(""), HoldRequest(try_as)) as holds:
            return SourceHolds(source_hold.survey(holds, None), "")
    file = Path(words[0]) if len(words) == 1 else None
    if file is None or not (file.is_file() or (file.suffix == ".json" and not file.exists())):
        return None
    known = _need_file(file)
    with _opened(session, _recorded(known, case), known, HoldRequest(try_as)) as holds:
        return SourceHolds(source_hold.survey(holds, known), words[0])


def _need_file(file: Path) -> UndoFile:
    known = undo_file.read(file)
    if known is None:
        raise UsageError(
            f"there is no undo file {file}",
            next_step="hold undo removes it once all is undone; moveout hold source writes one: --undo FILE",
        )
    return known


def _recorded(known: UndoFile, case: Case | None) -> Mapping[str, Endpoint]:
    """Return the file's sources, with the case's secrets where it has a source of the name."""
    cased = case.sources if case else {}
    return {
        name: cased.get(name, Endpoint(source_record.url)) for name, source_record in known.sources.items()
    }


@contextmanager
def _opened(
    session: Session, endpoints: Mapping[str, Endpoint], known: UndoFile, request: HoldRequest
) -> Iterator[Mapping[str, SourceHold]]:
    """Open what can hold each source. A server that falls silent ends the command after a minute: the application may
    stand still meanwhile.
    """
    with ExitStack() as stack:
        stack.enter_context(
            session.waiting_for_silent(*endpoints.values(), may_end=False, is_limited=lambda: True)
        )
        holds: dict[str, SourceHold] = {}
        for name, endpoint in endpoints.items():
            recorded = known.sources.get(name)
            settings = [change.setting for change in recorded.changes] if recorded else []
            opened = source_hold.open_hold(endpoint, replace(request, settings=settings))
            stack.callback(opened.close)
            holds[name] = opened
        yield holds


@contextmanager
def _pointing_to(session: Session, file: Path) -> Iterator[None]:
    """Say of a hold that broke off how it is taken back."""
    try:
        yield
    except BaseException:
        if file.exists():
            session.err.print(Text(f"It was begun; moveout hold undo {file} takes back what was done."))
        raise


def _show(session: Session, lines: Sequence[str]) -> None:
    for line in lines:
        session.err.print(Text(plain(f"  {line}")))


def _ask(session: Session, question: str, *, yes: bool) -> None:
    if not (yes or session.confirm(question)):
        raise UsageError("nothing was changed")
