"""Lists the SQLite files below a directory, and what else lies there."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from exporters.discovery import EMPTY, Discovery, FoundSource, NotTaken
from exporters.errors import SourceError, SourceGoneError, SourceNotAllowedError
from exporters.limits import Note
from exporters.lossless_text import printable, url_path
from exporters.sqlite.address import SqliteAddress, parse_url
from exporters.sqlite.errors import code_of, is_damage
from exporters.sqlite.files.backup import check_file, is_database, open_file
from exporters.sqlite.files.directory import COMPANION_ENDINGS, link_out

PLAIN_FILES = "plain files"
_COUNTS = """
SELECT count(*) FILTER (WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'), count(*) FROM sqlite_schema
"""
_LOCK_SECONDS = 0.5
_ADVICE = "Copy them with rsync or tar, or into a bucket: moveout takes buckets."


def discover(url: str, *, secrets: Mapping[str, str], note: Note, names_only: bool = False) -> Discovery:
    """Return the SQLite files below a directory, or the one that is named. See ``exporters.discovery.Discover``."""
    del secrets, note
    root = parse_url(url).path
    if not root.is_dir():
        if not root.exists():
            raise SourceGoneError(f"there is no directory {root}", next_step="check the path")
        return Discovery([_source_of(root, root.parent, names_only=names_only)])
    walk = _Walk(root, names_only=names_only)
    walk.run()
    return walk.result()


class _Walk:
    """Goes through a directory without following links, and sorts what lies there."""

    def __init__(self, root: Path, *, names_only: bool) -> None:
        self._root = root
        self._names_only = names_only
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
        sources = [_source_of(path, self._root, names_only=self._names_only) for path in self._databases]
        return Discovery(sources, others, self._gaps)

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
        if target := link_out(path, self._root):
            self._gaps.append(f"{printable(str(path))} is a link to {target}: name that one, too")

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


def _source_of(path: Path, root: Path, *, names_only: bool) -> FoundSource:
    """Return a database file; its size is that of its content and of what its write-ahead log holds."""
    address = SqliteAddress(path, f"sqlite://{url_path(path)}")
    size_bytes = path.stat().st_size
    log = address.companion("-wal")
    if log.is_file():
        size_bytes += log.stat().st_size
    name = path.relative_to(root).as_posix()
    source = FoundSource(address.url, name, size_bytes=size_bytes, identity=f"sqlite:{path}")
    return source if names_only else _looked_into(source, address)


def _looked_into(source: FoundSource, address: SqliteAddress) -> FoundSource:
    """Return a source with its tables counted, as far as that takes no copy and no waiting."""
    try:
        is_quiet = check_file(address).wal and not address.companion("-wal").exists()
        with closing(open_file(address.path, immutable=is_quiet, seconds=_LOCK_SECONDS)) as connection:
            tables, entries = connection.execute(_COUNTS).fetchone()
    except (SourceError, sqlite3.Error, UnicodeDecodeError) as exc:
        problems = ("its schema is damaged",) if is_damage(exc) or code_of(exc) == "SQLITE_NOTADB" else ()
        return replace(source, problems=problems)
    return replace(source, items=int(tables), facts=() if entries else (EMPTY,))


def _belongs_to_database(path: Path) -> bool:
    """Tell whether a file is SQLite's own next to a database: its log, index or journal."""
    return any(
        path.name.endswith(ending)
        and path.with_name(path.name.removesuffix(ending)).is_file()
        and is_database(path.with_name(path.name.removesuffix(ending)))
        for ending in COMPANION_ENDINGS
    )
