"""Reading a bucket on two kinds of servers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import boto3
import pytest

from exporters.bucket_api import ObjectSummary
from exporters.errors import (
    SourceGoneError,
    SourceItemError,
    SourceNotAllowedError,
    SourceUnreachableError,
    SourceUsageError,
)
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.s3.client import parse
from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.http.client import HttpClient
from migrate.storage.s3.listing import pages
from migrate.storage.s3.metadata.bucket_configuration import read_configuration
from migrate.storage.s3.metadata.object_metadata import Description
from migrate.storage.s3.source_bucket import open_bucket
from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.conftest import ODD_KEYS, MakeShop, OddShop, Shop, asks, bodies_of, take_out
from tests.tools.http_proxy import Answer, Asked, HttpProxy, refusal

WINDOW = 1 << 20


def test_odd_keys_are_listed_and_read(shop: Shop) -> None:
    for key in ODD_KEYS:
        shop.put(key, key.encode())
    bucket = open_bucket(shop.url)
    listed = list(bucket.list())
    assert {one.key for one in listed} == set(ODD_KEYS)
    assert [one.body.decode() for one in bucket.fetch(listed, window_bytes=WINDOW)] == [
        one.key for one in listed
    ]


@dataclass(slots=True)
class RefusingProxy(HttpProxy):
    """Answers some questions about a bucket by errors: by the name of the question."""

    answers: dict[str, tuple[int, str]] = field(default_factory=dict)

    def handle(self, asked: Asked) -> Answer | None:
        for name, (status, code) in self.answers.items():
            if name in asked.query and "/" not in asked.path.strip("/"):
                return refusal(status, code)
        return self.forward(asked)


def test_only_what_a_server_calls_unset_or_unknown_is_not_set(minio: S3Server, make_shop: MakeShop) -> None:
    shop = make_shop(minio)
    rule = {"ID": "1", "Status": "Enabled", "Filter": {"Prefix": "a"}, "Expiration": {"Days": 9}}
    shop.boto.put_bucket_lifecycle_configuration(Bucket=shop.name, LifecycleConfiguration={"Rules": [rule]})
    answers = {
        "lifecycle": (400, "InvalidRequest"),
        "website": (409, "InvalidBucketState"),
        "cors": (404, "NoSuchCORSConfiguration"),
        "tagging": (501, "NotImplemented"),
        "logging": (405, "MethodNotAllowed"),
        "replication": (400, "UnsupportedArgument"),
        "policy": (403, "AccessDenied"),
        "acl": (200, "InternalError"),
    }
    with RefusingProxy(shop.server.endpoint, answers=answers) as proxy:
        client = boto3.Session(profile_name=shop.server.profile).client("s3", endpoint_url=proxy.endpoint)
        configuration = read_configuration(HttpClient(client, parse(shop.url)), CancellationToken())
    assert configuration["failing"] == ["lifecycle", "website", "acl"]
    assert configuration["denied"] == ["policy"]
    assert not configuration.keys() & {"cors", "tagging", "logging", "replication", "lifecycle"}


def test_headers_metadata_and_tags_come_with_the_body(shop: Shop) -> None:
    shop.put(
        "k", b"x", ContentType="text/x", CacheControl="no-store", Metadata={"a": "b"}, Tagging="t=1&u=e%20x"
    )
    bucket = open_bucket(shop.url)
    [found] = bucket.fetch(bucket.list(), window_bytes=WINDOW)
    assert found.headers["content-type"] == "text/x"
    assert found.headers["cache-control"] == "no-store"
    assert found.headers["x-amz-meta-a"] == "b"
    assert found.tags == {"t": "1", "u": "e x"}
    assert bucket.head(found.summary).tags == found.tags


def test_the_order_is_that_of_the_listing_whatever_the_sizes(shop: Shop) -> None:
    for number in range(60):
        shop.put(f"{number:02d}", bytes([number]) * (200_000 if number % 7 == 0 else 10))
    bucket = open_bucket(shop.url)
    fetched = list(bucket.fetch(bucket.list(), window_bytes=250_000))
    assert [one.body[0] for one in fetched] == list(range(60))


def test_listing_goes_over_many_pages_and_starts_anywhere(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_KEYS", 100)
    shop = make_shop(minio)
    keys = [f"k{number:05d}" for number in range(210)]
    destination = open_destination_bucket(shop.url)
    assert all(
        not one.error
        for one in destination.put_all(((Description(key), b"") for key in keys), window_bytes=1)
    )
    bucket = open_bucket(shop.url)
    assert [one.key for one in bucket.list()] == keys
    assert [one.key for one in bucket.list(start_after=keys[150])] == keys[151:]


def test_an_object_that_changed_or_vanished_is_its_own_error(shop: Shop) -> None:
    for key in ("a", "b", "c"):
        shop.put(key, b"before")
    bucket = open_bucket(shop.url)
    listed = list(bucket.list())
    shop.put("a", b"after!")
    shop.boto.delete_object(Bucket=shop.name, Key="b")
    a, b, c = bucket.fetch(listed, window_bytes=WINDOW)
    assert "changed" in str(a.error)
    assert isinstance(b.error, SourceGoneError)
    assert c.body == b"before"
    with pytest.raises(SourceItemError):
        list(bucket.stream(listed[0], part_bytes=4, window_bytes=8))


def test_large_objects_come_in_ranges(shop: Shop) -> None:
    body = bytes(range(256)) * 5000
    shop.put("large", body)
    bucket = open_bucket(shop.url)
    [summary] = bucket.list()
    parts = list(bucket.stream(summary, part_bytes=100_000, window_bytes=300_000))
    assert b"".join(parts) == body
    assert len(parts) == 13
    assert bucket.read_range(summary, 5, 10) == body[5:15]


def test_a_prefix_is_a_directory(minio: S3Server, make_shop: MakeShop) -> None:
    shop = make_shop(minio)
    for key in ("photos/a", "photos2/b", "photo"):
        shop.put(key)
    bucket = open_bucket(f"s3://{shop.name}/photos?profile={minio.profile}")
    assert [one.key for one in bucket.list()] == ["photos/a"]


def test_what_cannot_be_opened_says_why(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(minio)
    with pytest.raises(SourceGoneError, match="no-such-bucket"):
        open_bucket(f"s3://no-such-bucket?profile={minio.profile}")
    with pytest.raises(SourceNotAllowedError):
        open_bucket(
            shop.url, secrets={"access_key_id": minio.access_key, "secret_access_key": "wrong-" + "x" * 10}
        )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(SourceUnreachableError):
        open_bucket(f"s3://{shop.name}")


def test_settings_that_are_there_are_read(minio: S3Server, make_shop: MakeShop) -> None:
    shop = make_shop(minio)
    shop.boto.put_bucket_tagging(Bucket=shop.name, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    found = open_bucket(shop.url).configuration()
    assert found["tagging"] == {"TagSet": [{"Key": "a", "Value": "b"}]}
    assert "policy" not in found


def test_metadata_that_is_no_ascii_can_be_given_back(minio: S3Server, make_shop: MakeShop) -> None:
    """S3 sends it encoded (RFC 2047); written as it came, it comes again the same."""
    shop = make_shop(minio)
    bucket, destination = open_bucket(shop.url), open_destination_bucket(shop.url)
    value = "J\u00fcrgen"
    for key in ("first", "second"):
        assert destination.put(Description(key, metadata={"name": value}), b"body").error is None
        value = {one.summary.key: one for one in bucket.fetch(bucket.list(), window_bytes=WINDOW)}[
            key
        ].headers["x-amz-meta-name"]
        assert value == "=?UTF-8?q?J=C3=BCrgen?="


def test_whether_tags_may_be_read_is_found_out(shop: Shop) -> None:
    shop.put("k", Tagging="a=b")
    bucket = open_bucket(shop.url)
    samples: list[ObjectSummary] = list(bucket.list())
    assert bucket.tags_readable(samples)


def test_tags_are_asked_for_all_over_the_bucket_and_not_of_delete_markers(
    odd: OddShop, tmp_path: Path
) -> None:
    """No delete marker has any, and servers say that there is no such call: all tags were left behind after one."""
    odd.shop.boto.put_bucket_versioning(Bucket=odd.shop.name, VersioningConfiguration={"Status": "Enabled"})
    for key in ("a", "b", "c", "d", "e", "secret/f"):
        odd.shop.put(key, Tagging="who=me")
    odd.shop.boto.delete_object(Bucket=odd.shop.name, Key="a")

    def answer(asked: Asked) -> Answer | None:
        if asks(asked, "tagging") and "secret" in asked.path:
            return refusal(403, "AccessDenied")
        answer = odd.proxy.forward(asked)
        kept = (pair for pair in answer.headers if pair[0].lower() != "x-amz-tagging-count")
        return replace(answer, headers=tuple(kept))

    odd.proxy.answer, odd.proxy.name = answer, "AmazonS3"
    losses = {loss.property for _, loss in take_out(odd.url, tmp_path / "counts").losses()}
    assert "tags" in losses
    odd.proxy.name = "Unknown"
    reader = take_out(odd.url, tmp_path / "bundle")
    rows = [
        row for batch in reader.index("shop") for row in batch.to_pylist() if row["disposition"] == "exported"
    ]
    assert [dict(row["tags"] or ()) for row in rows if not row["is_delete_marker"]] == 5 * [{"who": "me"}]


@pytest.mark.parametrize(("code", "readable"), [("NotImplemented", True), ("InvalidRequest", False)])
def test_tags_that_are_refused_for_whatever_reason_are_not_taken_for_none(
    odd: OddShop, code: str, readable: bool
) -> None:
    odd.shop.put("k", Tagging="a=b")
    odd.proxy.answer = lambda asked: refusal(400, code) if asks(asked, "tagging") else None
    bucket = odd.bucket()
    assert bucket.tags_readable(list(bucket.list())) is readable


@pytest.mark.parametrize(
    "url", ["s3://*", "s3://corp-*?profile=old", "s3://a b", "s3://[x", "s3://x?sse_c=key"]
)
def test_what_names_no_bucket_is_said_with_what_to_type(url: str) -> None:
    with pytest.raises(SourceUsageError) as caught:
        open_bucket(url)
    assert "s3://BUCKET" in caught.value.next_step or "sse_c=file:PATH" in caught.value.next_step


def test_a_prefix_under_which_nothing_is_is_no_success(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """It is misspelt, most likely. A bucket may be empty where that is said."""
    shop = make_shop(minio)
    url = f"s3://{shop.name}/fotos/?profile={minio.profile}"
    done = call("export", f"shop={url}", "--to", str(tmp_path / "prefix"), "--quiet")
    assert (done.code, "it is empty: there is no object in it" in done.out) == (3, True)
    done = call("sync", f"old={url}", f"new={make_shop(minio).url}", "--quiet")
    assert (done.code, "nothing is under the prefix 'fotos/'" in done.out) == (3, True)
    shop.put("fotos/1", b"body")
    assert call("export", f"shop={url}", "--to", str(tmp_path / "prefix"), "--quiet").code == 0
    assert bodies_of(tmp_path / "prefix") == {"fotos/1": b"body"}
    words = ("export", f"shop={make_shop(minio).url}", "--to", str(tmp_path / "empty"), "--quiet")
    assert call(*words, "--allow-empty").code == 0
