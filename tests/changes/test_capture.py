"""Capture with a real server: whatever is killed, each transaction is in the segments exactly once, and whole."""

import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from exporters.changes import MessageKind, NotFollowed, note_not_followed
from exporters.errors import SourceGoneError
from exporters.postgres.changes import pgoutput
from exporters.postgres.changes.log import open_change_log
from migrate.changes import capture as capturing
from migrate.changes import retained_log
from migrate.changes.capture import Capture, resume_position
from migrate.changes.capture_thread import keep_capturing
from migrate.changes.segments import SegmentFolder, SegmentReader, WithdrawnError
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from tests.changes.writers import writers
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.waiting import eventually, stream_of

TABLES = """
CREATE TABLE log (writer int, number int, note text, PRIMARY KEY (writer, number));
CREATE TABLE unrelated (a int);
"""
CAPTURE = """
import sys
from exporters.postgres.changes.log import open_change_log
from migrate.changes import capture
from migrate.changes.capture_thread import keep_capturing
from migrate.changes.segments import SegmentFolder
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location

url, location, position, log = sys.argv[1], sys.argv[2], int(sys.argv[3]), eval(sys.argv[4])
capture.SEGMENT_BYTES, capture.SEGMENT_SECONDS = 200_000, 0.2
folder = SegmentFolder(open_location(location), "app", position)
keep_capturing(open_change_log(url, {}, "x"), {"position": position, "log": log}, folder, CancellationToken(),
  note=lambda text: print(text, flush=True), retain_bytes=None)
"""


class Captured:
    """A change log with its folder, and processes that capture it."""

    def __init__(self, url, location):
        self.url = url
        self.location = location
        self.log = open_change_log(url, {}, f"capture-{location.name}")
        with self.log.open_base() as base:
            self.base = base
        self.folder = SegmentFolder(open_location(str(location)), "app", base.position)
        self.folder.begin()

    @contextmanager
    def process(self):
        """A process that captures; it is killed at the end."""
        words = [self.url, str(self.location), str(self.base.position), repr(dict(self.base.log))]
        process = subprocess.Popen(
            [sys.executable, "-c", CAPTURE, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            sys.stderr.write(process.communicate()[0])

    def finish(self):
        """Capture up to the end of the log."""
        end = self.log.state(self.base.log).end
        position = resume_position(self.folder, self.base.position)
        with stream_of(self.log, self.base.log, position) as stream:
            Capture(self.folder).run(stream, CancellationToken(), until=lambda position: position >= end)

    def rows(self):
        """What the segments insert, each transaction as a list; each has to be whole."""
        transactions, rows = [], None
        for stored in SegmentReader(self.folder).read():
            if stored.message.kind is MessageKind.BEGIN:
                assert rows is None
                rows = []
            elif stored.message.kind is MessageKind.COMMIT:
                transactions.append(rows)
                rows = None
            elif stored.message.kind is MessageKind.CHANGE:
                new = pgoutput.decode(stored.message.payload).new
                rows.append((int(new[0]), int(new[1])))
        assert rows is None
        return transactions

    def records(self):
        return list(self.folder.records())


@pytest.fixture
def captured(postgres, tmp_path):
    url = postgres.database()
    run_sql(url, TABLES)
    captured = Captured(url, tmp_path)
    yield captured
    captured.log.drop(captured.base.log)


def insert(url, writer, count):
    run_sql(
        url, f"INSERT INTO log SELECT {writer}, g, repeat('note ', 10) FROM generate_series(1, {count}) g"
    )


@pytest.mark.parametrize("count", [20_000, 100_000])
@pytest.mark.torture
def test_a_large_transaction_that_is_interrupted_counts_once(captured, count):
    """It goes over many segments. The capture is killed within it, and the next one's connection is ended."""
    insert(captured.url, 1, 3)
    reader, early = SegmentReader(captured.folder), []
    with captured.process():
        eventually(captured.records)
        insert(captured.url, 2, count)
        eventually(lambda: captured.folder.last().number >= 4)
    last = captured.folder.last()
    assert last.boundary.segment < last.number  # it was killed within the transaction
    early += [stored.message for stored in reader.read()]
    with captured.process() as process:
        eventually(lambda: captured.folder.last().number >= last.number + 2)
        fetch(captured.url, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        assert "changes are not captured for now" in process.stdout.readline()
        eventually(lambda: captured.folder.last().boundary.segment > last.number)
    with pytest.raises(WithdrawnError):  # who has read the first attempt hears that it does not count
        list(reader.read())
    insert(captured.url, 3, 3)
    captured.finish()
    assert [len(rows) for rows in captured.rows()] == [3, count, 3]
    assert len(set(captured.rows()[1])) == count
    assert any(record.after < (record.number - 1, 0) for record in captured.records())


def test_an_idle_source_is_acknowledged_and_gone_on_with(captured, monkeypatch):
    """What other tables write moves the log. What was acknowledged is where the next capture begins."""
    monkeypatch.setattr(capturing, "IDLE_SECONDS", 0.3)
    insert(captured.url, 1, 3)
    captured.finish()
    position = captured.folder.last().position
    run_sql(captured.url, "INSERT INTO unrelated SELECT generate_series(1, 1000)")
    captured.finish()
    eventually(lambda: captured.log.state(captured.base.log).acknowledged > position)
    assert len(captured.records()) == 1
    insert(captured.url, 2, 3)
    captured.finish()
    assert [rows[0][0] for rows in captured.rows()] == [1, 2]


def test_a_server_is_freed_when_it_keeps_too_much(captured, monkeypatch, tmp_path):
    """The location is away. There is a warning first, then the slot is gone, and what that costs is said."""
    monkeypatch.setattr(retained_log, "_POLL_SECONDS", 0.2)
    monkeypatch.setattr(retained_log, "_CATCH_UP_SECONDS", 0.5)
    (tmp_path / "changes").rename(tmp_path / "elsewhere")
    notes = []

    def warnings():
        return [note for note in notes if "following ends" in note]

    log, base = captured.log, {"position": captured.base.position, "log": captured.base.log}
    with ThreadPoolExecutor(1) as pool:
        limit = log.state(captured.base.log).retained_bytes + 4 * 2**20
        capturing = pool.submit(
            keep_capturing,
            log,
            base,
            captured.folder,
            CancellationToken(),
            note=notes.append,
            retain_bytes=limit,
        )
        number = 0
        while not capturing.done():
            number += 1
            insert(captured.url, number, 1_000)
            while (
                retained_log.is_near(log.state(captured.base.log).retained_bytes, limit)
                and not warnings()
                and not capturing.done()
            ):
                time.sleep(0.02)
        with pytest.raises(
            SourceGoneError, match=f"are allowed.* changes after {log.show(captured.base.position)}"
        ):
            capturing.result()
    assert warnings()
    assert log.state(captured.base.log).lost
    assert fetch(captured.url, "SELECT 1 FROM pg_publication") == []


@pytest.mark.torture
def test_captures_killed_at_random_moments(captured):
    """Sixteen writers; captures, connections and large transactions end at any moment."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    with writers(captured.url, 16) as written:
        for attempt in range(30):
            with captured.process():
                time.sleep(chance.uniform(0.5, 4))
                if attempt % 5 == 0:
                    insert(captured.url, 100 + attempt, 20_000)
                if attempt % 3 == 0:
                    fetch(
                        captured.url,
                        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active",
                    )
                    time.sleep(chance.uniform(0, 3))
    captured.finish()
    rows = [row for transaction in captured.rows() for row in transaction]
    assert len(rows) == len(set(rows)), seed
    assert {row for row in rows if row[0] < 100} == set(written), seed
    assert sum(row[0] >= 100 for row in rows) == 6 * 20_000, seed


def test_tables_that_are_not_followed_are_named_by_reason_each_in_good_english():
    reason = "it has no primary key"
    notes = []
    note_not_followed([NotFollowed("a", reason, ""), NotFollowed("b", reason, "")], notes.append)
    note_not_followed([NotFollowed("a", reason, "")], notes.append)
    assert [note.partition(" (")[0] for note in notes] == [
        "the changes of a, b cannot be followed: each has no primary key",
        "the changes of a cannot be followed: it has no primary key",
    ]
