"""What a server keeps of its log, against what it may keep; a log in memory stands for the engines' own."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from exporters.changes import LogState
from exporters.errors import SourceUnreachableError
from migrate.changes import retained_log
from migrate.changes.retained_log import RetainedLogWatch, is_near
from migrate.runtime.cancellation import CancellationToken


@dataclass
class Log:
    """A log that gives these states in turn; the last one stays."""

    states: list[LogState | SourceUnreachableError]
    asked: int = 0
    all_given: threading.Event = field(default_factory=threading.Event)
    dropped: list[bool] = field(default_factory=list)

    def state(self, objects: dict) -> LogState:
        assert objects == {"slot": "s"}
        self.asked += 1
        if self.asked > len(self.states):
            self.all_given.set()
        state = self.states[min(self.asked, len(self.states)) - 1]
        if isinstance(state, SourceUnreachableError):
            raise state
        return state

    def drop(self, objects: dict, *, even_if_read: bool = False) -> None:
        assert objects == {"slot": "s"}
        self.dropped.append(even_if_read)

    def show(self, position: int) -> str:
        return f"position {position}"


def keeps(retained_bytes: int, **more: object) -> LogState:
    return LogState(end=9, acknowledged=7, retained_bytes=retained_bytes, is_read=True, **more)


def watch(
    monkeypatch, *states: LogState | SourceUnreachableError, limit: int | None = 1000, patience: float = 0
):
    """Return the log, the error, and the notes, when all states were given or the watch has ended."""
    monkeypatch.setattr(retained_log, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(retained_log, "_CATCH_UP_SECONDS", patience)
    log, notes, whole = Log(list(states)), [], CancellationToken()
    with RetainedLogWatch(log, {"slot": "s"}, limit, whole, notes.append) as retained:
        while not retained.cancellation.is_cancelled and not log.all_given.wait(0.001):
            pass
        ended = retained.cancellation.is_cancelled
    assert ended == (retained.error is not None)
    assert not whole.is_cancelled
    return log, str(retained.error or ""), notes


def test_a_server_that_keeps_nearly_too_much_is_named_once_until_it_keeps_less(monkeypatch):
    log, error, notes = watch(monkeypatch, keeps(799), keeps(800), keeps(999))
    assert (error, log.dropped, len(notes)) == ("", [], 1)
    assert "the server keeps 800 B of its log" in notes[0]
    assert len(watch(monkeypatch, keeps(800), keeps(799), keeps(800))[2]) == 2


def test_a_server_that_keeps_too_much_is_freed_and_the_error_says_what_is_lost(monkeypatch):
    log, error, _ = watch(monkeypatch, keeps(0), keeps(1000))
    assert log.dropped == [True]
    assert "1 kB are allowed" in error
    assert "changes after position 7 are not known" in error


def test_a_server_that_keeps_too_much_is_not_freed_while_it_becomes_less(monkeypatch):
    log, error, notes = watch(monkeypatch, keeps(3000), keeps(2000), keeps(2000), keeps(900), patience=60)
    assert (error, log.dropped, len(notes)) == ("", [], 1)
    assert "the server keeps 3 kB of its log" in notes[0]
    assert "1 kB are allowed: following ends unless it becomes less" in notes[0]
    log, error, _ = watch(monkeypatch, keeps(3000), keeps(2000), keeps(2001), keeps(2001))
    assert log.dropped == [True]


def test_a_log_that_is_lost_ends_the_capture(monkeypatch):
    log, error, notes = watch(monkeypatch, keeps(0), keeps(0, lost="the slot is gone"))
    assert (error, log.dropped, notes) == ("the slot is gone: changes after position 7 are not known", [], [])


def test_a_log_that_was_lost_before_ends_the_capture_unless_the_stream_has_said_so_meanwhile(monkeypatch):
    lost = keeps(0, lost="the slot is gone")
    log, error, _ = watch(monkeypatch, lost, lost)
    assert (error, log.asked) == ("the slot is gone", 2)


@pytest.mark.parametrize(("limit", "reserved"), [(None, True), (1000, False)])
def test_what_a_server_keeps_without_us_or_without_a_limit_ends_nothing(monkeypatch, limit, reserved):
    log, error, notes = watch(monkeypatch, keeps(5000, is_reserved=reserved), limit=limit)
    assert (error, log.dropped, notes) == ("", [], [])


def test_a_server_that_does_not_answer_is_asked_again(monkeypatch):
    log, _, _ = watch(monkeypatch, SourceUnreachableError("gone for now"), keeps(1000))
    assert log.dropped == [True]


def test_what_has_become_less_within_the_last_minute_may_become_less(monkeypatch):
    moments = [0, 50, 100, 109, 110, 120, 179, 180]
    sizes = [3000, 2000, 2000, 2500, 2000, 1999, 2000, 2000]
    now: list[float] = []
    retained = RetainedLogWatch(Log([]), {}, 1000, CancellationToken(), print)
    monkeypatch.setattr(retained_log, "time", SimpleNamespace(monotonic=lambda: now[-1]))
    answers = []
    for moment, size in zip(moments, sizes, strict=True):
        now.append(moment)
        answers.append(retained._becomes_less(size))
    assert answers == [True, True, True, True, False, True, True, False]


@pytest.mark.parametrize("between", [900, 10])
def test_a_server_that_keeps_too_much_once_more_has_another_minute(monkeypatch, between):
    now: list[float] = []
    retained = RetainedLogWatch(Log([]), {"slot": "s"}, 1000, CancellationToken(), print)
    monkeypatch.setattr(retained_log, "time", SimpleNamespace(monotonic=lambda: now[-1]))
    for moment, size in ((0, 3000), (100, between), (200, 3000), (259, 3000)):
        now.append(moment)
        retained._judge(keeps(size))
    assert retained.error is None
    now.append(260)
    retained._judge(keeps(3000))
    assert retained.error is not None


@pytest.mark.parametrize(("retained_bytes", "near"), [(799, False), (800, True), (999, True), (1000, True)])
def test_nearly_too_much_is_four_fifths(retained_bytes, near):
    assert is_near(retained_bytes, 1000) is near


def test_the_end_waits_for_an_answer_that_is_under_way():
    """Else it would come after its log was closed."""
    asked, log = threading.Event(), Log([keeps(0)])
    answer = log.state

    def answer_late(objects: dict) -> LogState:
        asked.set()
        time.sleep(0.1)
        return answer(objects)

    log.state = answer_late
    with RetainedLogWatch(log, {"slot": "s"}, None, CancellationToken(), print):
        assert asked.wait(60)
    assert log.asked == 1
