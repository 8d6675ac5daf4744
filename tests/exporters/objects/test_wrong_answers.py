"""Servers, and things on the way to them, that answer otherwise than asked: with another version of an object, other
bytes of it, an error under 200, the same page of a listing again and again. None of it may pass for what was asked.
"""

from __future__ import annotations

import gzip
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import format_datetime
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

import msgspec
import pyarrow.parquet as pq
import pytest

from exporters.errors import SourceChangedError, SourceError, SourceItemError, SourceUnreachableError
from exporters.lossless_text import bytes_of, text_of
from exporters.objects import changed_objects, large_object
from migrate.errors import UnreachableError, WrongAnswerError
from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.http import concurrent_requests
from migrate.storage.s3.http.read_responses import read_request
from migrate.storage.s3.listing import pages
from migrate.storage.s3.metadata import bucket_configuration
from migrate.storage.s3.metadata.object_metadata import Description
from migrate.storage.s3.object_lock import S3ObjectLock
from migrate.storage.s3.source_bucket import S3Bucket
from migrate.storage.s3.store import S3Store
from tests.exporters.objects.conftest import OddShop, asks, bodies_of, reads, take_out, upload
from tests.tools.http_proxy import Answer, Asked, refusal

MIB = 2**20
ERROR = replace(refusal(500, "InternalError"), status=HTTPStatus.OK)
LOGIN = Answer(HTTPStatus.OK, (("Content-Type", "text/html"),), b"<html><body>Please log in</body></html>")


def test_an_object_that_changes_while_it_is_read_is_not_mixed(
    odd: OddShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where If-Match is ignored, and nothing but the ETag of each answer tells."""
    monkeypatch.setattr(large_object, "RANGE_BYTES", 5 * MIB)
    before, after = [bytes([letter]) * 5 * MIB for letter in b"ab"]
    upload(odd.shop, "film", before, before)
    ranges = count(1)

    def answer(asked: Asked) -> Answer | None:
        if not asked.path.endswith("/film"):
            return None
        if asked.query:
            return refusal(501, "NotImplemented")
        if reads(asked, "film") and next(ranges) == 2:
            upload(odd.shop, "film", after, after)
        return odd.careless(asked)

    odd.proxy.answer = answer
    take_out(odd.url, tmp_path / "bundle")
    assert bodies_of(tmp_path / "bundle") == {"film": after + after}


@pytest.mark.parametrize(
    "by", ["time", *(pytest.param(by, marks=pytest.mark.torture) for by in ("ETag", "weak ETag")), "size"]
)
def test_an_object_without_an_etag_that_changes_while_it_is_read_is_not_mixed(
    odd: OddShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Its time tells, or an ETag that only its headers have. Of two that are written at once the size tells."""
    monkeypatch.setattr(large_object, "RANGE_BYTES", 5 * MIB)
    before, after = [bytes([letter]) * 5 * MIB for letter in b"ab"]
    upload(odd.shop, "film", before, before)
    new = (after, after, after) if by == "size" else (after, after)
    uploaded, ranges = time.monotonic(), count(1)

    def answer(asked: Asked) -> Answer | None:
        if asks(asked, "list-type"):
            answer = odd.proxy.forward(asked)
            body = re.sub(rb"<ETag>.*?</ETag>", b"", answer.body)
            return replace(answer, body=body, size_bytes=len(body))
        if not asked.path.endswith("/film"):
            return None
        if reads(asked, "film") and next(ranges) == 2:
            if by == "time":
                time.sleep(max(0.0, uploaded + 2 - time.monotonic()))  # servers name whole seconds
            upload(odd.shop, "film", *new)
        answer = odd.careless(asked, **{"if-unmodified-since": ""})
        headers = {name.lower(): text for name, text in answer.headers}
        if by == "weak ETag" and "etag" in headers:
            headers["etag"] = "W/" + headers["etag"]
        elif by != "ETag":
            headers.pop("etag", None)
        if by == "size":
            headers.pop("last-modified", None)
        return replace(answer, headers=tuple(headers.items()))

    odd.proxy.answer = answer
    take_out(odd.url, tmp_path / "bundle")
    assert bodies_of(tmp_path / "bundle") == {"film": b"".join(new)}


def test_parts_of_an_object_without_an_etag_are_read_once_its_second_is_over(
    odd: OddShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What replaces it in the same second has the same time: nothing told its parts from others."""
    odd.shop.put("film", b"before")
    bucket, waits = odd.bucket(), list[float]()
    [listed] = bucket.list()
    at_server = listed.modified.replace(microsecond=0)

    def answer(asked: Asked) -> Answer | None:
        if asked.method != "HEAD":
            return None
        answer = odd.proxy.forward(asked)
        return replace(answer, headers=(*answer.headers, ("Date", format_datetime(at_server, usegmt=True))))

    odd.proxy.answer = answer
    monkeypatch.setattr(bucket.cancellation, "wait", waits.append)
    for summary in (msgspec.structs.replace(listed, etag=""), listed):
        assert b"".join(bucket.read_parts(summary, [3, 3], window_bytes=MIB)) == b"before"
    assert waits in ([1.0], [2.0])  # one, where it was written as a second began


def test_what_is_kept_compressed_is_not_taken_decompressed(
    odd: OddShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cloudflare R2 and StorageGRID decompress for who does not say that he takes gzip, and then name no size."""
    monkeypatch.setattr(large_object, "RANGE_BYTES", 5 * MIB)
    film = gzip.compress(random.Random(1).randbytes(12 * MIB), 1)
    kept = {"film": film, "page.html": gzip.compress(b"<html>" * 1000), "plain": b"plain"}
    for key, body in kept.items():
        encoding = {} if key == "plain" else {"ContentEncoding": "gzip"}
        odd.shop.put(key, body, ContentType="text/html", **encoding)

    def answer(asked: Asked) -> Answer | None:
        key = asked.path.rpartition("/")[2]
        if key not in kept or asked.query or asked.header("accept-encoding") == "gzip":
            return None
        answer = odd.proxy.forward(asked)
        if answer.header("content-encoding") != "gzip":
            return answer
        others = tuple(pair for pair in answer.headers if pair[0].lower() != "content-encoding")
        body = b"" if asked.method == "HEAD" else gzip.decompress(kept[key])
        return Answer(HTTPStatus.OK, others, body, chunked=True)

    odd.proxy.answer = answer
    assert take_out(odd.url, tmp_path / "bundle").info.complete
    assert bodies_of(tmp_path / "bundle") == kept
    rows = pq.read_table(tmp_path / "bundle/data/shop/index").to_pylist()
    encodings = {row["key"]: dict(row["headers"]).get("content-encoding") for row in rows}
    assert encodings == {"film": "gzip", "page.html": "gzip", "plain": None}


@pytest.mark.parametrize("chunked", [True, False])
def test_no_more_is_read_of_an_object_than_was_listed(odd: OddShop, chunked: bool) -> None:
    """A server that decompresses made gigabytes of a few bytes, and all of it was held in memory."""
    odd.shop.put("empty", b"")
    odd.shop.put("note", b"note")
    large = Answer(HTTPStatus.OK, (), bytes(20 * MIB), chunked=chunked)
    odd.proxy.answer = lambda asked: large if reads(asked, "note") or reads(asked, "empty") else None
    bucket = odd.bucket()
    for summary in bucket.list():
        assert len(bucket.http.call(read_request(summary, body=True, whole=True)).body) < MIB
        [fetched] = bucket.fetch([summary], window_bytes=MIB)
        assert isinstance(fetched.error, SourceChangedError)
    odd.proxy.answer = lambda asked: None
    assert [fetched.body for fetched in bucket.fetch(bucket.list(), window_bytes=MIB)] == [b"", b"note"]


def test_only_the_first_of_many_compressed_objects_is_asked_for_twice(odd: OddShop) -> None:
    """Else all others are read one after the other. What a network compresses for who takes gzip is asked for as
    before.
    """
    kept = {"1": gzip.compress(b"<1>"), "2": gzip.compress(b"<2>"), "3": b"plain", "4": b"plain, too"}
    for key, body in kept.items():
        odd.shop.put(key, body)
    sent: list[tuple[str, bool]] = []

    def answer(asked: Asked) -> Answer | None:
        key = asked.path.rpartition("/")[2]
        if key not in kept or asked.query:
            return None
        takes_gzip = asked.header("accept-encoding") == "gzip"
        sent.append((key, takes_gzip))
        if takes_gzip == (key < "3"):
            return None
        recoded = gzip.compress(kept[key]) if takes_gzip else gzip.decompress(kept[key])
        return Answer(HTTPStatus.OK, (), recoded, chunked=True)

    odd.proxy.answer = answer
    bucket = odd.bucket()
    for summary in bucket.list():
        [fetched] = bucket.fetch([summary], window_bytes=MIB)
        assert (fetched.error, fetched.body) == (None, kept[summary.key])
        if summary.key == "1":
            assert bucket.read_range(summary, 0, 4) == kept["1"][:4]
            assert b"".join(bucket.stream(summary, part_bytes=MIB, window_bytes=MIB)) == kept["1"]
    assert sent == [
        *(("1", False), ("1", True), ("1", True), ("1", True)),
        *(("2", True), ("3", True), ("3", False), ("4", False)),
    ]


def test_a_small_object_has_the_etag_that_came_with_its_bytes(odd: OddShop) -> None:
    odd.shop.put("note", b"before")
    bucket = odd.bucket()
    listed = list(bucket.list())
    odd.shop.put("note", b"behind")
    odd.proxy.answer = lambda asked: odd.careless(asked) if reads(asked, "note") else None
    [fetched] = bucket.fetch(listed, window_bytes=100)
    assert isinstance(fetched.error, SourceChangedError)
    odd.proxy.answer = lambda asked: odd.careless(asked) if asked.method == "HEAD" else None
    assert isinstance(bucket.head(listed[0]).error, SourceChangedError)


def test_an_etag_that_a_proxy_has_made_weak_is_the_same(odd: OddShop) -> None:
    odd.shop.put("note", b"note")

    def answer(asked: Asked) -> Answer | None:
        answer = odd.proxy.forward(asked)
        headers = ((name, f"W/{text}" if name == "ETag" else text) for name, text in answer.headers)
        return replace(answer, headers=tuple(headers))

    odd.proxy.answer = answer
    bucket = odd.bucket()
    [fetched] = bucket.fetch(bucket.list(), window_bytes=100)
    assert (fetched.error, fetched.body) == (None, b"note")
    written = open_destination_bucket(odd.url).put(Description("note"), b"note")
    assert written.md5 == fetched.summary.etag


def test_another_range_than_was_asked_for_is_asked_for_again(odd: OddShop) -> None:
    """Its length is right, and no checksum contradicts it."""
    bodies = [bytes([letter]) * 5 * MIB for letter in b"abc"]
    upload(odd.shop, "film", *bodies)
    asked_again = count()

    def answer(asked: Asked) -> Answer | None:
        if (asked.header("range") or "").startswith("bytes=5242880-") and not next(asked_again):
            return odd.careless(asked, range="bytes=0-5242879")
        return None

    odd.proxy.answer = answer
    bucket = odd.bucket()
    [film] = bucket.list()
    assert list(bucket.stream(film, part_bytes=5 * MIB, window_bytes=10 * MIB)) == bodies
    assert next(asked_again) == 2


def test_a_server_that_ignores_ranges_is_named_and_sends_no_whole_object_for_each(odd: OddShop) -> None:
    odd.shop.put("film", b"x" * 30 * MIB)
    odd.proxy.answer = lambda asked: odd.careless(asked, range="") if asked.header("range") else None
    bucket = odd.bucket()
    [film] = bucket.list()
    with pytest.raises(SourceItemError, match="something ignores Range"):
        list(bucket.stream(film, part_bytes=5 * MIB, window_bytes=10 * MIB))
    store = S3Store(bucket.s3_location)
    for start in (0, 5 * MIB):
        with pytest.raises(Exception, match="something ignores Range"):
            store.read("film", start, 5 * MIB)


KINDS: dict[str, Callable[[S3Bucket], Any]] = {
    "versioning": lambda bucket: bucket.keeps_versions(),
    "list-type": lambda bucket: [summary.key for summary in bucket.list()],
    "versions": lambda bucket: [summary.key for summary in bucket.list_versions()],
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_under_200_is_an_error(odd: OddShop, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    versioning = {"Status": "Enabled"}
    odd.shop.boto.put_bucket_versioning(Bucket=odd.shop.name, VersioningConfiguration=versioning)
    odd.shop.put("note", b"note")
    ask, impatient = KINDS[kind], odd.bucket()
    monkeypatch.setattr(concurrent_requests, "RETRY_SECONDS", 120.0)
    patient, times = odd.bucket(), count()
    right = ask(patient)
    assert right
    odd.proxy.answer = lambda asked: ERROR if asks(asked, kind) and not next(times) else None
    assert ask(patient) == right
    assert next(times) > 1
    odd.proxy.answer = lambda asked: ERROR if asks(asked, kind) else None
    with pytest.raises(SourceUnreachableError, match="InternalError"):
        ask(impatient)


def test_an_error_under_200_is_no_object_without_tags(odd: OddShop) -> None:
    odd.shop.put("note", b"note", Tagging="a=b")
    bucket = odd.bucket()
    odd.proxy.answer = lambda asked: ERROR if asks(asked, "tagging") else None
    [fetched] = bucket.fetch(bucket.list(), window_bytes=100)
    assert isinstance(fetched.error, SourceUnreachableError)


def test_an_object_that_looks_like_an_error_is_an_object(odd: OddShop) -> None:
    odd.shop.put("answer.xml", ERROR.body)
    bucket = odd.bucket()
    [fetched] = bucket.fetch(bucket.list(), window_bytes=1000)
    assert fetched.body == ERROR.body


@pytest.mark.parametrize("versions", [False, True])
def test_a_page_of_a_proxy_is_no_empty_listing(odd: OddShop, versions: bool) -> None:
    odd.shop.put("note", b"note", Tagging="a=b")
    bucket = odd.bucket()
    [listed] = bucket.list()
    odd.proxy.answer = lambda asked: (
        LOGIN if asked.query.keys() & {"list-type", "versions", "tagging"} else None
    )
    with pytest.raises(SourceError, match="it is <html>"):
        list(bucket.pages(versions=versions))
    destination = open_destination_bucket(f"s3://{odd.shop.name}?profile={odd.shop.server.profile}")
    destination.reader.listing = bucket.listing
    with pytest.raises(UnreachableError, match="it is <html>"):
        list(destination.list_versions() if versions else destination.list())
    [fetched] = bucket.fetch([listed], window_bytes=100)
    assert "its tags cannot be read" in str(fetched.error)


@pytest.mark.parametrize("answer", [LOGIN, Answer(HTTPStatus.OK, (), b"<ListBucketResult><Con")])
def test_a_page_that_is_not_whole_is_asked_for_again(odd: OddShop, answer: Answer) -> None:
    odd.shop.put("note", b"note")
    bucket, times = odd.bucket(), count()
    odd.proxy.answer = lambda asked: answer if asks(asked, "list-type") and not next(times) else None
    assert [summary.key for summary in bucket.list()] == ["note"]
    assert next(times) == 2


@pytest.mark.parametrize("field", ["LastModified", "Size"])
def test_a_listing_that_says_what_cannot_be_read_is_an_error_of_the_source(odd: OddShop, field: str) -> None:
    odd.shop.put("note", b"note")
    bucket = odd.bucket()

    def answer(asked: Asked) -> Answer | None:
        if not asks(asked, "list-type"):
            return None
        answer = odd.proxy.forward(asked)
        body = re.sub(f"<{field}>[^<]*", f"<{field}>many", answer.body.decode()).encode()
        return replace(answer, body=body, size_bytes=len(body))

    odd.proxy.answer = answer
    with pytest.raises(SourceError, match="the listing cannot be read"):
        list(bucket.list())


def test_headers_that_say_nothing_are_passed_over(odd: OddShop, tmp_path: Path) -> None:
    """A small object and one in parts: the ETag is empty, the checksum and the date cannot be read."""
    upload(odd.shop, "film", b"a" * 5 * MIB, b"b" * 4 * MIB)
    odd.shop.put("note", b"note")
    instead = {"etag": "", "last-modified": "yesterday", "x-amz-checksum-crc64nvme": "abc"}

    def answer(asked: Asked) -> Answer | None:
        if asked.method == "GET" and asked.query:
            return Answer(HTTPStatus.OK, (), b"<html") if "attributes" in asked.query else None
        answer = odd.proxy.forward(asked)
        headers = ((name, text) for name, text in answer.headers if name.lower() not in instead)
        return replace(answer, headers=(*headers, *instead.items()))

    odd.proxy.answer = answer
    assert take_out(odd.url, tmp_path / "bundle").info.complete
    assert bodies_of(tmp_path / "bundle") == {"film": b"a" * 5 * MIB + b"b" * 4 * MIB, "note": b"note"}
    bucket = odd.bucket()
    summaries = list(bucket.list())
    assert changed_objects.current(bucket, summaries[0]).summary.modified == summaries[0].modified


@pytest.mark.parametrize("answer", [LOGIN, Answer(HTTPStatus.OK), refusal(400, "BadRequest")])
def test_versions_are_looked_for_where_it_is_not_said_whether_they_are_kept(
    odd: OddShop, answer: Answer
) -> None:
    """It was taken for no, and a bundle had the newest versions only."""
    odd.shop.put("note", b"note")
    bucket = odd.bucket()
    odd.proxy.answer = lambda asked: answer if asks(asked, "versioning") else None
    assert bucket.keeps_versions() is False
    versioning = {"Status": "Enabled"}
    odd.shop.boto.put_bucket_versioning(Bucket=odd.shop.name, VersioningConfiguration=versioning)
    odd.shop.put("note", b"newer")
    assert bucket.keeps_versions() is True


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (
            '<s:VersioningConfiguration xmlns:s="x"><s:Status>Enabled</s:Status></s:VersioningConfiguration>',
            "Enabled",
        ),
        ("<GetBucketVersioningResponse><Status>Enabled</Status></GetBucketVersioningResponse>", "Enabled"),
        ("<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>", "Suspended"),
        ("<VersioningConfiguration><Status></Status></VersioningConfiguration>", ""),
        ("<VersioningConfiguration><MfaDelete>Disabled</MfaDelete></VersioningConfiguration>", ""),
        ("<ListBucketResult><Prefix>VersioningConfiguration &lt;Status&gt;</Prefix></ListBucketResult>", ""),
    ],
)
def test_what_is_said_of_versioning_is_read_by_one_rule_on_both_sides(
    odd: OddShop, body: str, status: str
) -> None:
    """A source kept versions where it said nothing of its status, and none where it named it by a prefix."""
    odd.proxy.answer = lambda asked: (
        Answer(HTTPStatus.OK, (), body.encode()) if asks(asked, "versioning") else None
    )
    assert odd.bucket().keeps_versions() is bool(status)
    assert open_destination_bucket(odd.url).versioning() == status


@pytest.mark.parametrize("body", [LOGIN.body, b"", b"<Versioning"])
def test_a_destination_that_does_not_say_whether_it_keeps_versions_is_not_taken_for_one_that_keeps_none(
    odd: OddShop, body: bytes
) -> None:
    """Older versions were left out of a restore then."""
    answer = Answer(HTTPStatus.OK, (), body)
    odd.proxy.answer = lambda asked: answer if asks(asked, "versioning") else None
    destination = open_destination_bucket(odd.url)
    with pytest.raises(UnreachableError, match="whether it keeps versions cannot be read"):
        destination.versioning()


@pytest.mark.parametrize("body", [b"\0\xff", b"<Cors"])
def test_a_setting_that_cannot_be_read_is_named_and_holds_nothing_up(
    odd: OddShop, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was waited for, five minutes, as a server that does not answer; then the export ended."""
    monkeypatch.setattr(bucket_configuration, "_FAILING_SECONDS", 0.0)
    bucket = odd.bucket()
    odd.proxy.answer = lambda asked: (
        Answer(HTTPStatus.OK, (), body) if asked.query.keys() & {"cors", "policy"} else None
    )
    failing = bucket.configuration()["failing"]
    assert "cors" in failing


def test_a_server_that_does_not_list_its_buckets_has_no_name_of_its_own(odd: OddShop) -> None:
    odd.proxy.name = "MinIO"
    bucket = odd.bucket()
    odd.proxy.answer = lambda asked: Answer(HTTPStatus.OK) if asked.path == "/" else None
    assert bucket.own_name == ""


@dataclass(slots=True)
class OwnPages:
    """Answers listings by pages of its own making: ``step`` keys further than the one before, or nowhere."""

    keys: list[str]
    step: int
    stuck: bool = False
    most_keys: int = 1000

    def __call__(self, asked: Asked) -> Answer | None:
        if asked.query.keys() & {"list-type", "versions"}:
            return self.page(asked)
        return None

    def page(self, asked: Asked) -> Answer:
        query = {name: values[0] for name, values in asked.query.items()}
        kind = "Version" if "versions" in query else "Contents"
        size = min(int(query["max-keys"]), self.most_keys)
        start = int(query.get("continuation-token") or query.get("version-id-marker") or 0)
        rows = "".join(
            f"<{kind}><Key>{escape(key)}</Key><VersionId>{key}</VersionId><IsLatest>true</IsLatest><Size>1</Size>"
            f'<ETag>"0"</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></{kind}>'
            for key in self.keys[start : start + size]
        )
        ends = start + size >= len(self.keys)
        following = start if self.stuck and start else start + size + self.step
        body = (
            f"<ListBucketResult><IsTruncated>{str(not ends).lower()}</IsTruncated>"
            f"<NextContinuationToken>{following}</NextContinuationToken>"
            f"<NextKeyMarker>x</NextKeyMarker><NextVersionIdMarker>{following}</NextVersionIdMarker>{rows}"
            "</ListBucketResult>"
        )
        if ends:
            body = re.sub(r"<Next.*?>.*?</Next.*?>", "", body)
        return Answer(HTTPStatus.OK, (("Content-Type", "application/xml"),), bytes_of(body))


@pytest.fixture
def paged(odd: OddShop, monkeypatch: pytest.MonkeyPatch) -> OddShop:
    """Twelve objects, listed by five."""
    monkeypatch.setattr(pages, "PAGE_KEYS", 5)
    for number in range(12):
        odd.shop.put(f"{number:02d}", b"x")
    return odd


@pytest.mark.parametrize("versions", [False, True])
def test_rows_that_a_page_repeats_are_listed_once(paged: OddShop, versions: bool) -> None:
    keys = paged.shop.keys()
    paged.proxy.answer = OwnPages(keys, step=-2)
    listed = paged.bucket().pages(versions=versions)
    assert [key for page in listed for key in page.keys] == keys


def test_a_page_that_ends_with_a_key_that_is_not_utf_8_ends_no_part_of_a_listing(odd: OddShop) -> None:
    """Servers order keys by their bytes."""
    odd.proxy.answer = OwnPages(["a", text_of(b"\xe9\x80"), "髪"], step=0, most_keys=2)
    listed = odd.bucket().pages(versions=False, until=lambda: "가")
    assert [key for page in listed for key in page.keys] == ["a", "髪"]


def test_a_marker_that_is_not_encoded_is_taken_as_it_is(
    odd: OddShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ceph sends it. Decoded it would lie behind keys that are still to be listed."""
    monkeypatch.setattr(pages, "PAGE_KEYS", 5)
    keys = [f"a%2Fb+/{number:02d}" for number in range(12)]
    for key in keys:
        odd.shop.put(key, b"x")

    def answer(asked: Asked) -> Answer | None:
        if not asks(asked, "versions"):
            return None
        answer = odd.proxy.forward(asked)
        marker = re.compile(rb"(?<=<NextKeyMarker>)[^<]*")
        body = marker.sub(
            lambda match: unquote_plus(match[0].decode()).partition("[minio")[0].encode(), answer.body
        )
        return replace(answer, body=body, size_bytes=len(body))

    odd.proxy.answer = answer
    assert [summary.key for summary in odd.bucket().list_versions()] == keys


@pytest.mark.parametrize("versions", [False, True])
def test_a_listing_that_goes_in_circles_ends(paged: OddShop, versions: bool) -> None:
    keys = paged.shop.keys()
    bucket = paged.bucket()
    for step, stuck in ((0, True), (-5, False)):
        paged.proxy.answer = OwnPages(keys, step, stuck)
        with pytest.raises(SourceUnreachableError, match="does not end"):
            list(bucket.pages(versions=versions))


def test_a_listing_of_a_location_that_goes_in_circles_ends(paged: OddShop) -> None:
    store = S3Store(paged.bucket().s3_location)
    store._page_size = 5
    paged.proxy.answer = OwnPages(paged.shop.keys(), step=0, stuck=True)
    with pytest.raises(Exception, match="does not end"):
        list(store.list())


@pytest.mark.parametrize("most_keys", [5, pytest.param(3, marks=pytest.mark.torture)])
def test_keys_that_are_skipped_between_two_pages_are_noticed(
    paged: OddShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_keys: int
) -> None:
    """The second listing has other pages, between which others are skipped; also where the server's are shorter."""
    monkeypatch.setattr(pages, "OTHER_FIRST_KEYS", 1)
    paged.proxy.answer = OwnPages(paged.shop.keys(), step=1, most_keys=most_keys)
    reader = take_out(paged.url, tmp_path / "bundle")
    assert not reader.info.complete
    overlooked = {5: {"05", "11"}, 3: {"03", "07", "11"}}
    assert {loss.item for _, loss in reader.losses() if loss.property == "object"} == overlooked[most_keys]


def test_what_is_held_or_erased_is_listed_by_the_same_rules(paged: OddShop) -> None:
    """A marker of a version that only one page had named went along with all later ones, and skipped versions."""
    keys, asked_markers = paged.shop.keys(), []

    def answer(asked: Asked) -> Answer | None:
        if "versions" not in asked.query:
            return None
        [start] = asked.query.get("key-marker", [""])
        asked_markers.append((start, *asked.query.get("version-id-marker", [])))
        page = OwnPages([key for key in keys if key > start], step=0).page(asked)
        marker = b"<NextVersionIdMarker>0</NextVersionIdMarker>" if not start else b""
        last = keys[keys.index(start) + 5 if start else 4] if len(asked_markers) < 3 else ""
        body = re.sub(rb"<Next.*?>.*?</Next.*?>", b"", page.body)
        following = b"<NextKeyMarker>%b</NextKeyMarker>%b" % (last.encode(), marker)
        return replace(page, body=body.replace(b"</IsTruncated>", b"</IsTruncated>" + following, 1))

    paged.proxy.answer = answer
    versions = S3ObjectLock(paged.bucket().s3_location, note=None).versions()
    assert [version.key for version in versions] == keys
    assert asked_markers == [("",), ("04", "0"), ("09",)]


@pytest.mark.parametrize("kind", ["uploads", "uploadId"])
def test_a_listing_of_uploads_that_breaks_off_is_an_error(odd: OddShop, kind: str) -> None:
    """It ended the command with a fault of its own."""
    body = b"<ListResult><IsTruncated>true</IsTruncated><Bucket>b</Bucket></ListResult>"
    odd.proxy.answer = lambda asked: Answer(HTTPStatus.OK, (), body) if asks(asked, kind) else None
    store = S3Store(odd.bucket().s3_location)
    with pytest.raises(WrongAnswerError, match="the answer has no Next"):
        list(store.uploads() if kind == "uploads" else store.parts("film", "some-upload"))
