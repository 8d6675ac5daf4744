"""Verify: is a bundle at a location what it says it is? Nothing here writes to the location."""

from __future__ import annotations

from migrate.verify.outcome import Level, VerifyOutcome
from migrate.verify.run import verify

__all__ = ["Level", "VerifyOutcome", "verify"]
