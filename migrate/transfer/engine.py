"""Moves a sealed bundle: bounded workers, every byte hashed on the way.

The engine decides nothing (see ``plan``): it reads, checks, sends, and counts. What is durable at the target
is found by listing it, so the same command goes on after any interruption, from any machine.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.lease import Lease
from migrate.errors import GoneError
from migrate.progress import Progress
from migrate.store.base import PART_BYTES, MultipartStore, Part, Store, Upload
from migrate.transfer.lanes import Lanes, Piece
from migrate.transfer.large import LargeFile
from migrate.transfer.origin import Sealed, read_sealed
from migrate.transfer.outcome import TransferOutcome
from migrate.transfer.plan import FileJob, Phases, WantedFile, candidates, phases, plan_file
from migrate.transfer.tally import Tally
from migrate.transfer.target import TransferState, make_room, survey, write_state
from migrate.transfer.workers import run_workers


def transfer(
    origin: MultipartStore,
    target: MultipartStore,
    *,
    workers: int,
    progress: Progress,
    recheck: bool = False,
) -> TransferOutcome:
    """Bring the sealed bundle at ``origin`` to ``target``; what lies there already is not sent again.

    Files that differ from their manifest, or are missing, become findings; the rest is moved, and the target
    stays unsealed. Files at the origin that no manifest names are findings too, and stay where they are.
    ``recheck`` hashes what lies at the target and replaces what differs. Raises ``UsageError`` (no sealed
    bundle at the origin), ``NotEmptyError`` (the target holds something else), ``BusyError``, and whatever a
    store raises for good.
    """
    started = time.monotonic()
    sealed = read_sealed(origin)
    survey(target, sealed)  # refuse a foreign place before leaving a lease there
    with Lease(target, "transfer", progress=progress) as lease:
        run = _Run(origin, target, sealed, lease, workers=workers, progress=progress, recheck=recheck)
        run.move()
        run.tidy()
    return run.tally.outcome(sealed, time.monotonic() - started)


class _Run:
    """One transfer under way."""

    def __init__(
        self,
        origin: MultipartStore,
        target: MultipartStore,
        sealed: Sealed,
        lease: Lease,
        *,
        workers: int,
        progress: Progress,
        recheck: bool,
    ) -> None:
        self.tally = Tally(progress)
        self._origin, self._target, self._sealed, self._lease = origin, target, sealed, lease
        self._workers, self._progress, self._recheck = workers, progress, recheck
        surveyed = survey(target, sealed)
        if surveyed.predecessor:
            progress.note(f"bundle {surveyed.predecessor}, which this one continues, makes room for it")
            surveyed = make_room(target, sealed, surveyed, origin.place)
        self._present, self._resumed = surveyed.present, surveyed.begun
        self._uploads = _by_key(target.uploads()) if self._present else {}
        self._lanes: Lanes | None = None

    def move(self) -> None:
        """Do the phases in order; only the first where a file of the payload is damaged or missing: then the
        others are only looked at.
        """
        self._progress.begin("transfer", items=len(self._sealed.files), size_bytes=self._sealed.size_bytes)
        for finding in self._sealed.extra:
            self.tally.find(finding, blocks=False)
        for finding in self._sealed.findings:
            self.tally.find(finding)
        order: Phases = phases(self._sealed.files)
        for number, files in enumerate((order.payload, order.tags)):
            missing = self._missing(files)
            if missing and not self._resumed:
                self._announce()
            self._move(missing)
            if number == 0 and self.tally.blocked:
                self._inspect((*order.tags, *order.seals))
                break
        for file in order.seals:
            if not self.tally.blocked:
                self._move(self._missing([file]))
        self._progress.end()

    def tidy(self) -> None:
        """Remove what only a transfer under way needs."""
        if self.tally.blocked:
            return
        for upload in self._target.uploads():
            self._target.abort(upload.key, upload.id)
        self._target.delete(layout.TRANSFER_STATE)

    def _announce(self) -> None:
        """Say at the target what is coming, before the first byte of it."""
        sealed = self._sealed
        state = TransferState(sealed.id, self._origin.place, len(sealed.files), sealed.size_bytes)
        write_state(self._target, state)
        self._resumed = True

    def _missing(self, files: Sequence[WantedFile]) -> list[WantedFile]:
        """Return the files that must be moved, in order, after a look at those that have their size
        already.
        """
        missing, there = candidates(files, self._present)
        differing: list[WantedFile] = []

        def check(file: WantedFile) -> None:
            if self._is_same(file):
                self.tally.skip_file(file)
            else:
                differing.append(file)

        self._run(
            Lanes((_piece(check, file, 0) for file in there), (), workers=self._workers, most=self._most)
        )
        wanted = {file.key for file in (*missing, *differing)}
        return [file for file in files if file.key in wanted]

    def _is_same(self, file: WantedFile) -> bool:
        """Tell whether the file at the target, which has the right size, is this one."""
        if file.sha256 is None:
            return _hash(self._origin, file) == _hash(self._target, file)
        if self._recheck or not file.key.startswith(layout.DATA):
            return _hash(self._target, file) == file.sha256
        if not self._target.keeps_sha256:
            return True
        kept = self._target.stat(file.key).sha256
        return (kept or _hash(self._target, file)) == file.sha256

    def _move(self, files: Sequence[WantedFile]) -> None:
        jobs = [plan_file(file) for file in files]
        small = (_piece(self._small, job.file, job.file.size_bytes) for job in jobs if job.is_small)
        openers = (self._opener(job) for job in jobs if not job.is_small)
        self._run(Lanes(small, openers, workers=self._workers, most=self._most))

    def _most(self) -> int:
        """Return how many pieces may be under way: fewer while one of the places struggles."""
        paces = (getattr(store, "pace", None) for store in (self._origin, self._target))
        return min((pace.of(self._workers) for pace in paces if pace is not None), default=self._workers)

    def _run(self, lanes: Lanes) -> None:
        self._lanes = lanes
        run_workers(lanes, self._workers, stores=(self._origin, self._target), on_stuck=self._lease.abandon)

    def _small(self, file: WantedFile) -> None:
        """Read, check, put. Wrong bytes are read once more before they are called damage."""
        data = b""
        for _ in range(2):
            try:
                data = self._origin.read(file.key)
            except GoneError:
                self.gone(file)
                return
            found = hashlib.sha256(data).hexdigest()
            if found == (file.sha256 or found):
                self._lease.check()
                self._target.put(file.key, data, sha256=found)
                self.tally.move_bytes(len(data))
                self.tally.move_file()
                return
        self.tally.find(_damaged(file, found))

    def gone(self, file: WantedFile) -> None:
        """Note that a file vanished at the origin; raises ``GoneError`` if all of the origin did."""
        try:
            self._origin.stat(layout.BAGIT)
        except GoneError as exc:
            raise GoneError(f"{self._origin.place} is gone, in the middle of the transfer") from exc
        self.tally.find(Finding(file.key, "was listed at the origin but is gone now"))

    def _inspect(self, files: Iterable[WantedFile]) -> None:
        """Look for damage in files that are not moved, so that one run names all there is to repair."""
        told = {finding.key for finding in self._sealed.findings}
        for file in files:
            if file.key in told:
                continue
            found = _hash(self._origin, file)
            if file.sha256 is not None and found != file.sha256:
                self.tally.find(_damaged(file, found or "nothing"))

    def _opener(self, job: FileJob, attempt: int = 1) -> Callable[[], Iterator[Piece]]:
        def open_file() -> Iterator[Piece]:
            upload, kept = self._upload(job)
            planned = plan_file(job.file, upload, kept)
            count = self.tally.skip_bytes if attempt == 1 else self.tally.pass_bytes
            large = LargeFile(
                planned,
                upload,
                origin=self._origin,
                target=self._target,
                on_sent=self.tally.move_bytes,
                on_kept=count,
                check=self._lease.check,
            )
            return large.pieces(on_end=lambda found: self._ended(large, found, attempt))

        return open_file

    def _ended(self, large: LargeFile, found: Finding | None, attempt: int) -> None:
        """Take a large file's end: made, given up, or, where bytes were wrong for the first time, to be read
        again.
        """
        file = large.job.file
        if found is None:
            self.tally.move_file()
        elif attempt == 1 and found.found:
            self._uploads[file.key] = [large.as_upload()]
            self.tally.again(file)
            assert self._lanes is not None
            self._lanes.again(self._opener(large.job, attempt + 1))
        else:
            self._target.abort(file.key, large.upload)
            if found.found:
                self.tally.find(found)
            else:
                self.gone(file)

    def _upload(self, job: FileJob) -> tuple[str, list[Part]]:
        """Return the upload to go on with and its durable parts: the one that has most, else a new one."""
        key = job.file.key
        found = self._uploads.pop(key, [])
        if not found and self._resumed and self._present:
            found = [upload for upload in self._target.uploads(key) if upload.key == key]
        best: tuple[int, str, list[Part]] | None = None
        for upload in found:
            try:
                parts = self._target.parts(key, upload.id)
            except GoneError:
                continue
            kept = sum(p.kept.size_bytes for p in plan_file(job.file, upload.id, parts).parts if p.kept)
            if best is None or kept > best[0]:
                best = (kept, upload.id, parts)
        for upload in found:
            if best is not None and upload.id != best[1]:
                self._target.abort(key, upload.id)
        if best is not None:
            return best[1], best[2]
        return self._target.begin(key, sha256=job.file.sha256, part_bytes=job.part_bytes), []


def _piece(do: Callable[[WantedFile], None], file: WantedFile, size_bytes: int) -> Piece:
    return Piece(size_bytes, lambda: do(file))


def _by_key(uploads: Iterable[Upload]) -> dict[str, list[Upload]]:
    found: dict[str, list[Upload]] = defaultdict(list)
    for upload in uploads:
        found[upload.key].append(upload)
    return found


def _hash(store: Store, file: WantedFile) -> str:
    """Return the SHA-256 of what lies at the place, read in blocks; "" where it is gone."""
    digest = hashlib.sha256()
    try:
        for start in range(0, file.size_bytes, PART_BYTES):
            digest.update(store.read(file.key, start, PART_BYTES))
    except GoneError:
        return ""
    return digest.hexdigest()


def _damaged(file: WantedFile, found: str) -> Finding:
    return Finding(
        file.key, "differs from the manifest at the origin", f"SHA-256 {file.sha256}", f"SHA-256 {found}"
    )
