"""Errors on their way from a worker to the lead: as plain data, and as themselves again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporters.api import Json
from migrate.errors import DamageError, MoveoutError, SourceError


def encode(error: Exception) -> Json:
    """Return an error as plain data."""
    encoded: dict[str, Any] = {"error": type(error).__name__}
    if isinstance(error, DamageError):
        fields = {"key": error.key, "expected": error.expected, "found": error.found}
        return encoded | fields | {"next": error.next_step}
    if isinstance(error, MoveoutError):
        return encoded | {"message": error.explanation, "about": error.about, "next": error.next_step}
    return encoded | {"message": repr(error), "about": "", "next": ""}


def decode(encoded: Json) -> MoveoutError:
    """Return the error that was sent. One of no known kind becomes a ``SourceError``, as if it had come up here."""
    known = {kind.__name__: kind for kind in _kinds()}
    kind = known.get(encoded["error"], SourceError)
    if issubclass(kind, DamageError):
        return kind(
            encoded["key"], expected=encoded["expected"], found=encoded["found"], next_step=encoded["next"]
        )
    return kind(encoded["message"], about=encoded["about"], next_step=encoded["next"])


def _kinds() -> Iterator[type[MoveoutError]]:
    left: list[type[MoveoutError]] = [MoveoutError]
    while left:
        kind = left.pop()
        yield kind
        left.extend(kind.__subclasses__())
