"""What is acknowledged is durable, and comes back once: a log in memory stands for the engines' own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from exporters.changes import Message, MessageKind
from migrate.changes import capture
from migrate.changes.capture import Capture, resume_position
from migrate.changes.segments import SegmentFolder, SegmentReader
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.local.store import LocalStore

BEGIN, CHANGE, COMMIT, SHAPE = (MessageKind[name] for name in ("BEGIN", "CHANGE", "COMMIT", "SHAPE"))


class CutError(Exception):
    """The server, or this process, is gone."""


@dataclass
class Log:
    """The log of a server: transactions by the position after them, of which what was acknowledged is gone."""

    folder: SegmentFolder
    transactions: list[tuple[int, list[bytes]]]
    received: int = 0
    is_continuous = True
    has_paused: bool = False
    origin: str = ""
    acknowledged: list[int] = field(default_factory=list)
    at_once: int = 3
    cut_after: int = 10**9
    cut_by: Exception = field(default_factory=CutError)
    quiet_until: int = 0

    def messages(self, after: int) -> Iterator[Message]:
        yield Message(SHAPE, 0, b"columns", (1,))
        for position, payloads in self.transactions:
            if position > max(after, *self.acknowledged, 0):
                yield Message(BEGIN, position, b"")
                yield from (Message(CHANGE, position, payload, (1,)) for payload in payloads)
                yield Message(COMMIT, position, b"")

    def opened(self, after: int) -> Log:
        self._sent, self._all = 0, list(self.messages(after))
        return self

    def receive(self, seconds: float) -> list[Message]:
        assert seconds > 0
        some = self._all[self._sent : self._sent + self.at_once]
        self._sent += len(some)
        if self._sent > self.cut_after:
            raise self.cut_by
        if not some:
            self.received = max(self.received, self.quiet_until)
        return some

    def acknowledge(self, position: int) -> None:
        assert (resume_position(self.folder, 0) >= position, self.folder.origin()) == (True, self.origin)
        self.acknowledged.append(position)


TRANSACTIONS = [(10, [b"a", b"b"]), (20, []), (30, [b"c" * 40, b"d" * 40, b"e" * 40]), (40, [b"f"])]
PAYLOADS = [payload for _, payloads in TRANSACTIONS for payload in payloads]


def kept(folder: SegmentFolder) -> list[bytes]:
    return [
        stored.message.payload for stored in SegmentReader(folder).read() if stored.message.kind is CHANGE
    ]


def run(folder: SegmentFolder, log: Log) -> None:
    log.opened(resume_position(folder, 0))
    Capture(folder).run(log, CancellationToken(), end=40)


@pytest.mark.parametrize(
    ("segment_bytes", "seconds"),
    [
        (60, 100.0),
        (10**6, 0.0),
        *(
            pytest.param(*case, marks=pytest.mark.torture)
            for case in ((1, 0.0), (1, 100.0), (60, 0.0), (10**6, 100.0))
        ),
    ],
)
def test_cut_anywhere_nothing_is_lost_and_nothing_comes_twice(tmp_path, monkeypatch, segment_bytes, seconds):
    monkeypatch.setattr(capture, "SEGMENT_BYTES", segment_bytes)
    monkeypatch.setattr(capture, "SEGMENT_SECONDS", seconds)
    for cut_after in range(1, 15):
        folder = SegmentFolder(LocalStore(tmp_path / str(cut_after)), "app", 7)
        folder.begin()
        log = Log(folder, TRANSACTIONS, at_once=1, cut_after=cut_after)
        with pytest.raises(CutError):
            run(folder, log)
        assert kept(folder) == PAYLOADS[: len(kept(folder))]
        log.cut_after = 10**9
        run(folder, log)
        assert kept(folder) == PAYLOADS
        assert log.acknowledged == sorted(log.acknowledged)
        assert log.acknowledged[-1] == 40


def test_a_segment_ends_between_transactions_unless_one_is_too_large(folder, monkeypatch):
    monkeypatch.setattr(capture, "SEGMENT_BYTES", 60)
    monkeypatch.setattr(capture, "SEGMENT_SECONDS", 100.0)
    run(folder, Log(folder, TRANSACTIONS))
    first, second = folder.records()
    assert (first.transactions, second.transactions, first.boundary, second.after) == (2, 2, (1, 7), (1, 10))
    assert [record.position for record in (first, second)] == [20, 40]
    shapes = [
        message for record in (first, second) for message in folder.read(record) if message.kind is SHAPE
    ]
    assert len(shapes) == 2


def test_what_a_turn_has_brought_waits_for_nothing_else(folder, monkeypatch):
    monkeypatch.setattr(capture, "SEGMENT_SECONDS", 100.0)
    run(folder, Log(folder, TRANSACTIONS, at_once=5, has_paused=True))
    assert [record.position for record in folder.records()] == [10, 40]


def test_every_transaction_is_a_segment_where_none_waits(folder, monkeypatch):
    monkeypatch.setattr(capture, "SEGMENT_SECONDS", 0.0)
    run(folder, Log(folder, TRANSACTIONS, at_once=100))
    assert [record.position for record in folder.records()] == [10, 20, 30, 40]


def test_a_cancelled_capture_writes_what_has_ended_and_leaves_the_open_transaction(folder):
    token = CancellationToken()
    log = Log(folder, TRANSACTIONS, at_once=4).opened(0)
    receive = log.receive

    def receive_and_cancel(seconds: float) -> list[Message]:
        token.cancel()
        return receive(seconds)

    log.receive = receive_and_cancel
    Capture(folder).run(log, token)
    assert (kept(folder), log.acknowledged) == ([], [])
    token, log.receive = CancellationToken(), receive
    log.opened(0).at_once = 5
    log.receive = receive_and_cancel
    Capture(folder).run(log, token)
    assert (kept(folder), set(log.acknowledged)) == ([b"a", b"b"], {10})


def test_where_nothing_is_written_the_log_goes_on_once_that_is_durable(folder, monkeypatch):
    monkeypatch.setattr(capture, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(capture, "SEGMENT_SECONDS", 0.0)
    log = Log(folder, TRANSACTIONS[:1], quiet_until=99).opened(0)
    Capture(folder).run(log, CancellationToken(), lambda position: position >= 99)
    assert (folder.idle_position(), resume_position(folder, 0), resume_position(folder, 500)) == (99, 99, 500)
    assert (log.acknowledged[-1], kept(folder)) == (99, [b"a", b"b"])


@pytest.mark.parametrize("end", [10, 8])
def test_up_to_an_end_what_has_arrived_is_written_at_once(folder, end):
    log = Log(folder, TRANSACTIONS, at_once=5).opened(0)
    Capture(folder).run(log, CancellationToken(), end=end)
    assert (kept(folder), set(log.acknowledged)) == ([b"a", b"b"], {10})


def test_where_a_position_is_reached_what_else_has_arrived_comes_again(folder, monkeypatch):
    monkeypatch.setattr(capture, "SEGMENT_SECONDS", 0.0)
    log = Log(folder, TRANSACTIONS, at_once=100).opened(0)
    Capture(folder).run(log, CancellationToken(), lambda position: position >= 10)
    assert (kept(folder), log.acknowledged) == ([b"a", b"b"], [10])
    run(folder, log)
    assert kept(folder) == PAYLOADS


def test_a_position_counts_as_reached_once_it_is_durable(folder, monkeypatch):
    monkeypatch.setattr(capture, "SEGMENT_SECONDS", 100.0)
    log = Log(folder, TRANSACTIONS, at_once=100, has_paused=True).opened(0)
    Capture(folder).run(log, CancellationToken(), lambda position: position >= 10)
    assert (kept(folder), log.acknowledged[-1]) == (PAYLOADS, 40)


def test_a_table_that_is_altered_has_its_new_columns_before_its_new_rows(folder, monkeypatch):
    monkeypatch.setattr(capture, "SEGMENT_SECONDS", 100.0)
    [shape, *rest] = Log(folder, [(10, [b"a"]), (20, [b"b"])]).messages(0)
    altered = Message(SHAPE, 0, b"more columns", (1,))
    log = Log(folder, []).opened(0)
    log._all = [shape, *rest[:3], altered, *rest[3:]]
    Capture(folder).run(log, CancellationToken(), end=20)
    [record] = folder.records()
    assert [message.payload for message in folder.read(record) if message.kind in {SHAPE, CHANGE}] == [
        b"columns", b"a", b"more columns", b"b",
    ]  # fmt: skip


@dataclass
class TimedLog(Log):
    """A log to which messages come at given seconds, by a clock of its own; then the run is cancelled."""

    steps: list[tuple[float, list[Message]]] = field(default_factory=list)
    token: CancellationToken = field(default_factory=CancellationToken)
    now: float = 7.0
    settled: list[tuple[float, int, int]] = field(default_factory=list)
    idle_writes: list[int] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def receive(self, seconds: float) -> list[Message]:
        after, some = self.steps.pop(0)
        self.now = 7.0 + after
        self.received = self.quiet_until
        if not self.steps:
            self.token.cancel()
        return some

    def capture(self, monkeypatch: pytest.MonkeyPatch) -> None:
        write_idle_position = self.folder.write_idle_position

        def note_idle(position: int, origin: str = "", **more: bool) -> None:
            self.idle_writes.append(position)
            write_idle_position(position, origin, **more)

        def note_settled() -> None:
            segments = len(list(self.folder.records()))
            self.settled.append((self.now - 7.0, segments, self.acknowledged[-1]))

        with monkeypatch.context() as patch:
            patch.setattr(capture, "time", self)
            patch.setattr(self.folder, "write_idle_position", note_idle)
            Capture(self.folder, note_settled).run(self, self.token)


def test_what_arrives_waits_for_a_second_at_most_and_is_written_together(folder, monkeypatch):
    [*log] = Log(folder, [(position, [b"a"]) for position in (10, 20, 30, 40)]).messages(0)
    steps = [
        (0.0, log[:4]),
        (0.5, log[4:7]),
        (1.0, log[7:10]),
        (1.25, log[10:]),
        (2.0, []),
        (2.25, []),
        (2.5, []),
    ]
    timed = TimedLog(folder, [], steps=steps)
    timed.capture(monkeypatch)
    assert timed.settled[:2] == [(1.0, 1, 30), (2.25, 2, 40)]
    assert [record.transactions for record in folder.records()] == [3, 1]


def test_a_quiet_source_is_acknowledged_now_and_then_and_costs_one_write(folder, monkeypatch):
    assert folder.written() == ""
    steps = [(seconds, []) for seconds in (0.0, 9.75, 10.0, 10.25, 19.75, 20.0, 20.25)]
    timed = TimedLog(folder, [], quiet_until=99, steps=steps)
    timed.capture(monkeypatch)
    assert timed.settled[:2] == [(10.0, 0, 99), (20.0, 0, 99)]
    assert (timed.acknowledged[0], timed.idle_writes) == (99, [99])
    assert folder.written() != ""


def test_what_a_log_is_known_by_is_kept_and_written_once(folder, monkeypatch):
    """A log that is written anew has another origin, and positions that were captured before."""
    quiet = [(seconds, []) for seconds in (0.0, 1.0)]
    for origin, quiet_until, idle_writes in (
        ("", 5, [5]),
        ("first", 5, [5]),
        ("first", 5, []),
        ("next", 9, [5, 9]),
    ):
        timed = TimedLog(folder, [], origin=origin, quiet_until=quiet_until, steps=[*quiet])
        timed.capture(monkeypatch)
        assert (folder.origin(), timed.idle_writes) == (origin, idle_writes)
