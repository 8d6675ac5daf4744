"""Verify: is a bundle at a place what it says it is? Nothing here writes to the place."""

from __future__ import annotations

from migrate.verify.engine import verify
from migrate.verify.outcome import Level, VerifyOutcome

__all__ = ["Level", "VerifyOutcome", "verify"]
