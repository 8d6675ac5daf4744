"""What a discovery says of a host: the databases and buckets that are there, and what else was seen.

An engine brings a function of the type ``Discover`` (``Engine.discovery``). It takes the URL of a whole server,
endpoint or directory, reads only lists and sizes, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from msgspec import Struct

from exporters.errors import SourceUsageError
from exporters.limits import Note

_SHOWN_NAMES = 5
EMPTY = "empty"
"""The fact that there is nothing in a source."""


class FoundSource(Struct, frozen=True):
    """One database, bucket or file that an exporter can read.

    ``url`` opens it, and holds no more secrets than the URL that was asked about. ``name`` is its own name on the
    server. ``items`` (tables, objects) and ``size_bytes`` are None where nobody counted them cheaply. ``identity`` is
    the server's own: the same whatever user, host name or port leads there. ``facts`` are short sentences
    ("versioned", "object lock"); ``problems`` say what this role cannot read of it. ``region`` is where a provider
    keeps it.
    """

    url: str
    name: str
    items: int | None = None
    size_bytes: int | None = None
    identity: str = ""
    facts: Sequence[str] = ()
    problems: Sequence[str] = ()
    region: str = ""


class NotTaken(Struct, frozen=True):
    """Something that is there and that moveout does not take.

    ``kind`` says what it is ("DynamoDB table", "plain file"); ``advice`` is the usual way to save it.
    """

    kind: str
    name: str
    size_bytes: int | None = None
    region: str = ""
    advice: str = ""


class Discovery(Struct, frozen=True):
    """Everything that was seen at one host. ``gaps`` are sentences: what could not be listed, and why.
    ``left_out`` are names of databases that every server has, with nothing in them.
    """

    sources: Sequence[FoundSource]
    not_taken: Sequence[NotTaken] = ()
    gaps: Sequence[str] = ()
    left_out: Sequence[str] = ()


class Discover(Protocol):
    """Lists what one server, endpoint or directory holds."""

    def __call__(
        self, url: str, *, secrets: Mapping[str, str], note: Note, names_only: bool = False
    ) -> Discovery:
        """Return what is there, in the order of names. ``names_only`` means that nobody looks into it: there need be no
        counts, facts and problems. Raises ``SourceError`` where the host cannot be asked at all.
        """
        ...


def url_of_database(server: str, database: str) -> str:
    """Return the URL of a database on the server that a URL names, with the URL's options."""
    parts = urlsplit(server)
    options = urlencode(
        [(name, value) for name, value in parse_qsl(parts.query) if name != "dbname"], safe="/"
    )
    return f"{parts.scheme}://{parts.netloc}/{quote(database, safe='')}" + (f"?{options}" if options else "")


def no_database_error(server: str) -> SourceUsageError:
    """Return the error that the URL of a server is no source. ``server``: that URL, with a slash at its end."""
    return SourceUsageError(
        f"{server} names a server, and no database",
        next_step=f"write {server}NAME for one database, '{server}*' for all of them;"
        f" moveout discover {server} lists them",
    )


def sentence_of_tables(names: Sequence[str], predicate: str) -> list[str]:
    """Return how many tables have a problem and which, as one sentence; none where no table has."""
    if not names:
        return []
    shown = ", ".join(names[:_SHOWN_NAMES])
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return [f"{len(names)} {'table' if len(names) == 1 else 'tables'} {predicate}: {shown}{more}"]
