"""Rows copied into a PostgreSQL database whose restore is led by another machine."""

from __future__ import annotations

from collections.abc import Mapping

from exporters.postgres.sessions.connection import connect, parse_url
from migrate.bundle.reader import BundleReader
from migrate.restore.postgres.destination import holds_lock
from migrate.restore.postgres.rows.load_rows import RowWriter
from migrate.runtime.cancellation import CancellationToken


class PostgresRows:
    """A database that parts are copied into; see ``RowDestination``."""

    def __init__(self, url: str, secrets: Mapping[str, str]) -> None:
        self._address = parse_url(url, secrets)

    def is_led(self, lead: int) -> bool:
        """Ask the server for the lock's owner."""
        with connect(self._address) as connection:
            return holds_lock(connection, lead)

    def writer(self, reader: BundleReader, *, workers: int, cancellation: CancellationToken) -> RowWriter:
        """Return a writer that reports no progress: the leading machine counts parts."""
        return RowWriter(reader, self._address, workers=workers, advance=_ignore, cancellation=cancellation)


def _ignore(_rows: int, _size_bytes: int) -> None:
    """Report nothing."""
