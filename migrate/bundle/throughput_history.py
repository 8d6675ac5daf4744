"""How fast a bundle was read from its sources: bytes by intervals of time, from when its units were finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

MOST_STEPS = 120
_FORM = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Pace:
    """``size_bytes`` of units that were finished in each of the intervals of ``step_seconds`` from ``start`` on (UTC,
    ISO 8601). A gap while nothing ran is a row of zeros.
    """

    start: str
    step_seconds: int
    size_bytes: Sequence[int]

    @property
    def end(self) -> str:
        """When the last interval ends."""
        first = datetime.strptime(self.start, _FORM).replace(tzinfo=UTC)
        return (first + timedelta(seconds=self.step_seconds * len(self.size_bytes))).strftime(_FORM)

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in ``meta/reconciliation.json``."""
        return {"start": self.start, "step_seconds": self.step_seconds, "size_bytes": list(self.size_bytes)}


def pace(times: Sequence[tuple[str, int]]) -> Pace | None:
    """Return the pace of units that were finished at ``times``, None where it cannot be told."""
    try:
        moments = [
            (datetime.strptime(timestamp, _FORM).replace(tzinfo=UTC), size) for timestamp, size in times
        ]
    except ValueError:
        return None
    if not moments:
        return None
    first = min(moment for moment, _ in moments)
    span = int((max(moment for moment, _ in moments) - first).total_seconds()) + 1
    step = -(-span // MOST_STEPS)
    sizes = [0] * -(-span // step)
    for moment, size in moments:
        sizes[int((moment - first).total_seconds()) // step] += size
    return Pace(first.strftime(_FORM), step, sizes)


def decode(value: Mapping[str, Any] | None) -> Pace | None:
    """Read what ``as_json`` wrote, None where there is none that makes sense: it is only for show."""
    if value is None:
        return None
    try:
        sizes = [int(size) for size in value["size_bytes"]]
        parsed = Pace(str(value["start"]), int(value["step_seconds"]), sizes)
        sound = parsed.step_seconds > 0 and bool(parsed.end) and len(sizes) <= MOST_STEPS
        sound = sound and all(0 <= size < 2**63 for size in sizes)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return parsed if sound else None
