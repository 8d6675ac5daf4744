"""Errors on their way from a worker to the lead: as plain data, and as themselves again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporters.api import Json
from exporters.errors import SourceError
from migrate.errors import DamageError, MoveoutError


def tell(error: Exception) -> Json:
    """Return an error as plain data."""
    told: dict[str, Any] = {"error": type(error).__name__, "next": getattr(error, "next_step", "")}
    if isinstance(error, DamageError):
        return told | {"key": error.key, "expected": error.expected, "found": error.found}
    known = isinstance(error, SourceError | MoveoutError)
    return told | {"message": str(error) if known else repr(error)}


def raised(told: Json) -> Exception:
    """Return the error that was told; one of no known kind as a ``SourceError``, as if it had come up here."""
    known: dict[str, type[Exception]] = {kind.__name__: kind for kind in _kinds()}
    kind = known.get(told["error"], SourceError)
    if issubclass(kind, DamageError):
        return kind(told["key"], expected=told["expected"], found=told["found"], next_step=told["next"])
    if issubclass(kind, SourceError | MoveoutError):
        return kind(told["message"], next_step=told["next"])
    return kind(told["message"])


def _kinds() -> Iterator[type[Exception]]:
    left: list[type[Exception]] = [SourceError, MoveoutError]
    while left:
        kind = left.pop()
        yield kind
        left.extend(kind.__subclasses__())
