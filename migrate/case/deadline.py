"""Deadlines and other moments, as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from migrate.errors import UsageError


def names_no_zone(value: Any) -> bool:
    """Tell whether a moment, as TOML or a person writes it, leaves the time zone open."""
    try:
        moment = value if isinstance(value, datetime) else _moment(str(value).strip())
    except ValueError:
        return False
    return moment.tzinfo is None


_SPAN = re.compile(r"(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?")
_ZONED = re.compile(r"(\S+(?: [\d:]+)?) ([A-Za-z]\S*)")
"""A moment, and the name of its time zone."""


def parse_deadline(text: str, *, relative: bool = True) -> datetime:
    """Return the moment that ``text`` names: ISO 8601 (local time where it has no zone), also with the name of a
    zone (``2026-11-28 18:00 Europe/Berlin``), or with ``relative`` also ``30h``, ``90m``, ``1d12h`` from now.

    Raises ``UsageError``.
    """
    text = text.strip()
    try:
        span = _SPAN.fullmatch(text) if text else None
        if span is not None:
            days, hours, minutes = (int(number or 0) for number in span.groups())
            later = datetime.now(UTC) + timedelta(days=days, hours=hours, minutes=minutes)
            if relative:
                return later
            raise UsageError(
                f"deadline {text!r} would move: it counts from whenever the file is read",
                next_step=f"write the moment: {later:%Y-%m-%dT%H:%M:%SZ} is {text} from now",
            )
        moment = _moment(text)
        return moment if moment.tzinfo else moment.astimezone()
    except (ValueError, OverflowError):
        also = "; or 30h, 1d12h from now" if relative else ""
        raise UsageError(
            f"deadline {text!r} is not a time",
            next_step=f"write 2026-11-25T18:00:00Z or 2026-11-25 18:00 Europe/Berlin{also}",
        ) from None


def _moment(text: str) -> datetime:
    """Return the moment of ISO 8601, which may be followed by the name of a time zone. Raises ``ValueError``."""
    match = _ZONED.fullmatch(text)
    if match is None:
        return datetime.fromisoformat(text)
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415  2 ms of a start, and few name a zone

    moment = datetime.fromisoformat(match[1])
    try:
        zone = ZoneInfo(match[2])
    except ZoneInfoNotFoundError:
        raise UsageError(
            f"{match[2]!r} is not a time zone that this machine knows",
            next_step="write it like Europe/Berlin, or the moment in UTC: 2026-11-25T18:00:00Z",
        ) from None
    if moment.tzinfo is not None:
        raise UsageError(f"{text!r} names two time zones", next_step="write one of them")
    return moment.replace(tzinfo=zone)
