"""The levels of a verification, put together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from migrate.bundle.findings import Finding
from migrate.bundle.proofs import TableDigest
from migrate.bundle.reader import REQUIRED, BundleReader
from migrate.progress import Progress
from migrate.store.base import Store
from migrate.verify import account, presence, tags
from migrate.verify.content import Content
from migrate.verify.outcome import Level, VerifyOutcome
from migrate.verify.presence import Counted


def verify(store: Store, level: Level, *, workers: int, progress: Progress) -> VerifyOutcome:
    """Look for everything that is not as the bundle says; what is wrong comes back as findings.

    Raises ``GoneError`` (nothing there), ``UsageError`` (not sealed, or sealed by a newer moveout) and the
    store's errors: then one could not look.
    """
    level = Level(level)
    findings: list[Finding] = []
    known = tags.check(store, findings)
    size_bytes, files = known.oxum or (0, 0)
    progress.begin(f"verify {level.value}", items=files, size_bytes=size_bytes if level is Level.FULL else 0)
    findings.extend(presence.check_tags(store, known, level))
    counted = Counted()
    digests: list[TableDigest] = []
    if level is Level.FULL:
        with ThreadPoolExecutor(workers, thread_name_prefix="moveout-verify") as executor:
            content = Content(store, known, executor, progress, ahead=workers * 2)
            content.check(findings, counted)
            digests = content.digests
    else:
        for _ in presence.check_payload(store, known, findings, counted):
            progress.advance(items=1)
    if level is not Level.QUICK and known.sound.issuperset(REQUIRED) and not findings:
        findings.extend(account.check(BundleReader(store)))
    progress.end()
    ordered = sorted(set(findings), key=lambda finding: (finding.key, finding.what, finding.found))
    return VerifyOutcome(
        ordered, counted.files, counted.size_bytes, digests, known.info.id if known.info else ""
    )
