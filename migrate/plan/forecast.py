"""The arithmetic of a deadline: pure, from sizes and rates to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from migrate.plan.survey import SourcePlan

Verdict = Literal["in time", "tight", "late", "no deadline"]
TIGHT_SHARE = 0.7
"""A forecast that needs more than this share of the time left is tight: rates seldom hold all night."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """One stage of the move, its time, and what that time comes from."""

    name: str
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """When all has left the old host, and whether in time. ``margin_seconds`` is negative when late. ``at_least``: some
    source holds more than was counted, or could not be surveyed; then nothing is promised to be in time.
    """

    stages: Sequence[StageTime]
    seconds: float
    ready: datetime
    deadline: datetime | None
    margin_seconds: float | None
    verdict: Verdict
    at_least: bool = False


def forecast(
    sources: Sequence[SourcePlan],
    *,
    location_rate: float | None,
    destination_rate: float | None,
    limit_rate: float | None,
    now: datetime,
    deadline: datetime | None,
    unread: bool = False,
) -> Forecast:
    """Add up export and transfer: what must happen before the old host is gone. Rates are bytes per second. ``unread``:
    there are more sources, which could not be surveyed.

    The bundle is taken to be as large as its sources; Parquet is usually smaller: this errs on the late side.
    """
    stages = [stage for source in sources if (stage := _export_stage(source, location_rate, limit_rate))]
    size_bytes = sum(source.size_bytes for source in sources)
    if destination_rate:
        rate = min(filter(None, (location_rate, destination_rate, limit_rate)))
        stages.append(StageTime("transfer", size_bytes / rate, "bytes ÷ measured write rate"))
    seconds = sum(stage.seconds for stage in stages)
    margin = None if deadline is None else (deadline - now).total_seconds() - seconds
    ready = now + timedelta(seconds=seconds)
    at_least = unread or any(source.survey.goes_on for source in sources)
    verdict = _verdict(seconds, margin, at_least=at_least)
    return Forecast(tuple(stages), seconds, ready, deadline, margin, verdict, at_least)


def _export_stage(
    source: SourcePlan, location_rate: float | None, limit_rate: float | None
) -> StageTime | None:
    read = source.estimate.seconds if source.estimate else 0.0
    rates = [rate for rate in (location_rate, limit_rate) if rate]
    write = source.size_bytes / min(rates) if rates else 0.0
    if source.estimate is None and not rates:
        return None
    reason = "measured read rate" if read >= write else "measured write rate"
    return StageTime(f"export {source.name}", max(read, write), reason)


def _verdict(seconds: float, margin: float | None, *, at_least: bool) -> Verdict:
    if margin is None:
        return "no deadline"
    if margin < 0:
        return "late"
    return "tight" if at_least or seconds > TIGHT_SHARE * (seconds + margin) else "in time"
