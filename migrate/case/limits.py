"""Limits of a source, as people write them."""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from exporters.limits import ARCHIVE_TIERS, GENTLE_CONNECTIONS, Limits
from migrate.errors import UsageError

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_limits(
    max_connections: int | None,
    statement: Any,
    lock: Any,
    archived: Any = None,
    *,
    base: Limits | None = None,
) -> Limits:
    """Return limits from words: times as ``90`` (seconds), ``30s``, ``5m``, ``2h``; what is None stays as
    in ``base``. Raises ``UsageError``.
    """
    base = base or Limits()
    return replace(
        base,
        max_connections=base.max_connections if max_connections is None else max_connections,
        statement_seconds=base.statement_seconds
        if statement is None
        else parse_seconds("statement_timeout", statement),
        lock_seconds=base.lock_seconds if lock is None else parse_seconds("lock_timeout", lock),
        archive_tier=base.archive_tier if archived is None else _archive_tier(str(archived)),
    )


def gently(limits: Limits) -> Limits:
    """Return limits that spare a database, with few connections where their number is not given."""
    return replace(limits, gentle=True, max_connections=limits.max_connections or GENTLE_CONNECTIONS)


def _archive_tier(word: str) -> str:
    tier_name = next((tier for tier in ARCHIVE_TIERS if tier.lower() == word.lower()), None)
    if tier_name is None:
        known = ", ".join(tier.lower() for tier in ARCHIVE_TIERS)
        raise UsageError(f"archived {word!r} is not a tier", next_step=f"write one of {known}")
    return tier_name


def parse_seconds(name: str, value: Any) -> float:
    """Return a length of time, of the key ``name``, in seconds. Raises ``UsageError``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value).strip())
    if match is None:
        raise UsageError(f"{name} {value!r} is not a length of time", next_step="write 90, 30s, 5m or 2h")
    return float(match[1]) * _SECONDS[match[2] or "s"]
