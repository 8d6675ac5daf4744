"""What is tried again, how long, and what an attempt that only seemed to fail comes to."""

import contextlib
import itertools
import time
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from migrate.errors import (
    AlreadyExistsError,
    ChangedError,
    DamagedOnTheWayError,
    DamageError,
    GoneError,
    MoveoutError,
    NotAllowedError,
    SlowDownError,
    UnreachableError,
)
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.checksums import crc64nvme
from migrate.storage.local.store import LocalStore
from migrate.storage.outage import Outage
from migrate.storage.rate_limit import RateLimited, RateLimiter
from migrate.storage.retry import (
    FIRST_CONTACT_SECONDS,
    LONGEST_WAIT_SECONDS,
    SAME_ATTEMPTS,
    TOTAL_SECONDS,
    Retrying,
    RetryPolicy,
    RetryServer,
    RetryTimeout,
)
from migrate.storage.s3.client import S3Location
from migrate.storage.s3.http.client import HttpClient
from migrate.storage.s3.http.messages import Request
from migrate.storage.s3.metadata.bucket_configuration import read_configuration
from scripts.process import free_port
from tests.faults import Fault, FaultPlan, Faulty, fail, lose_answer

GONE_AWAY = UnreachableError("gone away")


class Waits(CancellationToken):
    """Sleeps by noting for how long."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def local(tmp_path) -> LocalStore:
    return LocalStore(tmp_path)


CAUTIOUS = RetryTimeout(first_contact_seconds=FIRST_CONTACT_SECONDS)


def retrying(
    store, *faults: Fault, timeout: RetryTimeout = CAUTIOUS, server: RetryServer | None = None
) -> tuple[Retrying, FaultPlan, Waits]:
    plan, waits = FaultPlan(*faults), Waits()
    return Retrying(Faulty(store, plan), RetryPolicy(timeout, server, cancellation=waits)), plan, waits


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("put", lambda store: store.put("b", b"2")),
        ("read", lambda store: store.read("a")),
        ("stat", lambda store: store.stat("a")),
        ("list", lambda store: list(store.list())),
        ("delete", lambda store: store.delete("a")),
        ("begin", lambda store: store.begin("b")),
        ("uploads", lambda store: list(store.uploads())),
        ("abort", lambda store: store.abort("b", "0" * 32)),
    ],
)
def test_a_passing_fault_is_survived(local, method, call):
    local.put("a", b"1")
    store, plan, waits = retrying(local, Fault(method, fail(GONE_AWAY), times=3))
    call(store)
    plan.assert_all_fired()
    assert len(waits.seconds) == 3


def test_other_errors_are_raised_at_once(local):
    for error in (NotAllowedError("no"), GoneError("gone"), ChangedError("changed")):
        store, _, waits = retrying(local, Fault("read", fail(error), times=9))
        with pytest.raises(type(error)):
            store.read("a")
        assert waits.seconds == []


def test_waits_grow_and_are_spread(local):
    local.put("a", b"1")
    store, _, waits = retrying(
        local, Fault("read", fail(GONE_AWAY), times=8), timeout=RetryTimeout(first_contact_seconds=99)
    )
    store.read("a")
    limits = (0.5, 1, 2, 4, 8, 16, LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
    assert all(0 <= wait <= limit for wait, limit in zip(waits.seconds, limits, strict=True))
    assert len(set(waits.seconds)) == len(waits.seconds)


def test_the_other_side_says_how_long_to_wait(local):
    local.put("a", b"1")
    store, _, waits = retrying(local, Fault("read", fail(SlowDownError("slow", wait_seconds=7))))
    store.read("a")
    assert 7 <= waits.seconds[0] <= 8


def test_it_gives_up_in_the_end_with_the_last_error(local):
    store, _, _ = retrying(local, Fault("read", fail(GONE_AWAY), times=10**6), timeout=RetryTimeout(0.05))
    with pytest.raises(UnreachableError, match="gone away"):
        store.read("a")


def test_a_location_that_never_answered_is_given_up_sooner(local):
    local.put("a", b"1")
    slow = SlowDownError("slow", wait_seconds=20)
    store, _, _ = retrying(local, Fault("read", fail(slow), nth=1, times=1))
    with pytest.raises(SlowDownError):
        store.read("a")
    store.stat("a")
    store, plan, _ = retrying(local, Fault("read", fail(slow)))
    store.stat("a")
    assert store.read("a") == b"1"
    plan.assert_all_fired()


def test_a_stopped_run_waits_no_more(local, monkeypatch):
    monkeypatch.setattr("migrate.storage.retry.FIRST_WAIT_SECONDS", 1000)
    cancellation = CancellationToken()
    faulty = Faulty(local, FaultPlan(Fault("read", fail(GONE_AWAY), times=99)))
    store = Retrying(faulty, RetryPolicy(cancellation=cancellation))
    cancellation.cancel()
    with pytest.raises(UnreachableError):
        store.read("a")


def test_long_waits_are_told(local):
    local.put("a", b"1")
    notes: list[str] = []
    slow = SlowDownError("the bucket is busy", wait_seconds=30)
    store, _, _ = retrying(
        local,
        Fault("read", fail(slow)),
        timeout=RetryTimeout(first_contact_seconds=99),
        server=RetryServer(note=notes.append),
    )
    store.read("a")
    assert "has refused requests since" in notes[0]
    assert "the bucket is busy" in notes[0]
    assert len(notes) == 2
    assert "answers again" in notes[1]


def test_a_call_without_an_answer_is_told_of_once_and_still_succeeds(local):
    local.put("a", b"1")
    notes, now = [], [100.0]
    policy = RetryPolicy(server=RetryServer("s3://b", Outage(clock=lambda: now[0]), notes.append))
    policy.run(lambda: None)

    def slow() -> bytes:
        for second in (10, 16, 40):
            now[0] = 100.0 + second
            policy.look()
            assert len(notes) == (second >= 16)
        return local.read("a")

    assert policy.run(slow) == b"1"
    assert notes[0].startswith("s3://b has not answered since ")
    assert "and is tried again until" in notes[0]
    assert [note.partition(",")[0] for note in notes[1:]] == ["s3://b answers again"]
    now[0] = 1000.0
    policy.look()
    assert len(notes) == 2, "nothing is under way"


def test_a_call_whose_bytes_move_is_not_silent():
    notes, now, stuck = [], [100.0], [1.0]
    outage = Outage(clock=lambda: now[0])
    server = RetryServer(outage=outage, note=notes.append, stuck_seconds=lambda: stuck[0])
    policy = RetryPolicy(server=server)

    def slow() -> None:
        for second in (14, 28, 42):
            now[0] = 100.0 + second
            policy.look()
        assert notes == []
        stuck[0] = 16.0
        policy.look()

    policy.run(slow)
    assert "has not answered since" in notes[0]


def test_a_create_whose_answer_was_lost_has_won(local):
    store, plan, _ = retrying(local, Fault("create", lose_answer()))
    assert store.create("lease", b"mine").size_bytes == 4
    plan.assert_all_fired()


def test_a_create_that_failed_and_then_lost_has_lost(local):
    store, plan, _ = retrying(local, Fault("create", fail(GONE_AWAY)))
    local.put("lease", b"theirs")
    with pytest.raises(AlreadyExistsError):
        store.create("lease", b"mine")
    plan.assert_all_fired()
    assert local.read("lease") == b"theirs"


def test_a_replace_whose_answer_was_lost_has_won(local):
    etag = local.put("lease", b"old").etag
    store, plan, _ = retrying(local, Fault("replace", lose_answer()))
    assert store.replace("lease", b"new", etag=etag).etag == local.stat("lease").etag
    plan.assert_all_fired()


def test_a_replace_that_failed_and_then_lost_has_lost(local):
    etag = local.put("lease", b"old").etag
    local.put("lease", b"other")
    store, plan, _ = retrying(local, Fault("replace", fail(GONE_AWAY)))
    with pytest.raises(ChangedError):
        store.replace("lease", b"new", etag=etag)
    plan.assert_all_fired()


def test_a_completion_whose_answer_was_lost_finds_its_file(reopen):
    bare = reopen()
    store, plan, _ = retrying(bare, Fault("complete", lose_answer()))
    upload = store.begin("big", part_bytes=10)
    parts = [store.put_part("big", upload, 1, b"hello")]
    assert store.complete("big", upload, parts, crc64nvme=crc64nvme(b"hello")).size_bytes == 5
    plan.assert_all_fired()
    assert bare.read("big") == b"hello"


def test_a_completion_of_a_dropped_upload_is_an_error_even_beside_another_file(reopen):
    bare = reopen()
    bare.put("big", b"other")
    store, _, _ = retrying(bare, Fault("complete", fail(GONE_AWAY)))
    upload = store.begin("big", part_bytes=10)
    parts = [store.put_part("big", upload, 1, b"hello")]
    bare.abort("big", upload)
    # versitygw answers 200 where any file of the name exists; then it is the checksum that tells.
    with pytest.raises((GoneError, DamageError)):
        store.complete("big", upload, parts, crc64nvme=crc64nvme(b"hello"))
    assert bare.read("big") == b"other"


def test_a_listing_goes_on_behind_the_last_file_seen(local):
    names = [f"{number:02}" for number in range(20)]
    for name in names:
        local.put(name, b"")

    class Breaking:
        """Breaks every listing after seven rows."""

        location, keeps_sha256, together = local.location, False, 1
        listings = 0

        def list(self, prefix: str = "", *, start_after: str = ""):
            self.listings += 1
            rows = list(local.list(prefix, start_after=start_after))
            yield from itertools.islice(rows, 7)
            if len(rows) > 7:
                raise GONE_AWAY

    breaking = Breaking()
    store = Retrying(breaking, RetryPolicy(cancellation=Waits()))
    assert [info.key for info in store.list()] == names
    assert breaking.listings == 3


def test_bytes_that_arrive_damaged_are_sent_again_a_few_times(local):
    damage = DamagedOnTheWayError("b", expected="the checksum that was sent", found="BadDigest")
    store, plan, _ = retrying(local, Fault("put", fail(damage), times=2))
    store.put("b", b"2")
    plan.assert_all_fired()
    assert local.read("b") == b"2"
    store, plan, waits = retrying(local, Fault("put", fail(damage), times=100))
    with pytest.raises(DamageError):
        store.put("b", b"3")
    assert len(waits.seconds) == SAME_ATTEMPTS - 1


class Clock(CancellationToken):
    """A clock that only sleeping moves on."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.time = 1000.0
        monkeypatch.setattr("migrate.storage.retry.time.monotonic", lambda: self.time)

    def sleep(self, seconds):
        self.time += seconds


def away():
    raise GONE_AWAY


def test_a_server_that_never_answered_is_not_waited_for_as_long_as_one_that_did(monkeypatch):
    clock, waited = Clock(monkeypatch), []
    policy = RetryPolicy(CAUTIOUS, cancellation=clock)
    for call in (away, away, lambda: 1, away):
        begun = clock.time
        with contextlib.suppress(UnreachableError):
            policy.run(call)
        waited.append(clock.time - begun)
    assert all(seconds <= FIRST_CONTACT_SECONDS for seconds in waited[:2])
    assert TOTAL_SECONDS / 2 < waited[3] <= TOTAL_SECONDS


def test_a_server_that_another_policy_has_reached_is_waited_for(monkeypatch):
    clock, outage = Clock(monkeypatch), Outage()
    first, second = (RetryPolicy(CAUTIOUS, RetryServer(outage=outage), cancellation=clock) for _ in range(2))
    first.run(lambda: 1)
    begun = clock.time
    with pytest.raises(UnreachableError):
        second.run(away)
    assert TOTAL_SECONDS / 2 < clock.time - begun <= TOTAL_SECONDS


def test_who_waits_long_for_a_server_is_told(monkeypatch):
    notes, answers = [], iter([GONE_AWAY, 1])

    def call():
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("migrate.storage.retry.NOTE_AFTER_SECONDS", 0)
    assert RetryPolicy(server=RetryServer(note=notes.append), cancellation=Waits()).run(call) == 1
    assert notes[0].startswith("the server has not answered since ")
    assert notes[0].endswith(": gone away")
    assert (len(notes), "answers again" in notes[1]) == (2, True)


def test_an_outage_is_told_once_a_minute_and_lasts_as_long_for_all_calls(monkeypatch):
    clock, notes = Clock(monkeypatch), []
    outage = Outage(clock=lambda: clock.time)
    server = RetryServer("s3://b", outage, notes.append)
    first, second = (RetryPolicy(server=server, cancellation=clock) for _ in range(2))
    with pytest.raises(UnreachableError):
        first.run(away)
    assert TOTAL_SECONDS - LONGEST_WAIT_SECONDS <= clock.time - 1000 <= TOTAL_SECONDS
    assert 4 <= len(notes) <= 6
    assert all(note.startswith("s3://b has not answered since ") for note in notes)
    assert len(set(notes)) == 1, "since when, and until when"
    given_up_at = clock.time
    with pytest.raises(UnreachableError):
        second.run(away)
    assert clock.time - given_up_at <= LONGEST_WAIT_SECONDS, "the outage is that of all calls"

    assert first.run(lambda: 1) == 1
    assert notes[-1].startswith("s3://b answers again, after ")
    answered_at = clock.time
    with pytest.raises(UnreachableError):
        second.run(away)
    assert clock.time - answered_at > TOTAL_SECONDS / 2


def test_nothing_is_tried_again_beyond_a_deadline_that_lies_ahead(monkeypatch):
    clock, notes = Clock(monkeypatch), []
    deadline = datetime.now(UTC) + timedelta(seconds=60)
    server = RetryServer("s3://b", Outage(clock=lambda: clock.time), notes.append)
    policy = RetryPolicy(RetryTimeout(deadline=deadline), server, cancellation=clock)
    with pytest.raises(UnreachableError):
        policy.run(away)
    assert 10 < clock.time - 1000 <= 60
    assert notes[0].startswith("s3://b has not answered since ")
    past = RetryPolicy(RetryTimeout(deadline=datetime.now(UTC) - timedelta(hours=1)), cancellation=clock)
    begun = clock.time
    with pytest.raises(UnreachableError):
        past.run(away)
    assert clock.time - begun > 60


def test_what_is_sent_again_counts_and_waits_for_no_limit(local):
    waits: list[float] = []
    limiter = RateLimiter(2**21, clock=lambda: sum(waits), sleep=waits.append)
    faulty = Faulty(local, FaultPlan(Fault("put", fail(GONE_AWAY), times=3)))
    tried_again = Retrying(faulty, RetryPolicy(cancellation=Waits()), on_resent=limiter.count)
    RateLimited(tried_again, limiter, at_once_bytes=0, cancellation=None).put("a", bytes(2**20))
    assert waits == [0.5], "it waited once, for what it sent first"
    assert limiter.settle()[0] == 4 * 2**20


def client_of_nobody() -> HttpClient:
    """A client of a server that does not run."""
    keys = dict.fromkeys(("access_key_id", "secret_access_key"), "x")
    boto = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{free_port()}",
        region_name="x",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    return HttpClient(boto, S3Location("bucket", "", None, keys))


def test_a_request_that_could_not_be_sent_ahead_says_why():
    pending = client_of_nobody().begin(Request("HeadObject", "HEAD", "key"))
    with pytest.raises(UnreachableError, match="Connection refused"):
        pending.wait()
    pending = client_of_nobody().begin(Request("PutObject", "PUT", "key", headers={"x-amz-meta-a": "b\n"}))
    with pytest.raises(MoveoutError, match="line break"):
        pending.wait()


def test_settings_of_a_bucket_are_not_waited_for_by_a_cancelled_run():
    """They are read in threads, which the program joins before it ends."""
    client = client_of_nobody()
    cancellation = CancellationToken()
    cancellation.cancel()
    started = time.monotonic()
    with pytest.raises(UnreachableError):
        read_configuration(client, cancellation)
    assert time.monotonic() - started < TOTAL_SECONDS / 2
