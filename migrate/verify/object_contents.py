"""Object indexes against packs and large files: every exported object lies where its row says, with the
row's SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.verify.file_hashes import Member
from migrate.verify.payload_files import ExpectedFile

COLUMNS = ["key", "size", "sha256", "pack", "offset", "length", "large", "disposition", "is_delete_marker"]


class PackToCheck(Struct, frozen=True):
    """A pack, and the objects that lie in it by the index."""

    file: ExpectedFile
    members: list[Member]


class IndexWalk(Struct):
    """Reads one source's index. ``packs`` yields the packs to check. Afterwards ``exported`` is the number of exported
    objects, and ``findings`` is what is wrong with rows.

    An index keeps the rows of one pack together; a pack that comes again later is read again.
    """

    reader: BundleReader
    source: str
    files: Mapping[str, ExpectedFile]
    findings: list[Finding] = field(default_factory=list)
    exported: int = 0
    _members: list[Member] = field(default_factory=list)

    def packs(self) -> Iterator[PackToCheck]:
        """Yield packs with their members, in the index' order. Raises ``DamageError`` where that is unreadable."""
        current = ""
        for batch in self.reader.index(self.source, columns=COLUMNS):
            for row in batch.to_pylist():
                if row["disposition"] != "exported":
                    continue
                self.exported += 1
                if row["is_delete_marker"]:
                    continue
                pack = row["pack"] or ""
                if pack and pack != current:
                    yield from self._pack_with_members(current)
                    current = pack
                self._take(row)
        yield from self._pack_with_members(current)

    def _take(self, row: Mapping[str, Any]) -> None:
        if row["pack"]:
            numbers = (row["offset"], row["length"])
            if any(number is None or number < 0 for number in numbers) or row["length"] != row["size"]:
                self._note(row, "has no offset in its pack", "offset and length", str(numbers))
                return
            self._members.append(Member(row["key"], row["offset"], row["length"], row["sha256"] or ""))
        elif row["large"]:
            self._check_large(row)
        else:
            self._note(row, "is exported, but to no file", "a pack or a large file", "neither")

    def _check_large(self, row: Mapping[str, Any]) -> None:
        file = self.files.get(layout.source_file(self.source, row["large"]))
        if file is None:
            self._note(row, "lies in a file that is not in the manifest", row["large"], "no such file")
        elif file.sha256 != row["sha256"]:
            self._note(row, "has another SHA-256 than its file", row["sha256"] or "", file.sha256)

    def _pack_with_members(self, pack: str) -> Iterator[PackToCheck]:
        members, self._members = self._members, []
        if not pack:
            return
        file = self.files.get(layout.source_file(self.source, pack))
        if file is None:
            what = f"the index of {self.source} names it {len(members)} times, but it is not in the manifest"
            self.findings.append(Finding(layout.source_file(self.source, pack), what))
        else:
            yield PackToCheck(file, members)

    def _note(self, row: Mapping[str, Any], what: str, expected: str, found: str) -> None:
        key = layout.source_file(self.source, "index/")
        self.findings.append(Finding(key, f"object {row['key']!r} {what}", expected, found))
