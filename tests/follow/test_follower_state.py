"""What a follower says of itself, without servers."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from migrate.case.model import Endpoint
from migrate.changes.apply import Mark
from migrate.changes.segments import SegmentFolder
from migrate.cli.follow import Followed, state_line
from migrate.errors import BusyError, GoneError, IncompleteError, MoveoutError, NoSpaceError, UnreachableError
from migrate.follow import follower as follower_module
from migrate.follow.follower import Follower, run_guarded
from migrate.runtime import retry_pauses
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.retry_pauses import RetryPauses
from migrate.storage.local.store import LocalStore


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

    def troubled_tables(self, log):
        if isinstance(self.refusing, Exception):
            raise self.refusing
        return self.refusing

    def definition_gaps(self, skipped):
        if isinstance(self.gaps, MoveoutError):
            raise self.gaps
        return self.gaps

    def open_writer(self):
        if self.writer is None:
            raise GoneError("no such database")
        return self.writer


def follower(source, notes=None):
    notes = [] if notes is None else notes
    return Follower(source, None, cancellation=CancellationToken(), note=notes.append, limit_seconds=math.inf)


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


def test_definitions_that_cannot_be_compared_are_no_equal_ones():
    """A command that ends then has not seen what the destination lacks."""
    source, notes = Source(), []
    source.gaps = UnreachableError("no answer")
    one = follower(source, notes)
    one._compare_definitions()
    one._compare_definitions()
    assert notes == ["app: definitions of both sides could not be compared: no answer"]
    assert Followed("bundle", [one.state()], 1.0).exit_code == 3
    source.refusing = UnreachableError("the source is silent")
    one._compare_definitions()
    assert one.state().uncompared.startswith("the source could not be asked which tables refuse changes")
    assert notes[1] == f"app: {one.state().uncompared}"
    source.refusing = []
    source.gaps = []
    one._compare_definitions()
    assert Followed("bundle", [one.state()], 1.0).exit_code == 0


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

        def __init__(self, folder, writer, report):
            self.report = report

        def run(self, _, reached):
            for position, changes in ((50, 3), (40, 2)):
                self.report(Mark(0, position=position), changes)
            assert (one._counts.applied, one._counts.changes, len(succeeded)) == (50, 5, 3)
            self.is_committed = True
            assert not reached(Mark(0, position=50))
            self.is_committed = False
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

    succeeded, succeed = [], RetryPauses.succeeded
    monkeypatch.setattr(RetryPauses, "succeeded", lambda pauses: succeeded.append(1) or succeed(pauses))
    monkeypatch.setattr("migrate.follow.follower.Applying", Applying)
    one = follower(Source(Writer(Mark(1000))))
    one._apply()
    assert applied == [50, 700]
    assert one.followed.writer.is_closed


class Time:
    """A clock that only ``wait`` moves on; after ``steps`` waits the run is cancelled."""

    def __init__(self, steps=10**9, on_wait=lambda _: None):
        self.now, self.steps, self.waits, self.on_wait = 0.0, steps, [], on_wait

    def monotonic(self):
        return self.now

    @property
    def is_cancelled(self):
        return len(self.waits) >= self.steps

    def wait(self, seconds):
        self.waits.append(seconds)
        self.now += seconds
        self.on_wait(len(self.waits))


def timed_follower(monkeypatch, source, time, notes=None, limit_seconds=math.inf):
    monkeypatch.setattr(follower_module, "time", time)
    monkeypatch.setattr(retry_pauses, "_FIRST_SECONDS", 1.0)
    note = [].append if notes is None else notes.append
    return Follower(source, None, cancellation=time, note=note, limit_seconds=limit_seconds)


def alive(is_alive):
    return SimpleNamespace(is_alive=lambda: is_alive)


@pytest.mark.parametrize(
    ("capture", "apply", "is_ended"),
    [(True, True, False), (True, False, False), (False, True, False), (False, False, True)],
)
def test_it_has_ended_where_neither_captures_nor_applies(capture, apply, is_ended):
    one = follower(Source())
    one._threads |= {"capture": alive(capture), "apply": alive(apply), "watch": alive(True)}
    assert one.is_ended is is_ended


@pytest.mark.parametrize(
    ("first_end", "applied", "is_compared", "applies", "is_done"),
    [
        (None, 9, True, True, False),
        (9, 8, True, True, False),
        (9, 9, True, True, True),
        (9, 10, True, True, True),
        (9, 9, False, True, False),
        (None, 0, False, False, True),
    ],
)
def test_it_is_done_where_all_is_applied_and_definitions_were_compared(
    first_end, applied, is_compared, applies, is_done
):
    one = follower(Source())
    assert (one.state().captured, one.state().applied, one.state().is_waiting) == ("", "", True)
    one._threads["apply"] = alive(applies)
    one._counts.first_end = 0
    assert one.is_done is not applies, "definitions were not compared yet"
    one._counts.first_end, one._counts.applied, one._counts.is_compared = first_end, applied, is_compared
    assert one.is_done is is_done
    assert one.state().is_caught_up is (first_end is not None and applied >= first_end)


def test_the_end_is_waited_for_so_long_and_not_for_the_watch(monkeypatch):
    joined, time = [], Time()

    def thread(name, seconds):
        return SimpleNamespace(join=lambda most: joined.append((name, most)) or time.wait(seconds))

    one = timed_follower(monkeypatch, Source(), time)
    one._threads = {"capture": thread("capture", 4), "apply": thread("apply", 9), "watch": thread("watch", 9)}
    one.join(10)
    one.join(1)
    assert joined == [("capture", 10), ("apply", 6), ("capture", 1), ("apply", 0)]


def test_the_watch_asks_where_the_log_ends_and_compares_definitions_now_and_then(monkeypatch):
    source, asked, compared = Source(), [], []
    moments = iter([2, 31.5, 32, 33, 34, 64])
    errors = {0.0: UnreachableError("no answer"), 33: UnreachableError("no answer")}

    def answer(log, after):
        if error := errors.get(time.now):
            raise error
        return SimpleNamespace(end=100 + int(time.now), after=after)

    source.end = lambda log: asked.append(time.now) or answer(log, 0).end
    source.state = answer
    time = Time(6, lambda _: setattr(one._counts, "is_waiting", False))
    one = timed_follower(monkeypatch, source, time)
    one._counts.applied = 90
    monkeypatch.setattr(Follower, "is_ended", False)
    monkeypatch.setattr(Follower, "_pause", lambda _: time.wait(next(moments) - time.now))
    monkeypatch.setattr(Follower, "_compare_definitions", lambda _: compared.append(time.now))
    one._watch()
    ends = [(2, 102), (31.5, 131), (32, 132), (34, 134)]
    assert list(one._counts.ends) == ends
    assert list(one._counts.lags) == [(moment, end - 90) for moment, end in ends]
    assert [moment for moment, _ in one._counts.samples] == [0, 2, 31.5, 32, 33, 34]
    assert (one._counts.first_end, asked, compared) == (102, [0, 2], [2, 32])
    monkeypatch.setattr(Follower, "is_ended", True)
    time.steps = 99
    one._watch()
    assert len(one._counts.samples) == 6


def test_a_comparison_of_definitions_that_takes_long_is_made_less_often(monkeypatch):
    source, compared, moments = Source(), [], iter([2, 106.5, 107, 108])
    source.end, source.state = (lambda log: 9), (lambda log, after: SimpleNamespace(end=9))

    def compare(_):
        compared.append(time.now)
        time.now += 5

    one = timed_follower(monkeypatch, source, time := Time(4))
    one._counts.is_waiting = False
    time.now = 2
    monkeypatch.setattr(Follower, "is_ended", False)
    monkeypatch.setattr(Follower, "_pause", lambda _: time.wait(next(moments) - time.now))
    monkeypatch.setattr(Follower, "_compare_definitions", compare)
    one._watch()
    assert compared == [2, 107]


def test_definitions_are_compared_as_soon_as_the_destination_was_opened(monkeypatch):
    """Else ``--until-caught-up`` waits for the next round of the watch."""

    def open_third(count):
        one._counts.is_waiting = count < 3

    time = Time(on_wait=open_third)
    one = timed_follower(monkeypatch, Source(), time)
    one._pause()
    assert time.waits == [0.05] * 3
    one._pause()
    assert time.waits[3:] == [2.0]
    time.on_wait = lambda _: None
    one._counts.is_waiting = True
    one._pause()
    assert time.now - 2.15 == pytest.approx(2.0, abs=0.06)
    time.steps = count = len(time.waits)
    one._pause()
    assert len(time.waits) == count


def test_a_destination_is_asked_again_until_it_was_restored_and_whatever_passes(monkeypatch):
    answers = [
        GoneError("no such database"),
        GoneError("no such database"),
        UnreachableError("away"),
        UnreachableError("away"),
        NoSpaceError("full"),
        Writer(Mark(1000)),
    ]
    source, notes = Source(), []

    def open_writer():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    source.open_writer = open_writer
    one = timed_follower(monkeypatch, source, time := Time(), notes)
    applied = [BusyError("another session"), UnreachableError("cut"), None]

    def apply_by(_, writer, pauses):
        answers.append(writer)
        if error := applied.pop(0):
            raise error

    monkeypatch.setattr(Follower, "_apply_by", apply_by)
    one._apply()
    assert notes == [
        "app: changes are kept until moveout restore has filled the destination: no such database",
        *(
            f"app: changes are not applied for now: {reason}"
            for reason in ("away", "full", "another session", "cut")
        ),
    ]
    assert time.waits == [2.0, 2.0, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert answers.pop().is_closed
    timed_follower(monkeypatch, source, Time(0))._apply()


def test_a_restore_is_not_waited_for_where_no_changes_come_any_more(monkeypatch):
    source = Source()

    def open_writer():
        raise GoneError("no such database")

    source.open_writer = open_writer
    one = timed_follower(monkeypatch, source, time := Time())
    one._capture_failed = True
    one._apply()
    assert time.waits == []


def test_a_command_that_is_to_end_does_not_wait_for_ever_for_a_restore(monkeypatch):
    source, errors, notes = Source(Writer(None)), [], []
    source.open_writer = lambda: source.writer
    one = timed_follower(monkeypatch, source, time := Time(), limit_seconds=60.0)
    run_guarded(one._apply, errors, notes.append)
    (error,) = errors
    assert isinstance(error, IncompleteError)
    assert error.next_step.startswith("run moveout restore")
    assert 60 <= time.now <= 62


def test_another_command_that_applies_the_changes_ends_the_apply(monkeypatch):
    """Our own last session is gone after a while; what is still there is somebody else's."""
    source, notes, errors = Source(), [], []
    busy = BusyError("moveout follow applies the changes of app already")

    def open_writer():
        raise busy

    source.open_writer = open_writer
    one = timed_follower(monkeypatch, source, time := Time(), notes)
    run_guarded(one._apply, errors, notes.append)
    assert (errors, len(notes)) == ([busy], 2)
    assert notes[0] == f"app: changes are not applied for now: {busy}"
    assert 120 <= time.now <= 130


def test_how_far_it_is_captured_is_known_from_the_beginning_and_becomes_no_less(monkeypatch, tmp_path):
    folder = SegmentFolder(LocalStore(tmp_path), "app", 1000)
    folder.begin()
    folder.write_idle_position(1033)
    source = Source()
    source.folder, source.source = lambda _: folder, Endpoint("x://host/old", retain_bytes=9)
    one, seen = follower(source), []

    def capturing(log, base, to, cancellation, *, note, retain_bytes, until, limit_seconds):
        seen.append((log, base, to, retain_bytes, one._counts.captured))
        assert not any(until(position) for position in (1050, 1040))
        raise GoneError("the log is lost")

    monkeypatch.setattr(follower_module, "keep_capturing", capturing)
    with pytest.raises(GoneError):
        one._capture()
    assert seen == [(source, {"position": 1000, "log": None}, folder, 9, 1033)]
    assert (one._counts.captured, one._capture_failed, one.state().captured) == (1050, True, "at 1050")
    monkeypatch.setattr(follower_module, "keep_capturing", lambda *_, **__: None)
    (tmp_path / "changes").rename(tmp_path / "away")
    one = follower(source)
    one._capture()
    assert (one._counts.captured, one._capture_failed) == (0, False)


@pytest.mark.parametrize(
    ("lag_bytes", "lags", "seconds"),
    [
        (None, [(1.0, 200), (2.0, 100)], None),
        (0, [(1.0, 200), (2.0, 0)], None),
        (100, [], None),
        (100, [(1.0, 100), (2.0, 100)], None),
        (100, [(1.0, 100), (2.0, 101)], None),
        (100, [(1.0, 101), (3.0, 100)], 200.0),
        (300, [(1.0, 900), (2.0, 700), (3.0, 300)], 1.0),
    ],
)
def test_when_it_has_caught_up_is_foreseen_where_less_is_behind_than_before(lag_bytes, lags, seconds):
    one = follower(Source())
    one._counts.lags.extend(lags)
    assert one._catch_up_seconds(lag_bytes) == seconds


@pytest.mark.parametrize(
    ("samples", "rate"),
    [([], 0.0), ([(1.0, 5)], 0.0), ([(1.0, 5), (1.0, 9)], 0.0), ([(1.0, 5), (2.0, 5), (5.0, 9)], 1.0)],
)
def test_a_rate_is_of_two_moments_at_least(samples, rate):
    one = follower(Source())
    one._counts.samples.extend(samples)
    assert one._rate() == rate


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
