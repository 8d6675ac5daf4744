"""The buckets of a case at its cutover: synced once more before the hold, and proved equal while nothing is written."""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import Struct

from exporters.selection import EVERYTHING
from migrate.case.model import Case
from migrate.cli.common.options import Delete, Overwrite
from migrate.cli.common.session import Session
from migrate.cli.moves.bucket_sync import Synced, make_bucket, run_sync
from migrate.custody.signing.keys import Signer
from migrate.errors import IncompleteError
from migrate.follow.cutover_record import ProvenBucket
from migrate.sync.bucket_pairs import BucketPair, pairs_in
from migrate.sync.run import SyncOptions


class BucketOptions(Struct, frozen=True):
    """What the cutover may do to the buckets of the new side."""

    delete: Delete = False
    overwrite: Overwrite = False


class CutoverBuckets(Struct, frozen=True):
    """The buckets of one cutover, each with its destination."""

    session: Session
    case: Case
    pairs: Sequence[BucketPair]
    options: BucketOptions
    signers: Sequence[Signer]

    def catch_up(self) -> None:
        """Copy what has changed. Raises ``IncompleteError`` where a bucket cannot be made equal, and what ``run_sync``
        raises.
        """
        for pair in self.pairs:
            synced = self._sync(pair, cutover=False)
            for name, reason in synced.outcome.other_settings.items():
                self.session.progress.note(f"! {pair.name}: the bucket's {name}: {reason}")
            line = synced.summary(pair.name)
            if line.word != "yes":
                raise IncompleteError(f"bucket {pair.name}: {line.happened}", next_step=line.next_step)

    def prove(self) -> list[ProvenBucket]:
        """Copy what has changed since, and compare both sides of each bucket."""
        return [self._proven(pair) for pair in self.pairs]

    def foreseen(self) -> list[str]:
        """Return sentences about what the cutover would do."""
        return [
            f"would sync {pair.name} to {pair.destination.shown}, and compare"
            for pair in self.pairs
            if pair.destination
        ]

    def _proven(self, pair: BucketPair) -> ProvenBucket:
        self.session.progress.note(f"{pair.name}: sync and compare")
        begun = time.monotonic()
        synced = self._sync(pair, cutover=True)
        proof = synced.outcome.proof
        line = synced.summary(pair.name)
        return ProvenBucket(
            pair.name,
            proof.objects if proof else 0,
            proof.size_bytes if proof else 0,
            "" if proof and line.word == "yes" else line.happened,
            time.monotonic() - begun,
        )

    def _sync(self, pair: BucketPair, *, cutover: bool) -> Synced:
        options = SyncOptions(
            EVERYTHING, delete=self.options.delete, overwrite=self.options.overwrite, cutover=cutover
        )
        make_bucket(self.session, pair, options, create=False)
        return run_sync(self.session, pair, options, self.case, self.signers)


def cutover_buckets(
    session: Session, case: Case, options: BucketOptions, signers: Sequence[Signer]
) -> CutoverBuckets:
    """Return the buckets of a case that have a destination. Raises the error of an account that cannot be listed."""
    is_bucket = [source.engine.url_names == "bucket" for source in case.sources.values()]
    pairs = pairs_in(case, session.progress)[0] if any(is_bucket) else []
    for pair in pairs:
        if pair.source.error is not None:
            raise pair.source.error
        if pair.destination is None:
            session.progress.note(f"! {pair.name} does not join: the case file does not say where it goes")
    return CutoverBuckets(session, case, [pair for pair in pairs if pair.destination], options, signers)
