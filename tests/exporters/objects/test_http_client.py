"""The HTTP client: requests are signed as botocore signs them, and what goes wrong is tried again."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from exporters.errors import SourceGoneError
from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.http import concurrent_requests
from migrate.storage.s3.http.connection import Endpoint, parse_head
from migrate.storage.s3.http.messages import Request
from migrate.storage.s3.http.signing import Signer
from migrate.storage.s3.metadata.object_metadata import Description
from migrate.storage.s3.source_bucket import open_bucket
from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop
from tests.tools.busy_proxy import BusyProxy
from tests.tools.clients import boto_client
from tests.tools.http_proxy import Answer, Asked, HttpProxy
from tests.tools.profiles import extra_profile
from tests.tools.small_servers import serving


@pytest.mark.parametrize("token", [None, "a/session+token=="])
def test_requests_are_signed_as_botocore_signs_them(token: str | None) -> None:
    credentials = Credentials("AKID", "secret", token)
    asked = Request("GetObject", "GET", headers={"If-Match": '"e"', "x-amz-checksum-mode": "ENABLED"})
    sent = Signer(credentials, "eu-west-1", "127.0.0.1:9000").head(asked, "/bucket/a%20b%2B%0A")
    _, headers = parse_head(b"HTTP/1.1 200 OK\r\n" + sent.split(b"\r\n", 1)[1].removesuffix(b"\r\n\r\n"))
    names = [name for name in headers if name.startswith("x-amz-")]
    request = AWSRequest(
        method="GET",
        url="http://127.0.0.1:9000/bucket/a%20b%2B%0A",
        headers={name: headers[name] for name in names if name not in {"x-amz-date", "x-amz-security-token"}},
    )
    request.context["payload_signing_enabled"] = False
    request.context["timestamp"] = headers["x-amz-date"]
    auth = S3SigV4Auth(credentials, "s3", "eu-west-1")
    assert abs((datetime.now(UTC) - _moment(headers["x-amz-date"])).total_seconds()) < 60
    canonical = auth.canonical_request(_with(request, headers, names))
    expected = auth.signature(auth.string_to_sign(request, canonical), request)
    assert f"Signature={expected}" in headers["authorization"]


def test_writes_are_signed_as_botocore_signs_them() -> None:
    credentials = Credentials("AKID", "secret", "token==")
    given = {
        "content-type": "text/x; charset=utf-8",
        "Content-MD5": "abc==",
        "x-amz-meta-Name": "a  b,\u00e9",
    }
    asked = Request("PutObject", "PUT", headers=given, body=b"12345")
    sent = Signer(credentials, "eu-west-1", "127.0.0.1:9000").head(asked, "/bucket/a%20b")
    _, headers = parse_head(b"HTTP/1.1 200 OK\r\n" + sent.split(b"\r\n", 1)[1].removesuffix(b"\r\n\r\n"))
    named = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"content-md5", "content-type", "host", "x-amz-meta-name", "x-amz-security-token"} <= set(named)
    request = AWSRequest(
        method="PUT",
        url="http://127.0.0.1:9000/bucket/a%20b",
        headers={name: headers[name] for name in named if name != "host"},
    )
    request.context["payload_signing_enabled"] = False
    request.context["timestamp"] = headers["x-amz-date"]
    auth = S3SigV4Auth(credentials, "s3", "eu-west-1")
    expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    assert headers["authorization"].endswith(f"Signature={expected}")
    assert headers["content-length"] == "5"


@pytest.mark.parametrize("odd", [False, True])
def test_small_writes(
    server: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, odd: bool
) -> None:
    """Metadata in other scripts is kept; what a server refuses is an error of that object. None is sent twice."""
    shop = make_shop(server)
    destination = open_destination_bucket(shop.url)
    name = "\u00e9 \u65e5" if odd else "plain"
    wanted = [(Description(f"k/{n}", {}, {"name": name}), bytes([n]) * n * 700) for n in range(40)]
    refused = (Description("x" * 1100), b"refused")
    monkeypatch.setattr(destination.reader.requests, "again", None)
    written = list(destination.put_all([*wanted, *([refused] if odd else [])], window_bytes=1 << 20))
    assert [one.error is None for one in written] == [True] * 40 + [False] * odd
    for described, body in wanted[::13]:
        response = shop.boto.get_object(Bucket=shop.name, Key=described.key)
        assert response["Body"].read() == body
        assert response["ETag"].strip('"') == hashlib.md5(body).hexdigest()
        if not odd:
            assert response["Metadata"] == {"name": name}


def _with(request: AWSRequest, headers: dict[str, str], names: list[str]) -> AWSRequest:
    for name in names:
        del request.headers[name]
        request.headers[name] = headers[name]
    return request


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def test_nothing_is_read_twice(minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one of the objects is asked for twice."""
    shop = make_shop(minio)
    for number in range(30):
        shop.put(f"{number:02d}", bytes([number]) * number * 5000)
    bucket = open_bucket(shop.url)
    listed = list(bucket.list())
    monkeypatch.setattr(bucket.requests, "again", None)
    fetched = list(bucket.fetch(listed, window_bytes=1 << 20))
    assert [one.body for one in fetched] == [bytes([number]) * number * 5000 for number in range(30)]


def test_no_head_is_sent_twice_also_where_nothing_is(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One asks for thousands that are gone where a sync removes them."""
    shop = make_shop(minio)
    shop.put("there", b"body", Metadata={"a": "b"}, Tagging="t=1")
    bucket = open_bucket(shop.url)
    [there] = bucket.list()
    monkeypatch.setattr(bucket.requests, "again", None)
    found = list(
        bucket.heads([there, *(msgspec.structs.replace(there, key=f"gone/{n}") for n in range(100)), there])
    )
    assert [one.headers.get("x-amz-meta-a", "") for one in found] == ["b", *[""] * 100, "b"]
    assert [isinstance(one.error, SourceGoneError) for one in found] == [False, *[True] * 100, False]
    assert found[-1].tags == {"t": "1"}


@contextmanager
def rude_server(answer: bytes) -> Iterator[int]:
    """A server that gives everybody the same bytes and hangs up."""

    def give(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(answer)

    with serving(give) as port:
        yield port


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ncut",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nx",
        b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x-long: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "cut off", "chunked", "503", "no HTTP", "endless head"],
)
def test_what_breaks_off_or_is_no_answer_is_tried_again(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    shop = make_shop(minio)
    shop.put("a", b"body a")
    shop.put("b", b"body b")
    bucket = open_bucket(shop.url)
    listed, right = list(bucket.list()), bucket.http._endpoint
    while bucket.http._idle:
        bucket.http._idle.pop()[1].close()
    with rude_server(answer) as port:
        monkeypatch.setattr(bucket.http, "_endpoint", Endpoint(("127.0.0.1", port)))
        again = bucket.requests.again

        def mended(*given):
            bucket.http._endpoint = right
            return again(*given)

        monkeypatch.setattr(bucket.requests, "again", mended)
        fetched = list(bucket.fetch(listed, window_bytes=100))
    assert [one.body for one in fetched] == [b"body a", b"body b"]


def test_requests_go_through_the_proxy_of_the_environment(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for whole URLs, and gets its password."""
    shop = make_shop(minio)
    shop.put("a", b"body a")
    seen: list[tuple[str, str]] = []

    class Forward(HttpProxy):
        def handle(self, asked: Asked) -> Answer | None:
            url = urlsplit(asked.destination)
            seen.append((url.netloc, asked.header("proxy-authorization") or ""))
            return self.forward(replace(asked, destination=f"{url.path}?{url.query}"))

    with Forward(minio.endpoint) as proxy:
        monkeypatch.setenv("http_proxy", proxy.endpoint.replace("//", "//me:p%40ss@"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("NO_PROXY", "")
        bucket = open_bucket(shop.url)
        assert [one.body for one in bucket.fetch(bucket.list(), window_bytes=100)] == [b"body a"]
    assert {netloc for netloc, _ in seen} == {urlsplit(minio.endpoint).netloc}
    assert {account for _, account in seen} == {"Basic " + base64.b64encode(b"me:p@ss").decode()}


@pytest.mark.torture
def test_a_server_that_asks_for_less_gets_less_and_all_arrives(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many requests are refused at first, few once the pace is found; nothing is lost."""
    shop = make_shop(minio)
    for number in range(200):
        shop.put(f"{number:03d}", bytes([number]) * 10)
    with BusyProxy(minio.endpoint, most=4, delay_seconds=0.005) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", minio.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", minio.secret_key)
        bucket = open_bucket(f"s3://{shop.name}")
        fetched = list(bucket.fetch(bucket.list(), window_bytes=1 << 20))
        assert [one.error for one in fetched] == [None] * 200
        assert [one.body[0] for one in fetched] == list(range(200))
        assert bucket.requests.limiter.slowed >= 1
        assert 0 < proxy.refused < 150


@dataclass(slots=True)
class LateFirst(HttpProxy):
    """Answers for ``first`` only when ``last`` was asked for; ``waited_for_ever`` where that does not happen."""

    first: str = ""
    last: str = ""
    waited_for_ever: bool = False
    came: threading.Event = field(default_factory=threading.Event)

    def handle(self, asked: Asked) -> Answer | None:
        key = asked.path.rpartition("/")[2]
        if key == self.last:
            self.came.set()
        if key == self.first and not self.came.wait(100):
            self.waited_for_ever = True
        return self.forward(asked)


@pytest.mark.parametrize("what", ["write", "read"])
def test_an_answer_that_is_late_keeps_no_other_connection_waiting(
    minio: S3Server, make_bucket, monkeypatch, tmp_path, what: str
) -> None:
    """As where a packet was lost. So many more requests go out meanwhile as there are connections."""
    keys = [f"{number:03}" for number in range(concurrent_requests.CONNECTIONS + 10)]
    bucket = make_bucket(minio)
    if what == "read":
        for key in keys:
            boto_client(minio.profile).put_object(Bucket=bucket, Key=key, Body=key.encode())
    with LateFirst(minio.endpoint, first=keys[0], last=keys[-1]) as proxy:
        name = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        destination = open_destination_bucket(f"s3://{bucket}?profile={name}")
        if what == "read":
            found = [
                one.summary.key for one in destination.reader.fetch(destination.list(), window_bytes=1 << 20)
            ]
        else:
            objects = [(Description(key), key.encode()) for key in keys]
            found = [one.key for one in destination.put_all(objects, window_bytes=1 << 20)]
        assert found == keys
        assert not proxy.waited_for_ever
