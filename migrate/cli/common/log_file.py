"""``--log-file``: what a command does, as a JSON object a line; ``--verbose``: what it asks of whom and tries again, on
stderr. Passwords and keys are left out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from migrate import software
from migrate.case.secrets import hide_secrets, remember_url_secrets
from migrate.cli.common.terminal import Console, Text, plain
from migrate.progress.meter import Meter
from migrate.storage.local.errors import translate_os

_LOGGERS = ("migrate", "exporters")
LogFileOption = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        metavar="FILE",
        help="Append a log to this file, one JSON object a line, without secrets.",
    ),
]


class LogFile:
    """An open log, to which lines are appended; only its owner can read it. A full disk ends the log, not the work:
    ``warn`` is called once with a sentence. Raises errors of ``migrate.errors`` where it cannot be opened.
    """

    def __init__(self, path: Path, command: str, warn: Callable[[str], None]) -> None:
        self._path, self._command, self._warn = path, command, warn
        self._lock = threading.Lock()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as exc:
            raise translate_os(exc, path) from exc
        self._file = os.fdopen(descriptor, "ab", buffering=0)

    def write(self, event: str, **details: Any) -> None:
        """Write one line."""
        head = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "pid": os.getpid()}
        line = json.dumps(
            head | {"command": self._command, "event": event} | details, ensure_ascii=False, default=str
        )
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write(hide_secrets(line).encode(errors="replace") + b"\n")
            except OSError as exc:
                self._file.close()
                warning = f"! {self._path} cannot be written any more, so the log ends here: {exc.strerror}"
            else:
                return
        self._warn(warning)


def open_log(path: Path, command: str, meter: Meter, console: Console) -> LogFile:
    """Open the log of a command, write the command line into it, and then what the meter gets. The console shows where
    the log ends too early. Raises errors of ``migrate.errors``.
    """
    for word in sys.argv:
        remember_url_secrets(word)
    log = LogFile(path, command, lambda warning: console.print(Text(warning, "yellow")))
    log.write("start", software=software(), arguments=sys.argv[1:])
    meter.on_event = lambda event, words: log.write(event, text=words)
    return log


class _ConsoleHandler(logging.Handler):
    """Prints a line for each record, without secrets."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        moment = datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3]
        line = f"{moment} {plain(hide_secrets(record.getMessage()))}"
        self._console.print(Text(line, "dim"), wrap=False)


@contextlib.contextmanager
def logged_to(console: Console) -> Iterator[None]:
    """Print what the loggers of moveout get; first which moveout was asked for what."""
    for word in sys.argv:
        remember_url_secrets(word)
    handler = _ConsoleHandler(console)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        loggers[0].info("%s, Python %s: %s", software(), sys.version.split()[0], " ".join(sys.argv[1:]))
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
