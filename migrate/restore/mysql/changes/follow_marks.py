"""How far changes were applied, kept in a control table of the destination.

A restore writes the mark when all else is done. From then on each transaction of changes moves it. The mark has the
names of events, too: programs of the server's clock, which must not run while the log brings what they did at the
source.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.mysql.connection import Connection, connect, parse_url
from exporters.mysql.control_tables import OWN_TABLE, ControlTables, find_control_tables
from exporters.mysql.definitions.event_status import DISABLED, ENABLED, may_be_held, read_events, set_status
from exporters.mysql.errors import as_source_errors
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.structs import as_dict
from migrate.changes.apply import Mark
from migrate.changes.remainder import BothSides
from migrate.changes.segments import Place
from migrate.restore.mysql.destination import connect_both


class FollowDetails(Struct, frozen=True):
    """What is needed of a source to apply its changes. ``database``: its name. ``folds``: whether its server takes
    capitals in names for small letters. ``stem``: how the names of its log's files begin. ``events``: those that run
    once the destination is in use. ``skipped``: tables (see ``Mark``). ``reread``: tables, by the position up to which
    they have all changes.
    """

    database: str
    stem: str
    events: Sequence[str] = field(default=())
    skipped: Sequence[str] = field(default=())
    reread: Mapping[str, int] = field(default_factory=dict)
    folds: bool = False


def begin_mark(connection: Connection, table: str, source: str, base: int, details: FollowDetails) -> None:
    """Write that a source was restored as it was at ``base``. ``table`` is the name of the control table."""
    connection.run(
        f"CREATE TABLE IF NOT EXISTS {quote_name(table)} (source VARCHAR(200) PRIMARY KEY, base BIGINT,"
        " segment BIGINT, message BIGINT, position BIGINT, details LONGTEXT)"
        f" {OWN_TABLE}"
    )
    values = f"{quote_literal(source)}, {base}, 0, 0, {base}, {quote_literal(_as_text(details))}"
    connection.run(f"REPLACE INTO {quote_name(table)} VALUES ({values})")


def read_mark(connection: Connection, source: str) -> tuple[Mark, FollowDetails] | None:
    """Return how far the changes of a source were applied; None where it was not restored to this database."""
    table = mark_table(connection)
    if table is None:
        return None
    rows = connection.rows(
        f"SELECT base, segment, message, position, details FROM {quote_name(table)}"
        f" WHERE source = {quote_literal(source)}"
    )
    if not rows:
        return None
    base, segment, message, position, details = rows[0]
    words: dict[str, Any] = json.loads(details)
    skipped = tuple(words["skipped"])
    return Mark(int(base), Place(int(segment), int(message)), int(position), skipped), FollowDetails(**words)


def mark_table(connection: Connection) -> str | None:
    """Return the name of the table of marks, None where there is none. Raises the driver's errors."""
    control, others = find_control_tables(connection)
    name = ControlTables.apart_from(others).follow
    return name if name in control else None


def move_mark(connection: Connection, table: str, source: str, mark: Mark) -> bool:
    """Move a mark within the open transaction; False where there is none."""
    count = connection.run(
        f"UPDATE {quote_name(table)} SET segment = {mark.place.segment}, message = {mark.place.message},"
        f" position = {mark.position} WHERE source = {quote_literal(source)}"
    )
    return count == 1


def write_details(connection: Connection, table: str, source: str, details: FollowDetails) -> None:
    """Replace what one must know of a source."""
    connection.run(
        f"UPDATE {quote_name(table)} SET details = {quote_literal(_as_text(details))}"
        f" WHERE source = {quote_literal(source)}"
    )


def forget_mark(connection: Connection, source: str) -> None:
    """Remove the mark of a source, and the table of marks where it is empty then."""
    table = mark_table(connection)
    if table is None:
        return
    connection.run(f"DELETE FROM {quote_name(table)} WHERE source = {quote_literal(source)}")
    if connection.value(f"SELECT 1 FROM {quote_name(table)} LIMIT 1") is None:
        connection.run(f"DROP TABLE {quote_name(table)}")


def applied_mark(url: str, secrets: Mapping[str, str], source: str) -> Mark | None:
    """See ``Engine.change_mark``. Raises ``SourceError``."""
    address = parse_url(url, secrets)
    with closing(connect(address)) as connection, as_source_errors(address.url):
        recorded = read_mark(connection, source)
    return recorded[0] if recorded else None


def _as_text(details: FollowDetails) -> str:
    return json.dumps(as_dict(details), ensure_ascii=False)


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


def end_events(url: str, secrets: Mapping[str, str], source: str) -> None:
    """Let these events run no more: the engine's part ``deactivation``. Raises ``SourceError``."""
    address = parse_url(url, secrets)
    with closing(connect(address)) as connection, as_source_errors(address.url):
        if marked := read_mark(connection, source):
            stop_events(connection, marked[1].events)


def note_running(
    sides: BothSides,
    source: str,
) -> None:
    """Write into the mark which events run at the source: some may have been made, ended, enabled or disabled since the
    export. Where a hold may have disabled events, the mark stays as it is.
    Raises ``SourceError``.
    """
    with connect_both(sides) as (reader, writer):
        table, marked = mark_table(writer), read_mark(writer, source)
        if table is None or marked is None or may_be_held(reader):
            return
        events = read_events(reader.rows, reader.address.database)
        running = [event.name for event in events if event.status == ENABLED]
        write_details(writer, table, source, replace(marked[1], events=running))


def _set_status(connection: Connection, names: Collection[str], status: str) -> None:
    """Set the status of these events where it is the other one; one that is disabled as a replica's stays so."""
    other = {ENABLED: DISABLED, DISABLED: ENABLED}[status]
    for event in read_events(connection.rows, connection.address.database) if names else []:
        if event.name in names and event.status == other:
            set_status(event, status, run=connection.run, rows=connection.rows)
