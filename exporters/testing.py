"""The contract of ``exporters.api`` as tests, for whoever writes an exporter. ``migrate.testing`` adds restore.

Subclass ``ExporterContract``, say how your source is opened, and let pytest run it::

    class TestMyExporter(ExporterContract):
        @pytest.fixture(autouse=True) def source_is_there(self, tmp_path):
            self.url = make_some_data(tmp_path)

        def open(self):
            return MyExporter().open("app", self.url, StandaloneHost())

Nothing here needs moveout's other half: files go to memory. The data should make several units (make chunks small) and
must not change while a test runs, but for ``change``.
"""

from __future__ import annotations

import io
import json
import random
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from exporters.api import (
    DoneUnit,
    Outcome,
    Shareable,
    Shared,
    Sink,
    Snapshot,
    Source,
    SourceSummary,
    Unit,
    Workspace,
)
from exporters.bucket_api import Bucket
from exporters.rate_sampling import MemoryWorkspace
from exporters.selection import Selection

_NAME = re.compile(r"[a-z0-9._/-]+")
_DIGEST = re.compile(r"([0-9a-f]{32})?")


class StandaloneHost:
    """A ``Host`` that provides nothing but the secrets it was given."""

    def __init__(self, **secrets: str) -> None:
        self._secrets = secrets

    def secret(self, name: str) -> str | None:
        """See ``Host.secret``."""
        return self._secrets.get(name)

    def selection(self) -> Selection:
        """Return a selection of everything."""
        return Selection()

    def bucket(self, url: str) -> Bucket:
        """Refuse: there is no client here."""
        raise NotImplementedError(url)


class _Kept(io.BytesIO):
    """A file whose bytes survive being closed."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def close(self) -> None:
        if not self.closed:
            self.data = self.getvalue()
        super().close()


class MemorySink:
    """A ``Sink`` in memory. ``files``: what was written whole, by name."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @contextmanager
    def create(self, name: str, *, size_bytes: int = 0) -> Iterator[BinaryIO]:
        """See ``Sink.create``."""
        del size_bytes
        assert is_name(name), f"{name!r} cannot be a file of a bundle"
        file = _Kept()
        yield file
        file.close()
        with self._lock:
            self.files[name] = file.data

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """See ``Sink.advance``; nobody watches."""


class _BrokenFile(_Kept):
    """Its first write fails; later ones are dropped, as a sink does: Arrow writes once more as it lets go of a file."""

    broken = False

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self.broken:
            return size
        self.broken = True
        raise BrokenLocationError(f"no room for {size} bytes")


class BrokenLocationError(OSError):
    """What ``BrokenSink`` raises."""


class BrokenSink:
    """A ``Sink`` on which every write fails, as on a full disk."""

    @contextmanager
    def create(self, name: str, *, size_bytes: int = 0) -> Iterator[BinaryIO]:
        """See ``Sink.create``; the writes raise."""
        del name, size_bytes
        yield _BrokenFile()

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """See ``Sink.advance``; nobody watches."""


def is_name(name: str) -> bool:
    """Tell whether a bundle may hold a file, or a unit, of this name."""
    return bool(_NAME.fullmatch(name)) and not {"", ".", ".."} & set(name.split("/"))


def export_units(
    snapshot: Snapshot, units: Sequence[Unit], *, threads: int = 4
) -> tuple[list[DoneUnit], dict[str, bytes]]:
    """Export units by several threads, in an order of no meaning; return them done, by id, and all their files."""
    shuffled = list(units)
    random.Random(7).shuffle(shuffled)  # noqa: S311

    def do(unit: Unit) -> tuple[DoneUnit, dict[str, bytes]]:
        sink = MemorySink()
        outcome = snapshot.export(unit, sink)
        return done_unit(unit, outcome, sink), sink.files

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(do, shuffled))
    files: dict[str, bytes] = {}
    for done, written in results:
        twice = files.keys() & written.keys()
        assert not twice, f"unit {done.unit.id} writes {sorted(twice)} as another unit does"
        files |= written
    return sorted((done for done, _ in results), key=lambda done: done.unit.id), files


def done_unit(unit: Unit, outcome: Outcome, sink: MemorySink) -> DoneUnit:
    """Return a unit as it comes back after a restart: through JSON."""
    reloaded = json.loads(json.dumps([unit.spec, outcome.facts]))
    unit = Unit(unit.id, unit.items, unit.size_bytes, reloaded[0])
    outcome = Outcome(
        outcome.items, outcome.size_bytes, outcome.digest, outcome.losses, outcome.gaps, facts=reloaded[1]
    )
    return DoneUnit(unit, outcome, sorted(sink.files))


def disagreements(summary: SourceSummary) -> list[str]:
    """Return why a summary cannot be called complete; nothing if it can."""
    counts: dict[str, dict[str, int]] = {}
    for enumeration in summary.enumerations:
        if enumeration.not_counted:
            continue
        counts.setdefault(enumeration.what, {})[enumeration.how] = enumeration.count
    reasons = [
        f"{kind} were counted in one way only"
        for kind, counts_by_method in counts.items()
        if len(counts_by_method) < 2
    ]
    reasons += [
        f"the counts of {kind} differ: {counts_by_method}"
        for kind, counts_by_method in counts.items()
        if len(set(counts_by_method.values())) > 1
    ]
    reasons += [f"{gap.item}: {gap.reason}" for gap in summary.gaps if gap.disposition == "failed"]
    return reasons if counts else ["nothing was counted"]


class ExporterContract:
    """Each method that begins with ``test_`` is one guarantee that moveout relies on."""

    secrets: Sequence[str] = ()
    """Passwords that must appear nowhere."""
    workers = 2

    def open(self) -> Source:
        """Open the source. Called several times a test: as if by another run on another day."""
        raise NotImplementedError

    def change(self) -> bool:
        """Change some of the data; return False if this source is not tried with changing data."""
        return False

    def host_files(self) -> Mapping[str, bytes]:
        """Return what must be left as it was, by name: files of the source, say."""
        return {}

    @contextmanager
    def _snapshot(self, workspace: Workspace) -> Iterator[Snapshot]:
        source = self.open()
        try:
            with source.snapshot(workspace, workers=self.workers) as snapshot:
                yield snapshot
        finally:
            source.close()

    def _whole(self) -> tuple[list[DoneUnit], dict[str, bytes], SourceSummary]:
        """Export everything at once."""
        with self._snapshot(MemoryWorkspace()) as snapshot:
            done, files = export_units(snapshot, list(snapshot.units()))
            sink = MemorySink()
            summary = snapshot.finish(iter(done), sink)
        return done, files | sink.files, summary

    def test_the_survey_says_what_is_there(self) -> None:
        """``survey`` names every table or bucket, counts nothing below zero, and says who answers."""
        source = self.open()
        survey = source.survey()
        source.close()
        assert survey.items
        assert survey.server
        assert all(item.name and item.items >= 0 and item.size_bytes >= 0 for item in survey.items)
        assert {item.kind for item in survey.items} <= {"table", "bucket"}

    def test_units_are_the_same_after_a_restart(self) -> None:
        """With the same workspace and the same data, ids and specs come again, in the same order."""
        workspace = MemoryWorkspace()
        unit_lists = []
        for _ in range(2):
            with self._snapshot(workspace) as snapshot:
                unit_lists.append(list(snapshot.units()))
        first, second = unit_lists
        assert len(first) > 1, "the contract needs data that make several units"
        assert [(unit.id, unit.spec) for unit in first] == [(unit.id, unit.spec) for unit in second]
        assert len({unit.id for unit in first}) == len(first)
        assert all(is_name(unit.id) for unit in first)
        assert all(json.loads(json.dumps(unit.spec)) == unit.spec for unit in first), "specs are plain JSON"

    def test_units_are_exported_by_several_threads_in_any_order(self) -> None:
        """Their outcomes add up to the summary, whose counts agree, and whose entries name all items. The source is
        only read. Neither its URL nor a unit, a file, or the summary holds a password.
        """
        before = dict(self.host_files())
        done, files, summary = self._whole()
        assert dict(self.host_files()) == before
        assert disagreements(summary) == []
        assert sum(entry.items for entry in summary.entries) == sum(
            done_unit.outcome.items for done_unit in done
        )
        assert all(_DIGEST.fullmatch(entry.digest) for entry in summary.entries)
        names = [(entry.schema, entry.name) for entry in summary.entries]
        assert len(set(names)) == len(names)
        assert summary.server
        assert summary.positions
        json.dumps([list(summary.positions), [entry.details for entry in summary.entries]])
        assert {name for done_unit in done for name in done_unit.files} <= files.keys()
        self._has_no_secret(done, files, summary)

    def _has_no_secret(
        self, done: Sequence[DoneUnit], files: Mapping[str, bytes], summary: SourceSummary
    ) -> None:
        source = self.open()
        texts = [source.url, repr(done), repr(summary), *(data.decode("latin-1") for data in files.values())]
        source.close()
        for secret in self.secrets:
            assert not any(secret in text for text in texts)

    def test_a_unit_that_is_done_again_comes_to_the_same(self) -> None:
        """A unit's outcome depends on nothing but the unit and the snapshot."""
        with self._snapshot(MemoryWorkspace()) as snapshot:
            units = list(snapshot.units())
            first, _ = export_units(snapshot, units)
            second, _ = export_units(snapshot, units, threads=1)
        assert [_summed(unit) for unit in first] == [_summed(unit) for unit in second]

    def test_finished_units_hold_as_long_as_nothing_changed(self) -> None:
        """So a killed export continues."""
        workspace = MemoryWorkspace()
        with self._snapshot(workspace) as snapshot:
            done, _ = export_units(snapshot, list(snapshot.units()))
        with self._snapshot(workspace) as snapshot:
            assert {unit.id for unit in snapshot.units()} == {done_unit.unit.id for done_unit in done}
            assert all(snapshot.still_holds(done_unit) for done_unit in done)
            assert disagreements(snapshot.finish(iter(done), MemorySink())) == []

    def test_a_changed_source_is_exported_as_it_is_now(self) -> None:
        """What changed is done again, and the result is that of an export from the beginning."""
        workspace = MemoryWorkspace()
        with self._snapshot(workspace) as snapshot:
            done, _ = export_units(snapshot, list(snapshot.units()))
        if not self.change():
            return
        with self._snapshot(workspace) as snapshot:
            units = {unit.id: unit for unit in snapshot.units()}
            still_held = [
                done_unit
                for done_unit in done
                if done_unit.unit.id in units and snapshot.still_holds(done_unit)
            ]
            rest = [
                unit
                for unit in units.values()
                if unit.id not in {done_unit.unit.id for done_unit in still_held}
            ]
            assert rest, "a change went unnoticed"
            again, _ = export_units(snapshot, rest)
            summary = snapshot.finish(
                iter(sorted([*still_held, *again], key=lambda done_unit: done_unit.unit.id)), MemorySink()
            )
        assert disagreements(summary) == []
        _, _, fresh = self._whole()
        assert _entries(summary) == _entries(fresh)

    def test_machines_elsewhere_join_the_snapshot(self) -> None:
        """Of a ``Shareable`` source: with the workspace and a ticket of plain JSON they read the same, also what has
        changed since.
        """
        other = self.open()
        if not (isinstance(other, Shareable) and other.shareable):
            other.close()
            return
        workspace = MemoryWorkspace()
        with self._snapshot(workspace) as shared:
            ticket = json.loads(json.dumps(cast("Shared", shared).ticket))
            self.change()
            with other.join(workspace, ticket, workers=self.workers) as joined:
                assert joined.position == shared.position
                units = list(joined.units())
                joined_units, _ = export_units(joined, units)
                assert all(joined.still_holds(done_unit) for done_unit in joined_units)
            assert [(unit.id, unit.spec) for unit in shared.units()] == [
                (unit.id, unit.spec) for unit in units
            ]
            own_units, _ = export_units(shared, units)
            assert disagreements(shared.finish(iter(joined_units), MemorySink())) == []
        other.close()
        assert [_summed(done_unit) for done_unit in joined_units] == [
            _summed(done_unit) for done_unit in own_units
        ]

    def test_finishing_may_be_done_again(self) -> None:
        """A crash between ``finish`` and the seal costs nothing."""
        with self._snapshot(MemoryWorkspace()) as snapshot:
            done, _ = export_units(snapshot, list(snapshot.units()))
            sinks = MemorySink(), MemorySink()
            first, second = (snapshot.finish(iter(done), sink) for sink in sinks)
        assert sinks[0].files.keys() == sinks[1].files.keys()
        assert (_entries(first), list(first.gaps)) == (_entries(second), list(second.gaps))

    def test_what_is_missing_is_never_called_complete(self) -> None:
        """The counts do not come from what was exported alone."""
        with self._snapshot(MemoryWorkspace()) as snapshot:
            done, _ = export_units(snapshot, list(snapshot.units()))
            largest = max(done, key=lambda done_unit: done_unit.outcome.items)
            assert largest.outcome.items, "the contract needs data"
            rest = [done_unit for done_unit in done if done_unit is not largest]
            summary = snapshot.finish(iter(rest), MemorySink())
        assert disagreements(summary)

    def test_an_error_of_the_location_is_not_an_item_that_failed(self) -> None:
        """A full disk ends the unit; it does not become a gap."""
        sink: Sink = BrokenSink()
        with self._snapshot(MemoryWorkspace()) as snapshot:
            for unit in snapshot.units():
                try:
                    snapshot.export(unit, sink)
                except Exception:  # noqa: S112  whichever it is: the export asks the sink
                    continue
                raise AssertionError(f"unit {unit.id} says that it was exported to a full disk")


def _entries(summary: SourceSummary) -> list[tuple[str, str, str, int, str]]:
    return sorted(
        (entry.kind, entry.schema, entry.name, entry.items, entry.digest) for entry in summary.entries
    )


def _summed(done: DoneUnit) -> tuple[str, int, int, int | None, Sequence[str]]:
    """Return what a unit must come to again, whoever does it."""
    outcome = done.outcome
    return done.unit.id, outcome.items, outcome.size_bytes, outcome.digest, done.files
