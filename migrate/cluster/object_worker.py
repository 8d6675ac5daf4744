"""A worker's part of a restore: a batch of objects, looked for in the bucket first where another one had it before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from exporters.api import Json
from exporters.bucket_api import ObjectSummary
from exporters.structs import as_dict
from migrate.cluster import protocol
from migrate.cluster.batch_claims import Claim
from migrate.cluster.worker_state import RestoreSession
from migrate.errors import MoveoutError
from migrate.restore.common.report import RestoredVersion
from migrate.restore.objects.copy import BatchOutcome, History, ObjectCopy
from migrate.restore.objects.existing import begins, taken


def fill(session: RestoreSession, piece: Json) -> Json:
    """Write a batch; return what it came to. Raises what stops the whole restore, ``BusyError``, ``Cancelled``."""
    session.fence.check()
    batch = protocol.batch_of(piece["objects"])
    claim = session.claims.on(piece["id"])
    try:
        return as_dict(_write(session, batch, claim))
    except BaseException:
        with suppress(MoveoutError):
            claim.leave()
        raise


def _write(session: RestoreSession, batch: Sequence[History], claim: Claim) -> BatchOutcome:
    copy, done_there = session.copy, BatchOutcome(0, 0, ())
    if claim.contested:
        batch, done_there = look(copy, batch)
    if not batch:
        return done_there
    return done_there + copy.write(batch, session.notes, claim.check)


def look(copy: ObjectCopy, batch: Sequence[History]) -> tuple[list[History], BatchOutcome]:
    """Return what of a batch is still to be written, and what was found there; what is there and is another's counts
    as a finding.
    """
    left: list[History] = []
    total = BatchOutcome(0, 0, ())
    for history in batch:
        versions = _versions_now(copy, history)
        if not begins(copy.destination, versions, history.rows):
            total += BatchOutcome(0, 0, (taken(history.key),))
            continue
        rows = history.rows[: len(versions)]
        moved_versions: list[RestoredVersion] = [
            (history.key, row.version_id, version.version_id, row.is_delete_marker)
            for row, version in zip(rows, versions, strict=True)
        ]
        size_bytes = sum(row.size_bytes for row in rows)
        total += BatchOutcome(len(rows), size_bytes, (), tuple(moved_versions) if copy.versions else ())
        if len(versions) < len(history.rows):
            left.append(
                replace(history, rows=history.rows[len(versions) :], before=history.before + len(versions))
            )
    return left, total


def _versions_now(copy: ObjectCopy, history: History) -> Sequence[ObjectSummary]:
    """Return what has become of a key since the batch was made, oldest first."""
    if copy.versions:
        return copy.destination.versions(history.key)[history.before :]
    current = copy.destination.current(history.key)
    return [] if current is None else [current]


def answer_of(response: Json) -> BatchOutcome:
    """Return what a worker says of a batch."""
    moved_versions = [tuple(row) for row in response["moved"]]
    return BatchOutcome(
        response["items"],
        response["size_bytes"],
        tuple(response["findings"]),
        tuple(moved_versions),
        tuple(response["refused"]),
    )
