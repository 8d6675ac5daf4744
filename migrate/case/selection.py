"""From words to a choice of items: the options of ``export`` and a source's fields in the case file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from exporters.selection import Selection
from migrate.errors import UsageError
from migrate.quantities import parse_size


def from_words(given: Mapping[str, Any]) -> Selection:
    """Return the choice that fields of the case file make, by their names there. Raises ``UsageError``."""
    return Selection(
        include=_texts(given, "include"),
        exclude=_texts(given, "exclude"),
        min_bytes=_size(given.get("min_size")),
        max_bytes=_size(given.get("max_size")),
        newer_than=_moment(given.get("newer_than"), "newer_than"),
        older_than=_moment(given.get("older_than"), "older_than"),
        tags=_tags(given.get("tags", {})),
        current_only=_flag(given.get("current_only", False)),
    )


def parse_tags(words: Sequence[str]) -> dict[str, str]:
    """Return tags by name from ``NAME=VALUE`` words. Raises ``UsageError``."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{word!r} is no tag", next_step="write NAME=VALUE")
        found[name] = value
    return found


def _texts(given: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = given.get(name, ())
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one for one in value):
        raise UsageError(f'{name} must be a list of globs, such as ["photos/**", "*.jpg"]')
    return tuple(value)


def _size(value: Any) -> int | None:
    return None if value is None else parse_size(str(value))


def _moment(value: Any, name: str) -> datetime | None:
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise UsageError(
            f"{name} {str(value)!r} is no moment in time",
            next_step="write 2026-11-25 or 2026-11-25T18:00:00Z",
        ) from None
    return moment if moment.tzinfo else moment.astimezone()


def _tags(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value.values()):
        raise UsageError('tags must be a table of texts, such as { project = "blue" }')
    return dict(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError("current_only must be true or false")
    return value
