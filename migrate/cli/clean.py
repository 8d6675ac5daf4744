"""``moveout clean``: what killed runs left at a location is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from migrate.cli import app
from migrate.cli.common.dry_run import DryRun
from migrate.cli.common.options import CaseFile, Yes, one_location, sort_words
from migrate.cli.common.session import Session, verb
from migrate.cli.common.sources import load_case
from migrate.errors import OK
from migrate.number_text import count_words
from migrate.storage.registry import open_location
from migrate.transfer import Leaving, clean


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was (or would be) cleared away."""

    location: str
    leavings: Sequence[Leaving]
    done: bool
    dry_run: bool = False
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return the leavings."""
        return {
            "location": self.location,
            "removed": self.done,
            "leavings": [asdict(leaving) for leaving in self.leavings],
        }

    def draw(self, console: Console) -> None:
        """Print what was removed."""
        if not self.leavings:
            console.print(f"Nothing is left over at {self.location}")
        elif self.done:
            console.print(f"{count_words(len(self.leavings))} leavings removed from {self.location}")
        else:
            for leaving in self.leavings if self.dry_run else ():
                console.print(Text(f"would remove: {leaving}"))
            console.print("Nothing was removed.")


@verb(app, "clean")
def clean_command(
    session: Session,
    words: Annotated[list[str] | None, typer.Argument(metavar="LOCATION", help="Where to look.")] = None,
    case: CaseFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> Cleaned:
    """Clear a dead run's leavings, after asking.

    Aborts leftover multipart uploads, drops temporary files; never a file of a bundle.
    """
    loaded = load_case(case)
    location = one_location(sort_words(words or []), loaded.transfer_to if loaded else None, "location")
    store = open_location(location.url, secrets=location.reveal())
    leavings = clean(store, dry_run=True)
    if not leavings:
        return Cleaned(store.location, leavings, done=False)
    if dry_run:
        return Cleaned(store.location, leavings, done=False, dry_run=True)
    for leaving in leavings[:20]:
        session.err.print(Text(f"  {leaving}"))
    if len(leavings) > 20:
        session.err.print(f"  and {len(leavings) - 20} more")
    if not (
        yes
        or session.confirm(
            f"Remove {len(leavings)} leavings from {store.location}? A killed run cannot go on from them then."
        )
    ):
        return Cleaned(store.location, leavings, done=False)
    return Cleaned(store.location, clean(store, dry_run=False), done=True)
