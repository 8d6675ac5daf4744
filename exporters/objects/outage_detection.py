"""When a source that does not answer for one object does not answer at all."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

from exporters.bucket_api import Bucket, Fetched
from exporters.errors import SourceError, SourceUnreachableError

OUTAGE = 20
"""So many objects in a row without an answer are an outage of the source, even if it lists its objects."""


class OutageDetector:
    """Tells an object that a source cannot read from a source that does not answer: the first is a gap, of the second
    one a gap for each object must not come. One for all threads that read a bucket.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._silent = 0
        self._lock = threading.Lock()

    def note(self, error: SourceError | None) -> None:
        """Take in how asking for an object has ended. Raises ``SourceUnreachableError`` when the source itself does
        not answer.
        """
        if not isinstance(error, SourceUnreachableError):
            if self._silent:
                self._silent = 0
            return
        next(iter(self._bucket.list()), None)  # raises where not even this is answered
        with self._lock:
            self._silent += 1
            is_outage = self._silent >= OUTAGE
            if is_outage:
                self._silent = 0
        if is_outage:
            raise error

    def watch(self, fetched: Iterator[Fetched]) -> Iterator[Fetched]:
        """Pass on what was fetched, with each object's error. Raises like ``note``; then no more is fetched."""
        for response in fetched:
            if response.error is not None or self._silent:
                try:
                    self.note(response.error)
                except SourceError:
                    if isinstance(fetched, Generator):
                        fetched.close()
                    raise
            yield response
