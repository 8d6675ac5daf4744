"""A file that does not change: read by ``sqlite3``, and for the compiled core by functions of the library itself.

The library is the one that ``sqlite3`` has loaded. It opens the file once more, which would not see the same where
somebody writes.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import sqlite3
import struct
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from typing import Any

_FUNCTIONS = ("step", "column_type", "column_int64", "column_double", "column_blob", "column_bytes")
"""What the core calls, in the order of ``sqlite_rows.h``."""
_OPTIONS = 0x1 | 0x40 | 0x8000
"""Read-only, by URI, for one thread at a time (https://sqlite.org/c3ref/c_open_autoproxy.html)."""


class ImmutableFile(sqlite3.Connection):
    """A connection to a file that nobody writes to; for one thread at a time."""

    def __init__(self, database: str, **options: Any) -> None:
        super().__init__(database, **options)
        self._database = database
        self._handle: ctypes.c_void_p | None = None
        self._close_handle: weakref.finalize[Any, Any] | None = None

    @contextmanager
    def prepared(self, query: str) -> Iterator[bytes | None]:
        """Prepare a query; yield pointers to its statement and to what fetches its rows (``sqlite_rows.h``). None:
        ``sqlite3`` has to read it, or to say what is wrong with it.
        """
        library, text, statement = _library(), query.encode(), ctypes.c_void_p()
        if library is None:
            yield None
            return
        code = library.sqlite3_prepare_v2(
            self._opened(library), text, len(text), ctypes.byref(statement), None
        )
        try:
            yield None if code else struct.pack("P", statement.value) + _addresses(library)
        finally:
            library.sqlite3_finalize(statement)

    def _opened(self, library: ctypes.CDLL) -> ctypes.c_void_p:
        if self._handle is None:
            self._handle = ctypes.c_void_p()
            library.sqlite3_open_v2(os.fsencode(self._database), ctypes.byref(self._handle), _OPTIONS, None)
            self._close_handle = weakref.finalize(self, library.sqlite3_close_v2, self._handle)
        return self._handle

    def close(self) -> None:
        """Close both connections."""
        if self._close_handle is not None:
            self._close_handle()
            self._handle = None
        super().close()


def _addresses(library: ctypes.CDLL) -> bytes:
    functions = [ctypes.cast(library[f"sqlite3_{name}"], ctypes.c_void_p).value for name in _FUNCTIONS]
    return struct.pack(f"{len(functions)}P", *functions)


@lru_cache
def _library() -> ctypes.CDLL | None:
    """Return the library that ``sqlite3`` has loaded, if its functions can be found."""
    spec = _sqlite3.__spec__
    with suppress(OSError, AttributeError), closing(sqlite3.connect(":memory:")) as connection:
        library = ctypes.CDLL(spec.origin if spec.has_location else None)
        _addresses(library)
        library.sqlite3_sourceid.restype = ctypes.c_char_p
        (known,) = connection.execute("SELECT sqlite_source_id()").fetchone()
        if library.sqlite3_sourceid().decode() == known:
            return library
    return None
