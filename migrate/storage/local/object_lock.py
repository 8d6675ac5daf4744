"""The versions and locks of a directory: one version of each file, and nothing that could hold it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from migrate.errors import NotAllowedError
from migrate.storage.key_rules import LOCK
from migrate.storage.local.errors import translated
from migrate.storage.local.store import LocalStore
from migrate.storage.object_lock import FileVersion, Lock, Mode


class DirectoryObjectLock:
    """A directory: one version of each file, and nothing that could hold it against its owner. Files of the store's own
    are among them, such as leftovers of an interrupted writer: they hold data like any other file.
    """

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self.location = self._store.location

    def check_lock(self) -> None:
        """See ``ObjectLock.check_lock``."""
        raise NotAllowedError(
            f"{self.location} is a directory: nothing there can be held against whoever may write to it",
            next_step="hold the bundle in a bucket with Object Lock",
        )

    def is_firm(self, mode: Mode) -> bool:
        """See ``ObjectLock.is_firm``."""
        del mode
        return False

    def now(self) -> datetime:
        """See ``ObjectLock.now``."""
        return datetime.now(UTC)

    def versions(self) -> Iterator[FileVersion]:
        """See ``ObjectLock.versions``. A symbolic link is a file of its own, whatever it leads to."""
        with translated(self._store.root):
            yield from sorted(self._files(self._store.root), key=lambda file: os.fsencode(file.key))

    def _files(self, directory: Path) -> Iterator[FileVersion]:
        try:
            entries = list(os.scandir(directory))
        except FileNotFoundError:
            return
        for entry in entries:
            key = Path(entry.path).relative_to(self._store.root).as_posix()
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(Path(entry.path))
                continue
            try:
                size_bytes = entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:  # removed meanwhile
                continue
            if key != LOCK or size_bytes:  # the store's own is empty, and comes and goes
                is_link = entry.is_symlink()
                yield FileVersion(key, "", size_bytes, is_latest=True, is_marker=False, is_link=is_link)

    def lock(self, version: FileVersion) -> Lock:
        """See ``ObjectLock.lock``."""
        del version
        return Lock(None, None, legal=False)

    def retain(
        self, version: FileVersion, until: datetime | None, mode: Mode, *, firmer: bool = False
    ) -> None:
        """See ``ObjectLock.retain``."""
        del version, until, mode, firmer
        self.check_lock()

    def set_legal(self, version: FileVersion, *, on: bool) -> None:
        """See ``ObjectLock.set_legal``."""
        del version, on
        self.check_lock()

    def remove(self, version: FileVersion) -> None:
        """See ``ObjectLock.remove``."""
        self._store.erase(version.key)
