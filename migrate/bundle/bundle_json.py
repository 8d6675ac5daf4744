"""``meta/bundle.json``, written and read: which bundle this is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout, left_behind
from migrate.bundle.left_behind import LeftBehind
from migrate.errors import DamageError, GoneError, UsageError, decoding
from migrate.storage.api import Store

FORMAT = "moveout-bundle"
MOST_PACE_STEPS = 120
_TIME_FORM = "%Y-%m-%dT%H:%M:%SZ"


class Pace(Struct, frozen=True):
    """``size_bytes`` of units that were finished in each of the intervals of ``step_seconds`` from ``start`` on (UTC,
    ISO 8601). A gap while nothing ran is a row of zeros.
    """

    start: str
    step_seconds: int
    size_bytes: Sequence[int]

    @property
    def end(self) -> str:
        """When the last interval ends."""
        first = datetime.fromisoformat(self.start).replace(tzinfo=UTC)
        return (first + timedelta(seconds=self.step_seconds * len(self.size_bytes))).strftime(_TIME_FORM)


class SourceInfo(Struct, frozen=True):
    """A source of a bundle. ``kind`` is its URL's scheme; ``identity`` the server's own, "" where it is not known."""

    name: str
    url: str
    kind: str
    complete: bool
    identity: str = ""


class LeftOutSource(Struct, frozen=True):
    """A source that was taken out of a bundle on purpose."""

    name: str
    url: str


class CaseInfo(Struct, frozen=True):
    """The case that a bundle was exported by. ``deadline``: UTC, ISO 8601; "" where the case has none."""

    name: str
    deadline: str


class BundleInfo(Struct, frozen=True):
    """Identity of a sealed bundle. Times in UTC, ISO 8601. ``continues``: ids of incomplete predecessors at
    this location; ``begun``: when the first of them was created.
    """

    id: str
    created: str
    sealed: str
    software: str
    complete: bool
    continues: Sequence[str]
    sources: Sequence[SourceInfo]
    pace: Pace | None = None
    """How fast the sources were read, where that is known."""
    left_behind: LeftBehind | None = None
    """What stayed on the servers, where a case file said which servers there are."""
    left_out: Sequence[LeftOutSource] = ()
    case: CaseInfo | None = None
    """None where no case file said what to export."""
    begun: str = ""

    def source(self, name: str) -> SourceInfo:
        """Return the source of that name. Raises ``UsageError`` with the names there are."""
        for source in self.sources:
            if source.name == name:
                return source
        names = ", ".join(source.name for source in self.sources)
        raise UsageError(f"the bundle has no source {name!r}", next_step=f"it has: {names}")


def encode(info: BundleInfo) -> bytes:
    """Return the file. What is not known is not in it."""
    value = {
        "format": FORMAT,
        "version": layout.VERSION,
        "id": info.id,
        "created": info.created,
        "sealed": info.sealed,
        "software": info.software,
        "complete": info.complete,
        "continues": list(info.continues),
        "sources": [
            {name: value for name, value in as_dict(source).items() if value or name != "identity"}
            for source in info.sources
        ],
    }
    value |= {"pace": as_dict(info.pace)} if info.pace else {}
    value |= {"left_behind": info.left_behind.as_json()} if info.left_behind else {}
    value |= {"left_out": [as_dict(source) for source in info.left_out]} if info.left_out else {}
    value |= {"case": as_dict(info.case)} if info.case else {}
    value |= {"begun": info.begun} if info.begun else {}
    return canonical_json.encode_pretty(value)


def decode(data: bytes) -> BundleInfo:
    """Parse ``meta/bundle.json``. Raises ``DamageError``; ``UsageError`` for a newer version of the
    format.
    """
    key = layout.BUNDLE_META
    value: dict[str, Any] = canonical_json.decode(data, key)
    if value.get("format") != FORMAT:
        raise DamageError(key, expected=f"format {FORMAT}", found=repr(value.get("format")))
    canonical_json.check_version(value, key, layout.VERSION)
    with decoding(key, "a bundle's identity"):
        behind = left_behind.decode(value.get("left_behind"))
        pace = decode_pace(value.get("pace"))
        info = msgspec.convert(value | {"left_behind": None, "pace": None}, BundleInfo)
    for source in info.sources:
        if not layout.is_source_name(source.name):
            raise DamageError(key, expected="names of sources", found=repr(source.name))
    return replace(info, left_behind=behind, pace=pace)


def read_sealed(store: Store) -> BundleInfo | None:
    """Return the identity of the sealed bundle at a location, None where nothing is sealed. Raises like
    ``read_identity``.
    """
    try:
        store.stat(layout.TAG_MANIFEST)
    except GoneError:
        return None
    return read_identity(store)


def read_identity(store: Store) -> BundleInfo:
    """Return the identity of a bundle. Raises like ``decode``; damage is named with the location."""
    try:
        return decode(store.read(layout.BUNDLE_META))
    except GoneError as exc:
        raise DamageError(layout.BUNDLE_META, expected="a file", found="none") from exc
    except DamageError as exc:
        raise DamageError(
            f"{store.location}/{exc.key}",
            expected=exc.expected,
            found=exc.found,
            next_step="run the same command again that transferred the bundle to here, or use another copy",
        ) from exc


def pace_of(times: Sequence[tuple[str, int]]) -> Pace | None:
    """Return the pace of units that were finished at ``times``, None where they do not show it."""
    try:
        moments = [(datetime.fromisoformat(timestamp).replace(tzinfo=UTC), size) for timestamp, size in times]
    except ValueError:
        return None
    if not moments:
        return None
    first = min(moment for moment, _ in moments)
    span = int((max(moment for moment, _ in moments) - first).total_seconds()) + 1
    step = -(-span // MOST_PACE_STEPS)
    sizes = [0] * -(-span // step)
    for moment, size in moments:
        sizes[int((moment - first).total_seconds()) // step] += size
    return Pace(first.strftime(_TIME_FORM), step, sizes)


def decode_pace(value: Mapping[str, Any] | None) -> Pace | None:
    """Read how fast sources were read, None where there is nothing that makes sense: it is only for show."""
    if value is None:
        return None
    try:
        parsed = msgspec.convert(value, Pace)
        sound = parsed.step_seconds > 0 and bool(parsed.end) and len(parsed.size_bytes) <= MOST_PACE_STEPS
        sound = sound and all(0 <= size < 2**63 for size in parsed.size_bytes)
    except (ValueError, OverflowError):
        return None
    return parsed if sound else None
