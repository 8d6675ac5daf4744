"""Which sources and destinations a command works with, by its words and its case file; and how sources are opened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from exporters.api import Identified, Source
from exporters.errors import SourceError
from exporters.limits import Limits, Note
from exporters.selection import EVERYTHING, Selection
from migrate.bundle import layout
from migrate.bundle.bundle_json import read_sealed
from migrate.bundle.export_state import SourceName, read_state
from migrate.bundle.reader import BundleReader, not_sealed
from migrate.case.loader import load
from migrate.case.model import Case, Endpoint
from migrate.case.overlaps import names_same, overlaps, shared_identities
from migrate.case.server_url import covers, is_pattern
from migrate.cli.common.options import case_words
from migrate.cli.common.session import Session
from migrate.cli.common.source_words import names_of_bundle, parse_pairs
from migrate.engines import registry
from migrate.errors import UsageError
from migrate.number_text import list_words
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress, Silent
from migrate.storage.api import Store
from migrate.storage.registry import open_location

if TYPE_CHECKING:
    from migrate.discover.expand import Destinations


def check_kinds(reader: BundleReader, endpoints: Mapping[str, Endpoint]) -> None:
    """Raise ``UsageError`` for a name that is no source of the bundle, or a URL of another engine than the source's."""
    for name, endpoint in endpoints.items():
        kind = reader.info.source(name).kind
        if endpoint.engine != registry.find(kind):
            raise UsageError(
                f"{name} is a {kind}:// source, {endpoint.shown} is of another kind",
                next_step=f"give {name}={kind}://…",
            )


def load_case(path: Path | None) -> Case | None:
    """Load the case file, where one is given."""
    if path is None:
        return None
    case = load(path)
    for name, source in case.sources.items():
        if name != source.url:
            _check_name(name, path)
    return case


def _check_name(name: str, path: Path) -> None:
    if not layout.is_source_name(name):
        raise UsageError(
            f"{path}: {name!r} cannot name a source",
            next_step="use lower-case letters, digits, '-' and '_', at most 63",
        )


def typed_sources(words: Sequence[str], case: Case | None) -> dict[str, Endpoint]:
    """Return the sources that words of the command line name: URLs, and names of sources of the case. What the case
    says of a URL, such as its secrets and filters, holds for it, too. Raises ``UsageError``.
    """
    known = case.sources if case else {}
    for word in words:
        if case and word not in known and layout.is_source_name(word) and not Path(word).exists():
            raise UsageError(
                f"{case.file} has no source {word!r}", next_step=f"it has {list_words([*known], 8)}"
            )
    pairs = parse_pairs([word for word in words if word not in known])
    typed = {name: _as_in_case(endpoint, known) for name, endpoint in pairs.items()}
    return {word: known[word] for word in words if word in known} | typed


def _as_in_case(endpoint: Endpoint, known: Mapping[str, Endpoint]) -> Endpoint:
    same = [source for source in known.values() if source.url == endpoint.url]
    patterns = [
        source for source in known.values() if is_pattern(source.url) and covers(source.url, endpoint.url)
    ]
    return replace([*same, *patterns, endpoint][0], url=endpoint.url)


def chosen_sources(pairs: Mapping[str, Endpoint], case: Case | None) -> Mapping[str, Endpoint]:
    """Return the sources of the command line, else those of the case."""
    if pairs:
        return pairs
    if case and case.sources:
        return case.sources
    raise UsageError(
        "no source is named", next_step=f"give its URL, such as postgresql://me@host/db, or {case_words()}"
    )


def expanded(
    session: Session,
    endpoints: Mapping[str, Endpoint],
    case: Case | None,
    location: Endpoint | None = None,
    *,
    ask: bool = True,
) -> Mapping[str, Endpoint]:
    """Return the sources with each pattern replaced by what is on its server. Those of the bundle at ``location`` keep
    their names. See ``expand_sources``.
    """
    if not _has_pattern(endpoints):
        return endpoints
    from migrate.discover.expand import expand_sources  # noqa: PLC0415  it asks servers

    with session.going_on_without_silent(*endpoints.values()):
        return expand_sources(
            endpoints,
            session.progress,
            recorded=recorded_sources(location) if location else (),
            left_out=case.left_out if case else (),
            ask=ask,
            listed=session.listed,
        )


def _has_pattern(endpoints: Mapping[str, Endpoint]) -> bool:
    """Tell whether anything of it stands for all of a server."""
    return any(is_pattern(endpoint.url) for endpoint in endpoints.values())


def recorded_sources(location: Endpoint) -> Sequence[SourceName]:
    """Return the sources of the bundle at a location, finished or not; none where there is no bundle."""
    return _sources_at(open_location(location.url, secrets=location.reveal()))


def _sources_at(store: Store) -> Sequence[SourceName]:
    state = read_state(store)
    if state is not None:
        return state.sources
    sealed = read_sealed(store)
    return [SourceName(source.name, source.url) for source in sealed.sources] if sealed else []


def named_as_begun(
    session: Session, pairs: Mapping[str, Endpoint], location: Endpoint
) -> Mapping[str, Endpoint]:
    """Return the sources of the command line. One that the bundle at the location has under another name keeps that
    name, which is noted: nobody has to know how the export was typed that began it.
    """
    recorded = _sources_at(session.store(location)) if pairs else ()
    known = {source.name for source in recorded}
    named: dict[str, Endpoint] = {}
    for name, endpoint in pairs.items():
        same = [source.name for source in recorded if names_same(source.url, endpoint.url)]
        if len(same) == 1 and name not in known and same[0] not in pairs.keys() | named.keys():
            session.progress.note(f"{name} is the source {same[0]} of this bundle, and keeps that name")
            named[same[0]] = endpoint
        else:
            named[name] = endpoint
    return named


def destinations_of(
    location: Endpoint, endpoints: Mapping[str, Endpoint], case: Case | None, *, may_lack: bool = False
) -> Mapping[str, Endpoint]:
    """Return the destination of each source of the bundle at a location; none where there is no bundle. Raises
    ``UsageError`` where the case file lacks the address of a new server, unless it ``may_lack`` that. See
    ``expand_destinations``.
    """
    moves = case.moves if case else ()
    if not moves and not _has_pattern(endpoints):
        return endpoints
    from migrate.discover.expand import expand_destinations  # noqa: PLC0415

    destinations = expand_destinations(recorded_sources(location), endpoints, case)
    return destinations.endpoints if may_lack else destinations.require_all()


def _recorded_at(location: Endpoint) -> Sequence[SourceName]:
    """Return the sources of the bundle at a location. Raises the error of a location without a bundle."""
    recorded = recorded_sources(location)
    if not recorded:
        raise not_sealed(open_location(location.url, secrets=location.reveal()))
    return recorded


def named_destinations(location: Endpoint, words: Sequence[str]) -> dict[str, Endpoint]:
    """Return the destinations that words of the command line name. The bundle at the location gives a name to a word
    without one; see ``names_of_bundle``.
    """
    return parse_pairs(words, names_of_bundle(lambda: _recorded_at(location)))


def given_destinations(location: Endpoint, words: Sequence[str], case: Case | None) -> Mapping[str, Endpoint]:
    """Return the destinations that words of the command line name for sources of the bundle at a location, with the
    secrets that the case has.
    """
    named = named_destinations(location, words)
    return with_known_secrets(destinations_of(location, named, None), case)


def chosen_destinations(
    location: Endpoint, words: Sequence[str], case: Case | None
) -> Mapping[str, Endpoint]:
    """Return the destinations of the sources of the bundle at a location: those of the command line, else those of the
    case. Raises ``UsageError`` where there are none.
    """
    destinations = given_destinations(location, words, case)
    if not destinations and case:
        destinations = destinations_of(location, case.destinations, case)
    if not destinations:
        if case and (case.moves or case.destinations):
            _recorded_at(location)
        raise UsageError(
            "nothing says what goes where",
            next_step="give the URL of each new database and bucket, or [[destination]] tables in the case file",
        )
    return destinations


def destinations_in(case: Case, sources: Mapping[str, Endpoint]) -> Destinations:
    """Return the destinations of expanded sources of a case."""
    from migrate.discover.expand import expand_destinations  # noqa: PLC0415

    names = [SourceName(name, endpoint.url) for name, endpoint in sources.items()]
    return expand_destinations(names, case.destinations, case)


def with_known_secrets(pairs: Mapping[str, Endpoint], case: Case | None) -> dict[str, Endpoint]:
    """Return the endpoints, each with the secrets that the case file has for the same URL."""
    listed = [*case.sources.values(), *case.destinations.values()] if case else []
    by_url = {endpoint.url: endpoint for endpoint in listed}
    return {name: by_url.get(endpoint.url, endpoint) for name, endpoint in pairs.items()}


def with_empty_allowed(endpoints: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
    """Return the sources with ``may_be_empty``: one without content is no mistake then."""
    return {name: replace(endpoint, may_be_empty=True) for name, endpoint in endpoints.items()}


def with_follow(endpoints: Mapping[str, Endpoint], retain_bytes: int | None) -> dict[str, Endpoint]:
    """Return the sources with ``follow``. ``retain_bytes`` replaces the limit that each has, unless it is None or 0."""
    return {
        name: replace(endpoint, follow=True, retain_bytes=retain_bytes or endpoint.retain_bytes)
        for name, endpoint in endpoints.items()
    }


def without_left_out(
    reader: BundleReader, endpoints: Mapping[str, Endpoint], note: Note
) -> dict[str, Endpoint]:
    """Return the sources without those that were left out of the bundle on purpose. Note each of these."""
    left_out = {source.name for source in reader.info.left_out}
    for name in sorted(left_out & endpoints.keys()):
        note(f"{name} was left out of this bundle on purpose")
    return {name: endpoint for name, endpoint in endpoints.items() if name not in left_out}


def with_selection(endpoints: Mapping[str, Endpoint], selection: Selection) -> Mapping[str, Endpoint]:
    """Return the sources with this selection. One that selects everything changes nothing: the case file decides."""
    if selection == EVERYTHING:
        return endpoints
    return {name: replace(endpoint, selection=selection) for name, endpoint in endpoints.items()}


@contextlib.contextmanager
def open_sources(
    endpoints: Mapping[str, Endpoint],
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
    cancellation: CancellationToken | None = None,
) -> Iterator[list[Source]]:
    """Open all sources; close them at the end. One that cannot be opened becomes an ``UnreadableSource``, and the
    others are opened. ``progress`` notes that, which sources are the same data, and what a source waits for.
    ``cancellation`` ends such waiting. Raises ``UsageError`` for a URL that no engine reads.
    """
    from migrate.export.open_sources import (  # noqa: PLC0415  who opens none need not wait for it
        UnreadableSource,
        open_source,
    )

    progress = progress or Silent()
    with contextlib.ExitStack() as stack:
        opened: list[Source] = []
        for name, endpoint in endpoints.items():
            try:
                source = open_source(
                    name, endpoint, limits or Limits(), progress.note, cancellation=cancellation
                )
            except SourceError as exc:
                if len(endpoints) > 1:  # else the command ends with this error
                    progress.note_error(f"{name} cannot be opened", exc)
                source = UnreadableSource(name, endpoint.shown, exc)
            stack.callback(source.close)
            opened.append(source)
        identities = {source.name: source.identity for source in opened if isinstance(source, Identified)}
        for sentence in shared_identities(identities, known=set(overlaps(endpoints))):
            progress.note(f"! {sentence}")
        yield opened
