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

from migrate.bundle import layout, lease
from migrate.custody import checkpoint, documents, log, sshsig
from migrate.custody.beside import strangers
from migrate.custody.clock import Verdict
from migrate.custody.documents import Document
from migrate.custody.entry import Happening
from migrate.custody.keys import Signer
from migrate.custody.record import happening
from migrate.errors import DamageError, GoneError, NotAllowedError
from migrate.progress import Progress
from migrate.store.base import FileInfo, MultipartStore
from migrate.store.vault import FileVersion, Vault
from migrate.words import things

_LOG = (layout.CUSTODY_LOG, layout.CUSTODY_HEAD)
_DOCUMENT = re.compile(
    rf"sig/({'|'.join(documents.KINDS)})-[0-9a-f]{{16}}\.json(?P<signature>\.[0-9a-f]{{16}}\.sig)?"
)
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
    """Return why the bundle must not be erased: what is held, what the clock says, that there is no receipt, that what
    is another's would go with it.
    """
    reasons = []
    mine = [one for one in vault.versions() if not one.is_marker and not _is_kept(one)]
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
    found, root = log.read(store), happening(store, "erasing").root
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
    """Tell whether an erasure has begun to remove what is at the place, and nothing has come there since: it may be
    finished, or be asked for its certificate again. As long as the bundle is whole nothing of it is taken for granted.
    """
    return _begun(store) is not None


def erase(
    store: MultipartStore, vault: Vault, signer: Signer, *, workers: int, progress: Progress, override: str = "",
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
    markers, uploads = _remove(store, vault, workers, progress)
    progress.end()
    _check_gone(store, vault)
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


def _check_gone(store: MultipartStore, vault: Vault) -> None:
    """List the place again. Raises ``DamageError`` where anything but the record is named."""
    left = [f"{one.key} (version {one.id or 'only'})" for one in vault.versions() if not _is_kept(one)]
    left += [f"an unfinished upload of {one.key}" for one in store.uploads()]
    if left:
        raise DamageError(
            store.place, expected="nothing", found=f"{left[0]} and {len(left) - 1} more",
            next_step="somebody still writes there, or these are locked; run the same command again",
        )  # fmt: skip


def _begin(
    store: MultipartStore, vault: Vault, signer: Signer, override: str, reasons: Sequence[str]
) -> Happening:
    there = [one for one in vault.versions() if not _is_kept(one)]
    details: dict[str, Any] = {
        "versions": sum(not one.is_marker for one in there),
        "markers": sum(one.is_marker for one in there),
        "size_bytes": sum(one.size_bytes for one in there),
        "uploads": sum(1 for _ in store.uploads()),
    }
    if override:
        details |= {"override": override, "against": list(reasons)}
    what = happening(store, "erasing", details)
    log.append(store, signer, log.once(what, undone_by="erased"))
    return what


def _begun(store: MultipartStore) -> Happening | None:
    """Return the erasure that was begun last. One that has ended counts as long as nothing else lies there: a run may
    have died between the log's last line and its head.

    A log travels with its bundle, and says of another place what is not so here; and before the tag manifest is gone,
    which goes first, nothing has been removed.
    """
    found = log.read(store)
    begun = found.at(store.place, "erasing")
    if not begun or _is_there(store, layout.TAG_MANIFEST):
        return None
    ended = any(one.number > begun[-1].number for one in found.find("erased"))
    if ended and not all(map(_is_kept, store.list())):
        return None
    return begun[-1].what


def _is_there(store: MultipartStore, key: str) -> bool:
    try:
        store.stat(key)
    except GoneError:
        return False
    return True


def _remove(store: MultipartStore, vault: Vault, workers: int, progress: Progress) -> tuple[int, int]:
    """Remove all but the record, the tag manifest first: without it nobody takes what is left for a bundle. Delete
    markers go last: nothing that they hide is seen again. Return how many markers and unfinished uploads there were.
    """
    found = [one for one in vault.versions() if not _is_kept(one)]
    manifest = [one for one in found if one.key == layout.TAG_MANIFEST and not one.is_marker]
    others = [one for one in found if one.key != layout.TAG_MANIFEST and not one.is_marker]
    markers = [one for one in found if one.is_marker]

    def remove(version: FileVersion) -> None:
        vault.remove(version)
        progress.advance(items=not version.is_marker)

    with ThreadPoolExecutor(workers, thread_name_prefix="moveout-erase") as pool:
        list(pool.map(remove, manifest))
        uploads = list(store.uploads())
        for upload in uploads:
            store.abort(upload.key, upload.id)
        list(pool.map(remove, others))
        list(pool.map(remove, markers))
    return len(markers), len(uploads)


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


def _is_kept(one: FileVersion | FileInfo) -> bool:
    """Tell whether it is of the record: also by its size, for a document's name holds nothing else together."""
    if one.key in _LOG:
        return True
    if one.key == layout.CHECKPOINT:
        return one.size_bytes <= checkpoint.MAX_BYTES
    match = _DOCUMENT.fullmatch(one.key)
    if match is None:
        return False
    return one.size_bytes <= (sshsig.MAX_BYTES if match["signature"] else documents.MAX_BYTES)
