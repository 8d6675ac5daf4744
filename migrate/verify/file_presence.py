"""Which files exist, and their sizes: the listing of a location compared with the bundle's manifests."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.storage.api import FileInfo, Store
from migrate.verify.outcome import Level
from migrate.verify.tag_file_checks import ExpectedFile, Tags, UnreadableListError, expected_files


class PayloadCheck(Struct):
    """The payload of a bundle: how much of it lies there, and what is wrong with it, once ``present`` has ended."""

    store: Store
    tags: Tags
    files: int = 0
    size_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def present(self) -> Iterator[ExpectedFile]:
        """Yield the files that are there with the right size; the rest become findings. Both sides are streamed in
        order of key.
        """
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


def check_tags(store: Store, tags: Tags, level: Level) -> Iterator[Finding]:
    """Yield files outside of ``data/`` that belong to no bundle; what lies next to a bundle is let be."""
    if level is Level.QUICK or not tags.names:
        return
    known = tags.names | {layout.TAG_MANIFEST}
    for info in store.list():
        if not info.key.startswith((layout.DATA, *layout.OUTSIDE_MANIFESTS)) and info.key not in known:
            yield Finding(info.key, f"is not in {layout.TAG_MANIFEST}", extra=True)


def _extra(info: FileInfo) -> Finding:
    return Finding(info.key, "is not in the manifest", found=f"{info.size_bytes} bytes", extra=True)


def _wrong_size(file: ExpectedFile, info: FileInfo) -> Finding:
    return Finding(file.key, "has another size", f"{file.size_bytes} bytes", f"{info.size_bytes} bytes")
