"""How an export behaves towards its server: limits, and a name by which its sessions are known."""

from __future__ import annotations

import secrets
from typing import Any

import psycopg
from msgspec import Struct, field

from exporters.errors import SourceError, SourceUnreachableError
from exporters.limits import Limits, Note
from exporters.postgres.errors import sqlstate
from exporters.postgres.sessions.connection import PostgresAddress, connect
from exporters.postgres.sessions.lock_waits import WaitWatch

_LOCK_NOT_AVAILABLE = "55P03"
_HOLDER, _WATCH = 1, 1


class SessionLimits(Struct, frozen=True):
    """``application`` is the application_name of all sessions of one export."""

    limits: Limits = field(default_factory=Limits)
    note: Note = lambda _: None
    application: str = field(default_factory=lambda: f"moveout-{secrets.token_hex(3)}")

    @property
    def watches(self) -> bool:
        """Whether there is a connection left to query which session holds the lock."""
        most = self.limits.max_connections
        return most is None or most > _HOLDER + _WATCH

    def workers(self, requested: int) -> int:
        """Return how many connections may read at once."""
        return self.limits.allowed(_HOLDER + (_WATCH if self.watches else 0), requested=requested)

    def connect(self, address: PostgresAddress) -> psycopg.Connection[Any]:
        """Return a session of the export, with its name and limits. Raises ``SourceError``."""
        return connect(address, self.application, settings=self.timeouts())

    def timeouts(self) -> str:
        """Return the statement that sets a session's limits."""
        values = (self.limits.statement_seconds, self.limits.lock_seconds)
        statement, lock = (max(0, round(seconds * 1000)) for seconds in values)
        alone = "; SET max_parallel_workers_per_gather = 0" if self.limits.gentle else ""
        return f"SET statement_timeout = {statement}; SET lock_timeout = {lock}{alone}"


def explained(error: SourceError, watch: WaitWatch | None) -> SourceError:
    """Return an error about a lock with the session that holds it; any other error as it is."""
    if watch is None or watch.last is None or sqlstate(error) != _LOCK_NOT_AVAILABLE:
        return error
    explanation = f"{error.explanation}; {watch.last.sentence()}"
    explained_error = SourceUnreachableError(explanation, about=error.about, next_step=watch.last.step())
    explained_error.__cause__ = error.__cause__
    return explained_error
