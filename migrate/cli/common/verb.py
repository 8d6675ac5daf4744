"""Makes commands of functions, and runs them: common options, and the exit codes of errors and interrupts."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeGuard, cast, get_type_hints

import typer
from msgspec import Struct
from msgspec.structs import fields

from migrate.case.secrets import hide_url_passwords
from migrate.cli.common.json_output import print_result
from migrate.cli.common.log_file import LogFileOption, logged_to, open_log
from migrate.cli.common.session import Answer, Session
from migrate.cli.common.terminal import Console, plain
from migrate.cli.progress.progress_view import LineProgress, LiveProgress, Quiet
from migrate.errors import GoneError, MoveoutError, NoSpaceError
from migrate.progress.meter import Meter
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.process_identity import name_command
from migrate.storage.local.errors import translate_os

_MAX_WORKERS = 256

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
        "--workers",
        min=1,
        max=_MAX_WORKERS,
        metavar="N",
        help="How many pieces of work run at once (default: 2 to 8).",
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
        command=name,
        json=as_json,
        quiet=quiet,
        verbose=verbose,
        no_input=no_input,
        workers_given=workers,
        bwlimit_given=bwlimit,
        out=Console(),
        err=err,
        meter=meter,
        progress=meter,
    )


def _run(session: Session, log_file: Path | None, work: Callable[[], Answer]) -> int:
    """Do the work, print its answer or its error, and return the exit code."""
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
        return session.fail(exc.exit_code, exc.code, str(exc), exc.next_step)
    except (KeyboardInterrupt, Cancelled):
        session.meter.break_off()
        return session.interrupted()
    except Exception as exc:
        session.meter.break_off()
        session.write_log("traceback", text=traceback.format_exc())
        if (error := _system_error(exc)) is not None:
            return session.fail(error.exit_code, error.code, str(error), error.next_step)
        lines = hide_url_passwords(traceback.format_exc()).splitlines()
        sys.stderr.write("".join(f"{plain(line)}\n" for line in lines))
        step = "this is a defect of moveout; what is done stays done. Please report the lines above"
        return session.fail(1, "defect", f"{type(exc).__name__}: {exc}", step)
    session.meter.close()
    return _show(session, answer)


def _show(session: Session, answer: Answer) -> int:
    """Print the answer, and return its exit code. Where it cannot be written, return that error's code instead of 0."""
    session.write_log("result", exit_code=answer.exit_code, result=answer.as_json())
    try:
        if session.json:
            print_result(session.command, answer.exit_code, answer.as_json())
        else:
            answer.draw(session.out)
    except OSError as exc:
        error = _system_error(exc)
        step = "→ what is done stays done: moveout status LOCATION"
        session.err.print(f"moveout: the result cannot be written: {exc.strerror}\n{step}")
        return answer.exit_code or (error.exit_code if error else 1)
    return answer.exit_code


_MORE_MEMORY = (
    "what is done stays done; run the same command again with fewer --workers, or raise the limit of memory or of"
    " threads (ulimit, MemoryMax= and TasksMax= of systemd, limits of a container)"
)
_SHORT_OF_MEMORY = ("can't start new thread", "failed to map segment", "Cannot allocate memory")


def _system_error(exc: Exception) -> MoveoutError | None:
    """Return the error to print where the system refused memory, a thread, a file, or room on a disk, or where the
    current directory was removed. None for a defect of moveout.
    """
    if isinstance(exc, MemoryError) or any(words in str(exc) for words in _SHORT_OF_MEMORY):
        message = f"there is no memory left for this command ({exc or 'MemoryError'})"
        return MoveoutError(message, next_step=_MORE_MEMORY)
    if isinstance(exc, FileNotFoundError) and exc.filename is None:  # as only a call without a path has it
        message = "the directory in which this command was started is no longer there"
        return GoneError(message, next_step="cd to another one, then run the same command again")
    if isinstance(exc, PermissionError) and isinstance(exc.filename, str):
        return translate_os(exc, exc.filename)
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
    """Send what would go to a terminal to ``/dev/null`` from now on. The terminal is gone: a write to it would fail in
    the middle of tidying up.
    """
    for number in (1, 2):
        if stat.S_ISCHR(os.fstat(number).st_mode):  # what has hung up says of itself that it is no terminal
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
