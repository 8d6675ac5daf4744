"""Tells an object that cannot be read from a source that does not answer at all."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

from exporters.bucket_api import Bucket, Fetched
from exporters.errors import SourceError, SourceUnreachableError

OUTAGE = 20
"""How many objects in a row without an answer are an outage of the source, even if it lists its objects."""


class OutageDetector:
    """Tells an object that cannot be read from a source that does not answer. The first is a gap. The second ends the
    export, so that it does not become a gap for each object. All threads that read a bucket share one.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._silent = 0
        self._lock = threading.Lock()

    def note(self, error: SourceError | None) -> None:
        """Note the error of a request for an object, None for an answer. Raises ``SourceUnreachableError`` when the
        source itself does not answer.
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
