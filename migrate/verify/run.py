"""The levels of a verification, put together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from migrate.bundle.findings import Finding
from migrate.bundle.reader import REQUIRED, BundleReader
from migrate.bundle.table_digests import TableDigest
from migrate.runtime.progress import Progress
from migrate.storage.api import Store
from migrate.verify import file_presence, reconciliation_check, tag_file_checks
from migrate.verify.file_presence import Counted
from migrate.verify.full_check import Content
from migrate.verify.outcome import Level, VerifyOutcome


def verify(store: Store, level: Level, *, workers: int, progress: Progress) -> VerifyOutcome:
    """Look for everything that is not as the bundle says; what is wrong comes back as findings.

    Raises ``GoneError`` (nothing there), ``UsageError`` (not sealed, or sealed by a newer moveout) and the
    store's errors: then one could not look.
    """
    level = Level(level)
    findings: list[Finding] = []
    known = tag_file_checks.check(store, findings)
    size_bytes, files = known.oxum or (0, 0)
    progress.begin(f"verify {level.value}", items=files, size_bytes=size_bytes if level is Level.FULL else 0)
    findings.extend(file_presence.check_tags(store, known, level))
    counted = Counted()
    digests: list[TableDigest] = []
    if level is Level.FULL:
        with ThreadPoolExecutor(workers, thread_name_prefix="moveout-verify") as executor:
            content = Content(store, known, executor, progress, ahead=workers * 2)
            content.check(findings, counted)
            digests = content.digests
    else:
        for _ in file_presence.check_payload(store, known, findings, counted):
            progress.advance(items=1)
    if level is not Level.QUICK and known.sound.issuperset(REQUIRED) and not findings:
        findings.extend(reconciliation_check.check(BundleReader(store)))
    progress.end()
    ordered = sorted(set(findings), key=lambda finding: (finding.key, finding.what, finding.found))
    return VerifyOutcome(
        ordered, counted.files, counted.size_bytes, digests, known.info.id if known.info else ""
    )
