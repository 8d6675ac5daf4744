"""``moveout follow``: what followed databases write is captured, and applied at their destinations; and
``moveout resync``: tables of them are read again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

import typer
from msgspec import Struct

from exporters.errors import SourceGoneError
from exporters.structs import as_dict
from migrate.bundle.reader import BundleReader
from migrate.case.model import Case, Endpoint
from migrate.changes.delta_record import DeltaRecord
from migrate.cli import app
from migrate.cli.common.options import CaseFile, LocationAndDestinations, one_location
from migrate.cli.common.session import Session
from migrate.cli.common.source_words import locations_and_sources
from migrate.cli.common.sources import check_kinds, chosen_destinations, destinations_of, expanded, load_case
from migrate.cli.common.summary_lines import SummaryLine, draw_summary
from migrate.cli.common.terminal import Console, Text
from migrate.cli.common.verb import verb
from migrate.engines import registry
from migrate.errors import OK, BusyError, IncompleteError, MoveoutError, UnreachableError, UsageError
from migrate.follow.delta import (
    DEFINE_DELTA_STEP,
    DeltaFollower,
    DeltaSource,
    DeltaState,
    sources_to_follow,
)
from migrate.follow.followed import FollowedSource, followed_sources, reread_tables
from migrate.follow.follower import DEFINE_STEP, Follower, FollowState
from migrate.follow.handover import CutoverWatch, refuse_after_switch
from migrate.follow.table_digests import table_label
from migrate.number_text import (
    bytes_words,
    count_words,
    duration_words,
    list_words,
    local_moment_words,
    things,
)
from migrate.repair.repair import TableRepair
from migrate.storage.api import Store

_REPORT_SECONDS = 10.0
_END_SECONDS = 0.75
"""After an interrupt threads are waited for so long, then a login of each server."""
_LIMIT_SECONDS = 120.0
"""A source or destination that fails for so long is not waited for by a command that is to end. A server may take as
long to notice that a session of ours has ended.
"""
_LAG_SECONDS = 5.0
"""A lag below is not worth a forecast."""
_POLL_SECONDS = 0.05
_NONE_DONE = "no delta pass is done yet"
_NEXT_DELTA = "moveout follow takes one, and so does moveout cutover before it compares"
_NEXT_SKIPPED = (
    "moveout cutover brings over histories, materialized views and large objects; moveout verify --against names"
    " what else differs"
)
_WATCH_SECONDS = 2.0
"""How often the location is asked whether a cutover has begun."""


class Followed(Struct, frozen=True):
    """How far each source was when the command ended."""

    location: str
    sources: Sequence[FollowState | DeltaState]
    seconds: float
    handed_over: bool = False
    """Whether it ended since a cutover has begun."""

    @property
    def exit_code(self) -> int:
        """Return 3 where a source has stopped, tables of it are not followed, its destination lacks what it defines, or
        nobody could say that; 5 where all have stopped since something does not answer. What has stopped
        since the cutover has its log or its destination goes on there, and that compares, too.
        """
        taken_over = (BusyError, SourceGoneError) if self.handed_over else ()
        if not self.handed_over and all(
            source.stopped and isinstance(source.stopped[0], UnreachableError) for source in self.sources
        ):
            return UnreachableError.exit_code
        is_incomplete = any(
            source.skipped
            or source.undefined
            or (
                isinstance(source, FollowState)
                and (source.refusing or (source.uncompared and not self.handed_over))
            )
            or [error for error in source.stopped if not isinstance(error, taken_over)]
            for source in self.sources
        )
        return IncompleteError.exit_code if is_incomplete else OK

    def as_json(self) -> dict[str, Any]:
        """Return how far each source is."""
        return {
            "location": self.location,
            "seconds": self.seconds,
            "handed_over": self.handed_over,
            "sources": [_as_json(source) for source in self.sources],
            "summary": [line.as_json() for line in self.summary()],
        }

    def summary(self) -> list[SummaryLine]:
        """Return a line for each source."""
        return [_summary_line(source) for source in self.sources]

    def draw(self, console: Console) -> None:
        """Print a line a source, and the next step of those that stopped."""
        for source in self.sources:
            console.print(Text(state_line(source)))
        if self.handed_over:
            console.print("moveout cutover has begun, and goes on from here")
        elif any(
            isinstance(state, DeltaState) and not (state.last or state.stopped) for state in self.sources
        ):
            console.print(f"→ {_NEXT_DELTA}")
        if self.exit_code != OK:
            draw_summary(console, self.summary())


def _as_shown(record: DeltaRecord) -> dict[str, Any]:
    """Return a record without what only the next pass needs."""
    return {key: value for key, value in as_dict(record).items() if key not in {"states", "defined"}}


def _as_json(source: FollowState | DeltaState) -> dict[str, Any]:
    errors = [{"code": e.code, "message": str(e), "next": _next_step(e)} for e in source.stopped]
    if isinstance(source, DeltaState):
        last = source.last and _as_shown(source.last)
        document = {"source": source.source, "delta": last, "rows": source.rows, "passes": source.passes}
        return document | {
            "caught_up": source.passes > 0,
            "stopped": errors,
            "undefined": list(source.undefined),
        }
    return {
        "source": source.source,
        "captured": source.captured,
        "applied": source.applied,
        "lag_bytes": source.lag_bytes,
        "lag_seconds": source.lag_seconds,
        "catch_up_seconds": source.catch_up_seconds,
        "changes": source.changes,
        "caught_up": source.is_caught_up,
        "stopped": errors,
        "skipped": list(source.skipped),
        "undefined": list(source.undefined),
        "refusing": [as_dict(table) for table in source.refusing],
        "uncompared": source.uncompared,
    }


def state_line(source: FollowState | DeltaState) -> str:
    """Return how far a source is, in one line."""
    if isinstance(source, DeltaState):
        return _delta_line(source)
    words = [f"{source.source}: captured up to {source.captured or 'its snapshot'}"]
    if source.is_waiting:
        is_busy = any(isinstance(error, BusyError) for error in source.stopped)
        words.append("another command applies its changes" if is_busy else "waiting for moveout restore")
    else:
        words.append(f"applied up to {source.applied or 'its snapshot'}")
        rate = f", {count_words(round(source.rate))}/s" if source.rate >= 1 else ""
        words.append(f"{things(source.changes, 'change')}{rate}")
    if source.lag_bytes is None or source.lag_seconds is None:
        words.append("the source does not say how far it is")
    elif not source.is_waiting and (source.lag_bytes or not source.stopped):
        lag = f"{duration_words(source.lag_seconds)}, {bytes_words(source.lag_bytes)} behind"
        if source.catch_up_seconds is not None and source.lag_seconds >= _LAG_SECONDS:
            lag += f", caught up in about {duration_words(source.catch_up_seconds)}"
        words.append(lag if source.lag_bytes else "nothing is behind")
    if source.stopped:
        words.append("STOPPED")
    return "; ".join(words)


def _delta_line(source: DeltaState) -> str:
    is_part = bool(source.skipped or source.undefined)
    words = _NONE_DONE if source.last is None else _pass_words(source.last, is_part=is_part)
    return f"{source.source}: {words}{'; STOPPED' if source.stopped else ''}"


def _pass_words(last: DeltaRecord, *, is_part: bool = False) -> str:
    return (
        f"delta pass {last.passes} made {'a part of it' if is_part else 'it'} equal to the source at"
        f" {local_moment_words(datetime.fromisoformat(last.at))}; {things(last.rows, 'row')} of"
        f" {things(last.tables_read, 'table')} in {duration_words(last.seconds)}"
    )


def _summary_line(source: FollowState | DeltaState) -> SummaryLine:
    if source.stopped:
        error = source.stopped[0]
        return SummaryLine(source.source, "stopped", str(error), _next_step(error))
    if isinstance(source, DeltaState):
        if source.skipped:
            happened = f"not made equal: {list_words(source.skipped)}"
            return SummaryLine(source.source, "in part", happened, _NEXT_SKIPPED)
        if source.last is None:
            return SummaryLine(source.source, "no", _NONE_DONE, _NEXT_DELTA)
        if source.undefined:
            return _undefined_line(source, DEFINE_DELTA_STEP)
        return SummaryLine(source.source, "yes", _pass_words(source.last))
    if source.skipped:
        return SummaryLine(
            source.source,
            "in part",
            f"the restore left out {', '.join(source.skipped)}, and so do the changes",
            "make these tables at the destination: the cutover reads them again",
        )
    if source.refusing:
        table = source.refusing[0]
        return SummaryLine(source.source, "in part", f"{table.name}: {table.reason}", table.remedy)
    if source.undefined:
        return _undefined_line(source, DEFINE_STEP)
    if source.uncompared:
        return SummaryLine(source.source, "in part", source.uncompared, "run the same command again")
    return SummaryLine(source.source, "yes", f"applied up to {source.applied or 'its snapshot'}")


def _next_step(error: MoveoutError) -> str:
    return error.next_step or "run the same command again"


def _undefined_line(source: FollowState | DeltaState, next_step: str) -> SummaryLine:
    happened = f"not at the destination: {', '.join(source.undefined)}"
    return SummaryLine(source.source, "in part", happened, next_step)


@verb(
    app,
    "follow",
    examples=(
        "follow -c moveout.toml",
        "follow bundle postgresql://me@new/app --until-caught-up",
        "follow bundle mysql://me@new/app --delta",
    ),
)
def follow_command(
    session: Session,
    words: LocationAndDestinations = None,
    *,
    case: CaseFile = None,
    until_caught_up: Annotated[
        bool,
        typer.Option(
            "--until-caught-up",
            help="End when everything is applied that was written before the command began.",
        ),
    ] = False,
    delta: Annotated[
        bool,
        typer.Option(
            "--delta",
            help="Compare tables again and again, for sources that were exported without --follow.",
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="The first comparison replaces what others have written at the new side. Without it such a table stops"
            " its source.",
        ),
    ] = False,
) -> Followed:
    """Apply what the sources have written since their export.

    Needs export --follow, or follow = true in the case; else give --delta. Runs until Ctrl-C, or until moveout cutover
    begins; repeat the command to continue. Tables are compared again and again where the server's log cannot be read.
    """
    loaded = load_case(case)
    locations, source_words = locations_and_sources(words or [])
    location = one_location(locations, loaded.bundle if loaded else None)
    store = session.store(location)
    reader = BundleReader(store)
    destinations = chosen_destinations(location, source_words, loaded)
    check_kinds(reader, destinations)
    sources = _sources(session, reader, loaded, location)
    copies = session.copies(loaded)
    followed = sources_to_follow(
        store, sources, destinations, every=delta, overwrites=overwrite, copies=copies
    )
    if overwrite and not any(isinstance(source, DeltaSource) for source in followed):
        raise UsageError("--overwrite is for delta passes, and no source has them", next_step="leave it out")
    others = sorted(destinations.keys() - {source.name for source in followed})
    if buckets := [name for name in others if registry.holds_objects(destinations[name].url)]:
        session.progress.note(f"buckets are not followed, moveout sync keeps them up: {', '.join(buckets)}")
    if others := [name for name in others if name not in buckets]:
        session.progress.note(f"not followed, since exported without --follow: {', '.join(others)}")
    case_option = loaded.option if loaded else "-c CASE"
    return run_follow(session, store, followed, until_caught_up=until_caught_up, case_option=case_option)


def run_follow(
    session: Session,
    store: Store,
    followed: Sequence[FollowedSource | DeltaSource],
    *,
    until_caught_up: bool,
    case_option: str,
) -> Followed:
    """Capture and apply what the sources write, until Ctrl-C, until a cutover begins, or until all is applied that was
    written before; what fails for ``_LIMIT_SECONDS`` is not waited for then. Raises ``UsageError`` where
    the switch was made, ``BusyError`` where a cutover is at work, ``UnreachableError`` where the changes are not at the
    location.
    """
    refuse_after_switch(store, case_option)
    for source in followed:
        if isinstance(source, FollowedSource):
            source.folder(store).require_begun()
    watch = CutoverWatch(store, session.progress)
    cancellation = session.cancellation.child()
    note = session.progress.note
    limit_seconds = _LIMIT_SECONDS if until_caught_up else math.inf
    followers = [
        DeltaFollower(source, cancellation=cancellation, note=note, limit_seconds=limit_seconds)
        if isinstance(source, DeltaSource)
        else Follower(source, store, cancellation=cancellation, note=note, limit_seconds=limit_seconds)
        for source in followed
    ]
    started, handed_over = time.monotonic(), False
    for follower in followers:
        follower.start()
    endpoints = endpoints_of(followed)
    with session.waiting_for_silent(
        *endpoints, may_end=False, is_limited=lambda: until_caught_up, retries=True
    ):
        try:
            handed_over = _report_until_end(session, followers, watch, until_caught_up=until_caught_up)
        except KeyboardInterrupt:  # the usual end
            pass
        finally:
            cancellation.cancel()
        _join(followers, endpoints)
    states = [follower.state() for follower in followers]
    return Followed(store.location, states, time.monotonic() - started, handed_over)


def _join(followers: Sequence[Follower | DeltaFollower], endpoints: Sequence[Endpoint]) -> None:
    """Wait until the threads have ended; not for a silent server: what they have done is kept, as after a kill."""
    from migrate.progress.server_contact import is_any_silent  # noqa: PLC0415  asked only at the end

    while True:
        for follower in followers:
            follower.join(_END_SECONDS / len(followers))
        if all(follower.is_ended for follower in followers) or is_any_silent(endpoints, _END_SECONDS):
            return


def endpoints_of(followed: Sequence[FollowedSource | DeltaSource]) -> Sequence[Endpoint]:
    """Return the sources and the destinations."""
    return [endpoint for source in followed for endpoint in (source.source, source.destination)]


def _sources(
    session: Session, reader: BundleReader, case: Case | None, location: Endpoint
) -> Mapping[str, Endpoint]:
    """Return where the bundle's sources are: as the case says, else as the bundle does."""
    recorded = {source.name: Endpoint(source.url) for source in reader.info.sources}
    known = expanded(session, case.sources, case, location, ask=False) if case else {}
    return {**recorded, **known}


def _report_until_end(
    session: Session,
    followers: Sequence[Follower | DeltaFollower],
    watch: CutoverWatch,
    *,
    until_caught_up: bool,
) -> bool:
    """Say how far each is from time to time, until all have ended, or are as far as was asked for. Return True where a
    cutover has begun before.
    """
    reported_at = watched_at = time.monotonic()
    reported: dict[str, tuple[bool, int, int]] = {}
    while not all(follower.is_ended or (until_caught_up and follower.is_done) for follower in followers):
        session.cancellation.wait(_POLL_SECONDS)
        now = time.monotonic()
        if now - watched_at >= _WATCH_SECONDS:
            watched_at = now
            with suppress(MoveoutError):  # capture and apply say what the location lacks
                if watch.is_requested():
                    return True
        if now - reported_at >= _REPORT_SECONDS:
            reported_at = now
            ended = [f for f in followers if until_caught_up and f.is_done]  # the result has them
            for state in (follower.state() for follower in followers if follower not in ended):
                if isinstance(state, DeltaState) and not _is_news(state, reported):
                    continue
                session.progress.note(state_line(state))
    return False


def _is_news(state: DeltaState, reported: dict[str, tuple[bool, int, int]]) -> bool:
    """Tell whether delta passes of a source have brought anything since they were ``reported``, and note how far they
    are now.
    """
    news = state.passes > 0, state.rows, len(state.stopped)
    before, reported[state.source] = reported.get(state.source, (False, 0, 0)), news
    return news != before


class ResyncedTable(Struct, frozen=True):
    """A table that was read again. ``position``: from there on its changes are applied."""

    source: str
    repaired: TableRepair
    position: str


class Resynced(Struct, frozen=True):
    """All tables that were read again."""

    tables: Sequence[ResyncedTable]
    case_option: str
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return what differed of each table."""
        return {"tables": [as_dict(table) for table in self.tables]}

    def draw(self, console: Console) -> None:
        """Print a line a table."""
        for table in self.tables:
            words = f"repaired: {table.repaired.words}" if table.repaired.rows else "nothing differed"
            console.print(
                Text(
                    f"{table.source}: {table.repaired.table} is as the source had it at {table.position} ({words})"
                )
            )
        console.print(f"→ moveout follow {self.case_option} applies what was written since")


@verb(app, "resync", examples=("resync -c moveout.toml app:public.orders",))
def resync_command(
    session: Session,
    tables: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME:SCHEMA.TABLE …", help="Source and table; in MySQL and MariaDB NAME:TABLE."
        ),
    ],
    *,
    case: CaseFile = None,
) -> Resynced:
    """Read followed tables again, while the source is written to.

    For a table that was created or rewritten since the export, that got a replica identity, or that was written to
    at the destination. Rows that differ are written, then changes are applied again. End moveout follow first.
    """
    loaded = load_case(case)
    if loaded is None or loaded.bundle is None:
        raise UsageError("no case file is named", next_step="give -c moveout.toml, with a [bundle] location")
    names = [_table_name(word) for word in tables]
    store = session.store(loaded.bundle)
    refuse_after_switch(store, loaded.option)
    sources = expanded(session, loaded.sources, loaded, loaded.bundle, ask=False)
    destinations = destinations_of(loaded.bundle, loaded.destinations, loaded)
    followed = {source.name: source for source in followed_sources(store, sources, destinations)}
    resynced: dict[tuple[str, str, str], ResyncedTable] = {}
    for name in names:
        if name not in resynced:
            resynced |= _reread(session, followed, *name)
    return Resynced([*resynced.values()], loaded.option)


def _table_name(word: str) -> tuple[str, str, str]:
    """Return source, schema and table. Raises ``UsageError``."""
    source, colon, table = word.partition(":")
    schema, dot, name = table.partition(".")
    if not (source and colon and schema and (name or not dot)):
        raise UsageError(f"{word!r} is not NAME:SCHEMA.TABLE", next_step="for example: app:public.orders")
    return (source, schema, name) if dot else (source, "", schema)


def _reread(
    session: Session, followed: dict[str, FollowedSource], source: str, schema: str, name: str
) -> dict[tuple[str, str, str], ResyncedTable]:
    """Read a table again, and those that have to be read with it."""
    if source not in followed:
        raise UsageError(
            f"{source} is not followed", next_step=f"the followed sources are {', '.join(followed)}"
        )
    session.progress.note(f"{source}: reading {table_label((schema, name))} again")
    endpoints = endpoints_of([followed[source]])
    with session.waiting_for_silent(*endpoints, may_end=False):
        repaired, position = reread_tables(
            followed[source], schema, name, cancellation=session.cancellation, note=session.progress.note
        )
    return {(source, *table): ResyncedTable(source, result, position) for table, result in repaired.items()}
