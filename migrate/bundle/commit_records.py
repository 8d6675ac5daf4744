"""Commit records: what is done is what has one.

A unit writes its files, then its record ``_work/<source>/units/<unit id>.json``. The record is one ``put``, so it is
there whole or not at all. A unit is done *again* where its snapshot no longer holds, or something failed in it. Then
the record is removed before the first file is replaced: a record never describes files that are being replaced.

Small units that are committed together have one record, ``_work/<source>/groups/<group>.json``. The next run, and this
one before its next snapshot, gives each of them a record of its own (``separate_groups``), so that one can be removed
alone.

A source that is finished has one more record, ``_work/<source>/final.json``: its summary and the files that
belong to the whole source. From then on the seal needs the source no more.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from exporters.api import (
    CatalogEntry,
    DoneUnit,
    Enumeration,
    Gap,
    Loss,
    Outcome,
    SourceSummary,
    Unit,
)
from migrate.bundle import canonical_json, layout
from migrate.errors import DamageError, decoding
from migrate.storage.api import FileInfo, NewFile, Store

VERSION = 1
_AHEAD = 64


class FileRecord(Struct, frozen=True):
    """A file of the bundle as it was written. ``key`` is relative to the location; ``sha256`` is 64 hex
    digits.
    """

    key: str
    size_bytes: int
    sha256: str
    crc64nvme: int

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON files have it."""
        return asdict(self) | {"crc64nvme": f"{self.crc64nvme:016x}"}

    @staticmethod
    def of_json(value: Mapping[str, Any]) -> FileRecord:
        """Read what ``as_json`` returns. Raises ``KeyError``, ``TypeError``, ``ValueError``."""
        checksum = int(value["crc64nvme"], 16)
        return FileRecord(str(value["key"]), int(value["size_bytes"]), str(value["sha256"]), checksum)


class CommitRecord(Struct, frozen=True):
    """A finished unit: its outcome, its files, the position of the snapshot that it was read under, and when
    (UTC, ISO 8601).
    """

    source: str
    unit: Unit
    outcome: Outcome
    files: Sequence[FileRecord]
    position: Mapping[str, Any]
    finished: str

    def done(self) -> DoneUnit:
        """The unit as its source sees it."""
        root = len(layout.source_file(self.source, ""))
        return DoneUnit(self.unit, self.outcome, [file.key[root:] for file in self.files], self.position)


class FinalRecord(Struct, frozen=True):
    """A finished source: its summary and the files that belong to no unit."""

    source: str
    summary: SourceSummary
    files: Sequence[FileRecord]


def write_record(store: Store, record: CommitRecord) -> None:
    """Commit a unit. Everything it names must be durable already."""
    store.put(layout.commit_record(record.source, record.unit.id), encode_record(record))


def write_records(store: Store, records: Sequence[CommitRecord]) -> None:
    """Commit units of one source together, all or none. Everything they name must be durable already."""
    if len(records) == 1:
        write_record(store, records[0])
    elif records:
        store.put(layout.group_record(records[0].source, uuid.uuid4().hex), encode_group(records))


def group_infos(store: Store, source: str) -> list[FileInfo]:
    """Return the files of a source's records of several units each."""
    return [info for info in store.list(layout.groups_prefix(source)) if info.key.endswith(".json")]


def read_group(store: Store, source: str, key: str) -> list[CommitRecord]:
    """Return the records of several units that lie at ``key``. Raises ``GoneError`` where there are none,
    ``DamageError`` where they make no sense.
    """
    return decode_group(store.read(key), key, source)


def separate_groups(store: Store, source: str, on_damage: Callable[[DamageError], None]) -> None:
    """Give each unit of a group a record of its own, unless it has one. A group whose record is damaged is forgotten,
    if ``on_damage`` returns.
    """
    infos = group_infos(store, source)
    present = set(record_ids(store, source)) if infos else set()
    for info in infos:
        try:
            records = read_group(store, source, info.key)
        except DamageError as exc:
            on_damage(exc)
            records = []
        store.put_all(
            [
                NewFile(layout.commit_record(source, record.unit.id), encode_record(record))
                for record in records
                if record.unit.id not in present
            ]
        )
        store.delete(info.key)


def read_record(store: Store, source: str, unit_id: str) -> CommitRecord:
    """Return a unit's record. Raises ``GoneError`` where there is none, ``DamageError`` where it makes no
    sense.
    """
    key = layout.commit_record(source, unit_id)
    return decode_record(store.read(key), key, source)


def record_ids(store: Store, source: str) -> Iterator[str]:
    """Yield the ids of a source's finished units, by listing alone."""
    prefix = layout.units_prefix(source)
    for info in store.list(prefix):
        if info.key.endswith(".json"):
            yield info.key[len(prefix) : -len(".json")]


def refuse_damage(error: DamageError) -> None:
    """Raise the error: what is damaged is not passed over."""
    raise error


def read_records(
    store: Store,
    source: str,
    ids: Iterable[str],
    executor: Executor,
    on_damage: Callable[[DamageError], None] = refuse_damage,
) -> Iterator[CommitRecord]:
    """Yield the records of ``ids`` in that order, read by ``executor``, at most ``_AHEAD`` of them in memory; without
    those that are damaged, if ``on_damage`` returns.
    """
    waiting: deque[Future[CommitRecord]] = deque()
    for unit_id in ids:
        waiting.append(executor.submit(read_record, store, source, unit_id))
        if len(waiting) >= _AHEAD:
            yield from _undamaged(waiting.popleft(), on_damage)
    while waiting:
        yield from _undamaged(waiting.popleft(), on_damage)


def _undamaged(
    record: Future[CommitRecord], on_damage: Callable[[DamageError], None]
) -> Iterator[CommitRecord]:
    try:
        undamaged = record.result()
    except DamageError as exc:
        on_damage(exc)
    else:
        yield undamaged


def write_final(store: Store, final: FinalRecord) -> None:
    """Commit a whole source."""
    store.put(layout.final_record(final.source), encode_final(final))


def read_final(store: Store, source: str) -> FinalRecord:
    """Return a source's final record. Raises ``GoneError`` where there is none."""
    key = layout.final_record(source)
    value = canonical_json.decode(store.read(key), key, version=VERSION)
    with decoding(key, "a final record"):
        return FinalRecord(
            source, _summary(value["summary"]), [FileRecord.of_json(item) for item in value["files"]]
        )


def encode_record(record: CommitRecord) -> bytes:
    """Return a record as canonical JSON."""
    return canonical_json.encode(_record_out(record))


def encode_group(records: Sequence[CommitRecord]) -> bytes:
    """Return the record of several units as canonical JSON."""
    return canonical_json.encode({"version": VERSION, "records": [_record_out(record) for record in records]})


def decode_record(data: bytes, key: str, source: str) -> CommitRecord:
    """Parse what ``encode_record`` wrote. Raises ``DamageError`` that names ``key``."""
    return _record(canonical_json.decode(data, key), key, source)


def decode_group(data: bytes, key: str, source: str) -> list[CommitRecord]:
    """Parse what ``encode_group`` wrote. Raises ``DamageError`` that names ``key``."""
    value = canonical_json.decode(data, key, version=VERSION)
    records = value.get("records")
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DamageError(key, expected="commit records", found="something else")
    return [_record(record, key, source) for record in records]


def _record_out(record: CommitRecord) -> dict[str, Any]:
    outcome = record.outcome
    return {
        "version": VERSION,
        "unit": asdict(record.unit),
        "outcome": {
            "items": outcome.items,
            "size_bytes": outcome.size_bytes,
            "digest": None if outcome.digest is None else f"{outcome.digest:032x}",
            "losses": _losses_out(outcome.losses),
            "gaps": _gaps_out(outcome.gaps),
            "facts": outcome.facts,
        },
        "files": [file.as_json() for file in record.files],
        "position": record.position,
        "finished": record.finished,
    }


def _record(value: dict[str, Any], key: str, source: str) -> CommitRecord:
    canonical_json.check_version(value, key, VERSION)
    with decoding(key, "a commit record"):
        outcome = value["outcome"]
        return CommitRecord(
            source=source,
            unit=msgspec.convert(value["unit"], Unit),
            outcome=Outcome(
                items=int(outcome["items"]),
                size_bytes=int(outcome["size_bytes"]),
                digest=None if outcome["digest"] is None else int(outcome["digest"], 16),
                losses=[Loss(*item) for item in outcome["losses"]],
                gaps=[Gap(*item) for item in outcome["gaps"]],
                facts=dict(outcome["facts"]),
            ),
            files=[FileRecord.of_json(item) for item in value["files"]],
            position=dict(value["position"]),
            finished=str(value["finished"]),
        )


def encode_final(final: FinalRecord) -> bytes:
    """Return a final record as canonical JSON."""
    summary = final.summary
    return canonical_json.encode(
        {
            "version": VERSION,
            "summary": {
                "entries": [asdict(entry) for entry in summary.entries],
                "enumerations": [
                    [item.what, item.how, item.count, *([item.not_counted] if item.not_counted else [])]
                    for item in summary.enumerations
                ],
                "gaps": _gaps_out(summary.gaps),
                "losses": _losses_out(summary.losses),
                "positions": list(summary.positions),
                "server": summary.server,
                **({"has_definitions": True} if summary.has_definitions else {}),
            },
            "files": [file.as_json() for file in final.files],
        }
    )


def _gaps_out(gaps: Sequence[Gap]) -> list[list[str]]:
    return [[gap.item, gap.disposition, gap.reason] for gap in gaps]


def _losses_out(losses: Sequence[Loss]) -> list[list[str]]:
    return [[loss.item, loss.property, loss.reason] for loss in losses]


def _summary(value: Mapping[str, Any]) -> SourceSummary:
    return SourceSummary(
        entries=msgspec.convert(value["entries"], list[CatalogEntry]),
        enumerations=[Enumeration(*item) for item in value["enumerations"]],
        gaps=[Gap(*item) for item in value["gaps"]],
        losses=[Loss(*item) for item in value["losses"]],
        positions=[dict(position) for position in value["positions"]],
        server=str(value["server"]),
        has_definitions=value.get("has_definitions") is True,
    )
