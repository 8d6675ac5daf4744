"""Lists the work of a move: each stage for each source, with what the samples say of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct

from migrate.plan.stage_work import Stage, StageWork
from migrate.plan.survey import LocationRates, SourcePlan


class MoveRoute(Struct, frozen=True):
    """Where the data goes, and how fast. Rates are None where they are not known.

    ``bundle``: the location that is exported to; ``destination``: the one that the bundle is transferred to, if
    ``transfers``. ``limit_rate``: the bandwidth limit, in bytes a second. ``restored``: the names of the sources that
    are restored. ``verifies``: whether the bundle is verified at the end. ``compared``: the names of those that are
    compared after their restore, since that does not read back what it has written.
    """

    bundle: LocationRates | None = None
    destination: LocationRates | None = None
    limit_rate: float | None = None
    transfers: bool = False
    verifies: bool = False
    restored: Collection[str] = ()
    compared: Collection[str] = ()


def move_works(sources: Sequence[SourcePlan], route: MoveRoute) -> list[StageWork]:
    """Return the work of a move, stage by stage."""
    stages: dict[Stage, list[StageWork]] = {}
    for source in sources:
        for work in _works(source, route):
            stages.setdefault(work.stage, []).append(work)
    return [work for works in stages.values() for work in works]


def _works(source: SourcePlan, route: MoveRoute) -> Iterator[StageWork]:
    bundle_bytes = source.bundle_bytes
    last = (route.destination if route.transfers else None) or route.bundle
    sampled: dict[Stage, float | None] = {"export": None}
    if source.estimate is not None:
        writing = _seconds(bundle_bytes, _write(route.bundle), route.limit_rate)
        sampled["export"] = max(source.estimate.seconds, writing or 0.0)
    if route.transfers:
        rates = _read(route.bundle), _write(route.destination), route.limit_rate
        sampled["transfer"] = _seconds(bundle_bytes, *rates)
    reading = _seconds(bundle_bytes, _read(last), route.limit_rate)
    if route.verifies:
        sampled["verify"] = reading
    if source.name in route.restored:
        sampled["restore"] = reading
        if source.name in route.compared:
            sampled["compare"] = None
    tables = len(source.survey.items)
    for stage, seconds in sampled.items():
        yield StageWork(
            stage=stage,
            source=source.name,
            kind=source.kind,
            tables=tables,
            items=source.items,
            size_bytes=source.size_bytes,
            sampled_seconds=seconds,
        )


def _read(location: LocationRates | None) -> float | None:
    return None if location is None else location.read


def _write(location: LocationRates | None) -> float | None:
    return None if location is None else location.write


def _seconds(size_bytes: int, *rates: float | None) -> float | None:
    """Return the seconds at the lowest of the rates that are known."""
    known = [rate for rate in rates if rate]
    return size_bytes / min(known) if known else None
