"""Asks the servers and accounts of a case what they hold that the case does not know."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlsplit

from msgspec.structs import replace

from exporters.discovery import FoundSource
from exporters.errors import SourceError, SourceItemError
from migrate.bundle.left_behind import LeftBehind, ServerRest
from migrate.case.model import Case, Endpoint
from migrate.case.server_url import ANY, bare_server, covers, join, server_key
from migrate.discover.servers import ServerAnswer, ask_servers, servers_of
from migrate.discover.source_names import source_name
from migrate.engines import registry
from migrate.runtime.progress import Progress


def ask_case_servers(case: Case, progress: Progress, listed: list[ServerAnswer]) -> list[ServerAnswer]:
    """Return what the servers of a case hold, by name. Those that were ``listed`` just before are not asked again; what
    the others answer is added. Raises ``UsageError`` for a URL that nothing reads.
    """
    servers = {server_key(server.url): server for server in servers_of(case)}
    answers = {server_key(answer.url): answer for answer in listed}
    missing = {key: server for key, server in servers.items() if key not in answers}
    if missing:
        asked = ask_servers([*missing.values()], progress, names_only=True)
        answers |= zip(missing, asked, strict=True)
        listed += asked
    return [answers[key] for key in servers]


def find_left_behind(
    case: Case, sources: Mapping[str, Endpoint], answers: Sequence[ServerAnswer]
) -> LeftBehind:
    """Return what the servers of a case have answered that is neither among its sources nor among what it leaves out or
    does not take, nor holds its bundle. ``sources`` are those that leave now, maybe some of the case's: with what
    patterns meant when they were expanded.
    """
    locations = (location.url for location in (case.bundle, case.transfer_to) if location)
    known = [
        *(source.url for source in (*case.sources.values(), *sources.values())),
        *(entry.url for entry in case.left_out),
        *locations,
    ]
    not_taken = {(entry.kind, entry.name, entry.region) for entry in case.not_taken}
    seen: set[str] = set()
    rests = [_rest_of(answer, known, not_taken, seen) for answer in answers]
    return LeftBehind(
        [rest for rest in rests if rest.names or rest.reason],
        [(entry.url, entry.reason) for entry in case.left_out],
        case.not_taken,
    )


def servers_without_sources(case: Case, sources: Mapping[str, Endpoint]) -> list[Endpoint]:
    """Return the servers that a case names, and of which nothing leaves and nothing is left out on purpose. Accounts
    are none of them: what they hold has other addresses.
    """
    known = [*(source.url for source in sources.values()), *(entry.url for entry in case.left_out)]
    return [
        server
        for server in case.servers
        if registry.find(server.url) is not None and not any(covers(server.url, url) for url in known)
    ]


def still_unlisted(case: Case, left_behind: LeftBehind | None) -> LeftBehind | None:
    """Return what a bundle says of what stays on the servers, without the failures of those that its case does not name
    any more: their addresses were wrong, or given up.
    """
    if left_behind is None:
        return None
    named = {bare_server(server.shown) for server in servers_of(case)}
    rests = [rest if rest.url in named else replace(rest, reason="") for rest in left_behind.servers]
    return replace(left_behind, servers=rests)


def unlisted_servers(case: Case, left_behind: LeftBehind | None) -> list[str]:
    """Return the servers of a case of which nothing leaves, because nobody could list them when the bundle was sealed
    that says so (``left_behind``).
    """
    rests = [rest.url for rest in left_behind.servers if rest.reason] if left_behind else []
    without = {bare_server(server.shown) for server in servers_without_sources(case, case.sources)}
    return [url for url in rests if url in without]


def unlisted_sources(
    case: Case, sources: Mapping[str, Endpoint], answers: Sequence[ServerAnswer], recorded: Collection[str]
) -> dict[str, Endpoint]:
    """Return a source for each server of a case of which nothing leaves because it did not answer: it cannot be opened,
    so the bundle stays incomplete. ``recorded``: the URLs in the bundle so far. One of such a server stays until the
    case says what of it leaves.
    """
    by_key = {server_key(answer.url): answer for answer in answers}
    unlisted: dict[str, Endpoint] = {}
    for server in servers_without_sources(case, case.sources):
        all_of_it = replace(server, url=join(server.url, ANY))
        error = _why_nothing_leaves(
            by_key[server_key(server.url)], case.option, is_recorded=all_of_it.shown in recorded
        )
        if error is not None:
            host = FoundSource(server.url, urlsplit(server.url).hostname or urlsplit(server.url).scheme)
            unlisted[source_name(host, {*sources, *unlisted})] = replace(all_of_it, error=error)
    return unlisted


def _why_nothing_leaves(answer: ServerAnswer, case_option: str, *, is_recorded: bool) -> SourceError | None:
    if answer.discovery is None:
        return answer.error if isinstance(answer.error, SourceError) else None
    if not is_recorded or not answer.discovery.sources:
        return None
    return SourceItemError(
        "it answers now, and nothing of it is in the case file",
        about=answer.url,
        next_step=f"moveout discover {case_option} adds what it holds; then run the same command again",
    )


def _rest_of(
    answer: ServerAnswer, known: Sequence[str], not_taken: Collection[tuple[str, str, str]], seen: set[str]
) -> ServerRest:
    """Return the part of an answer that is unknown. ``seen``: the URLs of answers before it; a bucket may belong to
    an account and to an endpoint of the case.
    """
    url = bare_server(answer.url)
    if answer.discovery is None:
        assert answer.error is not None
        return ServerRest(url, reason=answer.error.reason)
    sources = [source for source in answer.discovery.sources if source.url not in seen]
    seen.update(source.url for source in sources)
    names = [source.name for source in sources if not any(covers(entry, source.url) for entry in known)]
    names += [
        f"{entry.kind} {entry.name}"
        for entry in answer.discovery.not_taken
        if (entry.kind, entry.name, entry.region) not in not_taken
    ]
    return ServerRest(url, names, "; ".join(answer.discovery.gaps))
