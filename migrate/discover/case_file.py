"""Writes what a discovery found into a case file, and keeps the file up with later discoveries.

A file that exists is only added to: new tables stand at its end, and a comment marks a source that is gone. All else
stays as it is, byte for byte.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import tomlkit
from msgspec import Struct

from exporters.discovery import EMPTY, FoundSource, NotTaken
from migrate.case.model import Case, Endpoint
from migrate.case.server_url import bare_server, covers, is_pattern, names_files, server_key
from migrate.discover.servers import ServerAnswer, names_one, servers_of
from migrate.discover.source_names import source_name
from migrate.engines import registry
from migrate.errors import UsageError
from migrate.number_text import bytes_words, things

DEADLINE = timedelta(hours=30)
"""The deadline of a new case file lies so far ahead, until somebody writes the real one."""
_GONE = " # gone: discover did not find it on "
_GONE_MARK = re.compile(re.escape(_GONE) + r"\d{4}-\d\d-\d\d")
_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*source[ \t]*\]\][^\n]*$", re.MULTILINE)

_DEADLINE_GIVEN = "The moment at which the old host shuts the door."
_DEADLINE_TAKEN = f"{_DEADLINE_GIVEN}\n# This is 30 hours after the discovery: write the real one."
_HEAD = """\
# One move, as moveout discover found it on {day}.
# Fill in the deadline, and "to" of each destination at the end.
# Then: moveout doctor -c {file}, and moveout run -c {file}

[case]
name = {name}
# {comment}
deadline = {deadline}

# Where the bundle is written first: a directory, or s3://bucket/prefix.
[bundle]
location = "./bundle"

# Where the bundle travels to, on the new host.
# [transfer]
# location = "s3://evacuated/bundle?profile=new"

# The servers that `moveout discover -c {file}` asks again.
"""
_DESTINATION_COMMENT = """\
# Where all of this server comes up again, under the same names:
# write the address of the new server.
"""
_LATER = "# Added by moveout discover on {day}.\n"


def _no_address(_old: str) -> str:
    """Leave the address of a new server to be filled in."""
    return ""


class CaseChange(Struct, frozen=True):
    """One change of the case file. ``what`` says of which section, ``name`` of what."""

    kind: Literal["added", "gone", "back"]
    what: str
    name: str


class CaseText(Struct, frozen=True):
    """The text of a case file, and what of it is new."""

    text: str
    changes: Sequence[CaseChange]


def new_case(
    path: Path,
    answers: Sequence[ServerAnswer],
    deadline: datetime | None = None,
    new_address: Callable[[str], str] = _no_address,
) -> CaseText:
    """Return the text of a new case file for what servers hold. ``new_address``: where the things of a server come up
    again, "" where that is to be filled in.
    """
    moment = datetime.now(UTC)
    comment = _DEADLINE_GIVEN if deadline else _DEADLINE_TAKEN
    head = _HEAD.format(
        day=moment.date(),
        file=path.name,
        name=_toml(path.resolve().parent.name or path.stem),
        comment=comment,
        deadline=(deadline or moment + DEADLINE).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    tables, changes = _new_tables(answers, None, new_address)
    return CaseText(head + tables, changes)


def updated_case(text: str, case: Case, answers: Sequence[ServerAnswer]) -> CaseText:
    """Return the text of a case file with what is new at its end, and with marks on sources that are gone or back.
    Raises ``UsageError`` where nothing can be added to the file.
    """
    day = datetime.now(UTC).date()
    marked, changes = _mark_gone(text, case, answers, str(day))
    tables, added = _new_tables(answers, case)
    if added:
        gap = "" if not marked or marked.endswith("\n\n") else "\n" if marked.endswith("\n") else "\n\n"
        marked = f"{marked}{gap}{_LATER.format(day=day)}\n{tables}"
    try:
        tomllib.loads(marked)
    except tomllib.TOMLDecodeError as exc:
        raise UsageError(
            f"nothing can be added to the case file: {exc}",
            next_step="write its lists as tables: [[source]], [[destination]]",
        ) from exc
    return CaseText(marked, [*changes, *added])


def _new_tables(
    answers: Sequence[ServerAnswer], case: Case | None, new_address: Callable[[str], str] = _no_address
) -> tuple[str, list[CaseChange]]:
    """Return the tables of everything that the case does not know yet."""
    blocks: list[str] = []
    changes: list[CaseChange] = []

    def add(section: str, name: str, block: str) -> None:
        blocks.append(block)
        changes.append(CaseChange("added", section, name))

    for url in _new_servers(answers, case):
        add("server", url, _table("server", {"url": url, **_references(case, url)}))
    names = set(case.sources) if case else set()
    sources = _new_sources(answers, case)
    for source in sources:
        name = source_name(source, names)
        names.add(name)
        keys: dict[str, Any] = {"name": name, "url": source.url, **_references(case, source.url)}
        keys |= {"may_be_empty": True} if EMPTY in source.facts else {}
        add("source", name, _table("source", keys, _comments(source)))
    for entry in _new_not_taken(answers, case):
        add("not_taken", f"{entry.kind} {entry.name}", _table("not_taken", _not_taken_keys(entry)))
    for position, url in enumerate(_new_moves(answers, sources, case)):
        block = _table("destination", {"from": url, "to": new_address(url)})
        add("destination", url, block if position else _DESTINATION_COMMENT + block)
    return "\n".join(blocks), changes


def _discovered(answers: Sequence[ServerAnswer]) -> Iterator[FoundSource]:
    for answer in answers:
        if answer.discovery is not None:
            yield from answer.discovery.sources


def _new_servers(answers: Sequence[ServerAnswer], case: Case | None) -> list[str]:
    """Return the servers that no later discovery would ask: neither named nor those of a source."""
    known = {_move_key(server.url) for server in servers_of(case)} if case else set()
    whole = dict.fromkeys(answer.url for answer in answers if not names_one(answer.url))
    return [url for url in whole if _move_key(url) not in known]


def _new_sources(answers: Sequence[ServerAnswer], case: Case | None) -> list[FoundSource]:
    known = [source.url for source in case.sources.values()] if case else []
    known += [entry.url for entry in case.left_out] if case else []
    sources: dict[str, FoundSource] = {}
    for source in _discovered(answers):
        if not any(covers(entry, source.url) for entry in known):
            sources.setdefault(source.identity or source.url, source)
    return list(sources.values())


def _new_not_taken(answers: Sequence[ServerAnswer], case: Case | None) -> list[NotTaken]:
    known = {(entry.kind, entry.name, entry.region) for entry in case.not_taken} if case else set()
    return [
        entry
        for answer in answers
        if answer.discovery is not None
        for entry in answer.discovery.not_taken
        if (entry.kind, entry.name, entry.region) not in known
    ]


def _new_moves(
    answers: Sequence[ServerAnswer], sources: Sequence[FoundSource], case: Case | None
) -> list[str]:
    """Return the servers of new sources that nothing sends anywhere yet; of files the directory that was asked."""
    new_urls = {source.url for source in sources}
    servers = dict.fromkeys(
        answer.url if names_files(answer.url) else bare_server(source.url)
        for answer in answers
        if answer.discovery is not None
        for source in answer.discovery.sources
        if source.url in new_urls
    )
    known = {_move_key(move.old) for move in case.moves} if case else set()
    return [url for url in servers if _move_key(url) not in known]


def _move_key(url: str) -> tuple[str, ...]:
    return (url,) if names_files(url) else server_key(url)


def _references(case: Case | None, url: str) -> dict[str, str]:
    """Return the references to secrets that the case has for the server of a URL."""
    listed: list[Endpoint] = [*case.servers, *case.sources.values()] if case else []
    for endpoint in listed:
        if endpoint.secrets and server_key(endpoint.url) == server_key(url):
            return {
                name: secret.reference
                for name, secret in endpoint.secrets.items()
                if name in registry.secret_names()
            }
    return {}


def items_words(source: FoundSource) -> str:
    """Return how many tables or objects a source has that was counted."""
    return things(source.items or 0, "object" if registry.holds_objects(source.url) else "table")


def _comments(source: FoundSource) -> list[str]:
    """Return what was seen of a source, as sentences."""
    counts = [items_words(source)] if source.items is not None else []
    counts += [bytes_words(source.size_bytes)] if source.size_bytes is not None else []
    seen = ", ".join([*counts, *source.facts])
    return [*([seen] if seen else []), *(f"! {problem}" for problem in source.problems)]


def _not_taken_keys(entry: NotTaken) -> dict[str, Any]:
    keys = {
        "kind": entry.kind,
        "name": entry.name,
        "size_bytes": entry.size_bytes,
        "region": entry.region,
        "advice": entry.advice,
    }
    return {name: value for name, value in keys.items() if value not in {None, ""}}


def _table(section: str, keys: Mapping[str, Any], comments: Sequence[str] = ()) -> str:
    lines = [f"[[{section}]]", *(f"{name} = {_toml(value)}" for name, value in keys.items())]
    lines += [f"# {_one_line(comment)}" for comment in comments]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    return str(tomlkit.item(value).as_string())


def _one_line(text: str) -> str:
    """Return a text as a comment may hold it: names may contain ends of lines."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def _mark_gone(
    text: str, case: Case, answers: Sequence[ServerAnswer], day: str
) -> tuple[str, list[CaseChange]]:
    """Return the text with a comment behind the header of each source that a server does not have any more, and without
    one where it has it again.
    """
    headers = list(_HEADER.finditer(text))
    states = [_state(source, answers) for source in case.sources.values()]
    # Lists in one line, or headers within a text: no line is a source's for sure.
    if len(headers) != len(states):
        return text, []
    pieces: list[str] = []
    changes: list[CaseChange] = []
    end = 0
    for name, header, state in zip(case.sources, headers, states, strict=True):
        line = header.group()
        mark = _GONE_MARK.search(line)
        if state == "gone" and mark is None:
            line = f"{line.rstrip()}{_GONE}{day}"
            changes.append(CaseChange("gone", "source", name))
        elif state == "there" and mark is not None:
            line = line[: mark.start()] + line[mark.end() :]
            changes.append(CaseChange("back", "source", name))
        pieces += [text[end : header.start()], line]
        end = header.end()
    return "".join([*pieces, text[end:]]), changes


def _state(source: Endpoint, answers: Sequence[ServerAnswer]) -> Literal["there", "gone", "unknown"]:
    """Say whether a source of the case is on the servers that were asked."""
    if is_pattern(source.url):
        return "unknown"
    others = [source for answer in answers for source in answer.others]
    if any(covers(source.url, source_there.url) for source_there in [*_discovered(answers), *others]):
        return "there"
    complete = [answer for answer in answers if answer.discovery is not None and not answer.discovery.gaps]
    asked = any(covers(bare_server(answer.url), source.url) for answer in complete)
    return "gone" if asked else "unknown"
