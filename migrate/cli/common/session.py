"""What a command works with: the common options, its progress, what it prints to, and how it asks and waits."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import typer
from msgspec import Struct, field

from exporters.connections.silent_servers import waiting_for_silent
from migrate.case.model import Case, Endpoint
from migrate.case.secrets import hide_url_passwords
from migrate.cli.common.json_output import print_error
from migrate.cli.common.log_file import LogFile
from migrate.cli.common.terminal import Console, Text
from migrate.errors import INTERRUPTED, MoveoutError, UsageError
from migrate.progress.meter import Meter
from migrate.quantities import Timetable, parse_limit
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.storage.api import MultipartStore, Store
from migrate.storage.rate_limit import RateLimiter
from migrate.storage.registry import open_location

if TYPE_CHECKING:
    from migrate.discover.servers import ServerAnswer

_DETAILED_SOURCES = 3
"""With more sources than these, an answer has a line each by default."""
BEGIN_ANEW = {"verify", "plan", "doctor", "discover", "report", "audit"}
"""Commands that keep nothing of what they have read."""


class Answer(Protocol):
    """The result of a command, which it prints at its end."""

    @property
    def exit_code(self) -> int:
        """0, or what the command ends with."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Return the machine-readable result."""
        ...

    def draw(self, console: Console) -> None:
        """Print the result for people."""
        ...


class Session(Struct):
    """The common options of one command, and its progress."""

    command: str
    json: bool
    quiet: bool
    verbose: bool
    no_input: bool
    workers_given: int | None
    bwlimit_given: str | None
    out: Console
    err: Console
    meter: Meter
    """Shows and keeps how far the command is."""
    progress: Progress
    """Takes what the work reports: the meter, or what passes it on to it."""
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    """Cancelled by a signal: Ctrl-C, SIGTERM, a terminal that is closed."""
    log: LogFile | None = None
    listed: list[ServerAnswer] = field(default_factory=list)
    """What the servers of patterns have answered."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further fields of the JSON of an error."""

    def workers(self, case: Case | None = None, *, default: int) -> int:
        """Return the number of workers: the option, else the case's, else ``default``."""
        return self.workers_given or (case.workers if case else None) or default

    def rates(self, case: Case | None = None) -> Timetable | None:
        """Return the bandwidth limit: the option, else the case's, else None."""
        text = self.bwlimit_given or (case.bwlimit if case else None)
        return parse_limit(text) if text else None

    def rate_limiter(self, case: Case | None = None) -> RateLimiter | None:
        """Return what keeps to the bandwidth limit, or None."""
        rates = self.rates(case)
        return RateLimiter(rates, cancellation=self.cancellation) if rates else None

    def store(self, location: Endpoint, case: Case | None = None) -> MultipartStore:
        """Return the store of a location, within the bandwidth limit; see ``open``."""
        return self.open(location, self.rate_limiter(case))

    def copies(self, case: Case | None) -> list[Store]:
        """Return the store to which a case transfers its bundle, where there is one that can be opened."""
        with suppress(MoveoutError):  # whoever reads it says what is wrong
            return [self.open(case.transfer_to)] if case and case.transfer_to else []
        return []

    def open(
        self,
        location: Endpoint,
        rate_limiter: RateLimiter | None = None,
        *,
        at_once_bytes: int = 0,
        deadline: datetime | None = None,
        cancellation: CancellationToken | None = None,
    ) -> MultipartStore:
        """Return the store of a location, see ``open_location``; who waits for it sees a note."""
        return open_location(
            location.url,
            secrets=location.reveal(),
            rate_limiter=rate_limiter,
            at_once_bytes=at_once_bytes,
            note=self.progress.note,
            deadline=deadline,
            cancellation=cancellation or self.cancellation,
        )

    @contextlib.contextmanager
    def waiting_for_silent(
        self,
        *endpoints: Endpoint,
        may_end: bool = True,
        is_too_late: Callable[[], bool] = lambda: False,
        is_limited: Callable[[], bool] = lambda: False,
        retries: bool = False,
    ) -> Iterator[None]:
        """Print a note when a server of one of these databases becomes silent, as long as the context lasts. The
        command waits for it until it is interrupted or ``is_too_late``; where ``is_limited``, no longer than a minute.
        An interrupted command that ``may_end`` at any point ends its process then. A new connection to a server that
        has answered before waits, too, unless the command itself ``retries`` what failed.
        """
        from migrate.progress.server_contact import (  # noqa: PLC0415  most commands ask no database
            WORKING,
            WaitingCommand,
            noted_silence,
        )

        def wait(seconds: float) -> bool:
            return self.cancellation.wait(seconds) or is_too_late()

        command = WaitingCommand(
            self.meter.quiet_seconds,
            self.progress.note,
            self.cancellation,
            WORKING,
            give_up=self._end_at_once if may_end else None,
            is_too_late=is_too_late,
            is_limited=is_limited,
            retries=retries,
        )
        with (
            noted_silence(endpoints, command),
            contextlib.nullcontext() if retries else waiting_for_silent(wait),
        ):
            yield

    def going_on_without_silent(self, *endpoints: Endpoint) -> AbstractContextManager[None]:
        """Print a note when a server of one of these databases becomes silent, and go on without it after
        ``LOOKING.limit_seconds``. For commands that only look: Ctrl-C ends them at once.
        """
        from migrate.progress.server_contact import (  # noqa: PLC0415  most commands ask no database
            LOOKING,
            WaitingCommand,
            noted_silence,
        )

        command = WaitingCommand(
            self.meter.quiet_seconds,
            self.progress.note,
            self.cancellation,
            LOOKING,
            give_up=self._end_at_once,
        )
        return noted_silence(endpoints, command)

    def _end_at_once(self) -> None:
        """End the process, whatever its threads wait for."""
        self.meter.break_off()
        code = self.interrupted()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def interrupted(self) -> int:
        """Print that the command was interrupted, and return its exit code."""
        step = "run the same command again" + ("" if self.command in BEGIN_ANEW else ": it continues")
        return self.fail(INTERRUPTED, "interrupted", "stopped", step)

    def fail(self, exit_code: int, code: str, message: str, next_step: str) -> int:
        """Print an error, and return the exit code. It may repeat what was typed, but no password of a URL."""
        message = hide_url_passwords(message)
        if self.json:
            with contextlib.suppress(OSError):
                print_error(self.command, exit_code, code, message, next_step, self.facts)
        self.write_log("error", exit_code=exit_code, code=code, text=message, next=next_step)
        text = Text.assemble(("moveout: ", "bold red"), message)
        if next_step:
            text.append(f"\n→ {next_step}")
        self.err.print(text)
        return exit_code

    def write_log(self, event: str, **details: Any) -> None:
        """Write a line into the log, where there is one."""
        if self.log is not None:
            self.log.write(event, **details)

    def is_detailed(self, sources: int) -> bool:
        """Tell whether an answer about so many sources prints the details of each."""
        return self.verbose or sources <= _DETAILED_SOURCES

    @property
    def can_ask(self) -> bool:
        """Whether somebody sits at a terminal and may be asked."""
        return not self.no_input and sys.stdin.isatty()

    def ask(self, question: str, *, default: str = "") -> str:
        """Ask for some words on a terminal."""
        self.meter.pause_showing()
        with _interruptible():
            answer = typer.prompt(question, default=default, show_default=bool(default), err=True)
        return str(answer).strip()

    def confirm(self, question: str) -> bool:
        """Ask yes or no on a terminal. Raises ``UsageError`` where nobody can answer."""
        if not self.can_ask:
            raise UsageError(f"{question} Nobody can answer here.", next_step="add --yes to confirm")
        self.meter.pause_showing()
        with _interruptible():
            return typer.confirm(question, err=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` for Ctrl-C and Ctrl-D at a question."""
    try:
        yield
    except typer.Abort:
        typer.echo(err=True)  # the question has no end of line
        raise KeyboardInterrupt from None


def export_workers() -> int:
    """Return how many units are exported at once by default: each needs CPU and holds memory."""
    return min(max(os.cpu_count() or 2, 2), 8)


TRANSFER_WORKERS = 8
"""How many parts travel at once by default."""
