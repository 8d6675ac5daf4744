"""``moveout init``: a case file, from what servers hold, or as a commented example."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from msgspec import Struct

from migrate.case.deadline import parse_deadline
from migrate.case.model import Endpoint
from migrate.case.server_url import address_problem, as_url
from migrate.case.template import new_text as example_text
from migrate.cli import app
from migrate.cli.common.session import Session
from migrate.cli.common.terminal import Console, Text
from migrate.cli.common.verb import verb
from migrate.cli.discover import Discovered, run_discover
from migrate.discover.case_file import CaseText, new_case
from migrate.discover.servers import ServerAnswer, discover_of
from migrate.engines import registry
from migrate.errors import OK, NotEmptyError, UsageError
from migrate.storage.local.errors import translate_os

_QUESTION = """\
Where is the old host? Its servers, accounts and directories, in one line:
  postgresql://me@old mysql://me@old s3://?profile=old /srv/app
Enter alone writes an example to fill in"""
_DEADLINE_QUESTION = "When does it shut down? A moment, or from now on"
Value = TypeVar("Value")


class WrittenCase(Struct, frozen=True):
    """The case file that was written."""

    path: Path
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return the path."""
        return {"case": str(self.path)}

    def draw(self, console: Console) -> None:
        """Print what to do with it."""
        console.print(
            f"{self.path} is written. Fill in where things are, then: moveout doctor -c {self.path}",
        )


@verb(
    app,
    "init",
    examples=(
        "init",
        'init postgresql://me@old mysql://me@old "s3://?profile=old" /srv/app',
        "init case.toml",
    ),
)
def init(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CASE] [URL …]",
            help="The file to write (default: moveout.toml), and the old host's servers, accounts and directories.",
        ),
    ] = None,
) -> WrittenCase | Discovered:
    """Write a case file.

    With URLs it lists what these servers hold, as discover does. On a terminal it asks for the URLs. Otherwise it
    writes an example with comments.
    """
    urls = [word for word in words or [] if "://" in word or Path(word).is_dir()]
    paths = [Path(word) for word in words or [] if word not in urls]
    if len(paths) > 1:
        raise UsageError(
            f"{paths[0]} and {paths[1]} would both be the case file",
            next_step="a directory of the old host has to exist; servers are URLs: postgresql://me@old",
        )
    path = paths[0] if paths else Path("moveout.toml")
    if path.exists():
        raise NotEmptyError(
            f"{path} exists already",
            next_step=f"edit it, name another file, or: moveout discover -c {path}",
        )
    new_text: Callable[[Path, Sequence[ServerAnswer]], CaseText] = new_case
    servers = _servers(urls)
    if not urls and session.can_ask and not session.json:
        servers = _asked(session, _QUESTION, lambda line: _servers(_words(line)))
        if servers:
            deadline = _asked(session, _DEADLINE_QUESTION, parse_deadline, default="30h")
            new_text = partial(new_case, deadline=deadline, new_address=partial(_ask_address, session))
    if servers:
        return run_discover(session, servers, path, new_text=new_text)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(example_text(datetime.now(UTC)))
    except OSError as exc:
        raise translate_os(exc, path) from exc
    return WrittenCase(path)


def _words(line: str) -> list[str]:
    """Return the words of an answer; somebody may have quoted them as in a shell."""
    try:
        return shlex.split(line)
    except ValueError:  # a quotation mark alone
        return line.split()


def _servers(urls: Sequence[str]) -> list[Endpoint]:
    """Return the servers of URLs. Raises ``UsageError`` for what is none."""
    endpoints = [Endpoint(as_url(url)) for url in urls]
    for endpoint in endpoints:
        discover_of(endpoint)
    return endpoints


def _asked(session: Session, question: str, parse: Callable[[str], Value], default: str = "") -> Value:
    """Ask until the answer makes sense, and return what it means."""
    while True:
        try:
            return parse(session.ask(question, default=default))
        except UsageError as exc:
            session.err.print(Text(f"{exc}\n→ {exc.next_step}"))


def _ask_address(session: Session, old: str) -> str:
    """Ask where the things of a server come up again, until the answer is an address of its kind, or none."""
    engine = registry.find(old)
    if engine is None:
        return ""
    example = {"bucket": f"{engine.schemes[0]}://?profile=new", "file": "/srv/new"}.get(
        engine.url_names, f"{engine.schemes[0]}://me@new"
    )
    question = f"Where does {old} come up again?\n  Such as {example}; Enter alone: to be filled in"
    while answer := " ".join(_words(session.ask(question))):
        is_address = "://" in answer or (engine.url_names == "file" and answer.startswith("/"))
        if not is_address:
            problem = f"it is no address like {example}"
        elif not (problem := address_problem(as_url(answer), old)):
            return as_url(answer)
        question = f"{answer}: {problem}.\nWhere does {old} come up again?"
    return ""
