"""Provable erasure: every version and every upload of a bundle is removed, the location is listed again, and a signed
certificate says what was done and what nobody can verify.

What survives is the record: the custody log, documents, and the signatures that give them their weight. The intention
is written into the log first, so that the same command finishes what a dead run began.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from migrate.bundle import layout, lease
from migrate.custody.erasure import remains
from migrate.custody.erasure.other_files import strangers
from migrate.custody.erasure.remains import Remains, is_kept
from migrate.custody.handover import documents
from migrate.custody.handover.documents import Document
from migrate.custody.log import custody_log
from migrate.custody.log.entry import Happening
from migrate.custody.log.events import happening
from migrate.custody.obligations.clock import Verdict
from migrate.custody.signing.keys import Signer
from migrate.errors import DamageError, GoneError, NotAllowedError
from migrate.number_text import things
from migrate.runtime.progress import Progress
from migrate.storage.api import MultipartStore
from migrate.storage.object_lock import FileVersion, ObjectLock

UNVERIFIABLE = (
    "Copies that others made while they could read the location, and bundles that were transferred from it.",
    "Backups, snapshots and replicas of the storage system below the location; ask its operator for their retention.",
    "Whether the storage system has overwritten the freed blocks on its media.",
    "Unfinished uploads of files that the bundle does not name: servers may list old ones by their whole names only.",
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
    vault: ObjectLock,
    breaches: Sequence[Verdict],
    *,
    workers: int,
) -> list[str]:
    """Return why the bundle must not be erased: what is held, what the clock says, that there is no receipt, that what
    is another's would go with it.
    """
    reasons = []
    mine = [one for one in vault.versions() if not one.is_marker and not is_kept(one)]
    now = vault.now()
    with ThreadPoolExecutor(workers, thread_name_prefix="moveout-erase") as pool:
        locks = list(pool.map(vault.lock, mine))
    held = [lock for lock in locks if lock.legal or (lock.until is not None and lock.until > now)]
    if held:
        ends = [lock.until for lock in held if lock.until is not None]
        until = f" until {max(ends).isoformat()}" if ends else ""
        reasons.append(f"{len(held)} of {len(mine)} versions are held{until}")
    if others := strangers(store, (one.key for one in mine)):
        number = things(len(others), "file")
        reasons.append(f"{number} that the bundle does not name would go with it, such as {others[0]!r}")
    reasons += [f"{one.rules}, {one.rule.article}: {one.why}" for one in breaches]
    return [*reasons, *_unreceived(store)]


def _unreceived(store: MultipartStore) -> list[str]:
    """Return why no receipt allows it: one of this very root is needed, by which what arrived was whole."""
    found, root = custody_log.read(store), happening(store, "erasing").root
    said = [one.what.details for event in ("received", "acknowledged") for one in found.find(event, root)]
    if not said:
        return ["nobody has signed a receipt for it"]
    if all(one.get("findings") != 0 for one in said):
        return [f"its receipt names damage: {said[-1].get('findings')} findings"]
    return []


def refuse(reasons: Sequence[str], override: str) -> None:
    """Raise ``NotAllowedError`` where something speaks against it, and nobody says why it is done all the same."""
    if reasons and not override:
        raise NotAllowedError(
            "the bundle must not be erased: " + "; ".join(reasons),
            next_step="wait until none of this holds (moveout hold release, moveout receive),"
            ' or add --override "REASON": it is signed, and stays',
        )


def is_begun(store: MultipartStore) -> bool:
    """Tell whether an erasure has begun to remove what is at the location, and nothing has come there since: it may be
    finished, or be asked for its certificate again. As long as the bundle is whole nothing of it is taken for granted.
    """
    return _begun(store) is not None


def erase(
    store: MultipartStore, vault: ObjectLock, signer: Signer, *, workers: int, progress: Progress, override: str = "",
    reasons: Sequence[str] = (),
) -> Erased:  # fmt: skip
    """Remove the bundle. ``reasons`` are what speaks against it, ``override`` why it is done all the same.

    Raises ``NotAllowedError`` (reasons without an override; locks that hold), ``BusyError`` (a run is at work there),
    ``DamageError`` (something is still there after all).
    """
    lease.refuse_live(store, progress=progress)
    begun = _begun(store)
    if begun is None:
        refuse(reasons, override)
        begun = _begin(store, vault, signer, override, reasons)
    progress.begin("erase", items=int(begun.details.get("versions", 0)), size_bytes=0)
    names = remains.names(store)
    found = remains.look(store, vault, names, workers=workers)
    _remove(store, vault, found, workers, progress)
    progress.end()
    if left := list(remains.look(store, vault, names, workers=workers).said()):
        raise DamageError(
            store.location, expected="nothing", found=f"{left[0]} and {len(left) - 1} more",
            next_step="somebody still writes there, or these are locked; run the same command again",
        )  # fmt: skip
    document = _certificate(store, signer, begun, found)
    details = {"file": document.key, "sha256": document.sha256, **_counts(begun)}
    what = Happening("erased", begun.bundle, begun.root, store.location, details)
    custody_log.append(store, signer, custody_log.once(what, undone_by="erasing"))
    said = document.value
    return Erased(document, said["versions"], said["delete_markers"], said["uploads"], said["size_bytes"])


def _begin(
    store: MultipartStore, vault: ObjectLock, signer: Signer, override: str, reasons: Sequence[str]
) -> Happening:
    there = [one for one in vault.versions() if not is_kept(one)]
    details: dict[str, Any] = {
        "versions": sum(not one.is_marker for one in there),
        "markers": sum(one.is_marker for one in there),
        "size_bytes": sum(one.size_bytes for one in there),
        "uploads": sum(1 for _ in store.uploads()),
    }
    if override:
        details |= {"override": override, "against": list(reasons)}
    what = happening(store, "erasing", details)
    custody_log.append(store, signer, custody_log.once(what, undone_by="erased"))
    return what


def _begun(store: MultipartStore) -> Happening | None:
    """Return the erasure that was begun last. One that has ended counts as long as nothing else lies there: a run may
    have died between the log's last line and its head.

    A log travels with its bundle, and says of another location what is not so here; and before the tag manifest is
    gone,
    which goes first, nothing has been removed.
    """
    found = custody_log.read(store)
    begun = found.at(store.location, "erasing")
    if not begun or _is_there(store, layout.TAG_MANIFEST):
        return None
    ended = any(one.number > begun[-1].number for one in found.find("erased"))
    if ended and not all(map(is_kept, store.list())):
        return None
    return begun[-1].what


def _is_there(store: MultipartStore, key: str) -> bool:
    try:
        store.stat(key)
    except GoneError:
        return False
    return True


def _remove(
    store: MultipartStore, vault: ObjectLock, found: Remains, workers: int, progress: Progress
) -> None:
    """Remove it, the tag manifest first: without it nobody takes what is left for a bundle. The manifest, which names
    all, goes late, and delete markers last: nothing that they hide is seen again.
    """

    def remove(version: FileVersion) -> None:
        vault.remove(version)
        progress.advance(items=not version.is_marker)

    order = {layout.TAG_MANIFEST: 0, layout.MANIFEST: 2}
    groups: list[list[FileVersion]] = [[], [], []]
    for one in found.files:
        groups[order.get(one.key, 1)].append(one)
    with ThreadPoolExecutor(workers, thread_name_prefix="moveout-erase") as pool:
        list(pool.map(remove, groups[0]))
        for upload in found.uploads:
            store.abort(upload.key, upload.id)
        for group in (*groups[1:], found.markers):
            list(pool.map(remove, group))


def _certificate(store: MultipartStore, signer: Signer, begun: Happening, there: Remains) -> Document:
    found = custody_log.read(store)
    last = found.find("erasing")[-1].number
    former = {one.what.details.get("file") for one in found.find("erased") if one.number < last}
    for one in documents.read_all(store, "erasure")[0]:
        if one.root == begun.root and one.key not in former:
            return one
    about = (
        f"Certificate of erasure: the bundle {begun.bundle} was removed from {store.location}, and a listing afterwards"
        " named nothing of it"
    )
    value = {
        "bundle": begun.bundle,
        "root": begun.root,
        "location": store.location,
        **_counts(begun),
        "delete_markers": max(len(there.markers), int(begun.details.get("markers", 0))),
        "uploads": max(len(there.uploads), int(begun.details.get("uploads", 0))),
        "override": begun.details.get("override", ""),
        "against": begun.details.get("against", []),
        "not_verified": list(UNVERIFIABLE),
        "kept": "the custody log, the checkpoint of the tree, documents and their signatures, under sig/: they may name"
        " sources and objects, and hold nothing of their content",
    }
    made = documents.resumed(store, documents.make("erasure", about, value))
    documents.keep(store, made, [signer])
    return made


def _counts(begun: Happening) -> dict[str, Any]:
    return {name: begun.details.get(name, 0) for name in ("versions", "size_bytes")}
