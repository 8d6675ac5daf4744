"""URLs of SQLite files: ``sqlite:///absolute/path``, or ``sqlite://./relative/path``."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from exporters.errors import SourceUsageError
from exporters.lossless_text import path_of, url_path

_STEP = "write sqlite:///absolute/path/to/file.db, special characters percent-encoded"


class SqliteAddress(Struct, frozen=True):
    """A database file. ``url`` names it by its absolute path."""

    path: Path
    url: str

    def below(self, name: str) -> SqliteAddress:
        """Return the file of this relative path in the directory that this address names."""
        path = self.path / name
        return SqliteAddress(path, f"sqlite://{url_path(path)}")

    def companion(self, suffix: str) -> Path:
        """Return SQLite's own file next to it: ``-wal``, ``-shm`` or ``-journal``; of a link, next to the file to which
        that leads.
        """
        return Path(f"{os.path.realpath(self.path)}{suffix}")


def parse_url(url: str) -> SqliteAddress:
    """Parse a URL. Raises ``SourceUsageError``."""
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        raise SourceUsageError(f"{url!r} is not a sqlite:// URL", next_step=_STEP)
    if parts.query or parts.fragment:
        raise SourceUsageError(f"{url!r}: a SQLite URL takes no options", next_step=_STEP)
    if parts.netloc not in {"", "localhost", ".", ".."} or len(parts.path) < 2:
        raise SourceUsageError(f"{url!r} names no file by an absolute path", next_step=_STEP)
    start = parts.netloc if parts.netloc in {".", ".."} else ""
    # Others write sqlite:////absolute/path; POSIX keeps two leading slashes, and SQLite takes them for a host.
    unquoted = start + path_of(parts.path) if start else "/" + path_of(parts.path).lstrip("/")
    path = Path(os.path.abspath(unquoted))  # noqa: PTH100  symbolic links stay as they were named
    return SqliteAddress(path, f"sqlite://{url_path(path)}")
