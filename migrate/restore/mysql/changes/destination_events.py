"""Events of a destination: programs of the server's clock, which must not run while the log brings what they did at the
source. The mark of the followed source has their names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing

from exporters.mysql.connection import Connection, connect, parse_url
from exporters.mysql.definitions.event_status import DISABLED, ENABLED, read_events
from exporters.mysql.errors import DRIVER_ERRORS, translate
from migrate.restore.mysql.changes.follow_marks import read_mark


def stop_events(connection: Connection, names: Collection[str]) -> None:
    """Let events run no more. Raises the driver's errors."""
    _set_status(connection, names, DISABLED)


def run_events(connection: Connection, names: Collection[str]) -> None:
    """Let events run again. Raises the driver's errors."""
    _set_status(connection, names, ENABLED)


def start_events(url: str, secrets: Mapping[str, str], source: str) -> None:
    """Let the events run that ran at the source: the engine's part ``activation``. Raises ``SourceError``."""
    address = parse_url(url, password=secrets.get("password"))
    with closing(connect(address)) as connection:
        try:
            if marked := read_mark(connection, source):
                run_events(connection, marked[1].events)
        except DRIVER_ERRORS as exc:
            raise translate(exc, address.url) from exc


def _set_status(connection: Connection, names: Collection[str], status: str) -> None:
    """Set the status of these events where it is the other one; one that is disabled as a replica's stays so."""
    database, other = connection.address.database, {ENABLED: DISABLED, DISABLED: ENABLED}[status]
    for event in read_events(connection.rows, database) if names else []:
        if event.name in names and event.status == other:
            connection.run(event.statement(database, status))
