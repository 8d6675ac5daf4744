"""Slowness is no fault: what takes long is neither given up nor sent again."""

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.header import decode_header

import pytest

from migrate.errors import GoneError, UnreachableError
from migrate.runtime import cancellation
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.storage import inflight_limit, outage
from migrate.storage.api import MIN_PART_BYTES, PART_BYTES, UploadedPart
from migrate.storage.multipart import HALF_PART_BYTES, cut_of
from migrate.storage.registry import open_location
from migrate.storage.s3.capability_probe import ProbePlan, probe
from migrate.storage.s3.client import parse
from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.http import connection
from migrate.storage.s3.metadata.object_metadata import Description
from migrate.storage.s3.store import S3Store
from scripts import metrics
from tests.tools.clients import boto_client
from tests.tools.http_proxy import Answer, Asked, HttpProxy
from tests.tools.profiles import extra_profile

MB = 1_000_000


@pytest.fixture
def proxy(minio, toxiproxy):
    """What stands before the MinIO."""
    return toxiproxy.proxy(minio.endpoint)


@pytest.fixture
def url(proxy, minio, make_bucket, monkeypatch, tmp_path) -> str:
    """A location behind the proxy."""
    name = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
    return f"s3://{make_bucket(minio)}/location?profile={name}"


def test_a_part_may_take_longer_than_it_may_take_to_connect(minio, proxy, url, monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 3.0)
    proxy.add("bandwidth", stream="upstream", rate=5_000)  # kB/s
    store = S3Store(parse(url))
    upload, data = store.begin("big"), os.urandom(24 * MB)
    before = metrics.received_bytes(minio.endpoint)
    part = store.put_part("big", upload, 1, data)
    assert metrics.received_bytes(minio.endpoint) - before == len(data)
    assert store.parts("big", upload) == [part]


def test_silence_is_still_a_fault(proxy, url, monkeypatch):
    upload = S3Store(parse(url)).begin("big")
    monkeypatch.setattr(outage, "ANSWER_SECONDS", 0.5)
    store = S3Store(parse(url))  # whose connections do not wait as long as those from before
    proxy.add("timeout", stream="upstream", timeout=0)  # takes nothing more, and does not close
    with pytest.raises(UnreachableError):
        store.put_part("big", upload, 1, os.urandom(24 * MB))


def test_a_store_that_is_stopped_begins_no_part_that_waits_for_its_turn(minio, url, monkeypatch):
    monkeypatch.setattr(inflight_limit, "SMALL_BYTES", 0)
    cancellation, begun, end = CancellationToken(), threading.Event(), threading.Event()
    store = S3Store(parse(url), cancellation=cancellation)
    upload, flowing = store.begin("big"), store._http.inflight

    def hold() -> None:
        with flowing.sending(MIN_PART_BYTES, CancellationToken()):
            begun.set()
            end.wait()

    with ThreadPoolExecutor(3) as pool:
        holder = pool.submit(hold)
        begun.wait()
        part = pool.submit(store.put_part, "big", upload, 1, os.urandom(MIN_PART_BYTES))
        before = metrics.requests(minio.endpoint)["PutObjectPart"]
        cancellation.cancel()
        with pytest.raises(Cancelled):
            part.result()
        end.set()
        holder.result()
    assert metrics.requests(minio.endpoint)["PutObjectPart"] == before


def test_small_objects_keep_to_what_the_link_carries(url):
    """However many may be under way at once: a MiB of them, where nothing faster was seen."""
    destination = open_destination_bucket(url)
    flowing = destination.reader.http.inflight
    most = 0
    begin = flowing.begin

    def watched(size_bytes, token):
        nonlocal most
        body = begin(size_bytes, token)
        most = max(most, flowing._bytes)
        flowing._rate = 1000.0
        return body

    flowing.begin = watched
    objects = [(Description(f"{number:03}"), os.urandom(100_000)) for number in range(40)]
    written = list(destination.put_all(objects, window_bytes=64 * MB))
    assert [(one.key, one.error) for one in written] == [(it.key, None) for it, _ in objects]
    assert 500_000 < most <= inflight_limit.LEAST_BYTES


def test_of_whole_objects_too_it_is_seen_how_far_they_have_left(minio, proxy, url):
    proxy.add("bandwidth", stream="upstream", rate=8_000)
    destination, body = open_destination_bucket(url), os.urandom(24 * MB)
    before = metrics.received_bytes(minio.endpoint)
    seen: set[int] = set()
    with ThreadPoolExecutor(1) as pool:
        described = Description("large", metadata={"name": "Größe"}, tags={"a": "b"})
        written = pool.submit(lambda: list(destination.put_all([(described, body)], window_bytes=1)))
        while not written.done():
            seen.add(inflight_limit.gone_bytes())
    [one] = written.result()
    assert (one.error, one.md5) == (None, hashlib.md5(body).hexdigest())
    assert len([size for size in seen if 0 < size < len(body)]) > 5
    assert metrics.received_bytes(minio.endpoint) - before == len(body)
    response = boto_client(minio.profile).head_object(Bucket=destination.name, Key="large")
    assert decode_header(response["Metadata"]["name"])[0][0] == "Größe".encode()
    assert destination.tags("large") == {"a": "b"}


def test_what_concerns_all_objects_is_raised_for_large_ones_too(minio, make_bucket):
    bucket = make_bucket(minio)
    destination = open_destination_bucket(f"s3://{bucket}?profile={minio.profile}")
    boto_client(minio.profile).delete_bucket(Bucket=bucket)
    with pytest.raises(GoneError):
        list(destination.put_all([(Description("large"), bytes(3 * MB))], window_bytes=1))


def test_an_interruption_ends_what_would_take_minutes(minio, proxy, url, monkeypatch):
    monkeypatch.setattr(cancellation, "GRACE_SECONDS", 0.0)
    proxy.add("bandwidth", stream="upstream", rate=1_000)
    token = CancellationToken()
    store = S3Store(parse(url), cancellation=token)
    upload, size_bytes = store.begin("big"), 64 * MB
    before = metrics.received_bytes(minio.endpoint)
    with ThreadPoolExecutor(1) as pool:
        part = pool.submit(store.put_part, "big", upload, 1, os.urandom(size_bytes))
        while not inflight_limit.gone_bytes():
            assert not part.done()
        token.cancel()
        with pytest.raises(Cancelled):
            part.result()
    assert metrics.received_bytes(minio.endpoint) - before < size_bytes
    assert inflight_limit.gone_bytes() == 0


def test_parts_are_small_where_the_link_is_slow(url):
    store = open_location(url)
    flowing = store._store._http.inflight
    large = 100 * 2**30
    assert store.part_bytes(2**30) == HALF_PART_BYTES
    flowing._rate = 125_000.0
    assert (store.part_bytes(2**30), store.part_bytes(large)) == (MIN_PART_BYTES, 4 * MIN_PART_BYTES)
    flowing._rate = 1e8
    assert (store.part_bytes(2**30), store.part_bytes(large)) == (PART_BYTES, PART_BYTES)
    assert all(
        cut_of([UploadedPart(1, cut, "", None)]) == cut
        for cut in (MIN_PART_BYTES, 4 * MIN_PART_BYTES, PART_BYTES)
    )
    assert cut_of([UploadedPart(3, 1_000_000, "", None)]) is None  # the last one of a file tells nothing


@dataclass(slots=True)
class Together(HttpProxy):
    """Answers requests that are ``meant`` only two by two; ``alone`` where one has waited in vain."""

    meant: Callable[[Asked], bool] = lambda _: False
    alone: bool = False
    both: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=60))

    def handle(self, asked: Asked) -> Answer | None:
        if self.meant(asked):
            try:
                self.both.wait()
            except threading.BrokenBarrierError:
                self.alone = True
        return self.forward(asked)


@pytest.mark.parametrize("what", ["settings", "probe objects"])
def test_what_is_asked_of_a_bucket_far_away_is_asked_side_by_side(
    minio, make_bucket, monkeypatch, tmp_path, what
):
    """One after the other, each would take as long as the way there and back."""
    meant = {
        "settings": lambda asked: {"policy", "cors"} & asked.query.keys(),
        "probe objects": lambda asked: asked.method == "PUT" and asked.path.endswith(("/A", "/e%CC%81")),
    }
    bucket = make_bucket(minio)
    with Together(minio.endpoint, meant=meant[what]) as proxy:
        name = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        destination = open_destination_bucket(f"s3://{bucket}?profile={name}")
        if what == "settings":
            assert "denied" not in destination.configuration()
        else:
            assert probe(destination, ProbePlan()).refused_keys == {}
        assert not proxy.alone
