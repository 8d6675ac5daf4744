"""Capture in a thread, while an export goes on: whatever ends it is named."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from exporters.changes import LogState
from exporters.errors import SourceGoneError, SourceUnreachableError
from migrate.changes import retained_log
from migrate.changes.capture import Capture
from migrate.changes.capture_thread import CaptureThread, keep_capturing
from migrate.changes.segments import SegmentFolder
from migrate.errors import DamageError, MoveoutError
from migrate.runtime import retry_pauses
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from tests.changes.test_capture_rules import PAYLOADS, TRANSACTIONS, Log, kept
from tests.tools.waiting import eventually

BASE = {"position": 7, "log": {"slot": "s"}}
PROBLEM = "changes are not captured for now, and are kept by the source"


def capture_thread(log, base, store, notes):
    return CaptureThread(
        "app",
        log,
        base,
        store,
        cancellation=CancellationToken(),
        note=notes.append,
        retain_bytes=None,
    )


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
    thread = capture_thread(BrokenLog(), base, store, notes)
    eventually(lambda: notes)
    thread.stop()
    assert notes == ["app: changes are not captured any more: unexpected error: KeyError: 'unforeseen'"]


class OpenLog:
    """A log that meets the errors of ``attempts`` first, when it is opened, or later, as ``Log`` says."""

    def __init__(self, *attempts, retained_bytes=0):
        self.attempts = list(attempts)
        self.retained_bytes = retained_bytes
        self.opened_after = []

    def state(self, objects, after=0):
        assert objects == {"slot": "s"}
        return LogState(end=40, acknowledged=20, retained_bytes=self.retained_bytes, is_read=True)

    def drop(self, objects, *, even_if_read=False):
        pass

    def show(self, position):
        return f"position {position}"

    @contextmanager
    def stream(self, objects, after, captured):
        assert (objects, captured is None) == ({"slot": "s"}, False)
        self.opened_after.append(after)
        attempt = self.attempts.pop(0)
        if callable(attempt):
            attempt = attempt()
        if isinstance(attempt, Exception):
            raise attempt
        yield attempt.opened(after)


def capture_all(log, folder):
    """Capture up to the last transaction; return what was noted."""
    notes = []
    keep_capturing(
        log,
        BASE,
        folder,
        CancellationToken(),
        note=notes.append,
        until=lambda position: position >= 40,
        retain_bytes=None,
    )
    return notes


@pytest.fixture
def quick_pauses(monkeypatch):
    monkeypatch.setattr(retry_pauses, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr("migrate.changes.capture.SEGMENT_SECONDS", 0.0)


@pytest.mark.usefixtures("quick_pauses")
def test_what_fails_for_a_while_is_noted_once_and_tried_again(folder):
    away = SourceUnreachableError("away")
    breaks = Log(folder, TRANSACTIONS, at_once=1, cut_after=8, cut_by=away)
    log = OpenLog(away, away, breaks, Log(folder, TRANSACTIONS))
    assert capture_all(log, folder) == [f"{PROBLEM}: away"] * 2
    assert (log.opened_after, kept(folder)) == ([7, 7, 7, 20], PAYLOADS)


@pytest.mark.usefixtures("quick_pauses")
def test_a_location_that_is_away_is_waited_for(tmp_path):
    folder, notes = SegmentFolder(open_location(str(tmp_path)), "app", 7), []

    def note(message):
        notes.append(message)
        folder.begin()

    log = OpenLog(Log(folder, TRANSACTIONS))
    keep_capturing(
        log, BASE, folder, CancellationToken(), note=note,
        until=lambda position: position >= 40, retain_bytes=None,
    )  # fmt: skip
    assert (len(notes), notes[0].startswith(f"{PROBLEM}: "), "has no folder" in notes[0]) == (1, True, True)
    assert (log.opened_after, kept(folder)) == ([7], PAYLOADS), "where it was is not known while it is away"


@pytest.mark.usefixtures("quick_pauses")
def test_what_is_gone_from_the_log_is_not_lost_where_another_capture_was_faster(folder):
    def lost_to_another():
        other = SegmentFolder(folder._store, "app", 7)
        Capture(other).run(Log(other, TRANSACTIONS[:2]).opened(7), CancellationToken(), end=20)
        return SourceGoneError("the changes are gone")

    log = OpenLog(lost_to_another, Log(folder, TRANSACTIONS))
    assert (capture_all(log, folder), log.opened_after, kept(folder)) == ([], [7, 20], PAYLOADS)


@pytest.mark.usefixtures("quick_pauses")
@pytest.mark.parametrize("error", [SourceGoneError("gone"), DamageError("key", expected="a", found="b")])
def test_changes_that_are_lost_end_the_capture(folder, error):
    log = OpenLog(error)
    with pytest.raises(type(error)) as raised:
        capture_all(log, folder)
    assert (raised.value, log.opened_after) == (error, [7])


@pytest.mark.usefixtures("quick_pauses")
@pytest.mark.parametrize("meanwhile", ["nothing", "an error", "the log is gone"])
def test_a_server_that_keeps_too_much_ends_the_capture_whatever_it_meets(folder, monkeypatch, meanwhile):
    """The error says what is lost; the one that the stream meets then says less."""
    monkeypatch.setattr(retained_log, "_CATCH_UP_SECONDS", 0.0)
    quiet = Log(folder, [])
    receive = quiet.receive

    def receive_late(seconds):
        eventually(lambda: dropped)
        if meanwhile != "nothing":
            raise MoveoutError("cut") if meanwhile == "an error" else SourceGoneError("no such slot")
        return receive(seconds)

    quiet.receive = receive_late
    log, dropped = OpenLog(quiet, retained_bytes=2000), []
    log.drop = lambda objects, even_if_read: dropped.append(even_if_read)
    notes = []
    with pytest.raises(SourceGoneError, match="the server keeps 2 kB of its log"):
        keep_capturing(log, BASE, folder, CancellationToken(), note=notes.append, retain_bytes=1000)
    assert notes == []


def test_an_export_that_ends_has_what_has_arrived_and_hears_of_no_end(folder):
    notes, stream = [], Log(folder, TRANSACTIONS, quiet_until=40)
    log = OpenLog(stream)
    thread = capture_thread(log, BASE, folder._store, notes)
    eventually(lambda: log.opened_after and stream.received)
    thread.stop()
    assert (notes, thread._thread.is_alive(), kept(folder)) == ([], False, PAYLOADS)


def test_an_export_whose_source_is_quiet_is_captured_until_it_ends(folder):
    stream, notes, asked = Log(folder, [], quiet_until=40), [], []
    receive = stream.receive
    stream.receive = lambda seconds: asked.append(seconds) or receive(seconds)
    thread = capture_thread(OpenLog(stream), BASE, folder._store, notes)
    eventually(lambda: len(asked) > 2)
    thread.stop()
    assert (notes, folder.idle_position(), stream.acknowledged[-1]) == ([], 40, 40)


def test_an_export_goes_on_where_changes_are_lost_and_says_what_to_do(folder):
    notes, log = [], OpenLog(SourceGoneError("gone", next_step="begin anew"))
    thread = capture_thread(log, BASE, folder._store, notes)
    eventually(lambda: notes)
    thread.stop()
    assert notes == ["app: changes are not captured any more: gone → begin anew"]
