"""Says so when a server falls silent: whoever waits for an answer of a driver hears nothing of it.

A server may be busy for an hour with one statement. So it is asked by a login of its own, as soon as nothing moves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from functools import partial

from msgspec import Struct

from exporters.connections.open_connections import hang_up, hang_up_lost, is_any_unheard
from exporters.connections.silent_servers import FIRST_ANSWER_SECONDS, has_answered, left_out
from exporters.engine import load_part
from exporters.errors import SourceSilentError
from migrate.case.model import Endpoint
from migrate.case.server_url import bare_server, server_key
from migrate.engines import registry
from migrate.errors import MoveoutError, UnreachableError
from migrate.number_text import duration_words
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.outage import SILENT_SECONDS, Outage, looking
from migrate.storage.silence import watch

_LEAST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 60.0
"""The pause after an answer: half as long as nothing has moved, within these limits."""
_AGAIN_SECONDS = 1.0


class ContactTimeouts(Struct, frozen=True):
    """How long a command waits for a server. It is asked when nothing has moved for ``quiet_seconds``. It is silent
    where a login has had no answer for ``login_seconds``, and nothing has moved for ``silent_seconds``. After
    ``limit_seconds`` without an answer the command goes on without it. A cancelled one ends once the login has had none
    for ``end_seconds``; at once where these are 0.
    """

    quiet_seconds: float = 6.0
    login_seconds: float = 8.0
    silent_seconds: float = SILENT_SECONDS
    end_seconds: float = 5.0
    limit_seconds: float | None = None


WORKING = ContactTimeouts()
"""For a command that moves data: a server that has answered before is waited for without end."""
LOOKING = ContactTimeouts(2.0, 3.0, 5.0, 0.0, limit_seconds=FIRST_ANSWER_SECONDS)
"""For a command that only looks: nothing is lost where it ends, or goes on without a server."""
LIMITED_SECONDS = 60.0
"""How long a silent server is waited for where somebody waits for the command, or an application stands still."""

Ask = Callable[[], None]
"""Logs in and out again. Raises ``UnreachableError`` where there is no answer."""


class WaitingCommand(Struct, frozen=True):
    """A command that waits for servers. Nothing has moved for ``quiet_seconds``. ``note`` prints a line about a silent
    server; ``give_up`` ends the command, where that may be.
    """

    quiet_seconds: Callable[[], float]
    note: Callable[[str], None]
    cancellation: CancellationToken
    timeouts: ContactTimeouts
    give_up: Callable[[], None] | None = None
    is_too_late: Callable[[], bool] = lambda: False
    """Whether it is too late to wait for a silent server."""
    is_limited: Callable[[], bool] = lambda: False
    """Whether a silent server is waited for ``LIMITED_SECONDS`` only, since an application stands still, say."""
    retries: bool = False
    """Whether the command retries what failed by itself, however long that takes."""


class ContactedServer(Struct, frozen=True):
    """A server that is asked by ``ask`` while nothing moves. ``has_answered``: it has, at least once. ``hang_up`` ends
    all waiting for it; as long as ``leave_out`` lasts, nobody begins to wait for it. ``is_any_unheard``: nothing comes
    on one of its connections; ``hang_up_lost`` ends waiting for that, once the server has answered others for a while.
    """

    name: str
    ask: Ask
    has_answered: Callable[[], bool] = lambda: True
    hang_up: Callable[[], None] = lambda: None
    leave_out: Callable[[], AbstractContextManager[None]] = nullcontext
    is_any_unheard: Callable[[], bool] = lambda: False
    hang_up_lost: Callable[[], None] = lambda: None


class ServerContact:
    """Asks one server while nothing moves. Notes it once it is silent, then once a minute, and when it answers again. A
    server that has never answered is not waited for. Where it answers, but nothing comes on an older connection, the
    network has dropped that: whoever waits for it is woken.

    No driver stops waiting by itself. While the server is silent and it is too late to wait, or the command was
    cancelled some seconds ago, it is hung up again and again. A cancelled command is ended, where that may be. One
    with a limit goes on without the server then.
    """

    def __init__(
        self, server: ContactedServer, command: WaitingCommand, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server, self._command, self._clock = server, command, clock
        self._give_up = command.give_up
        self._outage = Outage(clock=clock)
        self._asking: threading.Thread | None = None
        self._due = 0.0
        self._is_silent = self._refuses = self._is_ending = self._is_left_out = False
        self._closed = threading.Event()
        self._left_out = ExitStack()
        watch(self)

    def look(self) -> None:
        """See ``Watched``."""
        if self._closed.is_set():
            return
        if self._command.cancellation.is_cancelled and not self._is_ending:
            self._is_ending, self._due = True, self._clock()
        quiet = self._command.quiet_seconds()
        self._end_waiting()
        if self._is_moving(quiet) and not self._is_ending and not self._is_left_out:
            self._due = min(self._due, self._clock())
            return
        if self._asking is None:
            if self._clock() >= self._due:
                self._asking = threading.Thread(target=self._contact, name="moveout-contact", daemon=True)
                self._asking.start()
            return
        unanswered = self._outage.silent_seconds()
        if self._is_ending:
            self._is_silent = unanswered >= self._command.timeouts.end_seconds
            return
        if (
            self._is_left_out
            or unanswered < self._command.timeouts.login_seconds
            or quiet < self._command.timeouts.silent_seconds
        ):
            return
        self._outage.silent(quiet)
        self._is_silent = True
        if self._outage.is_note_due():
            self._command.note(
                f"{self._server.name} has not answered since {self._outage.since}{self._what_follows()}"
            )
        limit = self._limit_seconds
        if limit is not None and unanswered >= limit:
            self._is_left_out = True
            self._left_out.enter_context(self._server.leave_out())

    def _is_moving(self, quiet: float) -> bool:
        """Tell whether nothing is to be asked: something has just moved, and all connections are well."""
        if not self._server.is_any_unheard():
            return quiet < self._command.timeouts.quiet_seconds
        self._due = min(self._due, self._clock() + _LEAST_PAUSE_SECONDS)
        return False

    @property
    def _limit_seconds(self) -> float | None:
        return LIMITED_SECONDS if self._command.is_limited() else self._command.timeouts.limit_seconds

    def _what_follows(self) -> str:
        limit = self._limit_seconds
        if self._command.is_limited():
            until = self._outage.moment(LIMITED_SECONDS)
            return f"; without an answer the command ends at about {until}. Ctrl-C stops"
        if limit is not None:
            return f"; moveout goes on without it at {self._outage.moment(limit)}. Ctrl-C stops"
        if self._command.retries:
            return "; moveout tries again until it does. Ctrl-C stops; the same command goes on later"
        if self._server.has_answered():
            what = (
                "it refuses connections, and moveout tries again for a while"
                if self._refuses
                else ("moveout waits until it does")
            )
            return f"; {what}. Ctrl-C stops; the same command goes on later"
        until = self._outage.moment(FIRST_ANSWER_SECONDS)
        return f", and never before; without an answer moveout gives up at about {until}. Ctrl-C stops"

    def _end_waiting(self) -> None:
        """Wake whoever waits for a silent server in vain, or end the command."""
        if not self._is_silent:
            return
        is_overdue = self._command.cancellation.is_overdue
        if is_overdue and self._give_up is not None:
            give_up, self._give_up = self._give_up, None
            give_up()
        elif is_overdue or self._is_left_out or self._command.is_too_late():
            self._server.hang_up()

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()
        self._left_out.close()

    def _contact(self) -> None:
        """Ask until there is an answer. A refusal is one."""
        under_way = self._outage.asked()
        try:
            while not self._is_answered():
                if self._closed.wait(_AGAIN_SECONDS):
                    return
        finally:
            self._outage.over(under_way)
        self._is_silent = self._is_left_out = False
        self._left_out.close()
        seconds = self._outage.end()
        if seconds and not self._command.cancellation.is_cancelled:
            self._command.note(f"{self._server.name} answers again, after {duration_words(seconds)}")
        self._server.hang_up_lost()
        pause = min(max(self._command.quiet_seconds() / 2, _LEAST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        self._due, self._asking = self._clock() + pause, None

    def _is_answered(self) -> bool:
        try:
            self._server.ask()
        except UnreachableError as exc:
            self._refuses = not isinstance(exc, SourceSilentError)
            is_looking = self._command.timeouts.limit_seconds is not None
            is_refusal = is_looking and not isinstance(exc, SourceSilentError)
            return is_refusal and not self._is_left_out  # else we have hung up
        except MoveoutError:
            pass
        return True


class _End:
    """Ends a command that only looks soon after it was cancelled, whatever its threads wait for."""

    def __init__(self, give_up: Callable[[], None], cancellation: CancellationToken) -> None:
        self._give_up, self._cancellation = give_up, cancellation
        self._is_seen = False
        watch(self)

    def look(self) -> None:
        """See ``Watched``."""
        if self._is_seen:
            self._give_up()
        self._is_seen = self._cancellation.is_cancelled

    def close(self) -> None:
        """End nothing any more."""
        self._give_up = lambda: None


@contextmanager
def noted_silence(endpoints: Iterable[Endpoint], command: WaitingCommand) -> Iterator[None]:
    """Note it, as long as the context lasts, where a server of some databases is silent; see ``ServerContact``. From
    when it is too late on, whoever waits for a silent one gets an error. Buckets need none of it, but for a command
    that only looks: each request to them has a policy that does.
    """
    is_looking = command.timeouts.limit_seconds is not None
    with ExitStack() as stack:
        if is_looking:
            stack.enter_context(looking())
        if command.give_up is not None and not command.timeouts.end_seconds:
            stack.enter_context(closing(_End(command.give_up, command.cancellation)))
        for name, ask in _servers(endpoints, buckets=is_looking).items():
            is_on_it = partial(_is_on, server_key(name))
            server = ContactedServer(
                name,
                ask,
                has_answered=partial(has_answered, is_on_it),
                hang_up=partial(hang_up, is_on_it),
                leave_out=partial(left_out, is_on_it),
                is_any_unheard=partial(is_any_unheard, is_on_it),
                hang_up_lost=partial(hang_up_lost, is_on_it),
            )
            stack.enter_context(closing(ServerContact(server, command)))
        yield


def is_any_silent(endpoints: Iterable[Endpoint], seconds: float) -> bool:
    """Tell whether a server of these databases leaves a login without an answer for so long. A refusal is one."""

    def contact(ask: Ask) -> None:
        with suppress(MoveoutError):
            ask()

    logins = [
        threading.Thread(target=contact, args=(ask,), daemon=True) for ask in _servers(endpoints).values()
    ]
    for login in logins:
        login.start()
    until = time.monotonic() + seconds
    for login in logins:
        login.join(max(0.0, until - time.monotonic()))
    return any(login.is_alive() for login in logins)


def _is_on(key: tuple[str, ...], url: str) -> bool:
    return server_key(url) == key


def _servers(endpoints: Iterable[Endpoint], *, buckets: bool = False) -> Mapping[str, Ask]:
    """Return what asks each server of databases, and of ``buckets`` if asked for, by its URL."""
    servers: dict[str, Ask] = {}
    for endpoint in endpoints:
        if "://" not in endpoint.url:  # a directory: nobody has to look for what reads it
            continue
        engine = registry.find(endpoint.url)
        is_asked = engine is not None and (buckets or engine.contents != "objects")
        if engine is not None and is_asked and engine.contact and endpoint.error is None:
            ask = load_part(engine.contact)
            servers.setdefault(bare_server(endpoint.shown), partial(ask, endpoint.url, endpoint.reveal()))
    return servers
