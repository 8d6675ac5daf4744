"""URLs of whole servers: which part of a URL is the server, which one the name on it, and patterns of names.

A database or a file stands in the path of its URL (``scheme://host/NAME``, ``scheme:///directory/NAME``), a bucket
where others have the host (``scheme://NAME``). A ``*`` in a name stands for any characters.
"""

from __future__ import annotations

import os
import re
from itertools import zip_longest
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from exporters.lossless_text import path_of, url_path
from migrate.case.secrets import CUSTOMER_KEY, redact
from migrate.engines import registry
from migrate.errors import UsageError

ANY = "*"
_FILE_SUFFIXES = (".db", ".db3", ".sqlite", ".sqlite3")
_ADDRESS_OPTIONS = ("host", "hostaddr", "port", "service", "socket")
"""Options of a URL that say which server is meant."""
_BUCKET_OPTIONS = (CUSTOMER_KEY, "request_payer")
"""Options of a URL that say how a bucket is read, and not whose it is."""
_SERVERS = "postgresql://me@HOST, mysql://me@HOST, 's3://?profile=NAME' or aws://PROFILE"
_MISTYPED = re.compile(r"([a-z0-9]+)(?::/*|//)(.*)")
"""A scheme without all of its ``://``."""
_ADDRESS = re.compile(r"(?P<host>\[[^]]*\]|[^:]*)(?::(?P<port>.*))?")


def check_url(url: str) -> None:
    """Raise ``UsageError`` for what cannot be taken apart as a URL, and for one with a password. Paths are neither."""
    if redact(url) != url:
        engine = registry.find(url.partition("://")[0].rpartition("=")[2])
        variable = next(iter(engine.secret_variables), "") if engine else ""
        raise UsageError(
            f"{redact(url)} has a password in it, which would end up in process lists and logs",
            next_step=f"take it out of the URL, and set {variable or 'the variable that the server is opened by'};"
            " a case file takes a reference, such as env:VARIABLE",
        )
    try:
        urlsplit(url)
    except ValueError as exc:
        raise UsageError(
            f"{redact(url)!r} is not a URL: {exc}",
            next_step="brackets are for addresses such as postgresql://me@[::1]:5432/app; in a name write %5B and %5D",
        ) from exc


def as_url(word: str) -> str:
    """Return a URL for what may be the path of a directory of database files. Raises ``UsageError`` for a mistyped URL,
    such as ``postgresql:/me@host``, and for the name of a host.
    """
    if "://" in word or not word:
        return word
    mistyped = _MISTYPED.fullmatch(word)
    is_mistyped = mistyped is not None and registry.find(meant := "{}://{}".format(*mistyped.groups()))
    if (is_mistyped or "/" not in word) and not is_path_of_file(word) and not os.path.exists(word):  # noqa: PTH110  Path raises for a name that is too long
        raise UsageError(
            f"{redact(word)!r} is neither a URL nor a path that exists",
            next_step=f"write {redact(meant) if is_mistyped else f'a server as {_SERVERS}'}",
        )
    scheme = next((engine.schemes[0] for engine in registry.engines() if engine.url_names == "file"), "file")
    return f"{scheme}://{url_path(os.path.abspath(word))}"  # noqa: PTH100  links stay as they were named


def is_path_of_file(word: str) -> bool:
    """Tell whether a word is called like the file of a database, there or not yet."""
    return "://" not in word and word.lower().endswith(_FILE_SUFFIXES) and not os.path.isdir(word)  # noqa: PTH112  see as_url


def source_url(word: str) -> str:
    """Return the URL of a source, which may be written as the path of a database file."""
    return as_url(word) if is_path_of_file(word) or ("://" not in word and os.path.isfile(word)) else word  # noqa: PTH113  see as_url


def is_pattern(url: str) -> bool:
    """Tell whether a URL stands for all databases, buckets or files of a server whose names match."""
    if "://" not in url or ANY not in url or registry.find(url) is None:
        return False
    parts = urlsplit(url)
    return ANY in (parts.netloc if _names(url) == "bucket" else parts.path)


def names_server(url: str) -> bool:
    """Tell whether a URL names a server or an account, and nothing on it."""
    parts = urlsplit(url)
    kind = _names(url)
    return not names_files(url) and not (parts.netloc if kind == "bucket" else parts.path.strip("/"))


def server_of(url: str) -> str:
    """Return the URL of the server of a pattern. The name of a database that is none stays: it is one to connect to."""
    parts = urlsplit(url)
    if _names(url) == "bucket":
        return _text(parts._replace(netloc="", path=""))
    if ANY not in parts.path:
        return url
    return _text(parts._replace(path=parts.path.partition(ANY)[0].rpartition("/")[0]))


def bare_server(url: str) -> str:
    """Return the URL of the server alone, with its options: no database, no bucket; of files as it is."""
    if names_files(url):
        return server_of(url)
    parts = urlsplit(url)
    return _text(parts._replace(netloc="", path="") if _names(url) == "bucket" else parts._replace(path=""))


def covers(entry: str, url: str) -> bool:
    """Tell whether an entry of the case file (of one thing, of a server, or a pattern) means what another URL names. A
    directory means the files below it, and a bucket is meant by each of its prefixes. Everything of a server is meant
    as soon as something of it is.
    """
    if server_key(entry) != server_key(url):
        return False
    if names_files(url):
        if is_pattern(entry):
            name = name_on(server_of(entry), url)
            return name is not None and matches(pattern_of(entry), path_of(name))
        directory = _directory(entry)
        return f"{urlsplit(url).path}/".startswith(f"{directory}/")
    if names_server(entry) or is_pattern(url):
        return True
    name = _first_part(name_on(entry, url))
    return (
        matches(pattern_of(entry), name) if is_pattern(entry) else name == _first_part(name_on(entry, entry))
    )


def is_of_server(server: str, url: str) -> bool:
    """Tell whether a URL, or a pattern, means something of a server; of files also where one lies within the other."""
    if names_files(url) and names_files(server):
        return covers(server, server_of(url)) or covers(server_of(url), server)
    return server_key(server) == server_key(url)


def address_problem(new: str, old: str) -> str:
    """Return why the things of an old server cannot come up at an address under their names; "" where they can."""
    engine = registry.find(old)
    if engine is None:
        return ""
    if registry.find(new) != engine:
        return f"it is no {engine.schemes[0]}:// address, and moveout converts nothing"
    if engine.url_names == "bucket" and not is_pattern(new) and not names_server(new):
        server = redact(bare_server(new)) + ("" if urlsplit(new).query else "?profile=NAME")
        return f"it names a bucket, and buckets keep their names: write {server}"
    return ""


def names_files(url: str) -> bool:
    """Tell whether a URL names a file or a directory of files."""
    return _names(url) == "file"


def _first_part(name: str | None) -> str:
    return path_of((name or "").partition("/")[0])


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
    expression = ".*".join(re.escape(path_of(part)) for part in pattern.split(ANY))
    return re.fullmatch(expression, name, re.DOTALL) is not None


def server_key(url: str) -> tuple[str, ...]:
    """Return what is the same for all URLs of one server or account, as far as they say: engine and address, without
    user and other options; of an account its profile. It does not matter whether host and port stand before the path
    or among the options.
    """
    parts = urlsplit(url)
    engine = registry.find(url)
    kind = engine.schemes[0] if engine else parts.scheme
    options = dict(parse_qsl(parts.query))
    if _names(url) == "bucket":
        return kind, *sorted(f"{name}={options[name]}" for name in options.keys() - set(_BUCKET_OPTIONS))
    options = {name: value for name, value in options.items() if name in _ADDRESS_OPTIONS}
    hosts, ports = _hosts_and_ports(parts.netloc.rpartition("@")[2])
    if not any(hosts) and "hostaddr" in options:
        hosts = [options.pop("hostaddr")]
    if "host" in options:
        hosts = options.pop("host").split(",")
    if "port" in options:
        ports = options.pop("port").split(",")
    ports *= len(hosts) if len(ports) == 1 else 1
    address = ",".join(
        f"{host if host.startswith('/') else host.lower()} {port}"
        for host, port in zip_longest(hosts, ports, fillvalue="")
    )
    return kind, address, *sorted(f"{name}={value}" for name, value in options.items())


def _hosts_and_ports(addresses: str) -> tuple[list[str], list[str]]:
    """Return the hosts of addresses between commas, without the brackets of IPv6, and their ports, "" for none."""
    matches = [_ADDRESS.fullmatch(address) for address in addresses.split(",")]
    hosts = [unquote(match["host"].strip("[]")) if match else "" for match in matches]
    return hosts, [match["port"] or "" if match else "" for match in matches]


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
