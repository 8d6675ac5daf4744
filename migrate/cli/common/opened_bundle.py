"""Opens the bundle that a command reads, finds the source that the user means, and completes what a shell asks for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from migrate.browse import single_objects
from migrate.browse.single_objects import ObjectQuery
from migrate.bundle.reader import BundleReader
from migrate.case.model import Case, Endpoint
from migrate.cli.common.options import locations_of, no_location_error
from migrate.cli.common.session import Session
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Text, plain
from migrate.errors import MoveoutError, UsageError
from migrate.storage.registry import open_location

_MOST_COMPLETED = 20_000
"""How many objects are looked at, in the order of their keys, before a shell has its answer."""


def complete_source(context: typer.Context, incomplete: str) -> list[str]:
    """Return the sources of the bundle that the command line names, for a shell."""
    with suppress(MoveoutError):
        reader = _named_bundle(context)
        return sorted(name for name in reader.sources if name.startswith(incomplete))
    return []


def complete_item(context: typer.Context, incomplete: str) -> list[str]:
    """Return the tables of a source, or the keys of a bucket up to the next slash, for a shell. Where there are several
    sources, return the option that names one. Return nothing for a location: the shell completes directories itself.
    """
    with suppress(MoveoutError):
        reader = _named_bundle(context)
        if not context.params.get("source") and len(reader.sources) > 1:
            return ["--source"]
        name = source_name(reader, context.params.get("source"))
        names = _keys if single_objects.is_bucket(reader, name) else _tables
        return sorted(set(names(reader, name, incomplete)))
    return []


def _named_bundle(context: typer.Context) -> BundleReader:
    case = context.params.get("case")
    words = context.params.get("words") or context.args  # unparsed where an option has no value yet
    location, _ = _location(words, load_case(Path(case) if case else None))
    return BundleReader(open_location(location.url, secrets=location.reveal()))


def _tables(reader: BundleReader, source: str, begins: str) -> Iterator[str]:
    for row in reader.catalog():
        name = row.full_name
        if row.source == source and row.has_rows and name.startswith(begins):
            yield name


def _keys(reader: BundleReader, source: str, begins: str) -> Iterator[str]:
    for row in islice(single_objects.find(reader, source, ObjectQuery(begins=begins)), _MOST_COMPLETED):
        slash = row.key.find("/", len(begins))
        yield row.key[: slash + 1] if slash >= 0 else row.key


Source = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="NAME",
        help="The source, if the bundle has several.",
        autocompletion=complete_source,
    ),
]


def open_bundle(session: Session, words: Sequence[str], case: Path | None) -> tuple[BundleReader, list[str]]:
    """Return the bundle and the words after its location; with a case file the location is the case's."""
    loaded = load_case(case)
    location, rest = _location(words, loaded)
    return BundleReader(session.store(location, loaded)), rest


def _location(words: Sequence[str], case: Case | None) -> tuple[Endpoint, list[str]]:
    """Return where the bundle lies, and the words that do not say so. Raises ``UsageError``."""
    from_case = next(iter(locations_of(case)), None)
    rest = list(words)
    location = from_case or (Endpoint(rest.pop(0)) if rest else None)
    if location is None:
        raise no_location_error()
    return location, rest


def split_source(reader: BundleReader, name: str | None, words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the source that is meant, and the words that name what is in it. The first word may be the source, as
    ``ls`` prints it, where no table or key has that name. Raises ``UsageError``.
    """
    items = list(words)
    if name is None and items and items[0] in reader.sources and not _is_item(reader, items[0]):
        name = items.pop(0)
    return source_name(reader, name, items), items


def print_missing(session: Session, reader: BundleReader, source: str, words: Sequence[str]) -> None:
    """Print the words for which a source of a bundle has nothing."""
    for word in words:
        session.err.print(Text.assemble((f"not in {source}: ", "bold red"), plain(word)))
    if words:
        where = shlex.quote(reader.store.location)
        session.err.print(Text(f"→ moveout ls {where} {shlex.quote(source)} shows what is there"))


def _is_item(reader: BundleReader, word: str) -> bool:
    if any(word in {row.name, row.full_name} for row in reader.catalog() if row.has_rows):
        return True
    buckets = (name for name in reader.sources if single_objects.is_bucket(reader, name))
    return any(any(single_objects.find(reader, name, ObjectQuery(keys={word}))) for name in buckets)


def source_name(reader: BundleReader, name: str | None, items: Sequence[str] = ()) -> str:
    """Return the source that is meant: the named one, else the only one, else the only one with a table that ``items``
    name, else the only bucket that may have them. Raises ``UsageError``.
    """
    known = list(reader.sources)
    if name is not None:
        return reader.info.source(name).name
    if len(known) > 1 and items:
        tables = [row for row in reader.catalog() if row.has_rows]
        having = {row.source for row in tables if {row.name, row.full_name} & {*items}}
        having = having or {name for name in known if single_objects.is_bucket(reader, name)}
        known = list(having) if len(having) == 1 else known
    if len(known) != 1:
        raise UsageError(
            f"the bundle has several sources: {', '.join(known)}", next_step="say which: --source NAME"
        )
    return known[0]
