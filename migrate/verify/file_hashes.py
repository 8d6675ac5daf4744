"""Every byte of a file hashed, and on the way the objects of a pack."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from msgspec import Struct

from migrate.bundle.findings import Finding
from migrate.bundle.tag_files import chunks
from migrate.errors import GoneError
from migrate.runtime.progress import Progress
from migrate.storage.api import Store
from migrate.verify.payload_files import ExpectedFile


class Member(Struct, frozen=True):
    """An object in a pack, as the index records it: ``size_bytes`` bytes from ``offset``."""

    key: str
    offset: int
    size_bytes: int
    sha256: str


def check_file(
    store: Store, progress: Progress, file: ExpectedFile, members: Sequence[Member] = ()
) -> list[Finding]:
    """Read a file once; return what differs. The listing reports files that are missing or have another size."""
    digest = hashlib.sha256()
    walk = MemberWalk(file.key, members)
    size_bytes = 0
    try:
        for piece in chunks(store, file.key):
            digest.update(piece)
            walk.feed(piece)
            size_bytes += len(piece)
            progress.advance(size_bytes=len(piece))
    except GoneError:
        return []
    progress.advance(items=1)
    findings = walk.end()
    return _differences(file, size_bytes, digest.hexdigest()) + findings


def read_file(store: Store, file: ExpectedFile) -> tuple[bytes, list[Finding]]:
    """Return the bytes of a file, read once, and what differs, as ``check_file`` does. Raises ``GoneError``."""
    data = store.read(file.key)
    return data, _differences(file, len(data), hashlib.sha256(data).hexdigest())


def _differences(file: ExpectedFile, size_bytes: int, digest: str) -> list[Finding]:
    if digest == file.sha256 or file.size_bytes not in {None, size_bytes}:
        return []
    return [Finding(file.key, "its SHA-256 differs", file.sha256, digest)]


class MemberWalk:
    """Hashes the members of a pack as the pack streams by."""

    def __init__(self, pack: str, members: Sequence[Member]) -> None:
        self._pack = pack
        self._position = 0
        self._digest = hashlib.sha256()
        self._findings: list[Finding] = []
        self._left: list[Member] = []
        end = 0
        for member in sorted(members, key=lambda member: (member.offset, member.size_bytes)):
            if member.offset < end:
                self._note(
                    member, "overlaps another object", f"an offset of at least {end}", str(member.offset)
                )
            else:
                self._left.append(member)
                end = member.offset + member.size_bytes
        self._left.reverse()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the pack."""
        view = memoryview(piece)
        begin, self._position = self._position, self._position + len(piece)
        while self._left and self._left[-1].offset < self._position:
            member = self._left[-1]
            end = member.offset + member.size_bytes
            self._digest.update(view[max(member.offset - begin, 0) : max(end - begin, 0)])
            if end > self._position:
                return
            self._settle(self._left.pop())

    def end(self) -> list[Finding]:
        """Return what was found once the pack has ended."""
        for member in reversed(self._left):
            end = member.offset + member.size_bytes
            if member.size_bytes == 0 and end <= self._position:
                self._settle(member)
            else:
                found = f"{self._position} bytes"
                self._note(member, "is outside of its pack", f"a pack of {end} bytes", found)
        return self._findings

    def _settle(self, member: Member) -> None:
        found = self._digest.hexdigest()
        self._digest = hashlib.sha256()
        if found != member.sha256:
            self._note(member, "has another SHA-256 than in the index", member.sha256, found)

    def _note(self, member: Member, what: str, expected: str, found: str) -> None:
        self._findings.append(Finding(self._pack, f"object {member.key!r} {what}", expected, found))
