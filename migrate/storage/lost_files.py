"""Files that a location took and does not have as they were written: some servers lose what they took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial

from migrate.errors import DamageError, GoneError
from migrate.storage.api import Store

WrongSize = tuple[str, int, int | None]
"""The key of a file, the size that it should have and the one that it has, in bytes; None where it is not there."""


def refuse_lost(store: Store, files: Iterable[tuple[str, int]], executor: Executor | None = None) -> None:
    """Ask for files that were written, each with its size in bytes; several at once with an ``executor``. Raises
    ``DamageError`` where one is not there as it was written.
    """
    expected = dict(files)
    sizes = (executor.map if executor else map)(partial(_size_of, store), expected)
    lost = [
        (key, expected[key], size) for key, size in zip(expected, sizes, strict=True) if size != expected[key]
    ]
    if lost:
        step = (
            "run the same command again: it writes them anew; if they are lost again, choose another location"
        )
        raise wrong_sizes(store, lost, ", as the location took them", next_step=step)


def wrong_sizes(store: Store, files: Sequence[WrongSize], how: str = "", *, next_step: str) -> DamageError:
    """Return the error about files of other sizes than they should have. It names the first and counts the others."""
    key, expected, actual_bytes = files[0]
    others_note = f" ({len(files) - 1} more files likewise)" if len(files) > 1 else ""
    return DamageError(
        f"{store.location}/{key}",
        expected=f"{expected} bytes{how}",
        found=("no such file" if actual_bytes is None else f"{actual_bytes} bytes") + others_note,
        next_step=next_step,
    )


def _size_of(store: Store, key: str) -> int | None:
    with suppress(GoneError):
        return store.stat(key).size_bytes
    return None
