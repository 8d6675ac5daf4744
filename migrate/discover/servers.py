"""Asks servers, accounts and directories what they hold, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from exporters.discovery import Discover, Discovery, FoundSource
from exporters.engine import discovery_of, load_part
from exporters.errors import SourceGoneError, SourceNotAllowedError
from exporters.limits import Note
from migrate.case.model import Case, Endpoint
from migrate.case.server_url import (
    bare_server,
    covers,
    is_pattern,
    name_on,
    names_files,
    names_server,
    server_key,
    server_of,
)
from migrate.engines import registry
from migrate.errors import MoveoutError
from migrate.number_text import list_words
from migrate.runtime.progress import Progress

_ACCOUNTS: Mapping[str, str] = {"aws": "migrate.discover.aws.account:discover"}
"""By URL scheme, what lists an account that holds sources of several engines."""
_AT_ONCE = 16
SHOWN_NAMES = 8


class ServerAnswer(Struct, frozen=True):
    """The answer of a server. ``url`` is the one that was asked, without secrets. One of the other two is None.
    ``others`` are on the server, too, where the URL names one database or bucket.
    """

    url: str
    discovery: Discovery | None
    error: MoveoutError | None = None
    others: Sequence[FoundSource] = ()


def discover_of(endpoint: Endpoint) -> Discover:
    """Return what lists a server. Raises ``UsageError`` where nothing does."""
    account = _ACCOUNTS.get(endpoint.url.partition("://")[0].lower())
    if account is not None:
        return cast("Discover", load_part(account))
    registry.require(endpoint.engine, endpoint.engine.discovery, "discovered")
    return discovery_of(endpoint.engine)


def ask_servers(
    endpoints: Sequence[Endpoint], progress: Progress, *, names_only: bool = False
) -> list[ServerAnswer]:
    """Ask all servers at once; one that fails says why. Raises ``UsageError`` for a URL that nothing reads."""
    calls = [(endpoint, discover_of(endpoint)) for endpoint in endpoints]
    progress.begin("discover", items=len(calls), size_bytes=0)

    def ask(call: tuple[Endpoint, Discover]) -> ServerAnswer:
        answer = _ask(*call, progress.note, names_only=names_only)
        progress.advance(items=1)
        return answer

    try:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="discover") as pool:
            return list(pool.map(ask, calls))
    finally:
        progress.end()


def names_one(url: str) -> bool:
    """Tell whether a URL names one database or bucket, and not all of a server."""
    is_known = registry.find(url) is not None
    return is_known and not (names_files(url) or names_server(url) or is_pattern(url))


def only_named(endpoints: Sequence[Endpoint], answers: Sequence[ServerAnswer]) -> list[ServerAnswer]:
    """Return the answers of servers, each with the database or bucket alone that its URL names, where it names one."""
    pairs = zip(endpoints, answers, strict=True)
    narrowed = [_only_named(endpoint.url, answer) for endpoint, answer in pairs]
    taken = {source.url for answer in narrowed if answer.discovery for source in answer.discovery.sources}
    return [
        replace(answer, others=[source for source in answer.others if source.url not in taken])
        for answer in narrowed
    ]


def _only_named(url: str, answer: ServerAnswer) -> ServerAnswer:
    if not names_one(url):
        return answer
    bucket, _, prefix = (name_on(url, url) or "").partition("/")
    if answer.discovery is None:
        if not isinstance(answer.error, SourceNotAllowedError) or not _names_bucket(url):
            return answer
        # Many a key may read one bucket, and not list the others.
        gap = f"what else is there could not be listed: {answer.error}"
        return ServerAnswer(answer.url, Discovery([FoundSource(url, bucket)], gaps=(gap,)))
    listed = answer.discovery.sources
    named = [source for source in listed if covers(url, source.url)]
    if not named:
        if bucket not in answer.discovery.left_out:
            return ServerAnswer(answer.url, None, _not_there(answer.url, listed))
        gap = (
            f"the database {bucket} is empty, and the URL names this one alone;"
            f" for all of the server: moveout discover '{bare_server(url)}'"
        )
        return replace(answer, discovery=Discovery([], gaps=(gap,)), others=listed)
    if prefix:
        named = [FoundSource(url, source.name, region=source.region) for source in named]
    others = [source for source in listed if not covers(url, source.url)]
    return ServerAnswer(answer.url, replace(answer.discovery, sources=named, not_taken=()), others=others)


def _names_bucket(url: str) -> bool:
    engine = registry.find(url)
    return engine is not None and engine.url_names == "bucket"


def _not_there(url: str, listed: Sequence[FoundSource]) -> SourceGoneError:
    return SourceGoneError(
        f"nothing of this name is on the server: it has {shown_names(listed) or 'nothing'}",
        next_step=f"moveout discover '{bare_server(url)}' lists what there is",
    )


def shown_names(sources: Sequence[FoundSource]) -> str:
    """Return the names of sources as a list in words, the first of many."""
    return list_words([source.name for source in sources], SHOWN_NAMES)


def servers_of(case: Case) -> list[Endpoint]:
    """Return the servers that a case names, and those of its sources. Directories of files only where it names them:
    what lies next to a file may be anything.
    """
    servers = list(case.servers)
    keys = {server_key(server.url) for server in servers}
    for source in case.sources.values():
        key = server_key(source.url)
        if key not in keys and not names_files(source.url):
            keys.add(key)
            servers.append(Endpoint(source.url, source.secrets))
    return servers


def _ask(endpoint: Endpoint, discover: Discover, note: Note, *, names_only: bool) -> ServerAnswer:
    try:
        discovery = discover(
            server_of(endpoint.url), secrets=endpoint.reveal(), note=note, names_only=names_only
        )
    except MoveoutError as exc:
        return ServerAnswer(endpoint.shown, None, exc)
    return ServerAnswer(endpoint.shown, discovery)
