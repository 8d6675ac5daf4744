"""Events of a destination: programs of the server's clock, which must not run while the log brings what they did at the
source. The mark of the followed source has their names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing

from msgspec.structs import replace

from exporters.mysql.connection import Connection, connect, parse_url
from exporters.mysql.definitions.event_status import DISABLED, ENABLED, read_events
from exporters.mysql.errors import as_source_errors
from migrate.restore.mysql.changes.follow_marks import mark_table, read_mark, write_details


def stop_events(connection: Connection, names: Collection[str]) -> None:
    """Let events run no more. Raises the driver's errors."""
    _set_status(connection, names, DISABLED)


def run_events(connection: Connection, names: Collection[str]) -> None:
    """Let events run again. Raises the driver's errors."""
    _set_status(connection, names, ENABLED)


def start_events(url: str, secrets: Mapping[str, str], source: str) -> None:
    """Let the events run that ran at the source: the engine's part ``activation``. Raises ``SourceError``."""
    address = parse_url(url, secrets)
    with closing(connect(address)) as connection, as_source_errors(address.url):
        if marked := read_mark(connection, source):
            run_events(connection, marked[1].events)


def note_running(
    source_url: str,
    source_secrets: Mapping[str, str],
    destination_url: str,
    destination_secrets: Mapping[str, str],
    source: str,
) -> None:
    """Write into the mark which events run at the source: some may have been made, ended, enabled or disabled since the
    export. A server that is read-only may have had its events disabled by a hold, so there the mark stays as it is.
    Raises ``SourceError``.
    """
    old = parse_url(source_url, source_secrets)
    new = parse_url(destination_url, destination_secrets)
    with (
        closing(connect(old)) as reader,
        closing(connect(new)) as writer,
        as_source_errors(f"{old.url} or {new.url}"),
    ):
        table, marked = mark_table(writer), read_mark(writer, source)
        if table is None or marked is None or reader.value("SELECT @@GLOBAL.read_only"):
            return
        events = read_events(reader.rows, old.database)
        running = [event.name for event in events if event.status == ENABLED]
        write_details(writer, table, source, replace(marked[1], events=running))


def _set_status(connection: Connection, names: Collection[str], status: str) -> None:
    """Set the status of these events where it is the other one; one that is disabled as a replica's stays so."""
    database, other = connection.address.database, {ENABLED: DISABLED, DISABLED: ENABLED}[status]
    for event in read_events(connection.rows, database) if names else []:
        if event.name in names and event.status == other:
            connection.run(event.statement(database, status))
