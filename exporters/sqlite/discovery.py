"""Lists the SQLite files below a directory, and what else lies there."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from exporters.discovery import Discovery, FoundSource, NotTaken
from exporters.errors import SourceGoneError, SourceNotAllowedError
from exporters.limits import Note
from exporters.lossless_text import printable, url_path
from exporters.sqlite.address import SqliteAddress, parse_url
from exporters.sqlite.files.backup import is_database
from exporters.sqlite.files.directory import COMPANION_ENDINGS

PLAIN_FILES = "plain files"
_ADVICE = "Copy them with rsync or tar, or into a bucket: moveout takes buckets."


def discover(url: str, *, secrets: Mapping[str, str], note: Note, names_only: bool = False) -> Discovery:
    """Return the SQLite files below a directory, or the one that is named. See ``exporters.discovery.Discover``."""
    del secrets, note, names_only
    root = parse_url(url).path
    if not root.is_dir():
        if not root.exists():
            raise SourceGoneError(f"there is no directory {root}", next_step="check the path")
        return Discovery([_source_of(root, root.parent)])
    walk = _Walk(root)
    walk.run()
    return walk.result()


class _Walk:
    """Goes through a directory without following links, and sorts what lies there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._databases: list[Path] = []
        self._other_bytes: Counter[str] = Counter()
        self._gaps: list[str] = []

    def run(self) -> None:
        """Look at every file. Raises ``SourceNotAllowedError`` where the directory itself may not be read."""
        for folder, folders, names in os.walk(self._root, onerror=self._refuse):
            folders.sort()
            for name in folders:
                self._look_at_link(Path(folder) / name)
            for name in sorted(names):
                self._look_at(Path(folder) / name)

    def result(self) -> Discovery:
        """Return what was seen; other files by the top directories that hold them."""
        others = [
            NotTaken(PLAIN_FILES, str(self._root / top), size_bytes, advice=_ADVICE)
            for top, size_bytes in sorted(self._other_bytes.items())
        ]
        return Discovery([_source_of(path, self._root) for path in self._databases], others, self._gaps)

    def _look_at(self, path: Path) -> None:
        try:
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                if is_database(path):
                    self._databases.append(path)
                elif not _belongs_to_database(path):
                    self._count(path, status.st_size)
            elif stat.S_ISLNK(status.st_mode) and path.is_file() and is_database(path):
                self._look_at_link(path)
        except OSError as exc:
            self._gaps.append(f"{printable(str(path))} cannot be read: {exc.strerror}")

    def _look_at_link(self, path: Path) -> None:
        """Note a link that leads out of the directory: what lies there is not looked at."""
        if path.is_symlink() and not path.resolve().is_relative_to(self._root.resolve()):
            self._gaps.append(
                f"{printable(str(path))} is a link to {printable(str(path.resolve()))}: name that one, too"
            )

    def _count(self, path: Path, size_bytes: int) -> None:
        parts = path.relative_to(self._root).parts
        top = printable(parts[0]) if len(parts) > 1 else ""
        self._other_bytes[top] += size_bytes

    def _refuse(self, error: OSError) -> None:
        if Path(error.filename) == self._root:
            raise SourceNotAllowedError(
                f"{self._root} cannot be read: {error.strerror}", next_step="use an account that may read it"
            ) from error
        self._gaps.append(f"the directory {printable(error.filename)} cannot be read: {error.strerror}")


def _source_of(path: Path, root: Path) -> FoundSource:
    """Return a database file; its size is that of its content and of what its write-ahead log holds."""
    address = SqliteAddress(path, f"sqlite://{url_path(path)}")
    size_bytes = path.stat().st_size
    log = address.companion("-wal")
    if log.is_file():
        size_bytes += log.stat().st_size
    name = path.relative_to(root).as_posix()
    return FoundSource(address.url, name, size_bytes=size_bytes, identity=f"sqlite:{path}")


def _belongs_to_database(path: Path) -> bool:
    """Tell whether a file is SQLite's own next to a database: its log, index or journal."""
    return any(
        path.name.endswith(ending)
        and path.with_name(path.name.removesuffix(ending)).is_file()
        and is_database(path.with_name(path.name.removesuffix(ending)))
        for ending in COMPANION_ENDINGS
    )
