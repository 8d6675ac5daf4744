"""Sizes, rates and timetables of rates as people write them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from migrate.errors import UsageError

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)(/s)?", re.IGNORECASE)
_ENTRY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d),(\S+)")
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_rate(text: str) -> int:
    """Return bytes per second from ``10M``, ``1.5G``, ``500K/s``, ``64KiB/s``: units are of 1024, bytes, not
    bits.

    Raises ``UsageError``.
    """
    match = _AMOUNT.fullmatch(text.strip())
    _require_unit(match, "bytes a second")
    rate = _bytes(match) if match else 0
    if rate < 1:
        raise UsageError(
            f"{text!r} is not a rate", next_step="write it like 10M, 1.5G or 500K/s (bytes a second)"
        )
    return rate


class Rates(Protocol):
    """A rate that may be another one at another moment."""

    def at(self, moment: datetime) -> float | None:
        """Return the rate that holds at a moment of local time, in bytes a second; None: no limit."""
        ...

    @property
    def lowest(self) -> float | None:
        """The lowest rate that is known beforehand; None where there is none."""
        ...


class Timetable(Struct, frozen=True):
    """Rates by the time of day, each from its minute (0 is midnight) on until the next; None is no limit. In order."""

    entries: tuple[tuple[int, float | None], ...]

    def at(self, moment: datetime) -> float | None:
        """Return the rate that holds at a moment of local time, in bytes a second."""
        minute = moment.hour * 60 + moment.minute
        before = [rate for begin, rate in self.entries if begin <= minute]
        return before[-1] if before else self.entries[-1][1]

    @property
    def lowest(self) -> float | None:
        """The lowest rate of the day; None where there is no limit at any time."""
        return min((rate for _, rate in self.entries if rate is not None), default=None)


def parse_limit(text: str) -> Timetable:
    """Return the timetable of ``10M``, of ``off``, or of ``08:00,10M 19:00,off`` (local time). Raises
    ``UsageError``.
    """
    words = text.split()
    matches = [_ENTRY.fullmatch(word) for word in words]
    if len(words) <= 1 and not any(matches) and "," not in text:
        return Timetable(((0, _rate_or_off(text)),))
    entries: dict[int, float | None] = {}
    for word, match in zip(words, matches, strict=True):
        minute = int(match[1]) * 60 + int(match[2]) if match else -1
        if match is None or minute in entries:
            raise UsageError(
                f"{word!r} is not an entry of a timetable, or its time stands there twice",
                next_step="write it like '08:00,10M 19:00,off'",
            )
        entries[minute] = _rate_or_off(match[3])
    return Timetable(tuple(sorted(entries.items())))


def _rate_or_off(text: str) -> float | None:
    return None if text.strip().lower() == "off" else float(parse_rate(text))


def parse_size(text: str) -> int:
    """Return bytes from ``10M``, ``1.5G``, ``64KiB``, ``123B``: units are of 1024. Raises ``UsageError``."""
    match = _AMOUNT.fullmatch(text.strip())
    _require_unit(match, "bytes")
    if match is None or match[5]:
        raise UsageError(f"{text!r} is not a size", next_step="write it like 10M, 1.5G or 500K (bytes)")
    return _bytes(match)


def _require_unit(match: re.Match[str] | None, noun: str) -> None:
    """Raise ``UsageError`` for a number alone, such as ``50``: bytes are seldom meant. Zero needs no unit."""
    if match is not None and not (match[2] or match[4]) and float(match[1]):
        number = match[1]
        raise UsageError(
            f"{number} what? The unit is missing",
            next_step=f"{number}M is {float(number) * 2**20:,.0f} {noun}, {number}K is {float(number) * 2**10:,.0f}",
        )


def _bytes(match: re.Match[str]) -> int:
    return int(float(match[1]) * 1024 ** _UNITS[match[2].lower()])
