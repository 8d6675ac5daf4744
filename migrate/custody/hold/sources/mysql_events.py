"""Events of a MySQL or MariaDB database: programs that the server runs by its clock, whatever accounts may do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.custody.hold.sources.contract import Change
from migrate.custody.hold.sources.mysql_server import Server
from migrate.errors import GoneError, UsageError

_EVENT = "the event "
_ENABLED, _DISABLED = "ENABLED", "DISABLED"
_EVENTS = "SELECT event_name, status, definer FROM information_schema.events WHERE event_schema = {}"


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
                _EVENT + name, _ENABLED, _DISABLED, _ENABLED,
                self._sql(name, definer, _DISABLED), self._sql(name, definer, _ENABLED),
            )
            for name, (status, definer) in self._events().items()
            if status == _ENABLED
        ]  # fmt: skip

    def read(self, setting: str) -> Any:
        """Return an event's status."""
        event = self._events().get(setting.removeprefix(_EVENT))
        return event[0] if event else None

    def write(self, setting: str, value: Any) -> None:
        """Set an event's status. Raises ``UsageError``, ``GoneError``."""
        name = setting.removeprefix(_EVENT)
        event = self._events().get(name)
        if value not in {_ENABLED, _DISABLED}:
            raise UsageError(f"{value!r} is no setting of an event's")
        if event is None:
            raise GoneError(
                f"{self._server.url} has no event {name} any more", next_step="take it out of the undo file"
            )
        self._server.run(self._sql(name, event[1], value))

    def _sql(self, name: str, definer: str, status: str) -> str:
        """Return the statement: without its definer an event becomes ours (MySQL manual, "ALTER EVENT")."""
        user, _, host = definer.rpartition("@")
        word = "ENABLE" if status == _ENABLED else "DISABLE"
        return (
            f"ALTER DEFINER = {quote_name(user)}@{quote_name(host)} EVENT"
            f" {quote_name(self._server.name)}.{quote_name(name)} {word}"
        )

    def _events(self) -> dict[str, tuple[str, str]]:
        rows = self._server.rows(_EVENTS.format(quote_literal(self._server.name)))
        return {str(name): (str(status), str(definer)) for name, status, definer in rows}
