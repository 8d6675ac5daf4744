"""What runs on a worker: four kinds of batches, and two calls by which the lead reaches in from outside.

Everything goes in and out as text or plain numbers, so a worker needs moveout itself and nothing of the lead's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

from exporters.api import Json, Unit
from exporters.errors import SourceError, SourceSnapshotLostError, SourceUnreachableError
from migrate.bundle import layout
from migrate.cluster import object_worker, protocol, transfer_worker
from migrate.cluster.dask_client import own_address, sample_no_stacks
from migrate.cluster.protocol import ExportJob, Job, RestoreJob, RowsJob
from migrate.cluster.worker_state import (
    ExportSession,
    RestoreSession,
    RowsSession,
    Sessions,
    TransferSession,
    WorkerSession,
)
from migrate.errors import MoveoutError, UsageError
from migrate.export.unit_runner import PlannedUnit, UnitRunner
from migrate.runtime.cancellation import Cancelled
from migrate.storage.api import Store, exists
from migrate.transfer.plan import SealedFile

_SESSIONS = Sessions()

Answers = Iterable[tuple[str, Json]]
"""What became of pieces, by id: nothing more to say, or how they failed."""


def do(text: str) -> str:
    """Do a batch; return what became of each piece. One that is in no answer was not tried.

    ``unfit`` is why this machine cannot do the job at all: then others should.
    """
    sample_no_stacks()
    try:
        order = protocol.decode(text)
    except UsageError as exc:
        return _encode(unfit=exc)
    try:
        return _do(order)
    except SourceSnapshotLostError as exc:
        lost = protocol.error_json(exc)  # for every machine, so this one is as fit as any
        return _encode({piece["id"]: lost for piece in order.pieces})
    except MoveoutError as exc:
        return _encode(unfit=exc)
    except Cancelled:
        return _encode()


def exchange(job: str, rate: float | None, seconds: float) -> tuple[float, float] | None:
    """Take a new share of the lead's budget; return the bytes taken until now, and those that are waiting. None where
    nothing is done for that job here.
    """
    sessions = _SESSIONS.of(job)
    if not sessions:
        return None
    used = [session.allowance.exchange(_part(rate, len(sessions)), seconds) for session in sessions]
    return sum(taken_bytes for taken_bytes, _ in used), sum(owed for _, owed in used)


def cancel_job(job: str) -> int:
    """Cancel all that is done for a job; return how many batches are still on their way to their end."""
    return _SESSIONS.cancel(job)


def _part(rate: float | None, sessions: int) -> float | None:
    return None if rate is None else rate / sessions


def _do(order: protocol.Order) -> str:
    job = order.job
    with _SESSIONS.enter(job, _maker(job)) as session:
        responses: dict[str, Json] = {}
        with suppress(Cancelled):
            for id_, response in _work(session, order):
                responses[id_] = response  # noqa: PERF403  what was answered before counts
        return _encode(responses, session.notes.take())


def _maker(job: Job) -> Callable[[], WorkerSession]:
    if isinstance(job, ExportJob):
        return lambda: ExportSession(job)
    if isinstance(job, RestoreJob):
        return lambda: RestoreSession(job)
    if isinstance(job, RowsJob):
        return lambda: RowsSession(job)
    return lambda: TransferSession(job)


def _work(session: WorkerSession, order: protocol.Order) -> Answers:
    if isinstance(session, ExportSession):
        return _export(session.runner, [Unit(**piece) for piece in order.pieces])
    if isinstance(session, RestoreSession):
        return _write_objects(session, order.pieces)
    if isinstance(session, RowsSession):
        return _copy(session, order.pieces)
    return _copy_files(
        cast("TransferSession", session), [transfer_worker.file_of(piece) for piece in order.pieces]
    )


def _export(runner: UnitRunner, units: Iterable[Unit]) -> Iterator[tuple[str, Json]]:
    """Do units one after the other. What fails for all of them is not tried again with each."""
    over: Exception | None = None
    for unit in units:
        if over is None:
            try:
                runner.do(PlannedUnit(unit, _is_recorded(runner.store, runner.source, unit)))
            except Exception as exc:
                if not _is_for_all(exc):
                    yield unit.id, protocol.error_json(exc)
                    continue
                over = exc
        yield unit.id, protocol.error_json(over) if over else {}


def _is_for_all(error: Exception) -> bool:
    """Tell whether every unit would fail like this: the location failed, or the source is unreachable."""
    if isinstance(error, SourceError):
        return isinstance(error, SourceUnreachableError)
    return isinstance(error, MoveoutError)


def _copy_files(session: TransferSession, files: Sequence[SealedFile]) -> Iterator[tuple[str, Json]]:
    """Move files, all of them at once. An error of the location is everybody's."""
    try:
        yield from transfer_worker.copy_files(session, files)
    except MoveoutError as exc:
        for file in files:
            yield file.key, protocol.error_json(exc)


def _write_objects(session: RestoreSession, pieces: Iterable[Json]) -> Iterator[tuple[str, Json]]:
    """Write batches of objects."""
    for piece in pieces:
        try:
            yield piece["id"], object_worker.fill(session, piece)
        except MoveoutError as exc:
            yield piece["id"], protocol.error_json(exc)


def _copy(session: RowsSession, pieces: Iterable[Json]) -> Iterator[tuple[str, Json]]:
    """Copy parts of tables into the database."""
    for piece in pieces:
        try:
            writer, parts = session.rows()
            written = writer.write(parts[piece["id"]])
        except MoveoutError as exc:
            yield piece["id"], protocol.error_json(exc)
        else:
            yield piece["id"], {"written": written}


def _is_recorded(store: Store, source: str, unit: Unit) -> bool:
    """Tell whether an earlier run, or a worker that died before it could say so, has committed the unit."""
    return exists(store, layout.commit_record(source, unit.id))


def _encode(
    responses: dict[str, Json] | None = None, notes: list[str] | None = None, unfit: Exception | None = None
) -> str:
    value: dict[str, Any] = {"version": protocol.VERSION, "worker": own_address()}
    value |= {"answers": responses or {}, "notes": notes or []}
    return json.dumps(value | ({"unfit": protocol.error_json(unfit)} if unfit else {}))
