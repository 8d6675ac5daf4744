"""SHA-256 of a file whose parts arrive in any order."""

from __future__ import annotations

import hashlib
import threading


class InOrderHasher:
    """Takes parts 1, 2, … as they come and hashes them in order; a part that is early is held until its turn.

    Whoever offers a part should ``wait`` for it before reading another one: that bounds what is held.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._early: dict[int, bytes] = {}
        self._next = 1
        self._hashing = False
        self._failed = False
        self._changed = threading.Condition()

    def offer(self, number: int, data: bytes) -> None:
        """Hash the part now and those that waited for it, if it is its turn and nobody else is at it."""
        with self._changed:
            self._early[number] = data
            if self._hashing:
                return
            self._hashing = True
        while (part := self._take()) is not None:
            self._hash.update(part)  # without the interpreter's lock
            with self._changed:
                self._next += 1
                self._changed.notify_all()

    def wait(self, number: int) -> bool:
        """Return True once the part is hashed, False if the file was given up."""
        with self._changed:
            self._changed.wait_for(lambda: self._next > number or self._failed)
            return self._next > number

    def fail(self) -> None:
        """Give the file up: nobody waits any longer."""
        with self._changed:
            self._failed = True
            self._early.clear()
            self._changed.notify_all()

    def hexdigest(self) -> str:
        """Of all parts hashed so far."""
        return self._hash.hexdigest()

    def _take(self) -> bytes | None:
        with self._changed:
            part = self._early.pop(self._next, None)
            if part is None:
                self._hashing = False
            return part
