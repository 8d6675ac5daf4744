"""What stays on the old servers: what was seen there besides a bundle's sources, and what its case names on purpose."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from exporters.discovery import NotTaken
from exporters.structs import as_dict
from migrate.number_text import list_words

_SHOWN = 12


class ServerRest(Struct, frozen=True):
    """What of a server is not in the bundle; ``reason``: why nobody could list all of it, "" where all was listed."""

    url: str
    names: Sequence[str] = ()
    reason: str = ""


class LeftBehind(Struct, frozen=True):
    """What is not in a bundle, although it is there. ``left_out`` are URLs or patterns, each with a reason."""

    servers: Sequence[ServerRest] = ()
    left_out: Sequence[tuple[str, str]] = ()
    not_taken: Sequence[NotTaken] = ()

    def sentences(
        self,
        printed: Collection[str] = (),
        words: Callable[[str], str] = str,
        unlisted: Collection[str] = (),
    ) -> Iterator[str]:
        """Yield what was seen and is not in the bundle, a sentence for each server; no reason that was ``printed`` is
        repeated. ``words`` returns how others are printed. ``unlisted``: the servers of which nothing leaves.
        """
        for server in self.servers:
            if server.names:
                yield f"Also on {server.url}, not taken: {list_words(server.names, _SHOWN)}."
            if server.reason:
                reason = ", for the same reason." if server.reason in printed else f": {words(server.reason)}"
                nothing = server.url in unlisted
                what = f"NOTHING of {server.url} leaves: it" if nothing else f"What else is on {server.url}"
                yield f"{what} could not be listed{reason}"

    def as_json(self) -> dict[str, Any]:
        """Return it as ``meta/bundle.json`` holds it."""
        return {
            "servers": [as_dict(server) for server in self.servers],
            "left_out": [{"url": url, "reason": reason} for url, reason in self.left_out],
            "not_taken": [as_dict(entry) for entry in self.not_taken],
        }


def decode(value: Mapping[str, Any] | None) -> LeftBehind | None:
    """Return what a bundle says of it, or None. Raises ``KeyError``, ``TypeError``, ``ValueError``."""
    if value is None:
        return None
    return LeftBehind(
        msgspec.convert(value["servers"], list[ServerRest]),
        [(str(item["url"]), str(item["reason"])) for item in value["left_out"]],
        msgspec.convert(value["not_taken"], list[NotTaken]),
    )
