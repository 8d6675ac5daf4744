"""Numbers and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime


def bytes_words(size_bytes: float) -> str:
    """Return a size such as ``3.2 GB`` (powers of 1000, as disks and networks are sold)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} PB"


def exact_bytes_words(size_bytes: int) -> str:
    """Return a size with the exact number next to it: ``3.2 GB (3,200,123,456 bytes)``."""
    exact = things(size_bytes, "byte")
    return exact if size_bytes < 1000 else f"{bytes_words(size_bytes)} ({exact})"


def count_words(count: int) -> str:
    """Return a count with separators: ``1,234,567``."""
    return f"{count:,}"


def things(count: int, noun: str) -> str:
    """Return a count of things by name: ``1 object``, ``1,234 objects``."""
    return f"{count_words(count)} {noun}" + ("" if count == 1 else "s")


def all_things(count: int, noun: str) -> str:
    """Return all of so many things: ``1 object``, ``both objects``, ``all 3 objects``."""
    if count == 2:
        return f"both {noun}s"
    return f"all {things(count, noun)}" if count > 2 else things(count, noun)


def list_words(names: Sequence[str], most: int = 5) -> str:
    """Return the first names as words, and how many more there are: ``a, b and 7 more``."""
    more = f" and {count_words(len(names) - most)} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


_DAYS_FROM_HOURS = 96


def duration_words(seconds: float) -> str:
    """Return a duration such as ``45 s``, ``3 min 20 s``, ``29 h 5 min``, ``26 days 7 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < _DAYS_FROM_HOURS * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400:,} days {whole % 86400 // 3600} h"


def moment_words(moment: datetime) -> str:
    """Return a moment in UTC, to the minute."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def local_moment_words(moment: datetime) -> str:
    """Return a moment in UTC, and in the time zone of this machine where that is another."""
    local = moment.astimezone()
    if not local.utcoffset():
        return moment_words(moment)
    same_day = local.date() == moment.astimezone(UTC).date()
    here = local.strftime("%H:%M %Z" if same_day else "%Y-%m-%d %H:%M %Z")
    return f"{moment_words(moment)} ({here} here)"
