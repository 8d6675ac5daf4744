"""What goes wrong outside is told in our words: what, where, what next. No secret is in it."""

import errno
import logging
import os
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import botocore.httpsession
import pytest
from botocore.exceptions import ClientError

from exporters.bucket_api import ObjectSummary
from migrate.errors import (
    GoneError,
    MoveoutError,
    NoSpaceError,
    NotAllowedError,
    SlowDownError,
    UnreachableError,
    UsageError,
)
from migrate.storage.api import MIN_PART_BYTES
from migrate.storage.checksums import crc64nvme
from migrate.storage.local.store import LocalStore
from migrate.storage.registry import open_location
from migrate.storage.s3.client import parse
from migrate.storage.s3.errors import translate
from migrate.storage.s3.http.client import HttpClient
from migrate.storage.s3.http.concurrent_requests import Job
from migrate.storage.s3.http.messages import Request
from migrate.storage.s3.source_bucket import S3Bucket
from migrate.storage.s3.store import S3Store
from tests.tools.http_proxy import Answer, HttpProxy, refusal
from tests.tools.profiles import extra_profile


def every_call(store):
    """Calls that each must fail in the same way."""
    yield lambda: list(store.list())
    yield lambda: store.put("a", b"x")
    yield lambda: store.create("a", b"x")
    yield lambda: store.read("a")
    yield lambda: store.stat("a")
    yield lambda: store.begin("a")
    yield lambda: store.put_part("a", "id", 1, b"x")
    yield lambda: list(store.uploads())


def test_a_wrong_password_is_not_allowed(minio, versitygw, make_bucket, monkeypatch, tmp_path):
    for server in (minio, versitygw):
        bucket = make_bucket(server)
        name = extra_profile(monkeypatch, tmp_path, server, secret_key="not-the-password")
        for call in every_call(S3Store(parse(f"s3://{bucket}/x?profile={name}"))):
            with pytest.raises(NotAllowedError) as error:
                call()
            assert error.value.next_step
            assert not str(error.value).endswith("403"), "the one word of an answer without a body"
            assert "not-the-password" not in f"{error.value!s}{error.value.next_step}"


def test_a_right_that_is_missing_is_named(minio, monkeypatch, tmp_path):
    class Refusing(HttpProxy):
        def handle(self, _asked):
            return refusal(403, "AccessDenied")

    with Refusing(minio.endpoint) as proxy:
        name = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        with pytest.raises(NotAllowedError) as error:
            S3Store(parse(f"s3://bucket/x?profile={name}")).put("a", b"x")
    assert "PutObject" in error.value.next_step


@pytest.mark.parametrize(
    ("code", "status", "next_step"),
    [
        ("RequestTimeTooSkewed", 403, "clock"),
        ("ExpiredToken", 400, "new credentials"),
        ("TokenRefreshRequired", 400, "new credentials"),
        ("InvalidTokenId", 403, "check the credentials"),
        ("SignatureDoesNotMatch", 403, "check aws_secret_access_key"),
    ],
)
def test_what_stops_all_requests_says_what_helps(minio, monkeypatch, tmp_path, code, status, next_step):
    class Refusing(HttpProxy):
        def handle(self, _asked):
            return refusal(status, code)

    with Refusing(minio.endpoint) as proxy:
        name = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        with pytest.raises(NotAllowedError) as error:
            S3Store(parse(f"s3://bucket/x?profile={name}")).put("a", b"x")
        assert next_step in error.value.next_step
        client = S3Bucket(parse(f"s3://bucket?profile={name}"))
        jobs = [Job(key, Request("GetObject", "GET", key)) for key in ("a", "b")]
        with pytest.raises(NotAllowedError) as error:
            list(client.requests.run(jobs, window_bytes=1))
        assert next_step in error.value.next_step


@pytest.mark.parametrize(
    ("days", "step"), [(0, "check the credentials"), (0, "s3:ListBucket is"), (365, "clock"), (-365, "clock")]
)
def test_a_refusal_without_words_is_the_clocks_where_the_servers_date_is_another(days, step):
    """An answer to HEAD has none."""
    date = format_datetime(datetime.now(UTC) + timedelta(days=days), usegmt=True)
    metadata = {"HTTPStatusCode": 403, "HTTPHeaders": {"date": date}}
    answer = {"Error": {"Code": "403", "Message": "Forbidden"}, "ResponseMetadata": metadata}
    assert step in translate(ClientError(answer, "HeadBucket"), "s3://b").next_step


def test_a_bucket_whose_name_is_none_is_not_there():
    fields = {
        "Error": {"Code": "InvalidBucketName", "Message": "The specified bucket is not valid."},
        "ResponseMetadata": {"HTTPStatusCode": 400, "HTTPHeaders": {}},
    }
    error = translate(ClientError(fields, "ListObjectsV2"), "s3://x")
    assert (type(error), error.next_step) == (GoneError, "check the name of the bucket and the prefix")


def test_a_redirect_says_which_endpoint_to_name():
    headers = {"location": "https://someone:word@s3.eu.example.org:8443/bucket/key?X-Amz-Signature=1"}
    metadata = {"HTTPStatusCode": 307, "HTTPHeaders": headers}
    answer = {"Error": {"Code": "TemporaryRedirect"}, "ResponseMetadata": metadata}
    step = translate(ClientError(answer, "GetObject"), "key").next_step
    assert step == "the server sends to https://s3.eu.example.org:8443: name that as the endpoint"


def test_what_only_its_owner_can_read_is_named(minio, monkeypatch, tmp_path):
    """An answer to HEAD has no body, and so no reason."""

    class Refusing(HttpProxy):
        def handle(self, _asked):
            return Answer(400)

    with Refusing(minio.endpoint) as proxy:
        name = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        bucket = S3Bucket(parse(f"s3://bucket?profile={name}"))
        found = bucket.head(ObjectSummary("large", 1, "", datetime.now(UTC)))
        assert "SSE-C" in str(found.error)


def test_an_endpoint_that_is_no_url_is_named_with_what_to_correct(minio, monkeypatch, tmp_path):
    name = extra_profile(monkeypatch, tmp_path, minio, endpoint="not a url")
    with pytest.raises(UsageError, match="Invalid endpoint: not a url") as error:
        open_location(f"s3://bucket/x?profile={name}")
    assert "endpoint_url" in error.value.next_step


def test_a_closed_port_is_unreachable_and_given_up_soon(minio, monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    name = extra_profile(monkeypatch, tmp_path, minio, endpoint=f"http://127.0.0.1:{port}")
    for call in every_call(S3Store(parse(f"s3://bucket/x?profile={name}"))):
        with pytest.raises(UnreachableError, match=str(port)):
            call()


def test_a_certificate_that_is_not_trusted_is_named_with_what_to_do(servers, monkeypatch):
    server = servers.minio("untrusted", tls=True)
    monkeypatch.setenv("AWS_CA_BUNDLE", botocore.httpsession.where())
    with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED") as raised:
        list(open_location(f"s3://none?profile={server.profile}").list())
    assert "AWS_CA_BUNDLE" in raised.value.next_step


def test_a_missing_bucket_is_gone_and_named(minio, versitygw):
    for server in (minio, versitygw):
        store = S3Store(parse(f"s3://no-such-bucket/x?profile={server.profile}"))
        for call in list(every_call(store))[:4]:
            with pytest.raises(GoneError, match="no-such-bucket"):
                call()


def test_a_broken_connection_in_a_body_is_unreachable(minio, make_bucket, toxiproxy, monkeypatch, tmp_path):
    proxy = toxiproxy.proxy(minio.endpoint)
    name = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
    store = S3Store(parse(f"s3://{make_bucket(minio)}/x?profile={name}"))
    store.put("a", os.urandom(3_000_000))
    toxic = proxy.add("limit_data", bytes=1_000_000)
    for start, length in ((0, None), (5, 2_500_000)):
        with pytest.raises(UnreachableError):
            store.read("a", start, length)
    proxy.remove(toxic)
    assert len(store.read("a")) == 3_000_000


def test_a_broken_connection_while_sending_leaves_no_file(
    minio, make_bucket, toxiproxy, monkeypatch, tmp_path
):
    proxy = toxiproxy.proxy(minio.endpoint)
    name = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
    store = S3Store(parse(f"s3://{make_bucket(minio)}/x?profile={name}"))
    upload = store.begin("big")
    toxic = proxy.add("limit_data", stream="upstream", bytes=1_000_000)
    with pytest.raises(UnreachableError):
        store.put("a", os.urandom(3_000_000))
    with pytest.raises(UnreachableError):
        store.put_part("big", upload, 1, os.urandom(MIN_PART_BYTES))
    proxy.remove(toxic)
    assert list(store.list()) == []
    assert store.parts("big", upload) == []


def test_retries_survive_a_connection_that_breaks(
    minio, make_bucket, toxiproxy, monkeypatch, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "migrate.storage.retry")
    proxy = toxiproxy.proxy(minio.endpoint)
    name = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
    store = open_location(f"s3://{make_bucket(minio)}/x?profile={name}")
    data = os.urandom(500_000)
    store.put("a", data)
    proxy.add("limit_data", bytes=700_000)  # a connection lasts for one answer and a piece of the next
    assert all(store.read("a") == data for _ in range(5))
    assert "attempt 1 failed" in caplog.text


def test_an_error_in_the_body_of_a_200_is_an_error(minio, make_bucket, monkeypatch, tmp_path):
    """S3 answers 200 to a completion before it knows the end; the body then has the error (S3 API reference)."""

    class Late(HttpProxy):
        def handle(self, asked):
            if asked.method == "POST" and "uploadId" in asked.query:
                return Answer(
                    200, (), b"<Error><Code>InternalError</Code><Message>try again</Message></Error>"
                )
            return self.forward(asked)

    with Late(minio.endpoint) as proxy:
        name = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        store = S3Store(parse(f"s3://{make_bucket(minio)}/x?profile={name}"))
        upload = store.begin("big")
        part = store.put_part("big", upload, 1, b"hello")
        with pytest.raises(UnreachableError, match="InternalError"):
            store.complete("big", upload, [part], crc64nvme=crc64nvme(b"other bytes"))


def test_slow_down_says_how_long(minio, make_bucket, monkeypatch, tmp_path):
    class Busy(HttpProxy):
        def handle(self, _asked):
            return Answer(503, (("Retry-After", "7"),), b"<Error><Code>SlowDown</Code></Error>")

    with Busy(minio.endpoint) as proxy:
        name = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        store = S3Store(parse(f"s3://{make_bucket(minio)}/x?profile={name}"))
        for call in every_call(store):
            with pytest.raises(SlowDownError) as error:
                call()
            assert error.value.wait_seconds == 7


def test_a_full_disk_is_named(tiny_disk):
    store = LocalStore(tiny_disk / "location")
    store.put("small", b"fits")
    for call in (
        lambda: store.put("large", bytes(8_000_000)),
        lambda: store.create("large", bytes(8_000_000)),
    ):
        with pytest.raises(NoSpaceError, match="tiny/location/large"):
            call()
    upload = store.begin("large")
    with pytest.raises(NoSpaceError, match="tiny/location/large"):
        store.put_part("large", upload, 1, bytes(8_000_000))
    store.abort("large", upload)
    assert [info.key for info in store.list()] == ["small"]
    assert store.read("small") == b"fits"
    assert list(store.leftovers()) == []


def test_a_read_only_disk_is_not_allowed(tiny_disk):
    store = LocalStore(tiny_disk / "location")
    store.put("a", b"x")
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for call in (lambda: store.put("a", b"y"), lambda: store.delete("a"), lambda: store.begin("b")):
        with pytest.raises(NotAllowedError, match="tiny/location"):
            call()
    assert store.read("a") == b"x"


def test_a_file_system_without_locks_is_named_with_what_to_do(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(UsageError, match=str(tmp_path)) as refused:
        LocalStore(tmp_path).put("a", b"x")
    assert "has no locks" in refused.value.next_step


def test_a_file_where_a_directory_should_be_is_named(tmp_path):
    store = LocalStore(tmp_path)
    store.put("a", b"x")
    with pytest.raises(MoveoutError, match="/a"):
        store.put("a/b", b"y")
    with pytest.raises(GoneError):
        store.read("a/b")


@pytest.mark.parametrize(
    "url",
    ["", "ftp://host/dir", "http://host/dir", "s3:///nothing", "s3://user:pass@bucket", "s3://bucket?profle=x",
     "file://elsewhere/dir", "s3://bucket?profile=no-such-profile"],
)  # fmt: skip
def test_what_is_no_location_is_a_usage_error(url, servers):
    with pytest.raises(UsageError):
        open_location(url)


def test_locations_are_told_by_their_urls(tmp_path, minio):
    assert (
        open_location(str(tmp_path)).location
        == open_location(tmp_path.as_uri()).location
        == tmp_path.as_uri()
    )
    url = f"s3://bucket/a%20b?profile={minio.profile}"
    assert open_location(url).location == f"s3://bucket/a%20b/?profile={minio.profile}"
    assert minio.secret_key not in open_location(url).location


def test_a_server_without_tls_is_told_from_an_untrusted_one(minio, monkeypatch, tmp_path):
    name = extra_profile(monkeypatch, tmp_path, minio, endpoint=minio.endpoint.replace("http:", "https:"))
    with pytest.raises(UnreachableError) as error:
        HttpClient.of(parse(f"s3://bucket?profile={name}")).call(Request("GetObject", "GET", "a"))
    assert "write http:// in endpoint_url" in error.value.next_step
