"""What a move would take with more machines or another link.

More workers are not that many times as fast. Two workers were measured to be 1.95 times as fast as one
(``docs/internals/benchmarks/links.md``). By Amdahl's law (1967) a share of the work then is not spread. The law
gives the gain of more workers from that share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from migrate.errors import UsageError
from migrate.plan.forecast import Interval, MoveTimes, ReferenceClass
from migrate.plan.move_works import MoveRoute, move_works
from migrate.plan.stage_work import LEAVING, StageWork
from migrate.plan.survey import LocationRates, SourcePlan
from migrate.quantities import parse_rate

TWO_WORKERS = 1.95
MOST_WORKERS = 256
_BITS = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])bit(/s)?", re.IGNORECASE)
_BYTES_OF = {"k": 125.0, "m": 125e3, "g": 125e6, "t": 125e9}
"""Bytes of a kilobit, a megabit and so on."""


def speedup(workers: int) -> float:
    """Return how many times as fast so many workers are as one."""
    serial = 2 / TWO_WORKERS - 1
    return 1 / (serial + (1 - serial) / workers)


class WhatIf(Struct, frozen=True):
    """Other means for the move. ``workers``: machines like this one. ``link_rate``: what the link between the old and
    the new host carries for all of them together, in bytes a second; None: as measured.
    """

    workers: int = 1
    link_rate: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what ``workers=8,link=10Gbit`` means. Raises ``UsageError``."""
        values: dict[str, str] = {}
        for word in text.split(","):
            name, equals, value = (part.strip() for part in word.partition("="))
            if name not in {"workers", "link"} or not equals or name in values:
                raise UsageError(
                    f"--what-if {text!r}: {word!r} is not understood",
                    next_step="write --what-if workers=8,link=10Gbit",
                )
            values[name] = value
        workers = values.get("workers", "1")
        if not workers.isdecimal() or not 1 <= int(workers) <= MOST_WORKERS:
            raise UsageError(f"--what-if: workers must be a number from 1 to {MOST_WORKERS}, not {workers!r}")
        return cls(int(workers), _link_rate(values["link"]) if "link" in values else None)

    def works(self, sources: Sequence[SourcePlan], route: MoveRoute) -> list[StageWork]:
        """Return the work of the move by these means. Only what is sampled is spread over workers."""
        faster = speedup(self.workers)
        bundle = self._rates(route.bundle, faster, far=not route.transfers)
        destination = self._rates(route.destination, faster, far=True)
        limit_rate = route.limit_rate if self.link_rate is None else self.link_rate
        spread = [
            replace(source, estimate=replace(source.estimate, seconds=source.estimate.seconds / faster))
            if source.estimate
            else source
            for source in sources
        ]
        return move_works(
            spread, replace(route, bundle=bundle, destination=destination, limit_rate=limit_rate)
        )

    def _rates(self, rates: LocationRates | None, faster: float, *, far: bool) -> LocationRates | None:
        """Return the rates of a location for all workers. A link that is given replaces what was measured over it."""
        if far and self.link_rate is not None:
            return LocationRates(self.link_rate, self.link_rate)
        return None if rates is None else LocationRates(rates.write * faster, rates.read * faster)


def _link_rate(text: str) -> float:
    """Return the bytes a second of ``10Gbit`` (thousands, bits) or of ``50M`` (bytes, as elsewhere)."""
    match = _BITS.fullmatch(text)
    if match is None:
        return float(parse_rate(text))
    return float(match[1]) * _BYTES_OF[match[2].lower()]


class Needed(Struct, frozen=True):
    """What it takes to have left by the deadline at P90. ``workers`` is None where no number of them is enough.
    ``link_rate``: what the link must carry at least, in bytes a second.
    """

    workers: int | None
    link_rate: float


def leaving_time(works: Sequence[StageWork], reference: ReferenceClass) -> Interval:
    """Return how long it takes until all has left the old host."""
    leaving = [work for work in works if work.stage in LEAVING]
    return reference.interval(MoveTimes(reference, works).totals(leaving))


def needed(
    sources: Sequence[SourcePlan],
    route: MoveRoute,
    what_if: WhatIf,
    reference: ReferenceClass,
    seconds_left: float,
) -> Needed:
    """Return the least that is enough, with the link of ``what_if``."""
    size_bytes = sum(source.bundle_bytes for source in sources)
    link_rate = size_bytes / max(seconds_left, 1.0)
    for workers in range(1, MOST_WORKERS + 1):
        works = replace(what_if, workers=workers).works(sources, route)
        if leaving_time(works, reference).p90 <= seconds_left:
            return Needed(workers, link_rate)
    return Needed(None, link_rate)


class Alternative(Struct, frozen=True):
    """The time until all has left by other means, and what is needed at least for the deadline; None without one."""

    means: WhatIf
    leaves: Interval
    needed: Needed | None


def alternative(
    means: WhatIf,
    sources: Sequence[SourcePlan],
    route: MoveRoute,
    reference: ReferenceClass,
    seconds_left: float | None,
) -> Alternative:
    """Return what other means come to."""
    least = None if seconds_left is None else needed(sources, route, means, reference, seconds_left)
    return Alternative(means, leaving_time(means.works(sources, route), reference), least)
