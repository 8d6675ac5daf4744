"""Words of the command line that name sources and destinations: a URL, a SQLite file, NAME=URL, all of a server."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from exporters.engine import Engine
from exporters.lossless_text import path_of
from migrate.bundle import layout
from migrate.bundle.export_state import SourceName
from migrate.case.model import Endpoint
from migrate.case.secrets import redact
from migrate.case.server_url import (
    ANY,
    as_url,
    bare_server,
    check_url,
    is_path_of_file,
    is_pattern,
    join,
    names_files,
    source_url,
)
from migrate.engines import registry
from migrate.errors import UsageError

_PAIR = re.compile(r"([^/=]+)=(.+)", re.DOTALL)
_BUCKET = "bucket"


class SourceWord(Struct, frozen=True):
    """One such word, as it was typed, and its URL. ``name`` is "" where none was given."""

    typed: str
    endpoint: Endpoint
    name: str = ""

    def named(self, name: str) -> str:
        """Return the word to type that gives it a name."""
        return shlex.quote(f"{name}={redact(self.typed.partition('=')[2] if self.name else self.typed)}")


NameOf = Callable[[SourceWord], str]
"""Returns the name for a word without one. Raises ``UsageError``."""


def parse_pairs(words: Sequence[str], name_of: NameOf | None = None) -> dict[str, Endpoint]:
    """Return the URLs by name: the one given as ``NAME=URL``, else that of ``name_of``, by default the own name of the
    database, bucket or file, in the letters that a name may have. URLs of whole servers (``postgresql://host/*``)
    stand under themselves. Raises ``UsageError``.
    """
    named: dict[str, SourceWord] = {}
    for word in map(_parse, words):
        name = word.name or (name_of or _own_name)(word)
        if is_pattern(word.endpoint.url) and not word.name:
            named[name] = word
            continue
        if not layout.is_source_name(name):
            raise UsageError(
                f"{name!r} cannot name a source",
                next_step="a name has lower-case letters, digits, '-' and '_', at most 63 of them:"
                f" {word.named(_valid_name(word, named))}",
            )
        if name in named:
            raise _named_twice(name, named[name], word, named)
        named[name] = word
    return {name: word.endpoint for name, word in named.items()}


def names_of_bundle(read_sources: Callable[[], Sequence[SourceName]]) -> NameOf:
    """Return what names destinations after the sources of a bundle: the one with the destination's own name, else the
    only one of its engine. A bundle is read where such a word is met.
    """

    def name_of(word: SourceWord) -> str:
        url = word.endpoint.url
        if is_pattern(url):
            return url
        engine, own = registry.find(url), own_name(url)
        recorded = read_sources()
        alike = [source for source in recorded if registry.find(source.url) == engine]
        for same in (
            [source for source in alike if source.name == own],
            [source for source in alike if own_name(source.url) == own],
            alike,
        ):
            if len(same) == 1:
                return same[0].name
        if not alike:
            names = ", ".join(f"{source.name} ({source.url.partition('://')[0]})" for source in recorded)
            raise UsageError(
                f"the bundle has no source of the kind of {word.endpoint.shown}; it has {names or 'none'}",
                next_step="check the URL, and which bundle is read",
            )
        raise UsageError(
            f"which source of the bundle is {word.endpoint.shown}:"
            f" {', '.join(source.name for source in alike)}?",
            next_step=f"say it: {word.named(alike[0].name)}",
        )

    return name_of


def own_name(url: str) -> str:
    """Return the name of the database, the bucket or the file without its ending; "" where a URL names none."""
    parts = urlsplit(url)
    engine = registry.find(url)
    if engine is not None and engine.url_names == _BUCKET:
        return unquote(parts.netloc)
    own = path_of(parts.path.rstrip("/").rpartition("/")[2])
    return PurePosixPath(own).stem if names_files(url) else own


def locations_and_sources(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate locations from the words that name sources. A bucket's URL is the location where none stands before."""
    locations: list[str] = []
    sources: list[str] = []
    for word in words:
        is_source = names_source(word) or (bool(locations) and _engine_of(word) is not None)
        (sources if is_source else locations).append(word)
    return locations, sources


def names_source(word: str) -> bool:
    """Tell whether a word can only name a source: no directory, and no bucket without a name before it."""
    if _PAIR.fullmatch(word) or is_pattern(word) or is_path_of_file(word):
        return True
    engine = _engine_of(word)
    return engine is not None and engine.url_names != _BUCKET


def export_to_last(words: Sequence[str]) -> str:
    """Return the command line of an export that was typed, with its last word as the value of ``--to``; "" where that
    names a source only, or is the only word. Raises ``UsageError`` where one of them is a case file.
    """
    for word in words:
        refuse_case_file(word)
    if len(words) < 2 or names_source(words[-1]):
        return ""
    return _with_option(words[-1], "--to", ["export", *words])


def refuse_case_file(word: str) -> None:
    """Raise ``UsageError`` for a case file where a source or a location belongs."""
    if word.endswith(".toml") and Path(word).is_file():
        raise UsageError(f"{word} is a case file", next_step=_with_option(word, "-c", ["COMMAND", word]))


def _with_option(word: str, option: str, words: Sequence[str]) -> str:
    """Return the command line that was typed, else these words, with one of them as the value of an option."""
    typed = sys.argv[1:] if word in sys.argv[1:] else words
    place = len(typed) - 1 - typed[::-1].index(word)
    corrected = [*typed[:place], option, *typed[place:]]
    return shlex.join(["moveout", *map(redact, corrected)])


def _parse(word: str) -> SourceWord:
    check_url(word)
    refuse_case_file(word)
    if is_pattern(word):
        return SourceWord(word, Endpoint(word))
    pair = _PAIR.fullmatch(word)
    name, url = pair.groups() if pair else ("", word)
    url = source_url(url)
    if not pair and "://" not in url:
        folder = as_url(word) if Path(word).is_dir() else ""
        raise UsageError(
            f"{redact(word)!r} is not a database, bucket or SQLite file",
            next_step=f"a directory of SQLite files is {folder}; where a bundle lies is said by --to"
            if folder
            else "a source is postgresql://me@host/db, mysql://me@host/db, 's3://BUCKET?profile=NAME', or FILE.db",
        )
    if url.startswith(("http://", "https://")):
        raise UsageError(
            f"{redact(url)} names no bucket",
            next_step="a bucket is 's3://BUCKET?profile=NAME'; where its server is says endpoint_url of that profile in"
            " ~/.aws/config",
        )
    if not pair:
        registry.engine_for(url, redact(url))
    return SourceWord(word, Endpoint(url), name)


def _own_name(word: SourceWord) -> str:
    url = word.endpoint.url
    if is_pattern(url):
        return url
    own = own_name(url)
    if own:
        return own if layout.is_source_name(own) else _valid_name(word, ())
    engine = word.endpoint.engine
    server = bare_server(word.endpoint.shown)
    raise UsageError(
        f"{word.endpoint.shown} names no {engine.url_names}",
        next_step=f"write {shlex.quote(join(server, engine.url_names.upper()))},"
        f" or {shlex.quote(join(server, ANY))} for all of them",
    )


def _named_twice(name: str, first: SourceWord, second: SourceWord, taken: Collection[str]) -> UsageError:
    unnamed = second if not second.name else first
    return UsageError(
        f"{first.endpoint.shown} and {second.endpoint.shown} would both be named {name}",
        next_step=f"name one of them: {unnamed.named(_valid_name(unnamed, taken))}",
    )


def _valid_name(word: SourceWord, taken: Collection[str]) -> str:
    from exporters.discovery import FoundSource  # noqa: PLC0415  only who mistypes waits for it
    from migrate.discover.source_names import source_name  # noqa: PLC0415  the same

    own = word.name or urlsplit(word.endpoint.url).path.rpartition("/")[2] or own_name(word.endpoint.url)
    return source_name(FoundSource(word.endpoint.url, path_of(own)), taken)


def _engine_of(word: str) -> Engine | None:
    return registry.find(word) if "://" in word else None
