"""The contract of what carries what no change log carries. The engine's part ``remainder`` names the function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

from msgspec import Struct, field

from exporters.engine import load_part
from migrate.case.model import Endpoint
from migrate.engines import registry

Key = TypeVar("Key")
Value = TypeVar("Value")


class BothSides(Struct, frozen=True):
    """A source database and the one that takes its place, by their URLs and secrets."""

    source_url: str
    source_secrets: Mapping[str, str]
    destination_url: str
    destination_secrets: Mapping[str, str]


class RemainderRequest(Struct, frozen=True):
    """From where to where. ``log`` is that of the ``ChangeBase``: it says which tables are followed; None where delta
    passes have compared all; then ``defined`` is what was noted of the source's definitions when they began (see
    ``exporters.engine.Engine.definition_state``). ``skipped``: those whose changes were left out (see ``Mark``).
    """

    sides: BothSides
    log: Mapping[str, Any] | None
    workers: int = 2
    skipped: Sequence[str] = ()
    defined: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> Mapping[str, Any]:
        """What is known of the source's definitions at the base."""
        return self.defined if self.log is None else self.log


class DefinitionGaps(Struct, frozen=True):
    """How the definitions of a source and its destination differ. ``missing``: what only the source defines, or
    otherwise. ``surplus``: what only the destination defines. ``settings``: a note about those with which sessions
    begin otherwise.
    """

    missing: list[str]
    surplus: list[str]
    settings: list[str]


class Carried(Struct, frozen=True):
    """What was written at the destination, by kind (``sequences``, ``tables`` …) with how many. ``missing``: the
    objects that only the source defines. ``notes``: sentences about what else is not as at the source, and cannot be.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    missing: Sequence[str] = ()


def differing(source: Mapping[Key, Value], destination: Mapping[Key, Value]) -> dict[Key, Value]:
    """Return what the source has otherwise than the destination, of what both have."""
    return {key: value for key, value in source.items() if key in destination and destination[key] != value}


class CarryRemainder(Protocol):
    """Brings to the destination what the log does not carry. The source must be held, and the log be applied."""

    def __call__(self, request: RemainderRequest) -> Carried:
        """Write what differs; the same again writes nothing. Raises ``SourceError``."""
        ...


def sides_of(source: Endpoint, destination: Endpoint) -> BothSides:
    """Return both sides with their secrets."""
    return BothSides(source.url, source.reveal(), destination.url, destination.reveal())


def carry_remainder(
    source: Endpoint,
    destination: Endpoint,
    *,
    log: Mapping[str, Any] | None,
    workers: int,
    skipped: Sequence[str] = (),
    defined: Mapping[str, Any] | None = None,
) -> Carried:
    """Carry over what the log does not contain. For the options see ``RemainderRequest``. Raises
    ``UsageError`` where the destination's engine does not do that, and errors of both servers.
    """
    engine = destination.engine
    carry = cast("CarryRemainder", load_part(registry.require(engine, engine.remainder, "followed")))
    return carry(RemainderRequest(sides_of(source, destination), log, workers, skipped, defined or {}))
