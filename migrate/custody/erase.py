"""Provable erasure: every version and every upload of a bundle is removed, the place is listed again, and a signed
certificate says what was done and what nobody can verify.

What survives is the record: the custody log, documents, and the signatures that give them their weight. The intention
is written into the log first, so that the same command finishes what a dead run began.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from migrate.bundle import layout
from migrate.custody import documents, log
from migrate.custody.clock import Verdict
from migrate.custody.documents import Document
from migrate.custody.entry import Happening
from migrate.custody.keys import Signer
from migrate.custody.record import happening
from migrate.errors import DamageError, NotAllowedError
from migrate.progress import Progress
from migrate.store.base import MultipartStore
from migrate.store.vault import FileVersion, Vault

_KEPT = re.compile(rf"sig/(custody\.jsonl|custody-head\.json|checkpoint|({'|'.join(documents.KINDS)})-.*)")
"""The signatures of the tag manifest go with it: that it was signed, and by whom, the log says."""
UNVERIFIABLE = (
    "Copies that others made while they could read the place, and bundles that were transferred from it.",
    "Backups, snapshots and replicas of the storage system below the place; ask its operator for their retention.",
    "Whether the storage system has overwritten the freed blocks on its media.",
    "The databases and buckets from which the bundle was exported: this certificate is about the bundle alone.",
)


@dataclass(frozen=True, slots=True)
class Erased:
    """What was removed, and the certificate."""

    document: Document
    versions: int
    markers: int
    uploads: int
    size_bytes: int


def check(
    store: MultipartStore,
    vault: Vault,
    breaches: Sequence[Verdict],
    *,
    workers: int,
) -> list[str]:
    """Return why the bundle must not be erased: what is held, what the clock says, that there is no receipt."""
    reasons = []
    mine = [one for one in vault.versions() if not one.is_marker and not _is_kept(one.key)]
    now = vault.now()
    with ThreadPoolExecutor(workers, thread_name_prefix="moveout-erase") as pool:
        locks = list(pool.map(vault.lock, mine))
    held = [lock for lock in locks if lock.legal or (lock.until is not None and lock.until > now)]
    if held:
        ends = [lock.until for lock in held if lock.until is not None]
        until = f" until {max(ends).isoformat()}" if ends else ""
        reasons.append(f"{len(held)} of {len(mine)} versions are held{until}")
    reasons += [f"{one.rules}, {one.rule.article}: {one.why}" for one in breaches]
    return [*reasons, *_unreceived(store)]


def _unreceived(store: MultipartStore) -> list[str]:
    """Return why no receipt allows it: one of this very root is needed, by which what arrived was whole."""
    found, root = log.read(store), happening(store, "erasing").root
    said = [one.what.details for event in ("received", "acknowledged") for one in found.find(event, root)]
    if not said:
        return ["nobody has signed a receipt for it"]
    if all(one.get("findings") for one in said):
        return [f"its receipt names damage: {said[-1].get('findings')} findings"]
    return []


def is_begun(store: MultipartStore) -> bool:
    """Tell whether an erasure was begun at the place, and nothing has come there since: it may be finished, or be asked
    for its certificate again.
    """
    return _begun(store) is not None


def erase(
    store: MultipartStore, vault: Vault, signer: Signer, *, workers: int, progress: Progress, override: str = "",
    reasons: Sequence[str] = (),
) -> Erased:  # fmt: skip
    """Remove the bundle. ``reasons`` are what speaks against it, ``override`` why it is done all the same.

    Raises ``NotAllowedError`` (reasons without an override; locks that hold), ``DamageError`` (something is still there
    after all).
    """
    begun = _begun(store)
    if begun is None:
        if reasons and not override:
            raise NotAllowedError(
                "the bundle must not be erased: " + "; ".join(reasons),
                next_step="wait until none of this holds (moveout hold release, moveout receive),"
                ' or add --override "REASON": it is signed, and stays',
            )
        begun = _begin(store, vault, signer, override, reasons)
    progress.begin("erase", items=int(begun.details.get("versions", 0)), size_bytes=0)
    markers, uploads = _remove(store, vault, workers, progress)
    progress.end()
    left = [one for one in vault.versions() if not _is_kept(one.key)]
    if left:
        raise DamageError(
            f"{store.place}/{left[0].key}", expected="nothing", found=f"version {left[0].id} and {len(left) - 1} more",
            next_step="somebody still writes there, or these are locked; run the same command again",
        )  # fmt: skip
    document = _certificate(store, signer, begun, markers, uploads)
    details = {"file": document.key, "sha256": document.sha256, **_counts(begun)}
    what = Happening("erased", begun.bundle, begun.root, store.place, details)
    log.append(store, signer, log.once(what, undone_by="erasing"))
    return Erased(
        document,
        int(begun.details.get("versions", 0)),
        markers,
        uploads,
        int(begun.details.get("size_bytes", 0)),
    )


def _begin(
    store: MultipartStore, vault: Vault, signer: Signer, override: str, reasons: Sequence[str]
) -> Happening:
    there = [one for one in vault.versions() if not _is_kept(one.key)]
    details: dict[str, Any] = {
        "versions": sum(not one.is_marker for one in there),
        "markers": sum(one.is_marker for one in there),
        "size_bytes": sum(one.size_bytes for one in there),
        "uploads": sum(1 for _ in store.uploads()),
    }
    if override:
        details |= {"override": override, "against": list(reasons)}
    what = happening(store, "erasing", details)
    log.append(store, signer, lambda _: [what])
    return what


def _begun(store: MultipartStore) -> Happening | None:
    """Return the erasure that was begun last. One that has ended counts as long as nothing else lies there: a run may
    have died between the log's last line and its head.
    """
    found = log.read(store)
    begun = found.find("erasing")
    if not begun:
        return None
    ended = any(one.number > begun[-1].number for one in found.find("erased"))
    if ended and not all(_is_kept(info.key) for info in store.list()):
        return None
    return begun[-1].what


def _remove(store: MultipartStore, vault: Vault, workers: int, progress: Progress) -> tuple[int, int]:
    """Remove all but the record, the tag manifest first: without it nobody takes what is left for a bundle. Delete
    markers go last: a deleted version may leave none behind.
    """
    uploads = list(store.uploads())
    for upload in uploads:
        store.abort(upload.key, upload.id)
    found = [one for one in vault.versions() if not _is_kept(one.key)]
    first = [one for one in found if one.key == layout.TAG_MANIFEST]

    def remove(version: FileVersion) -> None:
        vault.remove(version)
        progress.advance(items=not version.is_marker)

    with ThreadPoolExecutor(workers, thread_name_prefix="moveout-erase") as pool:
        for group in (first, [one for one in found if one.key != layout.TAG_MANIFEST]):
            list(pool.map(remove, group))
    return sum(one.is_marker for one in found), len(uploads)


def _certificate(
    store: MultipartStore, signer: Signer, begun: Happening, markers: int, uploads: int
) -> Document:
    found = log.read(store)
    last = found.find("erasing")[-1].number
    former = {one.what.details.get("file") for one in found.find("erased") if one.number < last}
    for one in documents.read_all(store, "erasure")[0]:
        if one.root == begun.root and one.key not in former:
            return one
    about = (
        f"Certificate of erasure: the bundle {begun.bundle} was removed from {store.place}, and a listing afterwards"
        " named nothing of it"
    )
    value = {
        "bundle": begun.bundle,
        "root": begun.root,
        "place": store.place,
        **_counts(begun),
        "delete_markers": max(markers, int(begun.details.get("markers", 0))),
        "uploads": max(uploads, int(begun.details.get("uploads", 0))),
        "override": begun.details.get("override", ""),
        "against": begun.details.get("against", []),
        "not_verified": list(UNVERIFIABLE),
        "kept": "the custody log, the checkpoint of the tree, documents and their signatures, under sig/",
    }
    made = documents.resumed(store, documents.make("erasure", about, value))
    documents.keep(store, made, [signer])
    return made


def _counts(begun: Happening) -> dict[str, Any]:
    return {name: begun.details.get(name, 0) for name in ("versions", "size_bytes")}


def _is_kept(key: str) -> bool:
    return _KEPT.fullmatch(key) is not None
