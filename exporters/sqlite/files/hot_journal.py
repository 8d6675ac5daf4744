"""A file whose program has ended in the middle of a write: what it left beside it belongs to it.

SQLite puts such a file in order when it is next opened for writing, by rolling back its journal or by going through
its write-ahead log (https://sqlite.org/lockingv3.html#hot_journals). We do not write to a source: so a copy of all
files is opened instead.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from exporters.errors import SourceUnreachableError
from exporters.sqlite.address import Address
from exporters.sqlite.files.temporary_copies import check_room, mark_of, scratch_directory

_BESIDE = ("-journal", "-wal")


@contextmanager
def recovered(address: Address, refused: sqlite3.Error) -> Iterator[sqlite3.Connection]:
    """Open a copy that SQLite may put in order. ``refused``: why the file itself cannot be read, which is raised where
    nothing lies beside it. Raises ``SourceError``.
    """
    files = {suffix: address.beside(suffix) for suffix in _BESIDE if address.beside(suffix).exists()}
    if not files:
        raise refused
    marks = [mark_of(replace(address, path=path)) for path in (address.path, *files.values())]
    with scratch_directory() as directory:
        check_room(address, directory)
        copy = directory / "left.db"
        try:
            shutil.copyfile(address.path, copy)
            for suffix, path in files.items():
                shutil.copyfile(path, f"{copy}{suffix}")
        except OSError:
            raise refused from None
        if marks != [mark_of(replace(address, path=path)) for path in (address.path, *files.values())]:
            raise SourceUnreachableError(
                f"{address.path} changes while it is copied", next_step="Give the same command again."
            )
        connection = sqlite3.connect(copy, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            yield connection
        finally:
            connection.close()
