"""A directory as a location.

A file is written in ``_work/.tmp``, made durable, and then renamed: nobody ever sees a part of it. An upload is one
file of its final size under ``_work/.uploads/<id>``. Every part has its place in it from the start, so that completing
it is one rename. A journal names the parts that are durable.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat as stat_module
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from migrate.errors import AlreadyExistsError, ChangedError, GoneError, UsageError
from migrate.storage import incompressible
from migrate.storage.api import PART_BYTES, BaseStore, FileInfo, NewFile, Parts, Tidying, Upload, UploadedPart
from migrate.storage.key_rules import HIDDEN, checked
from migrate.storage.local import lock
from migrate.storage.local import uploads as local_uploads
from migrate.storage.local.errors import translated
from migrate.storage.local.whole_file import open_regular, sync_directory

T = TypeVar("T")

_TRIES = 20
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
"""How file systems without hard links refuse one (link(2))."""
_OWN_FOLDERS = ("_work/.tmp", "_work/.uploads")
_TOGETHER = 32
"""How many files are made durable together: each by itself waits for the disk four times, and for its directory."""
_ROOM_SHARE, _LEAST_ROOM_BYTES = 16, 512 * 2**10
"""A file that holds room takes at most such a part of what is free; on a small disk so many bytes, or half of it."""


class LocalStore(BaseStore):
    """The ``MultipartStore`` over a directory, which need not exist yet. One that it makes is its owner's alone.
    Several processes may use it at once. What a symbolic link below the directory leads to is no part of the location.
    """

    together = _TOGETHER

    def __init__(self, root: str | os.PathLike[str]) -> None:
        given, named = Path(root).absolute(), Path(os.path.abspath(root))  # noqa: PTH100  links stay as they were named
        self.root = named if os.path.realpath(named) == os.path.realpath(given) else given
        self.location = self.root.as_uri()
        self._work = self.root / "_work"
        self._temporary = self._work / ".tmp"
        self._lock = lock.DirectoryLock(self._work)
        self._uploads = local_uploads.Uploads(self._work / ".uploads")
        self._own = frozenset({self._work / ".lock", self._temporary, self._uploads.directory})
        self._real_folders: set[str] = set()
        """Those that are known to be no links."""

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:  # noqa: ARG002
        """See ``Store.put``. A directory keeps no ``sha256``."""
        return self._put(key, [data])

    def _put(self, key: str, pieces: Sequence[bytes | memoryview]) -> FileInfo:
        path = self._path(key)
        with translated(path), self._written(pieces) as temporary:
            self._rename(temporary, path)
        return self._finish(key, path)

    def put_all(self, files: Sequence[NewFile]) -> None:
        """See ``Store.put_all``. All are written before the first one is waited for."""
        if not files:
            return
        paths = [self._path(file.key) for file in files]
        with translated(self.root), ExitStack() as stack:
            temporaries = [self._temporary / uuid.uuid4().hex for _ in files]
            stack.callback(_unlink, temporaries)
            _write_all(temporaries, files, self.root)
            folders = {_folder(file.key) for file in files}
            for folder in folders:
                _make_directory(self.root / folder, self.root)
            with self._lock:
                for temporary, path in zip(temporaries, paths, strict=True):
                    self._rename(temporary, path)
            for folder in folders | {_folder(folder) for folder in folders}:
                _sync_directory(self.root / folder)
            if self._is_idle():
                self._prune(self._work)

    def create(self, key: str, data: bytes) -> FileInfo:
        """See ``Store.create``: a hard link is made or refused by the file system in one step. Where there are none, as
        on exFAT and on many mounts, the lock keeps other writers away instead.
        """
        path = self._path(key)
        with translated(path), self._written([data]) as temporary:
            try:
                self._locked(path, lambda: _name_once(temporary, path))
            except FileExistsError as exc:
                raise AlreadyExistsError(f"{path} exists already") from exc
        return self._finish(key, path)

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        """See ``Store.replace``; a lock file keeps other writers away between the comparison and the
        rename.
        """
        path = self._path(key)
        with translated(path), self._written([data]) as temporary, self._lock:
            try:
                current = self.stat(key).etag
            except GoneError as exc:
                raise ChangedError(f"{path} is not there any more") from exc
            if current != etag:
                raise ChangedError(f"{path} was changed by someone else")
            temporary.rename(path)
        return self._finish(key, path)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``Store.read``."""
        path = self._path(key, own=())
        with translated(path), open_regular(path, follows=False) as file:
            size = os.fstat(file.fileno()).st_size
            read_bytes = max(0, size - start) if length is None else min(length, max(0, size - start))
            return _read_exactly(file.fileno(), start, read_bytes)

    def stat(self, key: str) -> FileInfo:
        """See ``Store.stat``."""
        path = self._path(key, own=())
        with translated(path):
            status = path.lstat()
        if not stat_module.S_ISREG(status.st_mode):
            raise GoneError(f"{path} is not a file")
        return _info(key, status)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        """See ``Store.list``. Symbolic links are not followed and are not files."""
        with translated(self.root):
            if self.root.is_file():
                raise NotADirectoryError(errno.ENOTDIR, "")
        yield from self._walk("", prefix.encode(), start_after.encode())

    def delete(self, key: str) -> None:
        """See ``Store.delete``; directories that become empty go too."""
        path = self._path(key)
        with translated(path):
            if not path.exists():
                return
            self._remove(path)

    def delete_all(self, keys: Sequence[str]) -> None:
        """See ``Store.delete_all``. Only what is left of the directories is written to the disk."""
        paths = [self._path(key) for key in keys]
        with translated(self.root):
            with suppress(FileNotFoundError), self._lock:
                _unlink(paths)
            directories = {path.parent for path in paths}
            for directory in directories:
                self._prune(directory)
            for directory in {_nearest(directory) for directory in directories}:
                _sync_directory(directory)
            if self._is_idle():
                self._prune(self._work)

    def begin(self, key: str, *, sha256: str | None = None, part_bytes: int = PART_BYTES) -> str:  # noqa: ARG002
        """See ``MultipartStore.begin``. A directory keeps no ``sha256``."""
        path = self._path(key)
        with translated(path):
            _make_directories(self.root, self.root)
            return self._uploads.begin(key, part_bytes)

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """See ``MultipartStore.uploads``."""
        self._require_real(_OWN_FOLDERS)
        with translated(self.root):
            uploads = self._uploads.all()
        yield from (upload for upload in uploads if upload.key.startswith(prefix))

    def parts(self, key: str, upload: str) -> Parts:
        """See ``MultipartStore.parts``. Every part that the journal claims is read again."""
        with translated(self._path(key)):
            return self._uploads.parts(key, upload)

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> UploadedPart:
        """See ``MultipartStore.put_part``."""
        with translated(self._path(key)):
            return self._uploads.put_part(key, upload, number, data)

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        """See ``MultipartStore.complete``: one rename, nothing is copied."""
        path = self._path(key)
        with translated(path):
            assembled = self._uploads.finish(key, upload, parts, crc64nvme=crc64nvme)
            _stamp(assembled)
            self._rename(assembled, path)
            self._uploads.drop(upload)
        return self._finish(key, path)

    def abort(self, key: str, upload: str) -> None:
        """See ``MultipartStore.abort``."""
        with translated(self._path(key)):
            self._uploads.drop(upload)
            self._prune(self._work)

    @property
    def tidying(self) -> Tidying:
        """See ``MultipartStore.tidying``."""
        return self

    def free_bytes(self) -> int:
        """See ``MultipartStore.free_bytes``. The directory need not exist yet."""
        return shutil.disk_usage(self._nearest_existing()).free

    def keep_room(self, key: str, size_bytes: int) -> None:
        """See ``MultipartStore.keep_room``."""
        free_bytes = self.free_bytes()
        most_bytes = max(free_bytes // _ROOM_SHARE, min(free_bytes // 2, _LEAST_ROOM_BYTES))
        self._put(key, list(incompressible.pieces(min(size_bytes, most_bytes))))

    def free_files(self) -> int | None:
        """See ``MultipartStore.free_files``. Some file systems make inodes as they need them."""
        status = os.statvfs(self._nearest_existing())
        return status.f_favail if status.f_files else None

    def _nearest_existing(self) -> Path:
        with translated(self.root):
            return _nearest(self.root)

    def leftovers(self) -> Iterator[FileInfo]:
        """Yield the temporary files of writers that died or still write (``modified`` tells them apart), and empty
        folders, by their names below the root. They are not files of the location: ``remove_leftover`` removes them.
        """
        self._require_real(_OWN_FOLDERS)
        with translated(self._temporary):
            paths = sorted(self._temporary.iterdir()) if self._temporary.is_dir() else []
            for path in paths:
                with suppress(FileNotFoundError):
                    yield _info(path.relative_to(self.root).as_posix(), path.lstat())
        yield from self._empty_folders()

    def _empty_folders(self) -> Iterator[FileInfo]:
        """Yield the folders in which nothing lies, but for those of a run that is at work."""
        for folder, folders, files in os.walk(self.root):
            path = Path(folder)
            if path == self.root:
                folders[:] = sorted(name for name in folders if self.root / name != self._work)
            elif not folders and not files:
                with suppress(FileNotFoundError):
                    yield replace(
                        _info(f"{path.relative_to(self.root).as_posix()}/", path.lstat()), size_bytes=0
                    )

    def remove_leftover(self, name: str) -> None:
        """Remove what ``leftovers`` named; a folder only while it is empty, and with those that become empty by it."""
        if name.endswith("/"):
            self._prune(self.root / name)
            return
        self._require_real(_OWN_FOLDERS)
        path = self._temporary / Path(name).name
        with translated(path):
            path.unlink(missing_ok=True)
            self._prune(self._work)

    def erase(self, name: str) -> None:
        """Remove a file by its name below the root, one of the store's own or a symbolic link too; directories that
        become empty go with it. Nothing is made where the root itself is gone.
        """
        path = self.root / name
        with translated(path):
            self._remove(path)

    def _remove(self, path: Path) -> None:
        with suppress(FileNotFoundError, NotADirectoryError), self._lock:
            path.unlink()
            _sync_directory(path.parent)
        self._prune(path.parent)

    def _rename(self, source: Path, path: Path) -> None:
        self._locked(path, lambda: source.rename(path))

    def _locked(self, path: Path, do: Callable[[], object]) -> None:
        """Run ``do`` under the lock, after making the directory of ``path``: others need not wait until that is on the
        disk.
        """

        def locked() -> None:
            with self._lock:
                do()

        _retry_without_directory(path, locked, self.root)

    def _path(self, key: str, *, own: Sequence[str] = _OWN_FOLDERS) -> Path:
        """Return where a file lies. ``own``: the folders of the store itself that are used besides."""
        path = self.root / checked(key)
        self._require_real((_folder(key), *own))
        return path

    def _require_real(self, folders: Iterable[str]) -> None:
        """Raise ``GoneError`` for a folder that is a symbolic link, or is below one: whoever has made it would have
        files read, written or removed that are no part of the location. Raises like ``translated``.
        """
        for folder in folders:
            if folder in self._real_folders:
                continue
            path = self.root / folder
            with translated(path):
                for above in (path, *takewhile(lambda parent: parent != self.root, path.parents)):
                    if folder and above.is_symlink():
                        raise GoneError(
                            f"{above} is a symbolic link, and what it leads to is no part of the location",
                            next_step="remove the link, or put the directory itself in its place",
                        )
                if path.is_dir():
                    self._real_folders.add(folder)

    @contextmanager
    def _written(self, pieces: Sequence[bytes | memoryview]) -> Iterator[Path]:
        """Write ``pieces`` to a durable temporary file, which is gone at the end, renamed or not."""
        temporary = self._temporary / uuid.uuid4().hex
        try:
            _retry_without_directory(temporary, lambda: _write(temporary, pieces), self.root)
            yield temporary
        finally:
            with suppress(FileNotFoundError, NotADirectoryError):
                temporary.unlink()

    def _finish(self, key: str, path: Path) -> FileInfo:
        with translated(path):
            _sync_directory(path.parent)
            if not key.startswith("_work/") and self._is_idle():
                self._prune(self._work)
            return self.stat(key)

    def _is_idle(self) -> bool:
        """Tell whether the working directory holds only the store's own files. Otherwise a run is at work here, and
        removes that directory at its end: removed earlier, it would be made again and again.
        """
        with suppress(FileNotFoundError, NotADirectoryError):
            return self._own.issuperset(self._work.iterdir())
        return False

    def _prune(self, directory: Path) -> None:
        """Remove ``directory`` and those above it up to the root, and the store's own, as far as they are empty."""
        for own_directory in (self._temporary, self._uploads.directory):
            with suppress(OSError):
                own_directory.rmdir()
        while self.root in directory.parents:
            if directory == self._work:
                self._lock.remove_if_last()
            try:
                directory.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return
            directory = directory.parent

    def _walk(self, directory: str, prefix: bytes, start_after: bytes) -> Iterator[FileInfo]:
        path = self.root / directory if directory else self.root
        with translated(path):
            try:
                with os.scandir(path) as entries:
                    sorted_entries = sorted((_sort_key(entry), entry) for entry in entries)
            except (FileNotFoundError, NotADirectoryError):
                return
        for name, entry in sorted_entries:
            raw = os.fsencode(directory) + name
            key = os.fsdecode(raw)
            if key.startswith(HIDDEN):
                continue
            if name.endswith(b"/"):
                inside = raw.startswith(prefix) or prefix.startswith(raw)
                if inside and (raw > start_after or start_after.startswith(raw)):
                    yield from self._walk(key, prefix, start_after)
            elif raw.startswith(prefix) and raw > start_after and entry.is_file(follow_symlinks=False):
                with translated(path / entry.name), suppress(FileNotFoundError):
                    yield _info(key, entry.stat(follow_symlinks=False))


def _sort_key(entry: os.DirEntry[str]) -> bytes:
    """Order a directory where its files' keys come: as if its name ended with the slash."""
    return os.fsencode(entry.name) + (b"/" if entry.is_dir(follow_symlinks=False) else b"")


def _info(key: str, status: os.stat_result) -> FileInfo:
    return FileInfo(
        key=key,
        size_bytes=status.st_size,
        etag=f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}",
        modified=datetime.fromtimestamp(status.st_mtime, UTC),
    )


def _read_exactly(descriptor: int, start: int, size_bytes: int) -> bytes:
    data = os.pread(descriptor, size_bytes, start)
    if len(data) == size_bytes:
        return data
    pieces = [data]  # Linux gives at most 2 GiB - 4 KiB at once
    read_bytes = len(data)
    while read_bytes < size_bytes and pieces[-1]:
        pieces.append(os.pread(descriptor, size_bytes - read_bytes, start + read_bytes))
        read_bytes += len(pieces[-1])
    return b"".join(pieces)


def _write(path: Path, pieces: Sequence[bytes | memoryview]) -> None:
    """Write a new file, durable."""
    descriptor = _create(path, pieces)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(paths: Sequence[Path], files: Sequence[NewFile], root: Path) -> None:
    """Write new files, durable. The kernel is told to begin with each (posix_fadvise(2), POSIX_FADV_DONTNEED), so that
    it writes all of them at once while the first one is waited for.
    """
    descriptors: list[int] = []
    try:
        for path, file in zip(paths, files, strict=True):
            descriptors.append(_retry_without_directory(path, partial(_create, path, [file.data]), root))
            os.posix_fadvise(descriptors[-1], 0, 0, os.POSIX_FADV_DONTNEED)
        for descriptor in descriptors:
            os.fsync(descriptor)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _create(path: Path, pieces: Sequence[bytes | memoryview]) -> int:
    """Write a new file; return its open descriptor."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        _stamp(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _folder(key: str) -> str:
    """Return the name of the directory of a file or directory below the root; the root's own is empty."""
    return key.rpartition("/")[0]


def _unlink(paths: Sequence[Path]) -> None:
    """Remove those of the files that exist."""
    for path in paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def _name_once(temporary: Path, path: Path) -> None:
    """Give a file its name. Raises ``FileExistsError`` where another has it. Call it under the lock."""
    try:
        os.link(temporary, path)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from exc
        temporary.rename(path)


def _stamp(file: int | Path) -> None:
    """Set the modification time in nanoseconds: the kernel's own has the grain of a tick, too coarse for an
    etag.
    """
    now = time.time_ns()
    os.utime(file, ns=(now, now))


def _retry_without_directory(path: Path, do: Callable[[], T], root: Path) -> T:
    """Return what ``do`` returns, after making the directory of ``path``; again if another thread removed it, empty, in
    between.
    """
    for _ in range(_TRIES - 1):
        try:
            return do()
        except FileNotFoundError:
            _make_directories(path.parent, root)
    return do()


def _nearest(directory: Path) -> Path:
    """Return the directory, or the nearest one above it that is there."""
    return next(candidate for candidate in (directory, *directory.parents) if candidate.exists())


def _make_directory(directory: Path, root: Path) -> None:
    """Make a directory; whoever calls makes its name durable, but not those of the directories above it."""
    if not directory.exists():
        _make_directories(directory.parent, root)
        try:
            directory.mkdir()
        except OSError:  # another thread was sooner, or removed what it is in; or that is a file
            _make_directories(directory, root)


def _make_directories(directory: Path, root: Path) -> None:
    """Make a directory and those above it. A bundle is not encrypted, so nobody else is let into a new root."""
    missing = list(takewhile(lambda path: not path.exists(), (directory, *directory.parents)))
    for path in reversed(missing):
        try:
            path.mkdir(0o700 if path == root else 0o777, exist_ok=True)
        except FileExistsError as exc:
            if path.is_dir() or not path.exists():
                return  # removed, perhaps made again, between two looks of mkdir; the caller tries again
            raise UsageError(f"{path} is a file, so nothing can be stored below it") from exc
        except FileNotFoundError:
            return  # removed in between; the caller tries again
        _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    with suppress(FileNotFoundError):
        sync_directory(directory)
