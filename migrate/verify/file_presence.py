"""Which files exist, and their sizes: the listing of a location compared with the bundle's manifests."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.storage.api import FileInfo, Store
from migrate.verify.outcome import Level
from migrate.verify.tag_file_checks import Expected, Tags, Unreadable, expected_files


class Counted(Struct):
    """Payload that was checked."""

    files: int = 0
    size_bytes: int = 0


def check_payload(
    store: Store, tags: Tags, findings: list[Finding], counted: Counted
) -> Iterator[tuple[Expected, FileInfo]]:
    """Yield the files that are there with the right size; the rest become findings. Both sides are streamed
    in order of key.
    """
    listed = iter(store.list(layout.DATA))
    info = next(listed, None)
    try:
        for file in expected_files(store, tags, findings):
            while info is not None and info.key < file.key:
                findings.append(_extra(info))
                info = next(listed, None)
            counted.files += 1
            if info is None or info.key != file.key:
                findings.append(Finding(file.key, "is missing; it is in the manifest"))
                continue
            counted.size_bytes += info.size_bytes
            if file.size_bytes not in {None, info.size_bytes}:
                findings.append(_wrong_size(file, info))
            else:
                yield file, info
            info = next(listed, None)
    except Unreadable:
        return
    while info is not None:
        findings.append(_extra(info))
        info = next(listed, None)
    _check_oxum(tags, counted, findings)


def check_tags(store: Store, tags: Tags, level: Level) -> Iterator[Finding]:
    """Yield files outside of ``data/`` that belong to no bundle; what lies next to a bundle is let be."""
    if level is Level.QUICK or not tags.names:
        return
    known = tags.names | {layout.TAG_MANIFEST}
    for info in store.list():
        if not info.key.startswith((layout.DATA, *layout.BESIDE)) and info.key not in known:
            yield Finding(info.key, f"is not in {layout.TAG_MANIFEST}", extra=True)


def _check_oxum(tags: Tags, counted: Counted, findings: list[Finding]) -> None:
    if tags.oxum is not None and tags.oxum != (counted.size_bytes, counted.files):
        findings.append(
            Finding(
                layout.BAG_INFO,
                "its Payload-Oxum is not what lies there",
                f"{tags.oxum[0]} bytes in {tags.oxum[1]} files",
                f"{counted.size_bytes} bytes in {counted.files} files",
            )
        )


def _extra(info: FileInfo) -> Finding:
    return Finding(info.key, "is not in the manifest", found=f"{info.size_bytes} bytes", extra=True)


def _wrong_size(file: Expected, info: FileInfo) -> Finding:
    return Finding(file.key, "has another size", f"{file.size_bytes} bytes", f"{info.size_bytes} bytes")
