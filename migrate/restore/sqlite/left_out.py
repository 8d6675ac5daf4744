"""What a restore left out of a file, kept in a small file next to it: the database itself is as the source was."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from exporters.sqlite.address import SqliteAddress, parse_url
from exporters.sqlite.catalog import RECORD_SUFFIX
from exporters.sqlite.files.backup import open_file
from migrate.bundle.reader import BundleReader
from migrate.errors import NotAllowedError, UsageError
from migrate.restore.common.left_out import FinishedRestore
from migrate.restore.common.table_restore import State
from migrate.restore.sqlite.destination import SqliteDestination, read_files, read_state
from migrate.storage.local.whole_file import replace_file


def record_path(address: SqliteAddress) -> Path:
    """Return the path of the record."""
    return address.companion(RECORD_SUFFIX)


def how_to_forget(address: SqliteAddress) -> str:
    """Return the note about the record."""
    return (
        f"{record_path(address)} keeps this list, so that the same command and verify --against name it again; remove"
        " it to forget the list"
    )


def read_finished(address: SqliteAddress, bundle: str, source: str) -> list[FinishedRestore]:
    """Return the records of restores of a source into this file, of all or of parts of it."""
    entries = _read(address)
    return [
        FinishedRestore.decode(entry["only"], json.dumps(entry["record"]))
        for entry in entries
        if (entry["bundle"], entry["source"]) == (bundle, source)
    ]


def write(address: SqliteAddress, state: State, record: FinishedRestore) -> None:
    """Keep a record of what was left out, in place of an earlier record. Raises ``NotAllowedError``."""
    key = state.bundle, state.source, state.only
    entries = [entry for entry in _read(address) if (entry["bundle"], entry["source"], entry["only"]) != key]
    if record.left_out:
        values = {"bundle": state.bundle, "source": state.source, "only": state.only}
        entries.append(values | {"record": json.loads(record.encode())})
    path = record_path(address)
    try:
        if entries:
            text = json.dumps({"version": 1, "restores": entries}, indent=1)
            replace_file(path, f"{text}\n".encode("ascii"), crash_point="restore.sqlite.left_out")
        else:
            path.unlink(missing_ok=True)
    except OSError as exc:
        raise NotAllowedError(
            f"{path} cannot be written: {exc.strerror}", next_step="check the permissions of its directory"
        ) from exc


def finished_restores(
    reader: BundleReader, source: str, url: str, secrets: Mapping[str, str]
) -> list[FinishedRestore]:
    """Return what restores of a source have left out of a file, or of the files of a directory."""
    del secrets
    address = parse_url(url)
    files = read_files(reader, source)
    addresses = [address] if files is None else [address.below(name) for name in files]
    return [record for address in addresses for record in _restores_of(address, reader.info.id, source)]


def _restores_of(address: SqliteAddress, bundle: str, source: str) -> Iterator[FinishedRestore]:
    yield from read_finished(address, bundle, source)
    if not address.path.exists():
        return
    try:
        with closing(open_file(address.path)) as connection:
            state = read_state(SqliteDestination(address, connection))
    except (sqlite3.Error, UsageError):
        return  # the comparison reports why
    if state is not None and (state.bundle, state.source) == (bundle, source):
        words = f"a restore into {address.path} is not finished: give its command again"
        yield FinishedRestore(state.only, [words], finished=False)


def _read(address: SqliteAddress) -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = json.loads(record_path(address).read_bytes())["restores"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise NotAllowedError(
            f"{record_path(address)} cannot be read: {exc}",
            next_step="it says what an earlier restore left out; look at it, then remove it",
        ) from exc
    return entries
