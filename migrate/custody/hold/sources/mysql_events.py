"""Events of a MySQL or MariaDB database: programs that the server runs by its clock, whatever accounts may do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporters.mysql.definitions.event_status import DISABLED, ENABLED, Event, read_events
from migrate.custody.hold.sources.contract import Change
from migrate.custody.hold.sources.mysql_server import Server
from migrate.errors import GoneError, UsageError

_EVENT = "the event "


class Events:
    """An event's setting is its status; None where it is gone."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @staticmethod
    def has(setting: str) -> bool:
        """Tell whether a setting is an event's."""
        return setting.startswith(_EVENT)

    def changes(self) -> Sequence[Change]:
        """Return what has to change so that no event runs."""
        return [
            Change(
                _EVENT + event.name, ENABLED, DISABLED, ENABLED,
                event.statement(self._server.name, DISABLED), event.statement(self._server.name, ENABLED),
            )
            for event in self._events().values()
            if event.status == ENABLED
        ]  # fmt: skip

    def read(self, setting: str) -> Any:
        """Return an event's status."""
        event = self._events().get(setting.removeprefix(_EVENT))
        return event.status if event else None

    def write(self, setting: str, value: Any) -> None:
        """Set an event's status. Raises ``UsageError``, ``GoneError``."""
        name = setting.removeprefix(_EVENT)
        event = self._events().get(name)
        if value not in {ENABLED, DISABLED}:
            raise UsageError(f"{value!r} is no setting of an event's")
        if event is None:
            raise GoneError(
                f"{self._server.url} has no event {name} any more", next_step="take it out of the undo file"
            )
        self._server.run(event.statement(self._server.name, value))

    def _events(self) -> dict[str, Event]:
        return {event.name: event for event in read_events(self._server.rows, self._server.name)}
