"""Events of a destination: programs of the server's clock, which must not run while the log brings what they did at the
source. The mark of the followed source has their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from exporters.mysql.connection import Connection, connect, parse_url
from exporters.mysql.errors import DRIVER_ERRORS, translate
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.restore.mysql.changes.follow_marks import read_mark

_EVENTS = "SELECT EVENT_NAME, STATUS, DEFINER FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {}"
_ENABLED, _DISABLED = "ENABLED", "DISABLED"


def stop(connection: Connection, source: str) -> None:
    """Let the events of a followed source run no more. Raises the driver's errors."""
    _alter(connection, source, _ENABLED, "DISABLE")


def start_events(url: str, secrets: Mapping[str, str], source: str) -> None:
    """Let the events run that ran at the source: the engine's part ``activation``. Raises ``SourceError``."""
    address = parse_url(url, password=secrets.get("password"))
    with closing(connect(address)) as connection:
        try:
            _alter(connection, source, _DISABLED, "ENABLE")
        except DRIVER_ERRORS as exc:
            raise translate(exc, address.url) from exc


def _alter(connection: Connection, source: str, status: str, word: str) -> None:
    found = read_mark(connection, source)
    names = {*found[1].events} if found else set()
    if not names:
        return
    rows = connection.rows(_EVENTS.format(quote_literal(connection.address.database)))
    for name, now, definer in rows:
        if str(name) in names and str(now) == status:
            user, _, host = str(definer).rpartition("@")
            # Without its definer an event becomes ours (MySQL manual, "ALTER EVENT").
            owner = f"DEFINER = {quote_name(user)}@{quote_name(host)}"
            connection.run(f"ALTER {owner} EVENT {quote_name(str(name))} {word}")
