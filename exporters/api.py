"""The contract between a source and the export that drives it.

A ``Source`` is opened from a URL. Its ``snapshot`` is one consistent view, cut into ``Unit``s: the smallest pieces of
work that are done whole or not at all. Units are exported by several threads at once, in any order, and again after a
crash. That is safe because ids are deterministic, and because a unit's outcome depends on nothing but the unit and the
snapshot.

The export gives a source two things to write to. ``Sink``: files of the bundle, recorded with size and SHA-256 in
the unit's commit record. ``Workspace``: what the source must remember to go on after a crash (its plan, its
inventory); it lies at the location too, and is gone after the seal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Literal, Protocol, runtime_checkable

from msgspec import Struct, field

from exporters.bucket_api import Bucket
from exporters.changes import ChangeLog
from exporters.selection import Selection

Json = Mapping[str, Any]
ItemKind = Literal["table", "materialized view", "bucket"]


class SurveyItem(Struct, frozen=True):
    """One table or bucket as ``plan`` shows it. Counts may be estimates; ``exact`` says which."""

    name: str
    kind: ItemKind
    items: int
    size_bytes: int
    exact: bool


class Survey(Struct, frozen=True):
    """What is there, found cheaply. ``warnings`` are sentences for the user: what will not survive, and why.
    ``features``: what some destination may not take, in the source's own words, and how often it was seen. ``goes_on``:
    there is more than was counted, how much is not known.
    """

    items: Sequence[SurveyItem]
    server: str
    warnings: Sequence[str] = ()
    features: Mapping[str, int] = field(default_factory=dict)
    goes_on: bool = False


class Unit(Struct, frozen=True):
    """One piece of work. ``id`` matches ``[a-z0-9._/-]+``, is unique within its source, and is the same again after
    a restart. ``spec`` is what the source needs to do it (plain JSON). ``size_bytes`` is an estimate for progress.
    """

    id: str
    items: int
    size_bytes: int
    spec: Json


class Loss(Struct, frozen=True):
    """A row of ``data/losses.parquet``: a property that could not be represented.

    ``item`` names a table, column, key or bucket in the source's own words; ``property`` is what was lost (for example
    ``ownership``, ``storage class``); ``reason`` is a sentence.
    """

    item: str
    property: str
    reason: str


class Gap(Struct, frozen=True):
    """An enumerated item that is not in the bundle."""

    item: str
    disposition: Literal["excluded", "failed"]
    reason: str


class Outcome(Struct, frozen=True):
    """What a unit came to. ``items`` rows or objects exported; ``size_bytes`` of payload read from the source.

    ``digest`` is the sum of the row digests modulo 2**128 for table chunks, None elsewhere. ``facts`` is plain JSON
    that the source wants back in ``finish`` and ``still_holds``.
    """

    items: int
    size_bytes: int
    digest: int | None = None
    losses: Sequence[Loss] = ()
    gaps: Sequence[Gap] = ()
    facts: Json = field(default_factory=dict)


class DoneUnit(Struct, frozen=True):
    """A unit with a commit record: the unit, its outcome, and its files' names relative to ``data/<source>/``.
    ``position``: of the snapshot under which it was read. ``is_compared``: whether that is the present one, or it was
    found to hold under that.
    """

    unit: Unit
    outcome: Outcome
    files: Sequence[str]
    position: Json = field(default_factory=dict)
    is_compared: bool = True


class CatalogEntry(Struct, frozen=True):
    """One row of ``data/catalog.parquet``: a table, a materialized view or a bucket.

    ``number`` identifies the table (0 for a bucket). ``digest`` as 32 hex digits, or "". ``details`` is JSON of the
    source's own making: for tables the columns with their types, and ``parts``, the files with their rows.
    """

    kind: ItemKind
    number: int
    schema: str
    name: str
    items: int
    size_bytes: int
    digest: str
    details: Json


class Enumeration(Struct, frozen=True):
    """One way in which the source's items were counted, e.g. ``("rows", "count(*) under the snapshot", 200_000)``.

    At least two of them for the same ``what`` must agree, or the bundle is sealed as incomplete. ``not_counted``: why
    there is no count; it is 0 then, and is not compared.
    """

    what: str
    how: str
    count: int
    not_counted: str = ""


class SourceSummary(Struct, frozen=True):
    """What a source says at the end: its catalog rows, how it counted, what is missing, what was lost.

    ``positions`` are the snapshots over which the bundle was taken, oldest first (more than one after a resume).
    ``has_definitions``: of a source without tables, whether it has anything else: a view, a function, a type.
    """

    entries: Sequence[CatalogEntry]
    enumerations: Sequence[Enumeration]
    gaps: Sequence[Gap] = ()
    losses: Sequence[Loss] = ()
    positions: Sequence[Json] = ()
    server: str = ""
    has_definitions: bool = False


class Workspace(Protocol):
    """Small files of a source's own, under ``_work/<source>/`` at the location. Writes are atomic and durable."""

    def read(self, name: str) -> bytes | None:
        """Return the file's bytes, or None where there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write or replace the whole file."""
        ...

    def names(self, prefix: str = "") -> Sequence[str]:
        """Return the names that begin with ``prefix``, in order."""
        ...

    def delete(self, name: str) -> None:
        """Remove the file; nothing happens where there is none."""
        ...

    def listed(self, count: int) -> None:
        """Report how many items a listing has found since the last report. Thread-safe; only for show."""
        ...


class Sink(Protocol):
    """Takes the files of one unit. Names are relative to ``data/<source>/`` and match ``[a-z0-9._/-]+``."""

    def create(self, name: str, *, size_bytes: int = 0) -> AbstractContextManager[BinaryIO]:
        """Open a new file for writing, sequentially. It exists once the context ends without an error, whole;
        after an error nothing of it remains. Safe to call again for the same name, also after a crash (it replaces).
        ``size_bytes``: how large it will be, about; needed only for files above 100 GB (it decides the size of
        the parts).
        """
        ...

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Report what has been read of the unit so far: rows or objects, and bytes of payload. It moves the progress
        while the unit is under way; the outcome counts.
        """
        ...


class Snapshot(Protocol):
    """One consistent view of a source, shared by the worker threads."""

    position: Json

    def units(self) -> Iterator[Unit]:
        """Yield every unit, deterministic across restarts for the same workspace."""
        ...

    def export(self, unit: Unit, sink: Sink) -> Outcome:
        """Do one unit. Thread-safe. Raises ``SourceError``; a single item that fails is a ``Gap``, not an error."""
        ...

    def still_holds(self, done: DoneUnit) -> bool:
        """Tell whether a unit that was finished under an earlier snapshot is the same under this one."""
        ...

    def finish(self, done: Iterator[DoneUnit], sink: Sink) -> SourceSummary:
        """Write what belongs to the whole source (DDL, indexes) and return the summary. Called once all units are done,
        or when no more can be had; may be called again after a crash.
        """
        ...


OUTLINE = "outline.json"
"""Where an outline lies in the workspace."""


@runtime_checkable
class Outlined(Protocol):
    """A snapshot that notes what describes its source before units are exported: should the source be gone for good
    before ``finish``, the engine's ``summary_of_gone`` makes a summary of that. Only rows that were not read are lost.
    """

    def begin_outline(self, workspace: Workspace) -> None:
        """Begin to write ``OUTLINE``. Called once, before the first unit; returns at once, unless what reads it would
        be in the way of the units. Raises nothing of the source: what could not be read now is read by ``finish``.
        """
        ...


@runtime_checkable
class Mendable(Protocol):
    """A snapshot that can add to a finished unit what failed in it, without reading the rest again."""

    def mend(self, done: DoneUnit, sink: Sink) -> Outcome:
        """Try again what failed in ``done``, which still holds. Return the outcome of the whole unit: of the files that
        it has, of which none is replaced, and those that are written here.
        """
        ...


@runtime_checkable
class ReadingAhead(Protocol):
    """A snapshot that can read several small units by one request."""

    def read_ahead(self, units: Sequence[Unit]) -> None:
        """Read units that this thread exports next, as far as they are small. Raises nothing: ``export`` reads what is
        not there, and says why that fails.
        """
        ...


@runtime_checkable
class InterruptibleCount(Protocol):
    """A snapshot whose ``finish`` waits for counts of the source's own, which may take long."""

    def count_no_more(self) -> None:
        """Give up counts that are not there yet, so that ``finish`` returns soon. Each is a gap. May be called again.
        Thread-safe.
        """
        ...


@runtime_checkable
class PreparesFinish(Protocol):
    """A snapshot that can begin what ``finish`` needs while the last units are exported."""

    @property
    def prepares_early(self) -> bool:
        """Whether it may begin as soon as little is left, also of units that nobody has begun: what it reads does not
        depend on when they are read.
        """
        ...

    def prepare_finish(self) -> None:
        """Take note that the last units are under way. Called at most once, returns at once; what it begins ends with
        ``finish``, or with the snapshot's context.
        """
        ...


class Source(Protocol):
    """A database or bucket, opened and reachable."""

    name: str
    url: str
    """Without secrets."""

    def survey(self) -> Survey:
        """Say what is there without reading the data."""
        ...

    def snapshot(self, workspace: Workspace, *, workers: int) -> AbstractContextManager[Snapshot]:
        """Take a snapshot that ``workers`` threads may read at once; released when the context ends."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A source whose server says what it is."""

    @property
    def identity(self) -> str:
        """Return the same for this database or bucket, whatever user, host name or port leads there; "" where the
        server does not say.
        """
        ...


class Shared(Protocol):
    """A snapshot that workers on other machines can join for as long as it is held here."""

    ticket: Json
    """The data that they need for it: plain JSON, no secrets."""


@runtime_checkable
class Shareable(Protocol):
    """A source whose snapshots are ``Shared``."""

    @property
    def shareable(self) -> bool:
        """Whether they are, as this one was opened."""
        ...

    def join(self, workspace: Workspace, ticket: Json, *, workers: int) -> AbstractContextManager[Snapshot]:
        """Return the snapshot that another machine holds, for ``workers`` threads here: the same position, the same
        units. Proves first that the source can be read from here. Raises ``SourceError``.
        """
        ...


class Estimate(Struct, frozen=True):
    """How long reading the whole source will take, from a measured sample. Rates are per second; ``faults`` are
    sentences about what could not be read of it. ``bundle_share``: the bytes of the bundle for a byte of the source,
    None where that was not measured.
    """

    seconds: float
    items_rate: float
    bytes_rate: float
    faults: Sequence[str] = ()
    bundle_share: float | None = None


@runtime_checkable
class Followable(Protocol):
    """A source whose snapshot can be the base of its change log."""

    def base(self, workspace: Workspace, log: ChangeLog, *, workers: int) -> AbstractContextManager[Snapshot]:
        """Like ``snapshot``, of a new base of ``log``: what is committed later is in the log. The position of the
        snapshot says under ``exporters.changes.FOLLOW`` what is needed to read it. Nothing stays at the server where
        the context ends by an error.
        """
        ...


@runtime_checkable
class Measurable(Protocol):
    """A source that can be tried out before the move."""

    def estimate(self, survey: Survey, *, seconds: float, workers: int) -> Estimate:
        """Read real data the way an export would for about ``seconds``, keep nothing, and extrapolate to ``survey``."""
        ...


class Host(Protocol):
    """What moveout provides to an exporter, so that an exporter needs no client libraries of its own."""

    def secret(self, name: str) -> str | None:
        """Return a secret that the case file gives for this source (``password``), or None."""
        ...

    def bucket(self, url: str) -> Bucket:
        """Open the bucket of an ``s3://`` URL."""
        ...

    def selection(self) -> Selection:
        """Return which items of this source are selected."""
        ...


class Exporter(Protocol):
    """Opens sources of one engine; see ``exporters.engine.Engine``. Made without arguments."""

    def open(self, name: str, url: str, host: Host) -> Source:
        """Open a source and prove that it can be reached and read. Raises ``SourceError``."""
        ...
