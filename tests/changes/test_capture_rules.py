"""What is acknowledged is durable, and comes back once: a log in memory stands for the engines' own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from exporters.changes import Message, MessageKind
from migrate.changes import capture
from migrate.changes.capture import Capture, Captured, resume_position
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
            raise CutError
        if not some:
            self.received = max(self.received, self.quiet_until)
        return some

    def acknowledge(self, position: int) -> None:
        assert resume_position(self.folder, 0) >= position
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


@pytest.mark.parametrize("segment_bytes", [1, 60, 10**6])
@pytest.mark.parametrize("seconds", [0.0, 100.0])
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
    reported: list[Captured] = []
    log = Log(folder, TRANSACTIONS[:1], quiet_until=99).opened(0)
    Capture(folder, reported.append).run(log, CancellationToken(), lambda position: position >= 99)
    assert (folder.idle_position(), resume_position(folder, 0), resume_position(folder, 500)) == (99, 99, 500)
    assert (log.acknowledged[-1], kept(folder)) == (99, [b"a", b"b"])
    last = reported[-1]
    assert (last.received, last.segments, last.transactions) == (99, 1, 1)
    assert last.size_bytes == sum(record.size_bytes for record in folder.records())


def test_up_to_an_end_what_has_arrived_is_written_at_once(folder):
    log = Log(folder, TRANSACTIONS, at_once=5).opened(0)
    Capture(folder).run(log, CancellationToken(), end=10)
    assert (kept(folder), set(log.acknowledged)) == ([b"a", b"b"], {10})


def test_where_a_position_is_reached_what_else_has_arrived_comes_again(folder, monkeypatch):
    monkeypatch.setattr(capture, "SEGMENT_SECONDS", 0.0)
    log = Log(folder, TRANSACTIONS, at_once=100).opened(0)
    Capture(folder).run(log, CancellationToken(), lambda position: position >= 10)
    assert (kept(folder), log.acknowledged) == ([b"a", b"b"], [10])
    run(folder, log)
    assert kept(folder) == PAYLOADS
