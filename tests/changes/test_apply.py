"""Segments become rows, each transaction once: a destination in memory stands for the engines' own."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest

from exporters.changes import Message, MessageKind
from migrate.changes import apply
from migrate.changes.apply import Applying, ChangeConflictError, Mark
from migrate.changes.segments import START, Place, SegmentFolder, SegmentRecord
from migrate.errors import DamageError, GoneError
from migrate.runtime.cancellation import CancellationToken


class KilledError(Exception):
    """The destination's process is gone."""


@dataclass
class Rows:
    """A destination: what is committed stays, what was taken since goes with a kill."""

    committed: list[bytes] = field(default_factory=list)
    kept_mark: Mark | None = field(default_factory=lambda: Mark(7))
    taken: list[bytes] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)
    refuses: bytes = b"none"
    kills_before: bytes = b"none"
    stands_alone: bytes = b"none"
    written: dict[tuple[str, str], int] = field(default_factory=dict)

    def mark(self) -> Mark | None:
        return self.kept_mark

    def take(self, message: Message) -> None:
        if message.kind is MessageKind.CHANGE:
            if message.payload == self.kills_before:
                self.kills_before = b"none"
                raise KilledError
            if message.payload == self.refuses:
                raise ChangeConflictError(message.payload.decode(), next_step="")
            self.taken.append(message.payload)

    def written_of_server(self) -> int:
        return 0

    def commits_before(self, message: Message) -> bool:
        return message.payload == self.stands_alone

    def commit(self, mark: Mark) -> None:
        self.committed += self.taken
        self.commits.append(len(self.taken))
        self.taken, self.kept_mark = [], mark

    def rollback(self) -> None:
        self.taken = []


def transaction(position: int, *payloads: bytes) -> list[Message]:
    changes = [Message(MessageKind.CHANGE, position, payload) for payload in payloads]
    return [
        Message(MessageKind.BEGIN, position, b""),
        *changes,
        Message(MessageKind.COMMIT, position, b""),
    ]


def write(folder: SegmentFolder, *messages: Message, after: Place | None = None) -> SegmentRecord:
    last = folder.last()
    start = Place(last.number, last.messages) if last else START
    return folder.write(messages, last, after or start, messages[-1].position)


def run(folder: SegmentFolder, rows: Rows, until: int = 0) -> Mark:
    """Apply until that position, at least once."""
    rows.rollback()
    return Applying(folder, rows).run(CancellationToken(), lambda mark: mark.position >= until)


def test_transactions_are_applied_once_whatever_the_number_of_runs(folder):
    rows = Rows()
    assert run(folder, rows) == Mark(7)
    write(folder, *transaction(10, b"a", b"b"), *transaction(20, b"c"))
    assert run(folder, rows) == rows.kept_mark == Mark(7, Place(1, 7), 20)
    assert (rows.committed, rows.commits) == ([b"a", b"b", b"c"], [3])
    write(folder, *transaction(30, b"d"), *transaction(40, b"e")[:2])
    assert run(folder, rows) == Mark(7, Place(2, 3), 30)
    assert rows.taken == []
    write(folder, *transaction(40, b"e")[2:])
    assert run(folder, rows) == Mark(7, Place(3, 1), 40)
    assert rows.committed == [b"a", b"b", b"c", b"d", b"e"]
    assert run(folder, rows) == Mark(7, Place(3, 1), 40)
    assert rows.commits == [3, 1, 1]


def test_a_kill_at_any_change_loses_and_repeats_nothing(folder):
    changes = [b"%d" % number for number in range(9)]
    for first in (0, 3, 6):
        write(
            folder,
            *transaction(first + 1, *changes[first : first + 2]),
            *transaction(first + 3, changes[first + 2]),
        )
    for killed in changes:
        rows = Rows(kills_before=killed)
        with pytest.raises(KilledError):
            run(folder, rows)
        assert run(folder, rows).position == 9
        assert rows.committed == changes, killed


def test_what_was_read_to_its_end_and_is_not_committed_is_not_settled(folder):
    write(folder, *transaction(10, b"a"), *transaction(20, b"b"))
    applying = Applying(folder, Rows(kills_before=b"b"))
    assert applying.is_committed
    with pytest.raises(KilledError):
        applying.run(CancellationToken(), lambda mark: mark.position >= 20)
    assert (applying.is_committed, applying.is_settled) == (False, False)


def test_what_was_withdrawn_is_rolled_back_and_its_repetition_applied(folder):
    rows, asked = Rows(), []
    first = write(folder, *transaction(10, b"a"), *transaction(20, b"lost")[:2])
    applying = Applying(folder, rows)
    assert applying.is_settled

    def until(mark: Mark) -> bool:
        asked.append((mark.position, applying.is_settled, applying.is_committed, rows.taken))
        if len(asked) == 1:
            folder.write(transaction(20, b"whole"), first, Place(1, 3), 20)
        return mark.position == 20

    assert applying.run(CancellationToken(), until) == Mark(7, Place(2, 3), 20)
    assert asked == [(10, False, True, [b"lost"]), (20, True, True, [])]
    assert rows.committed == [b"a", b"whole"]


def test_after_what_was_withdrawn_nothing_is_open(folder):
    rows, asked = Rows(), []
    first = write(folder, *transaction(10, b"a"), *transaction(20, b"lost")[:2])
    applying = Applying(folder, rows)

    def until(_mark: Mark) -> bool:
        asked.append(applying.is_settled)
        if len(asked) == 1:
            folder.write([Message(MessageKind.SHAPE, 0, b"columns")], first, Place(1, 3), 10)
        return len(asked) == 2

    assert applying.run(CancellationToken(), until) == Mark(7, Place(1, 3), 10)
    assert asked == [False, True]


@pytest.mark.parametrize("ends_by", ["a conflict", "a signal"])
def test_what_was_not_read_to_its_end_does_not_count_as_applied(folder, monkeypatch, ends_by):
    """A follow would end as if it had caught up."""
    token, asked = CancellationToken(), []
    monkeypatch.setattr(apply, "BATCH_CHANGES", 9 if ends_by == "a conflict" else 1)
    rows = Rows(refuses=b"b" if ends_by == "a conflict" else b"none")
    for position, payload in ((10, b"a"), (20, b"b")):
        write(folder, *transaction(position, payload))
    applying = Applying(folder, rows, lambda _mark, _count: ends_by == "a signal" and token.cancel())
    with nullcontext() if ends_by == "a signal" else pytest.raises(ChangeConflictError):
        applying.run(token, lambda mark: asked.append(mark.position))
    assert (asked, rows.committed) == ([], [b"a"])


def test_before_a_conflict_everything_is_kept(folder):
    reported: list[tuple[int, int]] = []
    rows = Rows(refuses=b"c")
    write(
        folder,
        *transaction(10, b"a"),
        *transaction(20, b"b"),
        *transaction(30, b"x", b"c"),
        *transaction(40, b"d"),
    )
    with pytest.raises(ChangeConflictError, match="c"):
        Applying(folder, rows, lambda mark, count: reported.append((mark.position, count))).run(
            CancellationToken(), lambda mark: mark.position >= 40
        )
    assert reported == [(10, 1), (20, 1)]
    assert (rows.committed, rows.kept_mark) == ([b"a", b"b"], Mark(7, Place(1, 6), 20))
    rows.refuses = b"none"
    assert run(folder, rows).position == 40
    assert rows.committed == [b"a", b"b", b"x", b"c", b"d"]


def test_transactions_share_a_commit_up_to_a_limit_and_what_stands_alone_has_its_own(folder, monkeypatch):
    monkeypatch.setattr(apply, "BATCH_CHANGES", 3)
    reported: list[tuple[int, int]] = []
    rows = Rows(stands_alone=b"f")
    for position in (10, 20):
        write(
            folder,
            *transaction(position, b"1"),
            *transaction(position + 1, b"2", b"3", b"4"),
            *transaction(position + 2, b"5"),
        )
    write(folder, *transaction(30, b"e"), *transaction(31, b"f"), *transaction(32, b"g"))
    applying = Applying(folder, rows, lambda mark, count: reported.append((mark.position, count)))
    applying.run(CancellationToken(), lambda mark: mark.position >= 32)
    assert reported == [(11, 4), (21, 5), (30, 2), (32, 2)]
    assert sum(rows.commits) == len(rows.committed) == 13


def test_a_cancelled_run_ends_at_a_commit_and_another_goes_on(folder, monkeypatch):
    monkeypatch.setattr(apply, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(apply, "BATCH_CHANGES", 1)
    rows, token = Rows(), CancellationToken()
    write(folder, *transaction(10, b"10"))

    def report(mark: Mark, _count: int) -> None:
        if mark.position == 10:
            for position in (20, 30):
                write(folder, *transaction(position, b"%d" % position))
        else:
            token.cancel()

    assert Applying(folder, rows, report).run(token).position == 20
    assert run(folder, rows).position == 30
    assert rows.committed == [b"10", b"20", b"30"]


def test_a_mark_says_up_to_where_all_is_applied():
    assert (Mark(7).applied, Mark(7, position=9).applied) == (7, 9)
    assert not isinstance(Rows(), apply.RereadingWriter)


def test_a_destination_that_was_not_restored_is_refused(folder):
    with pytest.raises(GoneError, match="was not restored from this bundle yet"):
        Applying(folder, Rows(kept_mark=None))


@pytest.mark.parametrize("error", apply.UNREADABLE)
def test_a_message_that_is_none_of_a_log_is_damage_of_its_segment(folder, error):
    write(folder, *transaction(10, b"a"))
    second = write(folder, *transaction(20, b"b"))
    rows = Rows()
    take = rows.take

    def take_some(message: Message) -> None:
        if message.payload == b"b":
            raise error("odd")
        take(message)

    rows.take = take_some
    with pytest.raises(DamageError, match=f"0000000002-{second.sha256[:16]}"):
        run(folder, rows, 20)
