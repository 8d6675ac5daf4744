"""Verify: is a bundle at a location what it says it is? Nothing here writes to the location."""

from __future__ import annotations

from migrate.verify.run import Level, VerifyOutcome, verify

__all__ = ["Level", "VerifyOutcome", "verify"]
