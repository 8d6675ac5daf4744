"""What the destinations of a case will not take, found before the move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from exporters.engine import load_part
from migrate.case.model import Endpoint
from migrate.engines import registry
from migrate.errors import MoveoutError
from migrate.plan.survey import SourcePlan


@dataclass(frozen=True, slots=True)
class DestinationPlan:
    """A destination that a source is to be restored to. ``warnings`` are sentences: what it will not take, or that it
    does not exist yet.
    """

    source: str
    url: str
    warnings: tuple[str, ...]


class Check(Protocol):
    """Tries out a destination with what the source has, and leaves it as it was. Raises ``MoveoutError``."""

    def __call__(self, source: SourcePlan, url: str, *, secrets: Mapping[str, str]) -> DestinationPlan:
        """Return what was found."""
        ...


def check_destinations(
    sources: Sequence[SourcePlan], destinations: Mapping[str, Endpoint]
) -> Iterator[DestinationPlan]:
    """Yield what was found of each source's destination that its engine can try out. One that cannot be asked does not
    stop the others.
    """
    for source in sources:
        endpoint = destinations.get(source.name)
        engine = None if endpoint is None else registry.find(endpoint.url)
        if endpoint is not None and engine is not None and engine.destination_check:
            check = cast("Check", load_part(engine.destination_check))
            try:
                yield check(source, endpoint.url, secrets=endpoint.reveal())
            except MoveoutError as exc:
                yield DestinationPlan(source.name, endpoint.shown, (f"could not be checked: {exc}",))
