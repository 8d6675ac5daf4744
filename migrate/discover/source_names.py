"""Names for sources that were found: valid folders of a bundle, and different ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from itertools import chain, count
from pathlib import PurePosixPath

from exporters.discovery import FoundSource
from migrate.bundle import layout
from migrate.case.server_url import names_files
from migrate.engines import registry

_MOST = 63


def source_name(source: FoundSource, taken: Collection[str], prefix: str = "") -> str:
    """Return a name for a source that no other one has: its own name on the server, in the letters that a name of a
    source may have.
    """
    return next(
        name for name in _candidates(source, prefix) if name not in taken and layout.is_source_name(name)
    )


def _candidates(source: FoundSource, prefix: str) -> Iterator[str]:
    own = source.name
    if names_files(source.url):
        own = str(PurePosixPath(own).with_suffix(""))
    # "ä" becomes "a" and a sign of its own, which is dropped: a source is easier to recognise so.
    plain = "".join(char for char in unicodedata.normalize("NFKD", own) if not unicodedata.combining(char))
    text = re.sub(r"[^a-z0-9_-]+", "-", plain.lower()).strip("-_") or "source"
    yield (prefix + text)[:_MOST]
    engine = registry.find(source.url)
    for ending in chain([engine.schemes[0] if engine else "other"], map(str, count(2))):
        yield f"{(prefix + text)[: _MOST - len(ending) - 1]}-{ending}"
