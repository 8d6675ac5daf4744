"""Sources that name the same data, and bundles that lie where they should not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from exporters.lossless_text import path_of
from migrate.case.model import Case, Endpoint, LeftOut
from migrate.case.server_url import names_files, names_server, server_key
from migrate.engines import registry
from migrate.number_text import list_words

_HERE = {"", "localhost", "127.0.0.1", "::1", "[::1]"}


def overlaps(
    sources: Mapping[str, Endpoint], bundle: Endpoint | None = None, transfer_to: Endpoint | None = None
) -> Iterator[str]:
    """Yield a sentence for each two sources that share data, and for a bundle that lies in a source, or would go down
    with it. What differs only by the name of a host or a profile is seen by ``shared_identities``.
    """
    urls = {name: endpoint.url for name, endpoint in sources.items()}
    named = [(name, url) for name, url in urls.items() if _path(url) and not names_server(url)]
    for number, (name, url) in enumerate(named):
        for other, other_url in named[number + 1 :]:
            if names_same(url, other_url):
                yield _same_data(name, other)
            elif _lies_in(url, other_url):
                yield _lies_within(name, other)
            elif _lies_in(other_url, url):
                yield _lies_within(other, name)
    if bundle is None:
        return
    location = _as_location(bundle.url)
    inside = [
        name
        for name, url in named
        if (location != url and _lies_in(location, url)) or _is_same(location, url)
    ]
    for name in inside:
        yield f"The bundle lies within the source {name}: every further export would export it, too"
    same_host = [name for name, url in named if name not in inside and _goes_down_with(location, url)]
    if same_host and transfer_to is None:
        yield (
            f"The bundle lies on the same host or account as the source {list_words(same_host, 1)}: if that shuts"
            " down, the bundle goes with it; [transfer] in the case file, or moveout transfer, brings it to another"
            " location"
        )


def within_destinations(
    destinations: Mapping[str, Endpoint], locations: Iterable[Endpoint | None]
) -> Iterator[str]:
    """Yield a sentence for each location of a bundle that lies in a destination bucket or prefix, as far as URLs say.
    The restore refuses it.
    """
    for name, destination in destinations.items():
        for location in locations:
            if location is None or not _is_bucket(destination.url):
                continue
            if _is_same(location.url, destination.url) or _lies_in(location.url, destination.url):
                yield (
                    f"The bundle at {location.shown} lies in the destination of {name}: a restore refuses to mix its"
                    " objects with the files of the bundle; name another bucket or prefix"
                )


def shared_identities(identities: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each two sources that share data by what their servers say they are, whatever host names,
    users or profiles lead there; none of ``known``. ``identities``: see ``Identified``, by the names of sources.
    """
    lines = [(name, identity.split("\n")) for name, identity in identities.items() if identity]
    for number, (name, own) in enumerate(lines):
        for other, others in lines[number + 1 :]:
            surest = min(len(own), len(others)) - 1
            sentence = _shared(name, own[surest], other, others[surest])
            if sentence and sentence not in known:
                yield sentence


def _shared(name: str, identity: str, other: str, other_identity: str) -> str:
    if identity == other_identity:
        return _same_data(name, other)
    if other_identity.endswith("/") and identity.startswith(other_identity):
        return _lies_within(name, other)
    if identity.endswith("/") and other_identity.startswith(identity):
        return _lies_within(other, name)
    return ""


def _same_data(name: str, other: str) -> str:
    return f"{name} and {other} are the same data: it is exported twice"


def _lies_within(inner: str, outer: str) -> str:
    return f"{inner} lies within {outer}: its data is exported twice"


def names_same(url: str, other: str) -> bool:
    """Tell whether two URLs name the same data, whatever users they name."""
    return _path(url) == _path(other) and server_key(url) == server_key(other)


def left_out_on_purpose(case: Case, source: Endpoint) -> LeftOut | None:
    """Return the entry by which a case leaves out just this source; None where it has none. A pattern is none."""
    return next((entry for entry in case.left_out if names_same(entry.url, source.url)), None)


def _as_location(url: str) -> str:
    return url if "://" in url else Path(url).absolute().as_uri()


def _path(url: str) -> str:
    """Return what a URL names on its server, in one form: a bucket and a prefix, a path, a database."""
    parts = urlsplit(url)
    is_bucket = _is_bucket(url)
    return path_of(f"{parts.netloc}/{parts.path.strip('/')}" if is_bucket else parts.path).rstrip("/")


def _is_bucket(url: str) -> bool:
    if urlsplit(url).scheme == "file":  # of a directory: no engine is looked for in all installed packages
        return False
    engine = registry.find(url)
    return engine is not None and engine.url_names == "bucket"


def _is_same(location: str, url: str) -> bool:
    return _shares_server(location, url) and _path(location) == _path(url)


def _lies_in(inner: str, outer: str) -> bool:
    """Tell whether one is a prefix of a bucket, or a file of a directory, that the other names."""
    is_nested = names_files(outer) or _is_bucket(outer)
    return is_nested and _shares_server(inner, outer) and _path(inner).startswith(f"{_path(outer)}/")


def _shares_server(url: str, other: str) -> bool:
    if urlsplit(url).scheme == "file":  # a directory: see ``_is_bucket``
        return names_files(other)
    if names_files(other) and names_files(url):
        return True
    return registry.find(url) is not None and server_key(url) == server_key(other)


def _goes_down_with(location: str, url: str) -> bool:
    """Tell whether a location and a source are on one host or in one account, as far as their URLs say."""
    if urlsplit(location).scheme == "file":
        return names_files(url) or (not _is_bucket(url) and urlsplit(url).hostname in _HERE)
    return _shares_server(location, url)
