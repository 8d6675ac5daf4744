"""A SQLite file, or a directory of them, without permission to write. SQLite has no mode for it: the file system is all
that stands before the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from exporters.sqlite.address import parse_url
from exporters.sqlite.files.directory import find
from migrate.bundle.findings import Finding
from migrate.custody.source_holds.contract import Change, HoldRequest, SourceHold
from migrate.errors import GoneError, MoveoutError, NotAllowedError, UsageError

_WRITING = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_ENDINGS = ("", "-wal", "-shm")


class SqliteHold(SourceHold):
    """See ``SourceHold``. A setting is a file's path, its value the permission bits as octal text. Programs that have a
    file open are their owner's to end.
    """

    def __init__(self, url: str) -> None:
        address = parse_url(url)
        self.url = address.url
        root = address.path
        if not root.exists():
            raise GoneError(f"there is no file {root}", next_step="check the path")
        self._files = [root / name for name in find(root).databases] if root.is_dir() else [root]

    def changes(self) -> Sequence[Change]:
        """See ``SourceHold.changes``."""
        changes = []
        for path in self._files:
            before = self.read(str(path))
            after = f"{int(before, 8) & ~_WRITING:04o}"
            if after != before:
                description, undo_says = (f"chmod {value} {path}" for value in (after, before))
                changes.append(Change(str(path), before, after, before, description, undo_says))
        return changes

    def read(self, setting: str) -> Any:
        """See ``SourceHold.read``."""
        with _translated(setting):
            return f"{stat.S_IMODE(Path(setting).stat().st_mode):04o}"

    def write(self, setting: str, value: Any) -> None:
        """See ``SourceHold.write``."""
        if Path(setting) not in self._files:
            raise UsageError(f"{setting} is not a file of {self.url}")
        with _translated(setting):
            Path(setting).chmod(int(value, 8))

    def open_write_paths(self, since: str | None) -> Sequence[Finding]:
        """See ``SourceHold.open_write_paths``: processes that have a file open for writing."""
        del since
        watched = {
            f"{path}{end}": path for path in map(os.path.realpath, self._files) for end in _ENDINGS
        }  # fmt: skip
        return [
            Finding(watched[path], f"process {pid} has it open, and may still write to it")
            for pid, path in sorted(_writers(watched))
        ]

    def limits(self) -> Sequence[str]:
        """See ``SourceHold.limits``."""
        return (
            "root, and the file's owner by chmod, may write all the same; who may write to its directory, replace it",
            "processes of other users that have it open cannot be seen, unless by root",
        )


def _writers(watched: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Yield (process, path) for every watched file that a process has open for writing, as far as Linux shows it
    (proc(5), "/proc/pid/fdinfo").
    """
    own_pid = os.getpid()
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == own_pid:
            continue
        with suppress(OSError, ValueError):
            for link in (process / "fd").iterdir():
                with suppress(OSError, ValueError):
                    path = str(link.readlink())
                    if path in watched and _is_for_writing(process / "fdinfo" / link.name):
                        yield int(process.name), path


def _is_for_writing(info: Path) -> bool:
    flags = next(line for line in info.read_text().splitlines() if line.startswith("flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        raise GoneError(f"there is no file {path} any more") from exc
    except PermissionError as exc:
        raise NotAllowedError(
            f"{path}: {exc.strerror}", next_step="only the file's owner, or root, may"
        ) from exc
    except OSError as exc:
        raise MoveoutError(f"{path}: {exc.strerror}") from exc


def open_hold(url: str, secrets: Mapping[str, str], request: HoldRequest) -> SqliteHold:
    """Open a file, or a directory of them, by its URL."""
    del secrets, request
    return SqliteHold(url)
