"""From words to a choice of items: the options of ``export`` and a source's fields in the case file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from exporters.selection import Selection, is_glob
from migrate.errors import UsageError
from migrate.quantities import parse_size


def from_words(options: Mapping[str, Any]) -> Selection:
    """Return the choice that fields of the case file make, by their names there. Raises ``UsageError``."""
    return Selection(
        include=_texts(options, "include"),
        exclude=_texts(options, "exclude"),
        min_bytes=_size(options, "min_size"),
        max_bytes=_size(options, "max_size"),
        newer_than=_moment(options.get("newer_than"), "newer_than"),
        older_than=_moment(options.get("older_than"), "older_than"),
        tags=_tags(options.get("tags", {})),
        current_only=_flag(options.get("current_only", False)),
    )


def parse_tags(pairs: Sequence[str]) -> dict[str, str]:
    """Return tags by name from ``NAME=VALUE`` words. Raises ``UsageError``."""
    tags = {}
    for word in pairs:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{word!r} is not a tag", next_step="write NAME=VALUE")
        tags[name] = value
    return tags


def _texts(options: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = options.get(name, ())
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise UsageError(f'{name} must be a list of globs, such as ["photos/**", "*.jpg"]')
    for pattern in value:
        if not is_glob(pattern):
            raise UsageError(
                f"{name}: {pattern!r} has a [ without its ]", next_step="write [[] for the character ["
            )
    return tuple(value)


def _size(options: Mapping[str, Any], name: str) -> int | None:
    try:
        return parse_size(str(options[name])) if options.get(name) is not None else None
    except UsageError as exc:
        raise UsageError(f"{name}: {exc}", next_step=exc.next_step) from exc


def _moment(value: Any, name: str) -> datetime | None:
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise UsageError(
            f"{name} {str(value)!r} is not a time",
            next_step="write 2026-11-25 or 2026-11-25T18:00:00Z",
        ) from None
    return moment if moment.tzinfo else moment.astimezone()


def _tags(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value.values()):
        raise UsageError('tags must be a table of texts, such as { project = "blue" }')
    return dict(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError("current_only must be true or false")
    return value
