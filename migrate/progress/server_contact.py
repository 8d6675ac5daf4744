"""Says so when a database server falls silent: whoever waits for an answer of a driver hears nothing of it.

A server may be busy for an hour with one statement. So it is asked by a login of its own, as soon as nothing moves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial

from exporters.engine import load_part
from exporters.sql.open_connections import hang_up
from migrate.case.model import Endpoint
from migrate.case.server_url import bare_server, server_key
from migrate.engines import registry
from migrate.errors import MoveoutError, UnreachableError
from migrate.number_text import duration_words
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.outage import SILENT_SECONDS, Outage
from migrate.storage.silence import watch

QUIET_SECONDS = 6.0
"""A server is asked when nothing has moved for so long."""
_LEAST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 60.0
"""The pause after an answer: half as long as nothing has moved, within these limits."""
_UNANSWERED_SECONDS = 8.0
"""A login takes less, also on a slow link."""
_AGAIN_SECONDS = 1.0

Ask = Callable[[], None]
"""Logs in and out again. Raises ``UnreachableError`` where there is no answer."""


class ServerContact:
    """Asks one server while nothing moves, and calls ``note`` once it is silent, then once a minute, and when it
    answers again. ``quiet_seconds``: for how long nothing has moved. ``give_up`` is called where the command was
    cancelled some seconds ago, and cannot end because the server is silent: no driver stops waiting by itself. While it
    is silent and it ``is_too_late`` to wait, ``hang_up`` is called again and again.
    """

    def __init__(
        self,
        name: str,
        ask: Ask,
        quiet_seconds: Callable[[], float],
        note: Callable[[str], None],
        cancellation: CancellationToken,
        *,
        give_up: Callable[[], None] | None = None,
        is_too_late: Callable[[], bool] = lambda: False,
        hang_up: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._ask, self._note = name, ask, note
        self._quiet_seconds, self._cancellation, self._clock = quiet_seconds, cancellation, clock
        self._outage = Outage(clock=clock)
        self._asking: threading.Thread | None = None
        self._due = 0.0
        self._give_up, self._is_silent = give_up, False
        self._is_too_late, self._hang_up = is_too_late, hang_up
        watch(self)

    def look(self) -> None:
        """See ``Watched``."""
        quiet = self._quiet_seconds()
        if self._give_up is not None and self._cancellation.is_overdue and self._is_silent:
            self._is_silent = False
            self._give_up()
        if self._is_silent and self._is_too_late():
            self._hang_up()
        if self._cancellation.is_cancelled or quiet < QUIET_SECONDS:
            return
        if self._asking is None:
            if self._clock() >= self._due:
                self._asking = threading.Thread(target=self._contact, name="moveout-contact", daemon=True)
                self._asking.start()
            return
        if quiet < SILENT_SECONDS or self._outage.silent_seconds() < _UNANSWERED_SECONDS:
            return
        self._outage.silent(quiet)
        self._is_silent = True
        if self._outage.is_note_due():
            self._note(
                f"{self._name} has not answered since {self._outage.since}; moveout waits until it does."
                " Ctrl-C stops; the same command goes on later"
            )

    def close(self) -> None:
        """Ask no more."""
        self._is_silent = False
        self._cancellation.cancel()

    def _contact(self) -> None:
        """Ask until there is an answer. A refusal is one."""
        under_way = self._outage.asked()
        try:
            while not self._is_answered():
                if self._cancellation.wait(_AGAIN_SECONDS):
                    return
        finally:
            self._outage.over(under_way)
        self._is_silent = False
        seconds = self._outage.end()
        if seconds and not self._cancellation.is_cancelled:
            self._note(f"{self._name} answers again, after {duration_words(seconds)}")
        pause = min(max(self._quiet_seconds() / 2, _LEAST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        self._due, self._asking = self._clock() + pause, None

    def _is_answered(self) -> bool:
        try:
            self._ask()
        except UnreachableError:
            return False
        except MoveoutError:
            pass
        return True


@contextmanager
def noted_silence(
    endpoints: Iterable[Endpoint],
    quiet_seconds: Callable[[], float],
    note: Callable[[str], None],
    cancellation: CancellationToken,
    give_up: Callable[[], None] | None = None,
    is_too_late: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Note it, as long as the context lasts, where a server of some databases is silent; see ``ServerContact``. From
    when it ``is_too_late`` on, whoever waits for a silent one gets an error. Buckets need none of it: each request to
    them has a policy that does.
    """
    with ExitStack() as stack:
        for name, ask in _servers(endpoints).items():
            contact = ServerContact(
                name,
                ask,
                quiet_seconds,
                note,
                cancellation.child(),
                give_up=give_up,
                is_too_late=is_too_late,
                hang_up=partial(hang_up, partial(_is_on, server_key(name))),
            )
            stack.enter_context(closing(contact))
        yield


def _is_on(key: tuple[str, ...], url: str) -> bool:
    return server_key(url) == key


def _servers(endpoints: Iterable[Endpoint]) -> Mapping[str, Ask]:
    """Return what asks each server, by its URL."""
    servers: dict[str, Ask] = {}
    for endpoint in endpoints:
        engine = registry.find(endpoint.url)
        if engine is not None and engine.contact and endpoint.error is None:
            ask = load_part(engine.contact)
            servers.setdefault(bare_server(endpoint.shown), partial(ask, endpoint.url, endpoint.reveal()))
    return servers
