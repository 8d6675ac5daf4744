"""One large file on its way in parts of four bytes, from directory to directory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from migrate.bundle.findings import Finding
from migrate.errors import BusyError, DamageError, GoneError, UnreachableError
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.progress import Silent
from migrate.storage.api import UploadedPart
from migrate.storage.checksums import crc64nvme
from migrate.storage.local.store import LocalStore
from migrate.transfer.counters import TransferCounters
from migrate.transfer.file_copy import CopySettings, FileCopier, InOrderHasher, LargeFile
from migrate.transfer.plan import SealedFile, plan_file
from tests.faults import Fault, FaultPlan, Faulty, fail

DATA = b"aaaabbbbcc"


class Copy:
    """A file from one directory to another; ``sent``, ``kept`` and ``ends`` are what was told."""

    def __init__(
        self, tmp_path, data=DATA, digest_of=DATA, kept=(), faults=(), at_destination=(), check=None
    ):
        self.origin, self.destination = LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b")
        if data is not None:
            self.origin.put("data/a", data)
        file = SealedFile("data/a", len(DATA), hashlib.sha256(digest_of).hexdigest())
        self.upload = self.destination.begin("data/a", sha256=file.sha256, part_bytes=4)
        self.sent: list[int] = []
        self.kept: list[int] = []
        self.ends: list[Finding | None] = []
        self.cancellation = CancellationToken()
        parts = [self.destination.put_part("data/a", self.upload, number, piece) for number, piece in kept]
        self.settings = CopySettings(
            origin=Faulty(self.origin, FaultPlan(*faults)),
            destination=Faulty(self.destination, FaultPlan(*at_destination)),
            fence=SimpleNamespace(check=check or (lambda: None)),
            cancellation=self.cancellation,
            on_stuck=lambda: None,
            workers=1,
            recheck=False,
        )
        self.large = LargeFile(
            plan_file(file, 4, self.upload, parts),
            self.settings,
            on_sent=self.sent.append,
            on_kept=self.kept.append,
        )
        self.tasks = self.large.pieces(self.ends.append)

    def do_all(self) -> None:
        threads = [threading.Thread(target=task.do) for task in list(self.tasks)[::-1]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    def do_in_order(self) -> int:
        return len([task.do() for task in self.tasks])


def test_parts_that_end_in_any_order_make_the_file_once(tmp_path):
    copy = Copy(tmp_path)
    copy.do_all()
    assert (copy.ends, sorted(copy.sent), copy.kept) == ([None], [2, 4, 4], [])
    assert copy.destination.read("data/a") == DATA
    assert (copy.large.refused, copy.large.as_upload().id) == (False, copy.upload)


def test_a_part_that_lies_there_is_kept_where_its_bytes_are_the_same(tmp_path):
    copy = Copy(tmp_path, kept=[(1, b"aaaa"), (2, b"BBBB")])
    copy.do_all()
    assert (copy.ends, sorted(copy.sent), copy.kept) == ([None], [2, 4], [4])
    assert copy.destination.read("data/a") == DATA


def test_the_checksum_of_the_whole_is_sent_along(tmp_path):
    copy = Copy(tmp_path)
    messages = []

    def complete(key: str, upload: str, parts: list[UploadedPart], *, crc64nvme: int) -> None:
        messages.append((key, upload, [part.number for part in parts], crc64nvme))

    copy.destination.complete = complete
    copy.do_all()
    assert messages == [("data/a", copy.upload, [1, 2, 3], crc64nvme(DATA))]


@pytest.mark.parametrize(
    ("data", "what", "found", "tried"),
    [
        (None, "is gone at the origin", "", 1),
        (b"aaaabbb", "is shorter than listed", "7 bytes", 2),
        (b"aaaabbbbcd", "differs from the manifest at the origin", "SHA-256 ", 3),
    ],
)
def test_a_file_that_is_not_as_listed_is_given_up_once_and_no_more_of_it_is_read(
    tmp_path, data, what, found, tried
):
    copy = Copy(tmp_path, data)
    assert copy.do_in_order() == tried
    (end,) = copy.ends
    assert end is not None
    assert (end.key, end.what) == ("data/a", what)
    assert end.found.startswith(found)
    assert "data/a" not in [info.key for info in copy.destination.list("data/")]


def test_what_was_found_first_is_said_also_where_parts_are_under_way(tmp_path):
    copy = Copy(tmp_path, b"aaaab")
    tasks = list(copy.tasks)
    for task in tasks:
        task.do()
    assert [str(end and end.what) for end in copy.ends] == ["is shorter than listed"]
    assert copy.ends[0].found == "5 bytes"


def test_a_file_of_which_the_destination_makes_something_else_is_refused(tmp_path):
    error = DamageError("data/a", expected="x", found="y")
    copy = Copy(tmp_path, at_destination=[Fault("complete", fail(error))])
    copy.do_all()
    (end,) = copy.ends
    assert (end.what, end.expected, end.found) == (
        "did not arrive at the destination as it was sent",
        "x",
        "y",
    )
    assert copy.large.refused


def test_a_lease_that_is_lost_makes_no_file(tmp_path):
    def check() -> None:
        raise BusyError("lost")

    copy = Copy(tmp_path, check=check)
    with pytest.raises(BusyError):
        copy.do_in_order()
    assert copy.ends == []
    assert "data/a" not in [info.key for info in copy.destination.list("data/")]


def test_a_lease_that_is_lost_makes_no_small_file_either(tmp_path):
    def check() -> None:
        raise BusyError("lost")

    copy = Copy(tmp_path, check=check)
    copier = FileCopier(copy.settings, TransferCounters(Silent()), look=False)
    with pytest.raises(BusyError):
        copier.move([copy.large.job.file])
    assert "data/a" not in [info.key for info in copy.destination.list("data/")]


def ended(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Call in a thread; return it, and what will have become of the call."""
    became: list[object] = []

    def run() -> None:
        try:
            became.append(call())
        except Cancelled as exc:
            became.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, became


def test_nobody_waits_for_a_part_that_failed(tmp_path):
    copy = Copy(tmp_path, faults=[Fault("read", fail(UnreachableError("away")), nth=2)])
    first, second, _ = copy.tasks
    thread, became = ended(second.do)
    while not copy.sent:
        assert thread.is_alive()
    with pytest.raises(UnreachableError):
        first.do()
    thread.join(60)
    assert (became, copy.ends) == ([None], [])


def test_nobody_waits_for_a_part_that_is_gone(tmp_path):
    copy = Copy(tmp_path, faults=[Fault("read", fail(GoneError("no such file")), nth=2)])
    first, second, third = copy.tasks
    thread, became = ended(second.do)
    while not copy.sent:
        assert thread.is_alive()
    first.do()
    third.do()
    thread.join(60)
    assert (became, copy.ends) == ([None], [Finding("data/a", "is gone at the origin")])


def test_a_cancelled_wait_ends():
    cancellation = CancellationToken()
    hasher = InOrderHasher(cancellation)
    hasher.offer(2, b"b")
    thread, became = ended(lambda: hasher.wait(2))
    cancellation.cancel()
    thread.join(60)
    assert [type(one) for one in became] == [Cancelled]


def test_parts_are_hashed_in_their_order():
    hasher = InOrderHasher(CancellationToken())
    hasher.offer(2, b"b")
    thread, became = ended(lambda: hasher.wait(2))
    hasher.offer(1, b"a")
    thread.join(60)
    assert (became, hasher.wait(1)) == ([True], True)
    hasher.offer(3, b"c")
    assert hasher.hexdigest() == hashlib.sha256(b"abc").hexdigest()
    hasher.fail()
    assert [hasher.wait(number) for number in (3, 4, 5)] == [True, False, False]
