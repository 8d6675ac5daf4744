"""Capture in a thread, while an export goes on: whatever ends it is named."""

from __future__ import annotations

from contextlib import contextmanager

from exporters.errors import SourceUnreachableError
from migrate.changes.capture_thread import CaptureThread
from migrate.changes.segments import SegmentFolder
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from tests.tools.waiting import eventually


class BrokenLog:
    """A log whose stream ends by an error that nobody has foreseen."""

    def state(self, log, after=0):
        raise SourceUnreachableError("no answer")

    @contextmanager
    def stream(self, log, after, captured=None):
        raise KeyError("unforeseen")
        yield


def test_an_error_that_nobody_has_foreseen_is_named_too(tmp_path):
    """The export would end as if changes were captured, and the server would keep all of its log."""
    notes = []
    store = open_location(str(tmp_path))
    folder = SegmentFolder(store, "app", 5)
    folder.begin()
    base = {"position": 5, "log": {}}
    thread = CaptureThread(
        "app", BrokenLog(), base, store, cancellation=CancellationToken(), note=notes.append
    )
    eventually(lambda: notes)
    thread.stop()
    assert notes == ["app: changes are not captured any more: unexpected error: KeyError: 'unforeseen'"]
