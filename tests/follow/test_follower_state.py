"""What a follower says of itself, without servers."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from migrate.case.model import Endpoint
from migrate.changes.apply import Mark
from migrate.cli.follow import state_line
from migrate.errors import BusyError, GoneError, IncompleteError, MoveoutError, UnreachableError
from migrate.follow.follower import Follower, run_guarded
from migrate.runtime.cancellation import CancellationToken, Cancelled


class Writer:
    def __init__(self, mark):
        self.answer = mark
        self.is_closed = False

    def mark(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self):
        self.is_closed = True


class Source:
    """Stands for a followed source; its own log, too."""

    name, base, log = "app", 1000, None
    destination = Endpoint("x://host/app")

    def __init__(self, writer=None):
        self.writer = writer
        self.gaps, self.refusing = ["the view v"], []

    def folder(self, store):
        return store

    def open_log(self):
        return self

    def show(self, position):
        return f"at {position}"

    def distance_bytes(self, start, end):
        return end - start

    def refusing_tables(self, log):
        return self.refusing

    def definition_gaps(self, skipped):
        return self.gaps

    def open_writer(self):
        if self.writer is None:
            raise GoneError("no such database")
        return self.writer


def follower(source, notes=None):
    notes = [] if notes is None else notes
    return Follower(source, None, cancellation=CancellationToken(), note=notes.append)


def test_lag_and_rate_are_told_where_the_end_is_known():
    one = follower(Source())
    state = one.state()
    assert (state.lag_bytes, state.lag_seconds, state.rate) == (None, None, 0.0)
    counts, now = one._counts, time.monotonic()
    counts.samples.extend([(1.0, 10), (2.0, 11), (3.0, 40)])
    counts.ends.extend([(now - 9, 100), (now - 5, 300), (now, 500)])
    counts.applied = 100
    state = one.state()
    assert (state.lag_bytes, state.rate, state.applied) == (400, 15.0, "at 100")
    assert 5 <= state.lag_seconds < 8
    assert state.catch_up_seconds is None
    counts.lags.extend([(1.0, 1200), (5.0, 400)])
    assert one.state().catch_up_seconds == 2.0
    assert "400 B behind, caught up in about 2.0 s" in state_line(replace(one.state(), is_waiting=False))
    counts.applied = 500
    assert (one.state().lag_bytes, one.state().lag_seconds) == (0, 0.0)
    level = replace(one.state(), is_waiting=False)
    assert "nothing is behind" in state_line(level)
    assert state_line(replace(level, stopped=(GoneError("the log is lost"),))).endswith(
        "0 changes, 15/s; STOPPED"
    )
    waiting = replace(level, is_waiting=True)
    assert "; waiting for moveout restore" in state_line(waiting)
    busy = state_line(
        replace(waiting, stopped=(BusyError("moveout follow applies the changes of app already"),))
    )
    assert ("; another command applies its changes" in busy, "restore" in busy) == (True, False)
    counts.ends.append((now - 3600, 900))
    assert (one.state().lag_bytes, one.state().lag_seconds) == (None, None)


def test_what_the_destination_lacks_is_noted_once():
    source, notes = Source(), []
    source.refusing = [SimpleNamespace(sentence="changes of t are refused")]
    one = follower(source, notes)
    one._compare_definitions()
    one._compare_definitions()
    assert notes[0] == "app: changes of t are refused"
    assert notes[1].startswith("app: not at the destination: the view v; ")
    source.gaps = ["the view v", "the table w"]
    one._compare_definitions()
    assert len(notes) == 3
    assert notes[2].startswith("app: not at the destination: the table w; ")
    assert list(one.state().undefined) == source.gaps


def test_a_destination_is_written_to_only_where_it_was_restored_from_this_base():
    assert follower(Source())._open_writer() is None
    fitting = Writer(Mark(int("1000"), skipped=("t",)))
    notes = []
    one = follower(Source(fitting), notes)
    assert one._open_writer() is fitting
    assert (fitting.is_closed, one.state().is_waiting, one.state().skipped) == (False, False, ("t",))
    assert notes == ["app: not followed, since the restore left them out: t"]
    one._open_writer()
    assert len(notes) == 1
    unrestored = Writer(None)
    assert follower(Source(unrestored))._open_writer() is None
    assert unrestored.is_closed


@pytest.mark.parametrize(
    ("answer", "raised"),
    [(Mark(999), IncompleteError), (UnreachableError("away"), UnreachableError)],
)
def test_a_destination_that_cannot_be_written_to_is_closed(answer, raised):
    writer = Writer(answer)
    with pytest.raises(raised):
        follower(Source(writer))._open_writer()
    assert writer.is_closed


def test_what_was_captured_counts_as_applied_only_where_nothing_waits(monkeypatch):
    applied = []

    class Applying:
        is_settled = is_committed = False

        def __init__(self, *_):
            pass

        def run(self, _, reached):
            one._counts.captured = 700
            assert not reached(Mark(0, position=100))
            for self.is_settled, position in ((False, 200), (True, 300)):
                assert not reached(Mark(0, position=position))
                applied.append(one._counts.applied)
            one._capture_failed = True
            assert not reached(Mark(0, position=800))
            assert not reached(Mark(0, position=800))
            self.is_committed = True
            assert reached(Mark(0, position=800))

    monkeypatch.setattr("migrate.follow.follower.Applying", Applying)
    one = follower(Source(Writer(Mark(1000))))
    one._apply()
    assert applied == [0, 700]
    assert one.followed.writer.is_closed


def test_what_ends_a_thread_is_kept_and_noted():
    def ends_by(error):
        def loop():
            raise error

        return loop

    errors, notes = [], []
    run_guarded(lambda: None, errors, notes.append)
    run_guarded(ends_by(Cancelled()), errors, notes.append)
    assert (errors, notes) == ([], [])
    known = MoveoutError("known", next_step="do this")
    run_guarded(ends_by(known), errors, notes.append)
    run_guarded(ends_by(KeyError("x")), errors, notes.append)
    assert errors[0] is known
    assert notes == [
        "stopped: known → do this",
        "stopped: unexpected error: KeyError: 'x'",
    ]
