"""What all commands share: the common options, the error seam, and the two ways to answer (text and JSON)."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import json
import os
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeGuard, cast, get_type_hints

import typer
from msgspec import Struct, field
from msgspec.structs import fields

from exporters.connections.silent_servers import waiting_for_silent
from migrate.case.model import Case, Endpoint
from migrate.cli.common.log_file import LogFile, LogFileOption, logged_to, open_log
from migrate.cli.common.terminal import Console, Text, data_output
from migrate.cli.progress.progress_view import LineProgress, LiveProgress, Quiet
from migrate.errors import INTERRUPTED, OK, GoneError, MoveoutError, NoSpaceError, UsageError
from migrate.progress.meter import Meter
from migrate.quantities import Timetable, parse_limit
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.process_identity import name_command
from migrate.runtime.progress import Progress
from migrate.storage.api import MultipartStore
from migrate.storage.rate_limit import RateLimiter
from migrate.storage.registry import open_location

if TYPE_CHECKING:
    from migrate.discover.servers import ServerAnswer

JSON_VERSION = 1
_NO_FACTS: Mapping[str, Any] = {}
_MAX_WORKERS = 256
_DETAILED_SOURCES = 3
"""Of more sources than these, an answer has a line each by default."""


class Answer(Protocol):
    """What a command says at its end."""

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
    """What the JSON of an error says besides."""

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

    def noting_silence(
        self,
        *endpoints: Endpoint,
        may_end: bool = True,
        is_too_late: Callable[[], bool] = lambda: False,
        is_held: Callable[[], bool] = lambda: False,
        tries_again: bool = True,
    ) -> AbstractContextManager[None]:
        """Note it, as long as the context lasts, where a server of one of these databases is silent. When the command
        is interrupted, or it ``is_too_late``, nobody waits for a silent server any more; a minute later while an
        application stands still (``is_held``). An interrupted command that ``may_end`` as a kill would end it does so
        then. ``tries_again``: the command does, by itself.
        """
        from migrate.progress.server_contact import (  # noqa: PLC0415  most commands ask no database
            WORKING,
            WaitingCommand,
            noted_silence,
        )

        give_up = self._end_at_once if may_end else None
        meter, note = self.meter, self.progress.note
        command = WaitingCommand(
            meter.quiet_seconds,
            note,
            self.cancellation,
            give_up,
            is_too_late,
            is_held,
            WORKING,
            tries_again,
        )
        return noted_silence(endpoints, command)

    @contextlib.contextmanager
    def waiting_for_silent(
        self,
        *endpoints: Endpoint,
        may_end: bool = True,
        is_too_late: Callable[[], bool] = lambda: False,
        is_held: Callable[[], bool] = lambda: False,
    ) -> Iterator[None]:
        """Like ``noting_silence``; new connections, too, are waited for as long as a server is silent that has answered
        before.
        """

        def wait(seconds: float) -> bool:
            return self.cancellation.wait(seconds) or is_too_late()

        noted = self.noting_silence(
            *endpoints, may_end=may_end, is_too_late=is_too_late, is_held=is_held, tries_again=False
        )
        with noted, waiting_for_silent(wait):
            yield

    def going_on_without_silent(self, *endpoints: Endpoint) -> AbstractContextManager[None]:
        """Note it, as long as the context lasts, where a server of one of these databases is silent, and go on without
        it after ``LOOKING.limit_seconds``: for a command that only looks, which Ctrl-C ends at once.
        """
        from migrate.progress.server_contact import (  # noqa: PLC0415  most commands ask no database
            LOOKING,
            WaitingCommand,
            noted_silence,
        )

        meter, note = self.meter, self.progress.note
        command = WaitingCommand(
            meter.quiet_seconds, note, self.cancellation, self._end_at_once, patience=LOOKING
        )
        return noted_silence(endpoints, command)

    def _end_at_once(self) -> None:
        """End the process, whatever its threads wait for."""
        self.meter.break_off()
        code = _interrupted(self)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def write_log(self, event: str, **details: Any) -> None:
        """Write a line into the log, where there is one."""
        if self.log is not None:
            self.log.write(event, **details)

    def is_detailed(self, sources: int) -> bool:
        """Tell whether an answer about so many sources tells the details of each of them."""
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
    """Take Ctrl-C and Ctrl-D at a question for what they are."""
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

_JSON = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")
]
_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result and errors.")]
_VERBOSE = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Print requests, retries, and the details of every source.",
    ),
]
_WORKERS = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, max=_MAX_WORKERS, metavar="N", help="How many pieces of work run at once."
    ),
]
_BWLIMIT = Annotated[
    str | None,
    typer.Option(
        "--bwlimit",
        metavar="RATE",
        help="Limit bytes a second: 10M, or by time of day '08:00,10M 19:00,off'.",
    ),
]
_NO_INPUT = Annotated[bool, typer.Option("--no-input", help="Never ask; fail if an answer is needed.")]


def verb(
    app: typer.Typer,
    name: str,
    *,
    title: str = "",
    examples: Sequence[str] = (),
    workers: bool = False,
    bwlimit: bool = False,
) -> Callable[[Callable[..., Answer]], Callable[..., None]]:
    """Register a command that takes a ``Session`` and returns an ``Answer``; adds the common options. A parameter whose
    type is a ``Struct`` stands for the options that are its fields, with their defaults. ``title`` is its whole name
    where it belongs to a group; ``examples`` stand at the end of its help. ``workers``, ``bwlimit``: it has these
    options.
    """
    common: list[tuple[str, Any, Any]] = [
        ("json_", _JSON, False),
        ("quiet", _QUIET, False),
        ("verbose", _VERBOSE, False),
        ("log_file", LogFileOption, None),
        *((("workers", _WORKERS, None),) if workers else ()),
        *((("bwlimit", _BWLIMIT, None),) if bwlimit else ()),
        ("no_input", _NO_INPUT, False),
    ]

    def decorate(function: Callable[..., Answer]) -> Callable[..., None]:
        hints = _own_hints(function)

        @functools.wraps(function)
        def command(
            *,
            json_: bool = False,
            quiet: bool = False,
            verbose: bool = False,
            log_file: Path | None = None,
            workers: int | None = None,
            bwlimit: str | None = None,
            no_input: bool = False,
            **options: Any,
        ) -> None:
            name_command(f"moveout {title or name}")
            session = _session(
                title or name, json_, quiet, verbose, no_input=no_input, workers=workers, bwlimit=bwlimit
            )
            raise typer.Exit(_run(session, log_file, lambda: function(session, **_grouped(hints, options))))

        _add_options(command, function, common)
        epilog = "\n".join(["\b", "Examples:", *(f"  moveout {line}" for line in examples)])
        app.command(name, epilog=epilog if examples else None)(command)
        return command

    return decorate


def _add_options(
    command: Callable[..., None], function: Callable[..., Answer], common: Sequence[tuple[str, Any, Any]]
) -> None:
    hints = _own_hints(function)
    parameters_of_verb = list(inspect.signature(function).parameters.values())[1:]
    parameters = [
        option for p in parameters_of_verb for option in _options_of(p.name, hints[p.name], p.default)
    ]
    parameters += [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=d, annotation=a) for n, a, d in common
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}


@functools.cache
def _hints(of: Any) -> Mapping[str, Any]:
    return get_type_hints(of, include_extras=True)


def _own_hints(function: Callable[..., Answer]) -> dict[str, Any]:
    """Return the types of a function's parameters but for the first one, the session."""
    hints = _hints(function)
    return {name: hints[name] for name in list(inspect.signature(function).parameters)[1:]}


def _is_group(hint: Any) -> TypeGuard[type[Struct]]:
    return isinstance(hint, type) and issubclass(hint, Struct)


def _options_of(name: str, hint: Any, default: Any) -> Iterator[inspect.Parameter]:
    """Yield the option of a parameter, or those of the fields of its ``Struct``."""
    if not _is_group(hint):
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        return
    hints = _hints(hint)
    for option_field in fields(hint):
        yield from _options_of(option_field.name, hints[option_field.name], option_field.default)


def _grouped(hints: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a function from the values of all options."""
    arguments = {}
    for name, hint in hints.items():
        if _is_group(hint):
            group = cast("type", hint)
            arguments[name] = group(**_grouped(_hints(group), given))
        elif name in given:
            arguments[name] = given[name]
    return arguments


def _session(
    name: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    *,
    no_input: bool,
    workers: int | None,
    bwlimit: str | None,
) -> Session:
    err = Console(stderr=True)
    meter: Meter = Quiet() if quiet else (LiveProgress(err) if err.is_terminal else LineProgress(err))
    meter.open(name)
    return Session(
        name,
        as_json,
        quiet,
        verbose,
        no_input,
        workers,
        bwlimit,
        Console(),
        err,
        meter,
        meter,
    )


def _run(session: Session, log_file: Path | None, work: Callable[[], Answer]) -> int:
    """Do the work, say its answer or its error, and return the exit code."""
    try:
        if log_file is not None:
            session.log = open_log(log_file, session.command, session.meter, session.err)
        session.rates()  # one that is none ends the command here, and no step of it later
        with (
            logged_to(session.err) if session.verbose else contextlib.nullcontext(),
            _terminable(session.cancellation),
        ):
            answer = work()
    except MoveoutError as exc:
        session.meter.break_off()
        return _fail(session, exc.exit_code, exc.code, str(exc), exc.next_step)
    except (KeyboardInterrupt, Cancelled):
        session.meter.break_off()
        return _interrupted(session)
    except Exception as exc:
        session.meter.break_off()
        session.write_log("traceback", text=traceback.format_exc())
        if (error := _of_the_system(exc)) is not None:
            return _fail(session, error.exit_code, error.code, str(error), error.next_step)
        traceback.print_exc(file=sys.stderr)
        step = "this is a defect of moveout; what is done stays done. Please report the lines above"
        return _fail(session, 1, "defect", f"{type(exc).__name__}: {exc}", step)
    session.meter.close()
    return _show(session, answer)


def _show(session: Session, answer: Answer) -> int:
    """Print the answer, and return the exit code: that of a full disk where all went well and nobody can read it."""
    session.write_log("result", exit_code=answer.exit_code, result=answer.as_json())
    try:
        if session.json:
            _print_json(session.command, answer.exit_code, {"result": answer.as_json()})
        else:
            answer.draw(session.out)
    except OSError as exc:
        error = _of_the_system(exc)
        step = "→ what is done stays done: moveout status LOCATION"
        session.err.print(f"moveout: the result cannot be written: {exc.strerror}\n{step}")
        return answer.exit_code or (error.exit_code if error else 1)
    return answer.exit_code


_MORE_MEMORY = (
    "what is done stays done; run the same command again with fewer --workers, or raise the limit of memory or of"
    " threads (ulimit, MemoryMax= and TasksMax= of systemd, limits of a container)"
)
_SHORT_OF_MEMORY = ("can't start new thread", "failed to map segment", "Cannot allocate memory")


def _of_the_system(exc: Exception) -> MoveoutError | None:
    """Return what to say where the system refused memory, a thread, or room on a disk, or has removed
    the current directory; None for a defect.
    """
    if isinstance(exc, MemoryError) or any(words in str(exc) for words in _SHORT_OF_MEMORY):
        message = f"there is no memory left for this command ({exc or 'MemoryError'})"
        return MoveoutError(message, next_step=_MORE_MEMORY)
    if isinstance(exc, FileNotFoundError) and exc.filename is None:  # as only a call without a path has it
        message = "the directory in which this command was started is no longer there"
        return GoneError(message, next_step="cd to another one, then run the same command again")
    if isinstance(exc, OSError) and exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        step = "make room there, then run the same command again: it continues"
        return NoSpaceError(f"{exc.filename or 'the output'}: {exc.strerror}", next_step=step)
    return None


_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def _terminable(cancellation: CancellationToken) -> Iterator[None]:
    """Let SIGTERM, and a terminal that is closed, stop the work as Ctrl-C does; all of them cut waits short in all
    threads.
    """

    def stop(number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        cancellation.cancel()
        raise KeyboardInterrupt

    # A shell may have said that a job in the background ignores Ctrl-C, and nohup that it outlives its terminal.
    handled_signals = [
        signal_number
        for signal_number in _STOPS
        if signal_number is signal.SIGTERM or signal.getsignal(signal_number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, stop) for number in handled_signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """Write nowhere from now on what would go to a terminal: it is gone, and to write there would be an error in the
    middle of tidying up.
    """
    for number in (1, 2):
        if stat.S_ISCHR(os.fstat(number).st_mode):  # what has hung up says of itself that it is no terminal
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)


def _interrupted(session: Session) -> int:
    step = "run the same command again: it continues"
    return _fail(session, INTERRUPTED, "interrupted", "stopped", step)


def _fail(session: Session, exit_code: int, code: str, message: str, next_step: str) -> int:
    if session.json:
        with contextlib.suppress(OSError):
            print_error(session.command, exit_code, code, message, next_step, session.facts)
    session.write_log("error", exit_code=exit_code, code=code, text=message, next=next_step)
    text = Text.assemble(("moveout: ", "bold red"), message)
    if next_step:
        text.append(f"\n→ {next_step}")
    session.err.print(text)
    return exit_code


def print_error(
    command: str,
    exit_code: int,
    code: str,
    message: str,
    next_step: str,
    facts: Mapping[str, Any] = _NO_FACTS,
) -> None:
    """Print an error as one object, with further facts."""
    error = {"code": code, "message": message, "next": next_step, **facts}
    _print_json(command, exit_code, {"error": error})


def _print_json(command: str, exit_code: int, body: dict[str, Any]) -> None:
    head = {"moveout": JSON_VERSION, "command": command, "ok": exit_code == OK, "exit_code": exit_code}
    out = data_output()
    text = json.dumps(head | body, ensure_ascii=False, default=_plain)
    # What is no character, as in a text that somebody else wrote, is escaped as JSON has it.
    out.write(text.encode(errors="backslashreplace").decode() + "\n")
    out.flush()


def _plain(value: object) -> str:
    """Return what JSON has no word for: moments in ISO 8601, all else as it is printed."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
