"""Sizes and rates as people write them."""

from __future__ import annotations

import re

from migrate.errors import UsageError

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)(/s)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_rate(text: str) -> int:
    """Return bytes per second from ``10M``, ``1.5G``, ``500K/s``, ``64KiB/s``: units are of 1024, bytes, not
    bits.

    Raises ``UsageError``.
    """
    match = _AMOUNT.fullmatch(text.strip())
    rate = _bytes(match) if match else 0
    if rate < 1:
        raise UsageError(
            f"{text!r} is not a rate", next_step="write it like 10M, 1.5G or 500K/s (bytes a second)"
        )
    return rate


def parse_size(text: str) -> int:
    """Return bytes from ``10M``, ``1.5G``, ``64KiB``, ``123``: units are of 1024. Raises ``UsageError``."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or match[5]:
        raise UsageError(f"{text!r} is not a size", next_step="write it like 10M, 1.5G or 500K (bytes)")
    return _bytes(match)


def _bytes(match: re.Match[str]) -> int:
    return int(float(match[1]) * 1024 ** _UNITS[match[2].lower()])
