"""``moveout discover``: what servers, accounts and directories hold, and the case file for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from rich.table import Table

from exporters.discovery import Discovery, FoundSource, NotTaken
from exporters.errors import SourceGoneError
from exporters.structs import as_dict
from migrate.case.loader import load
from migrate.case.model import Case, Endpoint
from migrate.case.server_url import as_url, server_key
from migrate.cli import app
from migrate.cli.common.options import CaseFile, case_words
from migrate.cli.common.rich_terminal import make_table
from migrate.cli.common.session import Session
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.discover.aws.services import policy
from migrate.discover.case_file import CaseChange, CaseText, items_words, new_case, updated_case
from migrate.discover.servers import ServerAnswer, ask_servers, only_named, servers_of, shown_names
from migrate.errors import OK, IncompleteError, UsageError
from migrate.number_text import bytes_words, count_words, list_words, things
from migrate.storage.local.errors import translated
from migrate.storage.local.whole_file import write_whole

_SHOWN_NAMES = 5


class Discovered(Struct, frozen=True):
    """What the servers hold, and what became of the case file; None where none was asked for."""

    answers: Sequence[ServerAnswer]
    path: Path | None
    changes: Sequence[CaseChange]
    unfilled: Sequence[str]
    """The servers whose new address is not in the case file yet."""

    @property
    def exit_code(self) -> int:
        """3 where something could not be looked at; the worst error's where no server answered."""
        errors = [answer.error for answer in self.answers if answer.error is not None]
        if errors and len(errors) == len(self.answers):
            return max(error.exit_code for error in errors)
        discoveries = _discoveries(self.answers)
        unseen = errors or any(
            discovery.gaps or any(source.problems for source in discovery.sources)
            for discovery in discoveries
        )
        return IncompleteError.exit_code if unseen else OK

    def as_json(self) -> dict[str, Any]:
        """Return everything by server; sizes in bytes."""
        return {
            "servers": [_as_json(answer) for answer in self.answers],
            "case": str(self.path) if self.path else None,
            "changes": [as_dict(change) for change in self.changes],
            "unfilled": list(self.unfilled),
        }

    def draw(self, console: Console) -> None:
        """Print a table for each server, then what changed in the case file and what to do next."""
        for answer in self.answers:
            _draw_answer(console, answer)
        discoveries = _discoveries(self.answers)
        if not discoveries:
            return
        sources = [source for discovery in discoveries for source in discovery.sources]
        size = sum(source.size_bytes or 0 for source in sources)
        unknown = sum(source.size_bytes is None for source in sources)
        more = f", and {count_words(unknown)} of unknown size" if unknown else ""
        dead = len(self.answers) - len(discoveries)
        without = f", without {count_words(dead)} of {things(len(self.answers), 'server')}" if dead else ""
        console.print(f"In all {things(len(sources), 'source')}, {bytes_words(size)}{more}{without}")
        _draw_case(console, self)


class LeastPolicy(Struct, frozen=True):
    """The least IAM policy for the discovery of an AWS account, as JSON."""

    text: str
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return the policy."""
        return {"policy": json.loads(self.text)}

    def draw(self, console: Console) -> None:
        """Print the policy as it can be given to AWS."""
        console.print(self.text, end="", wrap=False)


def _discoveries(answers: Sequence[ServerAnswer]) -> list[Discovery]:
    return [answer.discovery for answer in answers if answer.discovery is not None]


def _as_json(answer: ServerAnswer) -> dict[str, Any]:
    error = answer.error
    about = {"code": error.code, "message": str(error), "next": error.next_step} if error else None
    discovery = as_dict(answer.discovery or Discovery([]))
    others = [source.name for source in answer.others]
    return {"url": answer.url, "error": about, **discovery, "others": others}


def _draw_answer(console: Console, answer: ServerAnswer) -> None:
    if answer.discovery is None:
        assert answer.error is not None
        what = "not there" if isinstance(answer.error, SourceGoneError) else "not asked"
        line = Text.assemble((answer.url, "bold"), (f"  {what}: ", "bold red"), answer.error.reason)
        console.print(line)
        if answer.error.next_step:
            console.print(Text(f"→ {answer.error.next_step}"))
        return
    console.print(Text(answer.url, "bold"))
    if answer.discovery.sources:
        console.print(_table(answer.discovery.sources))
    else:
        console.print("  nothing that moveout takes")
    for source in answer.discovery.sources:
        for problem in source.problems:
            console.print(Text.assemble(("! ", "yellow"), plain(f"{source.name}: {problem}")))
    if answer.others:
        others = shown_names(answer.others)
        console.print(Text.assemble(("! ", "yellow"), f"also on this server, not taken: {others}"))
    for gap in answer.discovery.gaps:
        console.print(Text.assemble(("! ", "yellow"), gap))
    _draw_not_taken(console, answer.discovery)


def _table(sources: Sequence[FoundSource]) -> Table:
    """Return a table of the sources of a server. Their region is noted where they have several."""
    several = len({source.region for source in sources}) > 1
    notes = [
        [fact for fact in source.facts if several or fact != f"region {source.region}"] for source in sources
    ]
    table = make_table(name="left", holds="right", size="right")
    if any(notes):
        table.add_column("notes", overflow="fold")
    for source, noted in zip(sources, notes, strict=True):
        holds = "?" if source.items is None else items_words(source)
        size = "?" if source.size_bytes is None else bytes_words(source.size_bytes)
        table.add_row(
            Text(plain(source.name)), holds, size, *([Text(", ".join(noted))] if any(notes) else [])
        )
    return table


def _draw_not_taken(console: Console, discovery: Discovery) -> None:
    """Print a line for each kind of what is not taken."""
    kinds: dict[tuple[str, str], list[NotTaken]] = {}
    for entry in discovery.not_taken:
        kinds.setdefault((entry.kind, entry.advice), []).append(entry)
    for (kind, advice), entries in kinds.items():
        names = list_words([entry.name for entry in entries], _SHOWN_NAMES)
        number = f" ({count_words(len(entries))})" if len(entries) > 1 else ""
        regions = ", ".join(sorted({entry.region for entry in entries if entry.region}))
        known = [entry.size_bytes for entry in entries if entry.size_bytes is not None]
        size = bytes_words(sum(known)) if known else ""
        shown = "; ".join(filter(None, [f"{kind}{number}: {names}", regions, size]))
        console.print(Text.assemble(("not taken: ", "yellow"), f"{shown}. {advice}"))
    if any(len(entries) > _SHOWN_NAMES for entries in kinds.values()):
        console.print("  all names: --json, or [[not_taken]] in the case file", style="dim")


def _draw_case(console: Console, discovered: Discovered) -> None:
    path = discovered.path
    if path is None:
        if _discoveries(discovered.answers):
            console.print("→ the same command with --to moveout.toml writes the case file", style="dim")
        return
    words = {"added": "added", "gone": "marked as gone", "back": "not gone any more"}
    for kind, word in words.items():
        changes = [change for change in discovered.changes if change.kind == kind]
        if changes:
            console.print(Text(f"{path}, {word}: {_changes_words(changes)}"))
    has_any = any(discovery.sources or discovery.not_taken for discovery in _discoveries(discovered.answers))
    if has_any and not discovered.changes:
        console.print(f"{path} had all of it: nothing was changed")
    if discovered.unfilled:
        servers = ", ".join(discovered.unfilled)
        console.print(Text(f'→ write into {path} where these come up again (to = "…"): {servers}'))
    console.print(Text(f"→ check the deadline in {path}, then: moveout doctor -c {path}"))


def _changes_words(changes: Sequence[CaseChange]) -> str:
    """Return how many entries of each kind changed: ``24 sources, 4 servers``. A few sources are named."""
    names: dict[str, list[str]] = {}
    for change in changes:
        names.setdefault(change.what, []).append(change.name)
    words = [
        f"{count_words(len(named))} not taken" if what == "not_taken" else things(len(named), what)
        for what, named in names.items()
    ]
    sources = names.get("source", ())
    return ", ".join(words) + (f" ({', '.join(sources)})" if 0 < len(sources) <= _SHOWN_NAMES else "")


@verb(
    app,
    "discover",
    examples=(
        'discover postgresql://me@old "s3://?profile=old" /srv --to case.toml',
        "discover aws://old --to moveout.toml",
        "discover --print-policy > policy.json",
        "discover -c moveout.toml",
    ),
)
def discover_command(
    session: Session,
    urls: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="URL …",
            help="Servers, accounts and directories: postgresql://me@old, s3://?profile=old, aws://PROFILE, /srv/app.",
        ),
    ] = None,
    case: CaseFile = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="CASE", help="The case file to write; an existing one gets what it lacks."
        ),
    ] = None,
    print_policy: Annotated[
        bool,
        typer.Option("--print-policy", help="Print the IAM policy that aws:// needs, and do nothing else."),
    ] = False,
) -> Discovered | LeastPolicy:
    """List what servers hold, and write the case file.

    Lists databases, buckets and SQLite files with their sizes. Says what may not be read, and what moveout does not
    move. A URL of one database or bucket lists that one, and names what else its server holds. With a case file it
    adds what is new and marks what is gone; your own changes are kept.
    """
    if print_policy:
        return LeastPolicy(policy())
    if case is not None and to is not None and case.resolve() != to.resolve():
        raise UsageError("-c and --to name two case files", next_step="give one of them")
    path = case or to
    is_read = path is not None and (case is not None or path.exists())
    loaded = load(path, may_be_empty=True) if path is not None and is_read else None
    endpoints = [_endpoint(url, loaded) for url in dict.fromkeys(as_url(word) for word in urls or [])]
    if not endpoints and loaded is not None:
        endpoints = servers_of(loaded)
    if not endpoints:
        raise UsageError(
            "no server is named",
            next_step='moveout discover postgresql://me@old "s3://?profile=old" /srv --to case.toml,'
            f" or {case_words()}",
        )
    return run_discover(session, endpoints, path, loaded, whole_servers=not urls)


def run_discover(
    session: Session,
    endpoints: Sequence[Endpoint],
    path: Path | None,
    case: Case | None = None,
    new_text: Callable[[Path, Sequence[ServerAnswer]], CaseText] = new_case,
    *,
    whole_servers: bool = False,
) -> Discovered:
    """Ask the servers, and write or amend the case file at ``path``, unless none of them answered. ``new_text`` makes
    the text of a new one. ``whole_servers``: a URL of one database or bucket stands for all of its server.
    """
    with session.going_on_without_silent(*endpoints):
        answers = ask_servers(endpoints, session.progress)
    if not whole_servers:
        answers = only_named(endpoints, answers)
    if path is None or not _discoveries(answers):
        return Discovered(answers, None, [], [])
    written = _write(path, case, answers, new_text)
    unfilled = [move.old for move in load(path).moves if move.new is None]
    return Discovered(answers, path, written.changes, unfilled)


def _endpoint(url: str, case: Case | None) -> Endpoint:
    """Return a server with the secrets that the case has for it."""
    for known in servers_of(case) if case else []:
        if known.secrets and server_key(known.url) == server_key(url):
            return Endpoint(url, known.secrets)
    return Endpoint(url)


def _write(
    path: Path,
    case: Case | None,
    answers: Sequence[ServerAnswer],
    new_text: Callable[[Path, Sequence[ServerAnswer]], CaseText],
) -> CaseText:
    """Write or amend the case file: in one step, so a full disk costs nothing that stood there."""
    with translated(path):
        known = path.read_bytes().decode() if case else ""
    written = updated_case(known, case, answers) if case else new_text(path, answers)
    if case is None or written.changes:
        write_whole(path, written.text.encode(), crash_point="discover.case_file")
    return written
