"""Replaces URLs that stand for all of a server by the databases and buckets that are there: of sources by asking the
server, of destinations by what the bundle holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from exporters.discovery import FoundSource
from exporters.errors import SourceError, SourceGoneError
from exporters.lossless_text import path_of
from migrate.bundle.export_state import SourceName
from migrate.case.model import Case, Endpoint, LeftOut, ServerMove
from migrate.case.server_url import (
    ANY,
    covers,
    is_pattern,
    join,
    matches,
    name_on,
    names_files,
    pattern_of,
    server_of,
)
from migrate.discover.servers import ServerAnswer, ask_servers, shown_names
from migrate.discover.source_names import source_name
from migrate.engines import registry
from migrate.errors import UsageError
from migrate.runtime.progress import Progress


def expand_sources(
    endpoints: Mapping[str, Endpoint],
    progress: Progress,
    *,
    recorded: Sequence[SourceName] = (),
    left_out: Sequence[LeftOut],
    ask: bool = True,
    listed: list[ServerAnswer] | None = None,
) -> dict[str, Endpoint]:
    """Return sources with each pattern replaced by what matches it now. What is a source of its own already, or left
    out, is not taken twice.

    ``recorded`` are the sources of the bundle that an earlier run has begun: they keep their names, and one that is
    gone from its server cannot be opened. A server that does not answer, or that nobody ``ask``s, stands for those of
    them that are its own; else for one source, which cannot be opened for that reason. What they answered is added to
    ``listed``. Raises the server's error where nothing else is named.
    """
    patterns = {name: endpoint for name, endpoint in endpoints.items() if is_pattern(endpoint.url)}
    _refuse_prefixes(patterns.values())
    expanded = {name: endpoint for name, endpoint in endpoints.items() if name not in patterns}
    if not ask:
        for endpoint in patterns.values():
            expanded |= _recorded_on(endpoint, recorded, expanded)
        return expanded
    answers = ask_servers(list(patterns.values()), progress, names_only=True) if patterns else []
    if listed is not None:
        listed += answers
    for (name, endpoint), answer in zip(patterns.items(), answers, strict=True):
        for gap in answer.discovery.gaps if answer.discovery else ():
            progress.note(f"{answer.url}: {gap}")
        try:
            matching = _matching(endpoint, answer)
        except SourceError as exc:
            expanded |= _unlisted(name, endpoint, exc, recorded, expanded)
            continue
        known = [*(other.url for other in expanded.values()), *(entry.url for entry in left_out)]
        new = [source for source in matching if not any(covers(url, source.url) for url in known)]
        expanded |= _named(name, endpoint, new, recorded, expanded)
        for gone_name, gone in _recorded_on(endpoint, recorded, expanded).items():
            if not any(covers(entry.url, gone.url) for entry in left_out):
                expanded[gone_name] = replace(gone, error=_gone_error(gone_name, gone))
    if expanded and all(other.error is not None and is_pattern(other.url) for other in expanded.values()):
        raise next(other.error for other in expanded.values() if other.error is not None)
    return expanded


def _refuse_prefixes(patterns: Iterable[Endpoint]) -> None:
    """Raise ``UsageError`` for a pattern of buckets with a prefix, which would mean the whole buckets."""
    for endpoint in patterns:
        parts = urlsplit(endpoint.url)
        if pattern_of(endpoint.url) == parts.netloc and parts.path.strip("/"):
            raise UsageError(
                f"{endpoint.shown}: a pattern of buckets takes no prefix",
                next_step="leave the prefix out, or name each bucket with its own",
            )


def _named(
    name: str,
    endpoint: Endpoint,
    matching: Sequence[FoundSource],
    recorded: Sequence[SourceName],
    others: Mapping[str, Endpoint],
) -> dict[str, Endpoint]:
    """Return a source for each thing that a pattern means, under the name that the bundle has for it, or a new one."""
    prefix = f"{name}-" if name != endpoint.url else ""
    named: dict[str, Endpoint] = {}
    for source in matching:
        before = next((other.name for other in recorded if _means(other, source)), None)
        taken = {*others, *named, *(other.name for other in recorded)}
        own_name = before or source_name(source, taken, prefix)
        named[own_name] = replace(endpoint, url=source.url, may_be_empty=True)
    return named


def _means(recorded: SourceName, source: FoundSource) -> bool:
    """Tell whether a source of the bundle is what was found."""
    return not is_pattern(recorded.url) and covers(recorded.url, source.url)


def _gone_error(name: str, endpoint: Endpoint) -> SourceGoneError:
    return SourceGoneError(
        f"{endpoint.shown} is not on its server any more",
        next_step=f"what of it was exported stays in the bundle; --drop {name} takes it out on purpose",
    )


def _matching(endpoint: Endpoint, answer: ServerAnswer) -> list[FoundSource]:
    """Return what of a server matches a pattern. Raises the server's error; ``SourceGoneError`` where nothing does."""
    if answer.discovery is None:
        assert answer.error is not None
        raise answer.error
    listed = answer.discovery.sources
    matching = [source for source in listed if matches(pattern_of(endpoint.url), source.name)]
    if not matching:
        there = f"the server has {shown_names(listed) or 'nothing'}"
        raise SourceGoneError(
            f"nothing matches {endpoint.shown}: {there}",
            next_step=f"moveout discover '{server_of(endpoint.shown)}' lists what there is",
        )
    return matching


def _unlisted(
    name: str, endpoint: Endpoint, error: SourceError, recorded: Sequence[SourceName], taken: Collection[str]
) -> dict[str, Endpoint]:
    """Return what stands for a pattern whose server cannot be listed."""
    refused = replace(endpoint, error=error)
    own = _recorded_on(refused, recorded, taken)
    if own:
        return own
    if name != endpoint.url:
        return {name: refused}
    parts = urlsplit(endpoint.url)
    host = FoundSource(endpoint.url, parts.hostname or parts.scheme)
    return {source_name(host, taken): refused}


def _recorded_on(
    endpoint: Endpoint, recorded: Sequence[SourceName], taken: Collection[str]
) -> dict[str, Endpoint]:
    """Return the sources of a bundle that a pattern means."""
    return {
        source.name: replace(endpoint, url=source.url, may_be_empty=True)
        for source in recorded
        if covers(endpoint.url, source.url) and not is_pattern(source.url) and source.name not in taken
    }


class Destinations(Struct, frozen=True):
    """Where the sources of a bundle come up. ``unfilled`` are sources whose new server has no address yet, by the old
    server's URL.
    """

    endpoints: Mapping[str, Endpoint]
    unfilled: Mapping[str, Sequence[str]]

    def require_all(self) -> Mapping[str, Endpoint]:
        """Return the endpoints. Raises ``UsageError`` where an address is missing."""
        if self.unfilled:
            lines = "; ".join(f"of {server}: {', '.join(names)}" for server, names in self.unfilled.items())
            raise UsageError(
                f"the case file does not say where these come up ({lines})",
                next_step='write the address of the new server into its [[destination]]: to = "…"',
            )
        return self.endpoints


def expand_destinations(
    sources: Sequence[SourceName], endpoints: Mapping[str, Endpoint], case: Case | None
) -> Destinations:
    """Return the destination of each source of a bundle: the one that is named for it, else what a pattern makes of
    its name, else where ``case`` sends all of its server.
    """
    chosen = {name: endpoint for name, endpoint in endpoints.items() if not is_pattern(endpoint.url)}
    _refuse_prefixes(endpoint for endpoint in endpoints.values() if is_pattern(endpoint.url))
    unfilled: dict[str, list[str]] = {}
    for source in sources:
        if source.name in chosen:
            continue
        by_pattern = next(
            (
                _placed(endpoint, _own_name(source.url))
                for name, endpoint in endpoints.items()
                if is_pattern(endpoint.url) and _is_of_pattern(source, name, endpoint)
            ),
            None,
        )
        move = _move_of(source, case)
        if by_pattern is not None:
            chosen[source.name] = by_pattern
        elif move is not None and move.new is None:
            unfilled.setdefault(move.old, []).append(source.name)
        elif move is not None and move.new is not None:
            chosen[source.name] = _moved(move.old, move.new, (_url_in(case, source), source.url))
    _refuse_one_for_two(chosen)
    return Destinations(chosen, unfilled)


def _refuse_one_for_two(destinations: Mapping[str, Endpoint]) -> None:
    """Raise ``UsageError`` where two sources would come to one destination."""
    names: dict[str, str] = {}
    for name, endpoint in destinations.items():
        if (other := names.setdefault(endpoint.url, name)) != name:
            raise UsageError(
                f"{other} and {name} would both come to {endpoint.shown}",
                next_step=f"name another destination for one of them: {name}=URL",
            )


def _is_of_pattern(source: SourceName, name: str, endpoint: Endpoint) -> bool:
    """Tell whether a pattern of destinations means a source of the bundle: of the same engine, and named after it."""
    if registry.find(source.url) != registry.find(endpoint.url):
        return False
    return name in {endpoint.url, source.name} or source.name.startswith(f"{name}-")


def _placed(endpoint: Endpoint, name: str) -> Endpoint:
    """Return the destination of a name on a server, or where a pattern of destinations puts it."""
    pattern = pattern_of(endpoint.url)
    return replace(endpoint, url=join(endpoint.url, pattern.replace(ANY, name, 1)), create=True)


def _moved(old: str, new: Endpoint, urls: Sequence[str]) -> Endpoint:
    """Return the destination on the new server of what one of the URLs names on the old one. A single file is no
    server: it comes to the new address itself, or into the directory that is there.
    """
    name = next((name for url in urls if (name := name_on(old, url))), None)
    if name is None and not Path(path_of(urlsplit(new.url).path)).is_dir():
        return replace(new, create=True)
    return _placed(new, name or _own_name(old))


def _own_name(url: str) -> str:
    """Return the name of a source on its server, as it stands in URLs; of a file without its directory."""
    return url.rpartition("/")[2] if names_files(url) else name_on(url, url) or ""


def _move_of(source: SourceName, case: Case | None) -> ServerMove | None:
    urls = (_url_in(case, source), source.url)
    moves: Iterable[ServerMove] = case.moves if case else ()
    return next((move for move in moves if any(_is_on(move.old, url) for url in urls)), None)


def _is_on(server: str, url: str) -> bool:
    """Tell whether something is on a server, or is the file that is asked like one."""
    return name_on(server, url) is not None or (names_files(url) and covers(server, url))


def _url_in(case: Case | None, source: SourceName) -> str:
    """Return the URL of a source as the case file has it, with the options that say which server it is."""
    known = case.sources.get(source.name) if case else None
    return known.url if known else source.url
