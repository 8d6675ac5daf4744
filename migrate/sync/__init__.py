"""A bucket kept in step with another one: one to one, without a bundle between them."""

from migrate.sync.outcome import SyncOutcome
from migrate.sync.run import SyncOptions, sync

__all__ = ["SyncOptions", "SyncOutcome", "sync"]
