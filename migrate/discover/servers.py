"""Asks servers, accounts and directories what they hold, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

from exporters.discovery import Discover, Discovery
from exporters.engine import discovery_of, load_part
from exporters.limits import Note
from migrate.case.model import Case, Endpoint
from migrate.case.server_url import names_files, server_key, server_of
from migrate.engines import registry
from migrate.errors import MoveoutError
from migrate.runtime.progress import Progress

_ACCOUNTS: Mapping[str, str] = {"aws": "migrate.discover.aws.account:discover"}
"""By URL scheme, what lists an account that holds sources of several engines."""
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """What a server said. ``url`` is the one that was asked, without secrets. One of the other two is None."""

    url: str
    discovery: Discovery | None
    error: MoveoutError | None = None


def discover_of(url: str, shown: str) -> Discover:
    """Return what lists the server of a URL. Raises ``UsageError`` where nothing does."""
    account = _ACCOUNTS.get(url.partition("://")[0].lower())
    if account is not None:
        return cast("Discover", load_part(account))
    engine = registry.engine_for(url, shown)
    registry.require(engine, engine.discovery, "discovered")
    return discovery_of(engine)


def ask_servers(
    endpoints: Sequence[Endpoint], progress: Progress, *, names_only: bool = False
) -> list[ServerAnswer]:
    """Ask all servers at once; one that fails says why. Raises ``UsageError`` for a URL that nothing reads."""
    calls = [(endpoint, discover_of(endpoint.url, endpoint.shown)) for endpoint in endpoints]
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


def servers_of(case: Case) -> list[Endpoint]:
    """Return the servers that a case names, and those of its sources. Directories of files only where it names them:
    what lies beside a file may be anything.
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
