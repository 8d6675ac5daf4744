"""URLs of whole servers: which part of a URL is the server, which one the name on it, and patterns of names.

A database stands in the path of its URL (``postgresql://host/NAME``, ``sqlite:///directory/NAME``), a bucket where
others have the host (``s3://NAME?profile=old``). A ``*`` in a name stands for any characters.
"""

from __future__ import annotations

import os
import re
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from migrate.engines import registry

ANY = "*"
_ADDRESS_OPTIONS = ("host", "hostaddr", "port", "service", "socket")
"""Options of a URL that say which server is meant."""


def as_url(word: str) -> str:
    """Return a URL for what may be the path of a directory of SQLite files."""
    return word if "://" in word else f"sqlite://{quote(os.path.abspath(word))}"  # noqa: PTH100  links stay as named


def is_pattern(url: str) -> bool:
    """Tell whether a URL stands for all databases, buckets or files of a server whose names match."""
    parts = urlsplit(url)
    return "://" in url and ANY in (parts.netloc if _names(url) == "bucket" else parts.path)


def names_server(url: str) -> bool:
    """Tell whether a URL names a server or an account, and nothing on it."""
    parts = urlsplit(url)
    kind = _names(url)
    return kind != "file" and not (parts.netloc if kind == "bucket" else parts.path.strip("/"))


def server_of(url: str) -> str:
    """Return the URL of the server of a pattern. The name of a database that is none stays: it is one to connect to."""
    parts = urlsplit(url)
    if _names(url) == "bucket":
        return _text(parts._replace(netloc="", path=""))
    if ANY not in parts.path:
        return url
    return _text(parts._replace(path=parts.path.partition(ANY)[0].rpartition("/")[0]))


def pattern_of(url: str) -> str:
    """Return the pattern of names in a URL; ``*`` where it is no pattern."""
    parts = urlsplit(url)
    if not is_pattern(url):
        return ANY
    if _names(url) == "bucket":
        return parts.netloc
    return parts.path[len(urlsplit(server_of(url)).path) :].lstrip("/")


def matches(pattern: str, name: str) -> bool:
    """Tell whether a name matches a pattern as it stands in a URL, where ``%2A`` is a star of the name itself."""
    expression = ".*".join(re.escape(unquote(part)) for part in pattern.split(ANY))
    return re.fullmatch(expression, name, re.DOTALL) is not None


def server_key(url: str) -> tuple[str, ...]:
    """Return what is the same for all URLs of one server or account, as far as they say: engine and address, without
    user and other options; of an account its profile.
    """
    parts = urlsplit(url)
    engine = registry.find(url)
    kind = engine.schemes[0] if engine else parts.scheme
    if _names(url) == "bucket":
        return kind, parts.query
    options = [f"{name}={value}" for name, value in parse_qsl(parts.query) if name in _ADDRESS_OPTIONS]
    return kind, parts.netloc.rpartition("@")[2].lower(), *sorted(options)


def name_on(server: str, url: str) -> str | None:
    """Return the name, as it stands in URLs, of a database, bucket or file on a server; None where it is on another
    one, or names nothing.
    """
    if server_key(server) != server_key(url):
        return None
    parts = urlsplit(url)
    if _names(url) == "bucket":
        return parts.netloc + parts.path.rstrip("/") or None
    if _names(url) == "database":
        return parts.path.strip("/") or None
    base = _directory(server) + "/"
    return parts.path[len(base) :] or None if parts.path.startswith(base) else None


def join(server: str, name: str) -> str:
    """Return the URL of a database, bucket or file on a server; ``name`` as ``name_on`` returns it."""
    parts = urlsplit(server_of(server))
    if _names(server) == "bucket":
        bucket, slash, prefix = name.partition("/")
        return _text(parts._replace(netloc=bucket, path=slash + prefix))
    base = _directory(server) if _names(server) == "file" else ""
    return _text(parts._replace(path=f"{base}/{name}"))


def _directory(server: str) -> str:
    return urlsplit(server_of(server)).path.rstrip("/")


def _names(url: str) -> Literal["database", "bucket", "file"]:
    engine = registry.find(url)
    return engine.url_names if engine else "database"


def _text(parts: SplitResult) -> str:
    """Return the URL; urllib would leave out the slashes before an empty host."""
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{query}"
