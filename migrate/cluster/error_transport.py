"""Errors on their way from a worker to the lead: as plain data, and as themselves again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporters.api import Json
from migrate.errors import DamageError, MoveoutError, SourceError


def tell(error: Exception) -> Json:
    """Return an error as plain data."""
    told: dict[str, Any] = {"error": type(error).__name__}
    if isinstance(error, DamageError):
        fields = {"key": error.key, "expected": error.expected, "found": error.found}
        return told | fields | {"next": error.next_step}
    if isinstance(error, MoveoutError):
        return told | {"message": str(error), "next": error.next_step}
    return told | {"message": repr(error), "next": ""}


def raised(told: Json) -> MoveoutError:
    """Return the error that was told. One of no known kind becomes a ``SourceError``, as if it had come up here."""
    known = {kind.__name__: kind for kind in _kinds()}
    kind = known.get(told["error"], SourceError)
    if issubclass(kind, DamageError):
        return kind(told["key"], expected=told["expected"], found=told["found"], next_step=told["next"])
    return kind(told["message"], next_step=told["next"])


def _kinds() -> Iterator[type[MoveoutError]]:
    left: list[type[MoveoutError]] = [MoveoutError]
    while left:
        kind = left.pop()
        yield kind
        left.extend(kind.__subclasses__())
