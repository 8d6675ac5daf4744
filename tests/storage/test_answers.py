"""A location behind a proxy that damages answers, or sends bodies in chunks and does not say how long they are."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from migrate.errors import DamageError, GoneError, UnreachableError
from migrate.storage.api import MIN_PART_BYTES
from migrate.storage.checksums import crc64nvme
from migrate.storage.registry import open_location, open_object_lock
from migrate.storage.s3.client import parse
from migrate.storage.s3.store import S3Store
from scripts.servers import S3Server
from tests.tools.clients import boto_client
from tests.tools.fault_proxy import FaultProxy, Planned
from tests.tools.http_proxy import Answer, Asked, HttpProxy
from tests.tools.profiles import extra_profile


@dataclass(slots=True)
class Chunking(HttpProxy):
    """Sends what is read in chunks; breaks off after so many bytes."""

    breaks_off: int | None = None

    def handle(self, asked: Asked) -> Answer:
        answer = self.forward(asked)
        chunked = asked.method in {"GET", "HEAD"} and answer.status < 300
        return replace(answer, chunked=chunked, sent_bytes=self.breaks_off) if chunked else answer


def test_sizes_that_nobody_announces(
    minio: S3Server,
    make_bucket: Callable[[S3Server], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    body = bytes(range(256)) * 1000
    with Chunking(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        store = S3Store(parse(f"s3://{make_bucket(minio)}/location?profile={profile}"))
        store.put("a/file", body)
        store.put("a/file-too", b"x")
        assert store.read("a/file") == body
        assert store.read("a/file", 1000, 5000) == body[1000:6000]
        assert store.read("a/file", len(body) - 10, 100) == body[-10:]
        assert store.stat("a/file").size_bytes == len(body)
        with pytest.raises(GoneError):
            store.stat("a/fil")
        proxy.breaks_off = 3000
        for start, length in ((0, None), (1000, 5000)):
            with pytest.raises(UnreachableError):
                store.read("a/file", start, length)


def test_an_etag_of_a_part_that_was_damaged_on_the_way(
    minio: S3Server,
    make_bucket: Callable[[S3Server], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The listing has the right one; a part that is another one is not taken, though."""
    body = bytes(range(256)) * (MIN_PART_BYTES // 256)
    location = f"s3://{make_bucket(minio)}/location"
    with FaultProxy(minio.endpoint, plan=[Planned("wrong etag", nth=1)]) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        store = S3Store(parse(f"{location}?profile={profile}"))
        upload = store.begin("file")
        parts = [store.put_part("file", upload, number, body) for number in (1, 2)]
        assert parts[0].etag != parts[1].etag
        assert not proxy.unfired()
        assert store.complete("file", upload, parts, crc64nvme=crc64nvme(body + body)).size_bytes == 2 * len(
            body
        )
        upload = store.begin("other")
        ours = [store.put_part("other", upload, 1, body)]
        store.put_part("other", upload, 1, b"of somebody else")
        with pytest.raises(DamageError):
            store.complete("other", upload, ours, crc64nvme=crc64nvme(body))


@dataclass(slots=True)
class Mute(HttpProxy):
    """Answers once with 200 and nothing at all, or with a page, to what is asked next."""

    mute: bool = False
    page: bytes = b""

    def handle(self, asked: Asked) -> Answer:
        if self.mute:
            self.mute = False
            return Answer(200, (), self.page)
        return self.forward(asked)


def test_an_empty_answer_is_no_empty_list_and_no_missing_lock(
    minio: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It is asked again: an erasure, say, believes what is listed at its end."""
    bucket = f"mute-{secrets.token_hex(5)}"
    boto_client(minio.profile).create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    with Mute(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        url = f"s3://{bucket}/location?profile={profile}"
        store, vault = open_location(url), open_object_lock(url)
        store.put("file", b"x")
        upload = store.begin("large")
        (version,) = vault.versions()
        vault.set_legal(version, on=True)
        vault.retain(version, datetime.now(UTC) + timedelta(days=1), "GOVERNANCE")
        asked: list[tuple[Callable[[], object], object]] = [
            (lambda: [one.key for one in store.list()], ["file"]),
            (lambda: [one.id for one in store.uploads()], [upload]),
            (lambda: [one.key for one in vault.versions()], ["file"]),
            (lambda: vault.lock(version).mode, "GOVERNANCE"),
            (lambda: store.stat("file").size_bytes, 1),
            (lambda: store.put("other", b"y").size_bytes, 1),
            (lambda: bool(store.begin("more")), True),
        ]
        for ask, answer in asked:
            proxy.mute = True
            assert ask() == answer
            assert not proxy.mute
        proxy.mute, proxy.page = True, b"<html><body>Sign in</body></html>"
        assert (vault.lock(version).mode, vault.lock(version).legal) == ("GOVERNANCE", True)


def test_a_minio_behind_a_proxy_of_another_name_holds_no_firmer(
    minio: S3Server,
    versitygw: S3Server,
    make_bucket: Callable[[S3Server], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It lets every account lift a retention of mode GOVERNANCE."""
    for server in (minio, versitygw):
        bucket = make_bucket(server)
        with HttpProxy(server.endpoint, name="nginx") as proxy:
            profile = extra_profile(monkeypatch, tmp_path, server, endpoint=proxy.endpoint)
            vault = open_object_lock(f"s3://{bucket}/location?profile={profile}")
            assert vault.is_firm("GOVERNANCE") == (server is versitygw)
            assert vault.is_firm("COMPLIANCE")
