"""What is up on the new host: where each source of a bundle comes up, and what its last restore there came to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from msgspec import Struct

from exporters.structs import as_dict
from migrate.bundle.export_state import SourceName
from migrate.case.model import Case
from migrate.cli.common.summary_lines import lines_behind
from migrate.cli.common.terminal import Console, Text, plain
from migrate.discover.expand import Destinations, expand_destinations
from migrate.errors import UsageError
from migrate.export.status import ExportStatus
from migrate.number_text import all_things, list_words, local_moment_words, things
from migrate.restore.restore_records import FAILED, IN_PART, UP, RestoreRecord

_SHOWN = 8


class DestinationStatus(Struct, frozen=True):
    """``destination``: its URL without secrets, "" where the case file has no address. ``record``: of the last restore
    to it, None where none is recorded. ``is_current``: it restored what the bundle holds now.
    """

    source: str
    destination: str
    record: RestoreRecord | None = None
    is_current: bool = True

    @property
    def is_up(self) -> bool:
        """Whether all that the bundle has of the source is there."""
        return self.record is not None and self.record.is_up and self.is_current

    @property
    def is_partly_up(self) -> bool:
        """Whether all that the bundle has of the source is there but for what was recorded as left out."""
        return self.record is not None and self.record.result == IN_PART and self.is_current

    @property
    def is_refused(self) -> bool:
        """Whether a restore of what the bundle holds now has left something out, or failed."""
        return self.record is not None and self.record.result != UP and self.is_current

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "source": self.source,
            "destination": self.destination,
            "up": self.is_up,
            "is_current": self.is_current,
            "restore": as_dict(self.record) if self.record else None,
        }

    def words(self) -> tuple[str, str]:
        """Return what became of it, and the next step."""
        if not self.destination:
            return "the case file has no address", 'write it into its [[destination]]: to = "…"'
        if self.record is None:
            return f"not restored yet → {self.destination}", ""
        at = local_moment_words(datetime.fromisoformat(self.record.at))
        if self.is_refused:
            to = "" if self.destination in self.record.happened else f" → {self.destination}"
            return f"{at}: {self.record.happened}{to}", self.record.next_step
        if not self.is_current:
            result = "restored" if self.record.result == UP else self.record.happened
            return f"{at}: {result}, and the bundle has grown since → {self.destination}", "restore it again"
        if self.record.only:
            return f"{at}: restored only {self.record.only} → {self.destination}", ""
        return f"up, compared {at} → {self.destination}", ""


def destination_statuses(
    case: Case | None, exports: Sequence[ExportStatus], records: Sequence[RestoreRecord]
) -> list[DestinationStatus]:
    """Return the destinations of the bundle's sources by the case; without one, those of the recorded restores, but for
    attempts in vain before the source came up elsewhere: their addresses were wrong, or given up.
    """
    sealed = {export.bundle_id for export in exports if export.state in {"complete", "incomplete"}}
    by_ends = {(record.source, record.destination): record for record in records}
    came_up = {
        record.source: record.at for record in sorted(records, key=lambda each: each.at) if record.is_up
    }
    ends = [
        pair
        for pair, record in by_ends.items()
        if record.result != FAILED or record.at > came_up.get(record.source, "")
    ]
    if case is not None:
        sources = {source.name: source.url for export in exports for source in export.sources}
        destinations = Destinations({}, {})
        with suppress(UsageError):  # the restore says it
            names = [SourceName(name, url) for name, url in sources.items()]
            destinations = expand_destinations(names, case.destinations, case)
        ends = [
            (name, endpoint.shown) for name, endpoint in destinations.endpoints.items() if name in sources
        ]
        ends += [(name, "") for names in destinations.unfilled.values() for name in names]
    return [
        DestinationStatus(source, url, record, record is None or not sealed or record.bundle in sealed)
        for source, url in ends
        for record in [by_ends.get((source, url))]
    ]


def headline(statuses: Sequence[DestinationStatus], sources: Sequence[str], *, by_case: bool) -> str:
    """Return how many of these ``sources`` are up, and which are not that should be. ``by_case``: a case file says
    which should be.
    """
    names = list(dict.fromkeys(status.source for status in statuses))
    partly = list(dict.fromkeys(status.source for status in statuses if status.is_partly_up))
    missing = [
        name
        for name in dict.fromkeys(status.source for status in statuses if not status.is_up)
        if name not in partly
    ]
    others = [name for name in sources if name not in names]
    up, total = len(names) - len(missing) - len(partly), len(names) if by_case else len(names) + len(others)
    left_out = _listed("no destination in the case file", others) if by_case else ""
    if up == total:
        return f"on the new host: {all_things(total, 'source')} up{left_out}"
    named = _listed("in part", partly) + _listed("not", missing) + left_out
    return f"on the new host: {up} of {things(total, 'source')} up{named}"


def _listed(words: str, names: Sequence[str]) -> str:
    return f"; {words}: {list_words(names, _SHOWN)}" if names else ""


def draw_destinations(
    console: Console, statuses: Sequence[DestinationStatus], sources: Sequence[str], *, by_case: bool
) -> None:
    """Print what is up of these ``sources``; nothing where nothing is to be restored."""
    if not statuses:
        return
    console.print(Text(headline(statuses, sources, by_case=by_case), style="bold"))
    width = max(len(status.source) for status in statuses)
    is_begun = any(status.record for status in statuses)
    for status in statuses if is_begun else [each for each in statuses if not each.destination]:
        words, next_step = status.words()
        before = f"  {status.source.ljust(width)}  "
        for line in lines_behind(console, before, plain(words), 4):
            console.print(Text(line, "" if status.is_up else "yellow"))
        if next_step:
            console.print(Text(f"  {' ' * width}  → {plain(next_step)}"))
