"""A bucket kept in step with another one: one to one, without a bundle between them."""

from migrate.sync.engine import SyncOptions, sync
from migrate.sync.outcome import SyncOutcome

__all__ = ["SyncOptions", "SyncOutcome", "sync"]
