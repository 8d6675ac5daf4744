"""Who is notified of a long command, apart from its terminal: readers of a page, and a program or URL of the user's
own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Protocol, TypeVar

import typer

from migrate.case.model import Case
from migrate.cli.common.session import Answer, Session
from migrate.cli.common.terminal import Console, plain
from migrate.errors import MoveoutError
from migrate.progress.state import Ending, ProgressState

A = TypeVar("A", bound=Answer)

StatusPage = Annotated[
    str | None,
    typer.Option(
        "--status-page",
        metavar="FILE|LOCATION",
        help="Write a page with the progress every 30 s: FILE.html, or status.html at a location.",
    ),
]
_LOOK_SECONDS = 1.0
_LAST_SECONDS = 15.0


class Listener(Protocol):
    """Is notified how far a command is."""

    def look(self, state: ProgressState) -> None:
        """Take the present state; called every second."""
        ...

    def end(self, state: ProgressState, ending: Ending) -> None:
        """Take the last state."""
        ...


def announced(session: Session, case: Case | None, status_page: str | None, work: Callable[[], A]) -> A:
    """Do the work of a command; meanwhile renew its page, and notify whom the case names."""
    listeners: list[Listener] = []
    if status_page:
        from migrate.cli.progress.status_page_file import StatusPageFile  # noqa: PLC0415  few commands write a page

        listeners.append(StatusPageFile(session, status_page))
    if case and case.notify:
        from migrate.cli.progress.notifier import Notifier  # noqa: PLC0415  it imports an HTTP client

        listeners.append(Notifier(session, case.notify))
    if case is not None:
        session.meter.set_case(case.name, case.deadline)
    with _watched(session, listeners) as ending:
        answer = work()
        ending.exit_code = answer.exit_code
        if status_page:
            from migrate.cli.common.rich_terminal import printed  # noqa: PLC0415  as above

            ending.printed = printed(lambda console: answer.draw(Console(console)), plain)
    return answer


@contextmanager
def _watched(session: Session, listeners: Sequence[Listener]) -> Iterator[Ending]:
    ending, stop = Ending(), threading.Event()

    def watch() -> None:
        while not stop.wait(_LOOK_SECONDS):
            for listener in listeners:
                listener.look(session.meter.state())

    thread = threading.Thread(target=watch, name="moveout-announce", daemon=True)
    thread.start()
    try:
        yield ending
    except MoveoutError as exc:
        ending.exit_code, ending.error, ending.next_step = exc.exit_code, str(exc), exc.next_step
        raise
    finally:
        stop.set()
        thread.join(_LAST_SECONDS)
        for listener in listeners:
            listener.end(session.meter.state(), ending)
