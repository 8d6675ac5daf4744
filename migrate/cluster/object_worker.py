"""A worker's part of a restore: a batch of objects, looked for in the bucket first where another one had it before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace

from exporters.api import Json
from exporters.bucket_api import ObjectSummary
from migrate.cluster import protocol
from migrate.cluster.batch_claims import Claim
from migrate.cluster.worker_state import RestoreSession
from migrate.errors import MoveoutError
from migrate.restore.common.report import Moved
from migrate.restore.objects.batches import History
from migrate.restore.objects.copy import Done
from migrate.restore.objects.existing import begins
from migrate.restore.objects.workers import Writing
from migrate.storage.s3.destination_bucket import DestinationBucket


def fill(session: RestoreSession, piece: Json) -> Json:
    """Write a batch; return what it came to. Raises what stops the whole restore, ``BusyError``, ``Cancelled``."""
    session.fence.check()
    batch = protocol.batch_of(piece["objects"])
    claim = session.claims.on(piece["id"])
    try:
        return asdict(_write(session, batch, claim))
    except BaseException:
        with suppress(MoveoutError):
            claim.leave()
        raise


def _write(session: RestoreSession, batch: Sequence[History], claim: Claim) -> Done:
    writing, there = session.writing, Done(0, 0, ())
    if claim.contested:
        batch, there = look(writing, batch)
    if not batch:
        return there
    return there + writing.write(batch, session.notes, claim.check)


def look(writing: Writing, batch: Sequence[History]) -> tuple[list[History], Done]:
    """Return what of a batch is still to be written, and what was found there; what is there and is another's counts
    as a finding.
    """
    left: list[History] = []
    there = Done(0, 0, ())
    for one in batch:
        found = _found(writing, one)
        if not begins(writing.destination, found, one.rows):
            finding = f"{one.key}: the bucket holds another object of this key; it was left alone"
            there += Done(0, 0, (finding,))
            continue
        rows = one.rows[: len(found)]
        moved: list[Moved] = [
            (one.key, row.version_id, it.version_id, row.is_delete_marker)
            for row, it in zip(rows, found, strict=True)
        ]
        size_bytes = sum(row.size_bytes for row in rows)
        there += Done(len(rows), size_bytes, (), tuple(moved) if writing.versions else ())
        if len(found) < len(one.rows):
            left.append(replace(one, rows=one.rows[len(found) :], before=one.before + len(found)))
    return left, there


def _found(writing: Writing, one: History) -> Sequence[ObjectSummary]:
    """Return what has become of a key since the batch was made, oldest first."""
    if writing.versions:
        return writing.destination.versions(one.key)[one.before :]
    return _current(writing.destination, one.key)


def _current(destination: DestinationBucket, key: str) -> list[ObjectSummary]:
    first = next(destination.list(prefix=key), None)
    return [first] if first is not None and first.key == key else []


def answer_of(told: Json) -> Done:
    """Return what a worker says of a batch."""
    moved = [tuple(row) for row in told["moved"]]
    return Done(told["items"], told["size_bytes"], tuple(told["findings"]), tuple(moved))
