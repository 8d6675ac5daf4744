"""``moveout clean``: what killed runs left at a location is removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from msgspec import Struct

from exporters.engine import load_part
from exporters.structs import as_dict
from migrate.case.model import Case, Endpoint
from migrate.cli import app
from migrate.cli.common.dry_run import DryRun
from migrate.cli.common.options import CaseFile, Yes, known_location, locations_of, one_location
from migrate.cli.common.session import Session
from migrate.cli.common.sources import destinations_of, load_case
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.errors import OK, IncompleteError, MoveoutError
from migrate.follow.cutover_record import read_record
from migrate.follow.status import kept_things
from migrate.number_text import bytes_words, duration_words, things
from migrate.restore.common.api import UnfinishedRestore
from migrate.storage.api import MultipartStore
from migrate.storage.registry import open_location
from migrate.transfer.clean import Leftover, clean

_SHOWN = 20


class _AtDestination(Struct, frozen=True):
    """A restore that has not ended, and where."""

    destination: str
    restore: UnfinishedRestore

    def as_json(self) -> dict[str, Any]:
        """Return all fields."""
        return {"destination": self.destination, **as_dict(self.restore)}

    def draw(self, console: Console) -> None:
        """Print it, and both ways on."""
        words = f"kept: a restore of {self.restore.source or 'a source'} to {self.destination} has not ended"
        console.print(Text(f"{words}; by its {self.restore.objects} it goes on"))
        console.print(Text(f"  → moveout restore goes on. To give it up, there: {self.restore.removal}"))


class Cleaned(Struct, frozen=True):
    """What was (or would be) cleared away, by location. ``unfinished``: what is not, since a restore may go on by it.
    ``is_nothing``: the locations have no file at all.
    """

    leftovers: Mapping[str, Sequence[Leftover]]
    done: bool
    unfinished: Sequence[_AtDestination] = ()
    dry_run: bool = False
    is_nothing: bool = False
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return what was left behind."""
        return {
            "locations": list(self.leftovers),
            "removed": self.done,
            "leftovers": [
                {"location": location, **as_dict(leftover)}
                for location, leftovers in self.leftovers.items()
                for leftover in leftovers
            ],
            "unfinished": [problem.as_json() for problem in self.unfinished],
        }

    def draw(self, console: Console) -> None:
        """Print what was removed."""
        for location, leftovers in self.leftovers.items():
            if not leftovers:
                console.print(f"Nothing is left over at {location}")
            elif self.done:
                console.print(f"{things(len(leftovers), 'leftover')} removed from {location}")
            else:
                for leftover in leftovers if self.dry_run else ():
                    console.print(Text(f"would remove: {_words(leftover)}, at {location}"))
        if self.is_nothing:
            console.print("! nothing is there at all: is the URL right?", style="yellow")
        if any(self.leftovers.values()) and not self.done:
            console.print("Nothing was removed.")
        for problem in self.unfinished:
            problem.draw(console)


def _words(leftover: Leftover) -> str:
    size, age = bytes_words(leftover.size_bytes), duration_words(leftover.age.total_seconds())
    return f"{leftover.kind} {plain(leftover.key)}, {size}, {age} old"


class Ended(Struct, frozen=True):
    """What of following was (or would be) removed. ``failed``: what could not be, and why. ``absent``: what is not
    there, or not any more. ``unfinished``: see ``Cleaned``.
    """

    location: str
    removed: Sequence[str]
    failed: Mapping[str, MoveoutError]
    kept: Sequence[str] = ()
    absent: Sequence[str] = ()
    unfinished: Sequence[_AtDestination] = ()

    @property
    def exit_code(self) -> int:
        """Return 3 where something could not be removed."""
        return IncompleteError.exit_code if self.failed else OK

    def as_json(self) -> dict[str, Any]:
        """Return what was removed, and what was not."""
        failed = {what: {"code": error.code, "message": str(error)} for what, error in self.failed.items()}
        return {
            "location": self.location,
            "removed": self.removed,
            "absent": self.absent,
            "kept": self.kept,
            "failed": failed,
            "unfinished": [problem.as_json() for problem in self.unfinished],
        }

    def draw(self, console: Console) -> None:
        """Print what was removed."""
        for what in self.removed:
            console.print(Text(f"removed: {what}"))
        for what in self.absent:
            console.print(Text(f"nothing to remove: {what}"))
        for what in self.kept:
            console.print(Text(f"would remove: {what}"))
        for what, error in self.failed.items():
            console.print(Text(f"not removed: {what}: {error}"))
            if error.next_step:
                console.print(Text(f"  → {error.next_step}"))
        if not self.removed and not self.absent and not self.kept and not self.failed:
            console.print(f"Nothing is followed from {self.location}")
        for problem in self.unfinished:
            problem.draw(console)


def _end_following(
    session: Session, words: Sequence[str], case: Case | None, *, yes: bool, dry_run: bool
) -> Ended:
    """Remove what keeps the changes of a bundle's sources, after asking."""
    location = one_location(words, case.bundle if case else None)
    store = open_location(location.url, secrets=location.reveal())
    destinations = _destinations(location, case)
    kept = kept_things(store, case.sources if case else {}, destinations, case.name if case else "")
    unfinished = _unfinished_restores(session, destinations)
    names = [thing.what for thing in kept]
    if not kept or dry_run:
        return Ended(store.location, [], {}, names, unfinished=unfinished)
    for name in names:
        session.err.print(Text(f"  {name}"))
    switched = "was made" if read_record(store) else "was NOT made"
    question = f"Remove this? The cutover {switched}; what the sources write is then no longer known."
    if not (yes or session.confirm(question)):
        return Ended(store.location, [], {}, names, unfinished=unfinished)
    removed: list[str] = []
    absent: list[str] = []
    failed: dict[str, MoveoutError] = {}
    sources = case.sources if case else {}
    with session.going_on_without_silent(*sources.values(), *destinations.values()):
        for thing in kept:
            if failed and thing.is_at_location:
                break  # somebody may still read them
            try:
                (removed if thing.remove() else absent).append(thing.what)
            except MoveoutError as exc:
                failed[thing.what] = exc
    return Ended(store.location, removed, failed, absent=absent, unfinished=unfinished)


def _destinations(location: Endpoint, case: Case | None) -> Mapping[str, Endpoint]:
    """Return where the sources of the bundle come up; where the case file has no address yet, nothing was restored."""
    return destinations_of(location, case.destinations, case, may_lack=True) if case else {}


def _unfinished_restores(session: Session, destinations: Mapping[str, Endpoint]) -> list[_AtDestination]:
    """Return the restores that have not ended. A destination that does not answer is noted: nothing was to be removed
    there.
    """
    unfinished = []
    with session.going_on_without_silent(*destinations.values()):
        for name, endpoint in destinations.items():
            reference = endpoint.engine.unfinished_restore
            try:
                restore = load_part(reference)(endpoint.url, endpoint.reveal()) if reference else None
            except MoveoutError as exc:
                session.progress.note(f"{name}: whether a restore has not ended is not known: {exc}")
                continue
            if restore is not None:
                unfinished.append(_AtDestination(endpoint.shown, restore))
    return unfinished


@verb(app, "clean", examples=("clean bundle", "clean -c moveout.toml --changes"))
def clean_command(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="LOCATION", help="The bundle, or where it was to be written."),
    ] = None,
    case: CaseFile = None,
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
    changes: Annotated[
        bool,
        typer.Option(
            "--changes", help="Remove instead what following has made, at the servers and at the location."
        ),
    ] = False,
) -> Cleaned | Ended:
    """Remove what interrupted runs left behind, after asking.

    Aborts unfinished multipart uploads and removes temporary files, never a file of a bundle. With --changes it
    ends the following of databases. It also names restores that have not finished, and how to remove their
    progress.
    """
    loaded = load_case(case)
    if changes:
        return _end_following(session, words or [], loaded, yes=yes, dry_run=dry_run)
    locations = _locations(words or [], loaded)
    stores, leftovers = _look(session, locations)
    code = OK if len(stores) == len(locations) else IncompleteError.exit_code
    destinations = _destinations(locations[0], loaded)
    unfinished = _unfinished_restores(session, destinations)
    count = sum(map(len, leftovers.values()))
    if not count or dry_run:
        is_nothing = not count and not any(True for store in stores for _ in store.list())
        return Cleaned(leftovers, False, unfinished, dry_run, is_nothing, code)
    shown = [
        f"  {_words(leftover)}, at {location}" for location, those in leftovers.items() for leftover in those
    ]
    session.err.print_first(map(Text, shown), count, _SHOWN)
    if not (
        yes
        or session.confirm(
            f"Remove {things(count, 'leftover')} from {' and '.join(filter(leftovers.get, leftovers))}?"
            " A killed run cannot continue from what is removed."
        )
    ):
        return Cleaned(leftovers, done=False, unfinished=unfinished, exit_code=code)
    removed = {store.location: clean(store, dry_run=False) for store in stores}
    return Cleaned(removed, True, unfinished, exit_code=code)


def _locations(words: Sequence[str], case: Case | None) -> Sequence[Endpoint]:
    """Return the location that is named, else those of the case: where the bundle is transferred to, and where it was
    written.
    """
    listed = locations_of(case)
    return listed if listed and not words else [known_location(words, case)]


def _look(
    session: Session, locations: Sequence[Endpoint]
) -> tuple[Sequence[MultipartStore], Mapping[str, Sequence[Leftover]]]:
    """Return the locations, and what is left over at each. One of several that cannot be asked is noted, and stops no
    other: where a bundle was written may be gone after a move. Raises the error where none can be asked.
    """
    stores: list[MultipartStore] = []
    leftovers: dict[str, Sequence[Leftover]] = {}
    errors: list[MoveoutError] = []
    for location in locations:
        try:
            store = open_location(location.url, secrets=location.reveal())
            leftovers[store.location] = clean(store, dry_run=True)
            stores.append(store)
        except MoveoutError as exc:
            errors.append(exc)
    if errors and not stores:
        raise errors[0]
    for error in errors:
        session.progress.note(f"! not looked at: {error}")
    return stores, leftovers
