"""Several files as one source: which they are, and where they go."""

from __future__ import annotations

import json
from pathlib import Path

from exporters.sqlite.files.directory import FILES
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError, NotAllowedError
from migrate.storage.local.fsync import make_directories


def read_files(reader: BundleReader, source: str) -> dict[str, str] | None:
    """Return folders in the bundle by the files' paths, None where the source is one file. A path that leads out of the
    destination's directory is a ``DamageError``: the bundle may come from anywhere.
    """
    file = next(iter(reader.source_files(source, FILES)), None)
    if file is None:
        return None
    folders: dict[str, str] = {}
    try:
        for entry in json.loads(reader.read_checked(file))["files"]:
            name, folder = str(entry["name"]), str(entry["folder"])
            if not _is_below(name) or not layout.is_payload_name(folder):
                raise DamageError(file.key, expected="paths below a directory", found=repr(name))
            folders[name] = folder
    except (ValueError, KeyError, TypeError) as exc:
        raise DamageError(file.key, expected="a list of files", found=f"something else ({exc})") from exc
    return folders


def _is_below(name: str) -> bool:
    return "\0" not in name and all(part not in {"", ".", ".."} for part in name.split("/"))


def make_room(folder: Path) -> None:
    """Make a directory for a file. Raises ``NotAllowedError``."""
    try:
        make_directories(folder)
    except OSError as exc:
        raise NotAllowedError(
            f"{folder} cannot be made: {exc.strerror}", next_step="name a directory that can be written"
        ) from exc
