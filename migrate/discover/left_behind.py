"""Asks the servers of a case what they hold that no source of it is."""

from __future__ import annotations

from collections.abc import Mapping

from migrate.bundle.left_behind import LeftBehind, ServerRest
from migrate.case.model import Case, Endpoint
from migrate.case.server_url import bare_server, covers
from migrate.discover.servers import ServerAnswer, ask_servers, is_account, servers_of
from migrate.runtime.progress import Progress


def find_left_behind(case: Case, sources: Mapping[str, Endpoint], progress: Progress) -> LeftBehind:
    """Return what is on the servers of a case and neither among its sources nor among what it leaves out. ``sources``
    are those that leave: with what patterns meant when they were expanded.
    """
    servers = [server for server in servers_of(case) if not is_account(server.url)]
    known = [*(source.url for source in sources.values()), *(entry.url for entry in case.left_out)]
    rests = [_rest_of(answer, known) for answer in ask_servers(servers, progress, names_only=True)]
    return LeftBehind(
        [rest for rest in rests if rest.names or rest.reason],
        [(entry.url, entry.reason) for entry in case.left_out],
        case.not_taken,
    )


def _rest_of(answer: ServerAnswer, known: list[str]) -> ServerRest:
    url = bare_server(answer.url)
    if answer.discovery is None:
        return ServerRest(url, reason=str(answer.error))
    names = [
        source.name
        for source in answer.discovery.sources
        if not any(covers(entry, source.url) for entry in known)
    ]
    return ServerRest(url, names, "; ".join(answer.discovery.gaps) if not names else "")
