"""Compares the files that a bundle should have with those at its location: tag files with the tag manifest, then the
listing of the location with the files that sound tag files name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from migrate.bundle import bundle_json, layout, tag_files
from migrate.bundle.bundle_json import BundleInfo
from migrate.bundle.commit_records import FileRecord
from migrate.bundle.findings import Finding
from migrate.bundle.reader import REQUIRED, hash_file, read_files, read_manifest, read_tag_manifest
from migrate.errors import DamageError, GoneError
from migrate.storage.api import FileInfo, Store


class ExpectedFile(Struct, frozen=True):
    """A payload file as the bundle records it. ``size_bytes`` is None where only the manifest could be read."""

    key: str
    sha256: str
    size_bytes: int | None


class Tags(Struct, frozen=True):
    """The contents of the tag files. ``names`` are those in the tag manifest, ``sound`` those of them with the right
    hash; ``info`` and ``oxum`` (bytes, files) only where their files are sound.
    """

    names: frozenset[str]
    sound: frozenset[str]
    info: BundleInfo | None
    oxum: tuple[int, int] | None


def finding_of(error: DamageError, what: str) -> Finding:
    """Return an error of reading a damaged file as a finding."""
    return Finding(error.key, what, error.expected, error.found)


def check_tag_files(store: Store) -> tuple[Tags, list[Finding]]:
    """Check every tag file; return what they hold, and what is wrong with them. Raises ``GoneError`` and ``UsageError``
    where there is no sealed bundle that we can read.
    """
    try:
        promised = read_tag_manifest(store)
    except DamageError as exc:
        return Tags(frozenset(), frozenset(), None, None), [finding_of(exc, "is no manifest")]
    unsound = {key: finding for key, digest in promised.items() if (finding := _damage(store, key, digest))}
    sound = promised.keys() - unsound.keys()
    findings = [
        *unsound.values(),
        *(Finding(layout.TAG_MANIFEST, f"does not name {key}") for key in REQUIRED if key not in promised),
    ]
    info, oxum = None, None
    try:
        if layout.BAGIT in sound:
            tag_files.check_declaration(store.read(layout.BAGIT))
        if layout.BUNDLE_META in sound:
            info = bundle_json.decode(store.read(layout.BUNDLE_META))
        if layout.BAG_INFO in sound:
            labels = tag_files.parse_bag_info(store.read(layout.BAG_INFO))
            oxum = tag_files.parse_oxum(labels.get("Payload-Oxum", ""))
    except DamageError as exc:
        findings.append(finding_of(exc, "is not as the format demands"))
    return Tags(frozenset(promised), frozenset(sound), info, oxum), findings


def expected_files(store: Store, tags: Tags) -> Iterator[ExpectedFile | Finding]:
    """Yield the payload that the bundle promises, ordered by key, from whichever of ``meta/files.jsonl`` and
    the manifest is sound (both: they must agree); where neither is, from what can still be read. What is wrong with
    these lists is yielded, too. Raises ``UnreadableListError`` at what cannot be read.
    """
    whole = {layout.FILES, layout.MANIFEST} & tags.sound
    try:
        if whole == {layout.FILES, layout.MANIFEST}:
            yield from _agreeing(read_files(store), read_manifest(store))
        elif layout.FILES in whole or (not whole and layout.FILES in tags.names):
            yield from (ExpectedFile(file.key, file.sha256, file.size_bytes) for file in read_files(store))
        else:
            yield from (ExpectedFile(entry.key, entry.sha256, None) for entry in read_manifest(store))
    except DamageError as exc:
        yield finding_of(exc, "cannot be read; the files that follow were not checked")
        raise UnreadableListError from exc
    except GoneError as exc:
        raise UnreadableListError from exc


class UnreadableListError(Exception):
    """The list of files ended before its end."""


def _damage(store: Store, key: str, expected: str) -> Finding | None:
    """Return what is wrong with a tag file, None where nothing is."""
    try:
        actual = hash_file(store, key)
    except GoneError:
        return Finding(key, f"is missing; it is in {layout.TAG_MANIFEST}")
    if actual == expected:
        return None
    return Finding(key, f"its SHA-256 is not the one in {layout.TAG_MANIFEST}", expected, actual)


def _agreeing(
    files: Iterator[FileRecord], entries: Iterable[tag_files.ManifestEntry]
) -> Iterator[ExpectedFile | Finding]:
    for entry in entries:
        file = next(files, None)
        if file is None or (file.key, file.sha256) != (entry.key, entry.sha256):
            line = f"{file.sha256}  {file.key}" if file else "no more lines"
            yield Finding(
                layout.FILES, f"differs from {layout.MANIFEST}", f"{entry.sha256}  {entry.key}", line
            )
            raise UnreadableListError
        yield ExpectedFile(file.key, file.sha256, file.size_bytes)
    if (file := next(files, None)) is not None:
        yield Finding(layout.FILES, f"names a file that is not in {layout.MANIFEST}", "", file.key)


class PayloadCheck(Struct):
    """The payload of a bundle: how much of it lies there, and what is wrong with it, once ``present`` has ended."""

    store: Store
    tags: Tags
    files: int = 0
    size_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def present(self) -> Iterator[ExpectedFile]:
        """Yield the files with the right size; the rest become findings. Both sides are streamed in order of key."""
        listed = iter(self.store.list(layout.DATA))
        info = next(listed, None)
        try:
            for file in expected_files(self.store, self.tags):
                if isinstance(file, Finding):
                    self.findings.append(file)
                    continue
                while info is not None and info.key < file.key:
                    self.findings.append(_extra(info))
                    info = next(listed, None)
                self.files += 1
                if info is None or info.key != file.key:
                    self.findings.append(Finding(file.key, "is missing; it is in the manifest"))
                    continue
                self.size_bytes += info.size_bytes
                if file.size_bytes not in {None, info.size_bytes}:
                    self.findings.append(_wrong_size(file, info))
                else:
                    yield file
                info = next(listed, None)
        except UnreadableListError:
            return
        while info is not None:
            self.findings.append(_extra(info))
            info = next(listed, None)
        self.findings += self._oxum_findings()

    def _oxum_findings(self) -> Iterator[Finding]:
        oxum = self.tags.oxum
        if oxum is not None and oxum != (self.size_bytes, self.files):
            yield Finding(
                layout.BAG_INFO,
                "its Payload-Oxum is not what lies there",
                f"{oxum[0]} bytes in {oxum[1]} files",
                f"{self.size_bytes} bytes in {self.files} files",
            )


def extra_files(store: Store, tags: Tags) -> Iterator[Finding]:
    """Yield files outside of ``data/`` that no tag file names, except those that may lie next to a bundle."""
    if not tags.names:
        return
    known = tags.names | {layout.TAG_MANIFEST}
    for info in store.list():
        if not info.key.startswith((layout.DATA, *layout.OUTSIDE_MANIFESTS)) and info.key not in known:
            yield Finding(info.key, f"is not in {layout.TAG_MANIFEST}", extra=True)


def _extra(info: FileInfo) -> Finding:
    return Finding(info.key, "is not in the manifest", found=f"{info.size_bytes} bytes", extra=True)


def _wrong_size(file: ExpectedFile, info: FileInfo) -> Finding:
    return Finding(file.key, "has another size", f"{file.size_bytes} bytes", f"{info.size_bytes} bytes")
