"""Large objects between buckets: in parts, gone on with, with the ETags that they had."""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import cast

import boto3
import pyarrow.parquet as pq
import pytest
from botocore.config import Config

from migrate.storage.multipart import HALF_PART_BYTES
from migrate.storage.rate_limit import RateLimiter
from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.store import S3Store
from migrate.sync import large_object_copy
from migrate.sync.large_object_copy import Uploads
from migrate.sync.record.column_pages import microseconds
from migrate.sync.record.sync_record import Record
from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop, Shop, bodies_of, server, take_out
from tests.exporters.objects.test_history import restore
from tests.restore.objects.test_encrypted import Encrypted, encrypted
from tests.sync.conftest import Move, body
from tests.tools.counting import Counting
from tests.tools.counting_proxy import CountingProxy
from tests.tools.fault_proxy import flipped_answer, has_data
from tests.tools.http_proxy import Answer, Asked, HttpProxy, refusal
from tests.tools.profiles import extra_profile
from tests.tools.rotten_proxy import RottenProxy
from tests.tools.small_parts import LARGE, PART, small_parts
from tests.tools.waiting import eventually

__all__ = ["encrypted", "server", "small_parts"]


def upload_parts(shop: Shop, key: str, parts: list[tuple[int, bytes]]) -> None:
    """Upload an object in parts of these numbers."""
    location = {"Bucket": shop.name, "Key": key}
    location["UploadId"] = shop.boto.create_multipart_upload(**location)["UploadId"]
    sent = [
        {
            "PartNumber": number,
            "ETag": shop.boto.upload_part(**location, PartNumber=number, Body=data)["ETag"],
        }
        for number, data in parts
    ]
    shop.boto.complete_multipart_upload(**location, MultipartUpload={"Parts": sent})


def upload(shop, key, data, part_bytes, **more):
    location = {"Bucket": shop.name, "Key": key}
    begun = shop.boto.create_multipart_upload(**location, **more)["UploadId"]
    kind = {name: value for name, value in more.items() if name == "ChecksumAlgorithm"}
    parts = []
    for number, start in enumerate(range(0, len(data), part_bytes), 1):
        sent = shop.boto.upload_part(
            **location, **kind, UploadId=begun, PartNumber=number, Body=data[start : start + part_bytes]
        )
        sums = {name: value for name, value in sent.items() if name == "ChecksumCRC64NVME"}
        parts.append({"PartNumber": number, "ETag": sent["ETag"], **sums})
    shop.boto.complete_multipart_upload(**location, UploadId=begun, MultipartUpload={"Parts": parts})


def test_parts_stay_what_they_are(move: Move) -> None:
    """An object of parts has the same ETag at the destination, and is known to be the same afterwards."""
    data = bytes(range(256)) * 50_000
    upload(move.source, "of-parts", data, 5 * 2**20, ContentType="video/mp4", Metadata={"a": "b"})
    upload(move.source, "of-one", data[: 2**20], 5 * 2**20)
    move.source.put("whole", data, Metadata={"c": "d"})
    move.source.put("dir/medium", data[: 9 * 2**20])
    done = move.run(cutover=True)
    assert (done.copied, done.exit_code) == (4, 0)
    for key in ("of-parts", "whole"):
        assert body(move.destination, key) == body(move.source, key)
    heads = [
        shop.boto.head_object(Bucket=shop.name, Key="of-parts", ChecksumMode="ENABLED")
        for shop in (move.source, move.destination)
    ]
    assert heads[0]["ETag"] == heads[1]["ETag"]
    one, its_copy = (
        shop.boto.head_object(Bucket=shop.name, Key="of-one")["ETag"]
        for shop in (move.source, move.destination)
    )
    assert one == its_copy
    assert one.endswith('-1"')
    assert heads[1]["Metadata"] == {"a": "b"}
    assert heads[1]["ContentType"] == "video/mp4"
    assert done.proof.by_record == 1, "the large one has another ETag: of parts"
    again = move.run()
    assert (again.same, again.copied) == (4, 0)


class OneByOne:
    """A limit of the bandwidth that lets a part pass when all parts before it have been counted."""

    def __init__(self) -> None:
        self.progress = Counting()
        self.passed_bytes = 0

    def take(self, size_bytes: int) -> None:
        eventually(lambda: self.progress.sent_bytes == self.passed_bytes)
        self.passed_bytes += size_bytes


def test_each_part_is_counted_as_it_arrives(move: Move) -> None:
    upload(move.source, "of-parts", bytes(11 * 2**20), 5 * 2**20)
    limit = OneByOne()
    assert replace(move, progress=limit.progress, rate_limiter=cast("RateLimiter", limit)).run().copied == 1
    assert limit.passed_bytes == limit.progress.sent_bytes == 11 * 2**20


LAYOUTS = {
    "empty last part": [(1, 5), (2, 5), (3, 0)],
    "numbers with gaps": [(1, 5), (7, 6), (10000, 1)],
    "even numbers": [(2, 5), (4, 5), (6, 1)],
    "another size in the middle": [(1, 5), (2, 6), (3, 1)],
}


def layout(shop: Shop, key: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the ETag of an object, and its parts: as MinIO lists them, else as each is answered for."""
    response = shop.boto.get_object_attributes(
        Bucket=shop.name, Key=key, ObjectAttributes=["ETag", "ObjectParts"]
    )
    parts = response.get("ObjectParts", {}).get("Parts", ())
    return response["ETag"], [(one["PartNumber"], one["Size"]) for one in parts]


@pytest.mark.parametrize(
    "server", ["minio", pytest.param("versitygw", marks=pytest.mark.torture)], indirect=True
)
def test_parts_keep_their_sizes_and_numbers(
    server: S3Server, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """Also the empty one at the end, by a sync and by an export and a restore."""
    move = Move(make_shop(server), make_shop(other_minio))
    for key, parts in LAYOUTS.items():
        bodies = [(number, bytes([number % 256]) * (mib << 20)) for number, mib in parts]
        upload_parts(move.source, key, bodies)
    outcome = move.run(cutover=True)
    assert (outcome.copied, outcome.failed, outcome.proof is not None) == (len(LAYOUTS), 0, True)
    lost = pq.read_table(io.BytesIO(move.location().read("losses.parquet")))
    assert "ETag" not in lost["property"].to_pylist()
    reader = take_out(move.source.url, tmp_path / "bundle")
    assert reader.info.complete, reader.reconciliation()[0].reasons
    restored = make_shop(other_minio)
    assert restore(reader, restored.url).findings == ()
    for key, parts in LAYOUTS.items():
        wanted = layout(move.source, key)
        if server.profile == "versitygw":  # counts parts anew, and lists none
            wanted = wanted[0], [(number, mib << 20) for number, (_, mib) in enumerate(parts, 1)]
        assert layout(move.destination, key) == layout(restored, key) == wanted


def begin(move: Move, key: str, data: bytes, *, which_etag: str | None = None) -> None:
    """Leave what a killed run leaves: an upload with one part, and the note whose it is."""
    move.run()  # there is a record
    move.source.put(key, data, ContentType="video/mp4", Metadata={"a": "b"})
    location = {"Bucket": move.destination.name, "Key": key}
    begun = move.destination.boto.create_multipart_upload(
        **location, ContentType="video/mp4", Metadata={"a": "b"}, ChecksumAlgorithm="CRC64NVME",
        ChecksumType="FULL_OBJECT",
    )["UploadId"]  # fmt: skip
    move.destination.boto.upload_part(
        **location, UploadId=begun, PartNumber=1, Body=data[:PART], ChecksumAlgorithm="CRC64NVME"
    )
    response = move.source.boto.head_object(Bucket=move.source.name, Key=key)
    etag = which_etag or response["ETag"].strip('"')
    listed = move.source.boto.list_objects_v2(Bucket=move.source.name, Prefix=key)["Contents"][0]
    which = f"{etag} {microseconds(listed['LastModified'])}"
    destination = open_destination_bucket(
        f"s3://{move.destination.name}?profile={move.destination.server.profile}"
    )
    Uploads(move.location(), destination).note(key, which, begun)


def test_parts_that_are_there_are_not_sent_again(move: Move) -> None:
    data = bytes(range(256)) * (LARGE // 256)
    begin(move, "video", data)
    counted = Counting()
    done = move.with_progress(counted).run()
    assert (done.copied, done.exit_code) == (1, 0)
    assert (counted.skipped_bytes, counted.sent_bytes) == (PART, len(data) - PART)
    found = body(move.destination, "video")
    assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest()
    assert not list(move.location().list("uploads/"))


def test_parts_of_an_older_version_are_dropped(move: Move) -> None:
    """They were begun with its metadata."""
    data = bytes(range(256)) * (LARGE // 256)
    begin(move, "video", data, which_etag="another")
    counted = Counting()
    assert move.with_progress(counted).run().copied == 1
    assert counted.sent_bytes == len(data)
    assert "Uploads" not in move.destination.boto.list_multipart_uploads(
        Bucket=move.destination.name, Prefix="video"
    )


def put_without_checksum(move: Move, key: str, data: bytes) -> None:
    """The source keeps nothing but an MD5 of it, which is not the ETag that parts get."""
    plain = Config(request_checksum_calculation="when_required")
    client = boto3.Session(profile_name=move.source.server.profile).client("s3", config=plain)
    client.put_object(Bucket=move.source.name, Key=key, Body=data, Metadata={"a": "b"})


@pytest.mark.torture
def test_what_is_looked_at_again_is_not_sent_again(move: Move) -> None:
    """The record says what was copied; tags are what one looks for."""
    put_without_checksum(move, "video", bytes(range(256)) * (48 * 4096))
    assert move.run().copied == 1
    again = move.run(recheck=True)
    assert (again.same, again.copied) == (1, 0)
    tags = {"TagSet": [{"Key": "new", "Value": "tag"}]}
    move.source.boto.put_object_tagging(Bucket=move.source.name, Key="video", Tagging=tags)
    assert move.run(recheck=True).copied == 1
    found = move.destination.boto.get_object_tagging(Bucket=move.destination.name, Key="video")
    assert found["TagSet"] == tags["TagSet"]


@pytest.mark.torture
def test_what_a_killed_run_had_sent_and_not_noted_is_not_sent_again(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the object and its commit; what is not the same is sent, though."""
    data = bytes(range(256)) * (48 * 4096)
    for key in ("changed", "video"):
        put_without_checksum(move, key, data)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Record, "write_done", killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                move.run(workers=1)
    for key in ("changed", "video"):
        if key not in move.destination.keys():  # noqa: SIM118 - a method
            upload(move.destination, key, data, PART, Metadata={"a": "b"}, ChecksumAlgorithm="CRC64NVME")
    put_without_checksum(move, "changed", data[::-1])
    done = move.run(cutover=True)
    assert (done.copied, done.adopted, done.proof is not None) == (1, 1, True)
    assert move.contents(move.source) == move.contents(move.destination)


@dataclass(slots=True)
class FlippingProxy(HttpProxy):
    """Damages so many of the ranges that are read."""

    left: int = 0

    def handle(self, asked: Asked) -> Answer:
        answer = self.forward(asked)
        if answer.status != HTTPStatus.PARTIAL_CONTENT or not self.left:
            return answer
        self.left -= 1
        return replace(answer, body=bytes([answer.body[0] ^ 1]) + answer.body[1:])


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("crc64nvme", marks=pytest.mark.torture),
        "parts",
        pytest.param("md5", marks=pytest.mark.torture),
        pytest.param("small parts", marks=pytest.mark.torture),
    ],
)
def test_what_is_damaged_on_the_way_from_the_source_is_read_again(
    move: Move, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """Nothing else would ever find it: the record says that the object is as it was copied."""
    data = random.Random(kind).randbytes(11 * 2**20 if kind == "small parts" else LARGE)
    if kind == "md5":
        put_without_checksum(move, "video", data)
    elif kind == "crc64nvme":
        move.source.put("video", data, ChecksumAlgorithm="CRC64NVME")
    else:
        upload(move.source, "video", data, 5 * 2**20)
    server = move.source.server
    with FlippingProxy(server.endpoint, left=1) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, server, endpoint=proxy.endpoint)
        done = replace(move, profiles=(profile, move.destination.server.profile), opened={}).run()
    assert (done.copied, proxy.left, done.exit_code) == (1, 0, 0), done
    assert body(move.destination, "video") == data
    assert not [loss for row in move.record_rows() for loss in row["losses"] if "content" in loss[1]]


def test_what_always_contradicts_the_sources_checksum_is_not_copied(
    move: Move, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    move.source.put("video", bytes(LARGE), ChecksumAlgorithm="CRC64NVME")
    server = move.source.server
    with FlippingProxy(server.endpoint, left=1 << 60) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, server, endpoint=proxy.endpoint)
        done = replace(move, profiles=(profile, move.destination.server.profile), opened={}).run()
    assert done.exit_code == 3
    assert [gap.item for gap in done.gaps if "CRC64NVME" in gap.reason] == ["video"]
    assert "Contents" not in move.destination.boto.list_objects_v2(
        Bucket=move.destination.name, Prefix="video"
    )


@pytest.mark.parametrize("algorithm", ["", pytest.param("CRC64NVME", marks=pytest.mark.torture)])
def test_checksums_of_parts_that_are_computed_anyway_are_not_computed_again(
    move: Move, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """MD5s are most of the work: the destination computes them of the same parts."""
    data = random.Random(1).randbytes(LARGE)
    if algorithm:
        move.source.put("video", data, ChecksumAlgorithm=algorithm)
    else:
        upload(move.source, "video", data, PART)
    monkeypatch.setattr(large_object_copy, "ContentProof", None)
    assert move.run().copied == 1
    assert body(move.destination, "video") == data
    assert move.contents(move.source) == move.contents(move.destination)


@dataclass(slots=True)
class OtherETagsProxy(HttpProxy):
    """Answers to parts with ETags that are no MD5s of them."""

    parts: int = 0

    def handle(self, asked: Asked) -> Answer:
        answer = self.forward(asked)
        if asked.method != "PUT" or "partNumber" not in asked.query:
            return answer
        self.parts += 1
        headers = ((name, text[::-1] if name.lower() == "etag" else text) for name, text in answer.headers)
        return replace(answer, headers=tuple(headers))


def test_where_the_etags_of_parts_are_no_md5s_they_are_computed_here(
    move: Move, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first object is read again therefore, no other one."""
    data = random.Random(2).randbytes(11 * 2**20)
    for key in ("a", "b", "c"):
        upload(move.source, key, data, 5 * 2**20)
    old, new = move.source.server, move.destination.server
    with CountingProxy(old.endpoint) as counting, OtherETagsProxy(new.endpoint) as proxy:
        profiles = [
            extra_profile(monkeypatch, tmp_path, server, endpoint=there.endpoint)
            for server, there in ((old, counting), (new, proxy))
        ]
        done = replace(move, profiles=tuple(profiles), opened={}).run(workers=1)
    assert (done.copied, done.exit_code, proxy.parts > 0) == (3, 0, True), done
    assert 4 * len(data) <= counting.received < 4.5 * len(data)
    assert not [loss for row in move.record_rows() for loss in row["losses"]]
    assert move.contents(move.source) == move.contents(move.destination)


def makes_one_of_many(asked: Asked) -> bool:
    """A server that has a least size, which the source's had not, makes no object of more than two parts."""
    return asked.method == "POST" and asked.body.count(b"<Part>") > 2


@pytest.mark.parametrize("numbers", [(2, 5, 9), pytest.param((1, 2, 3), marks=pytest.mark.torture)])
def test_what_the_destination_makes_of_no_such_parts_is_sent_in_others(
    move: Move, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    """By a sync and by a restore: such objects were left out."""
    monkeypatch.setattr(S3Store, "part_bytes", lambda *_: HALF_PART_BYTES)  # two of them
    sizes = (5 * 2**20, 5 * 2**20, 2**20)
    parts = [(number, bytes([number]) * size) for number, size in zip(numbers, sizes, strict=True)]
    upload_parts(move.source, "video", parts)
    data = b"".join(part for _, part in parts)
    server = move.destination.server
    with RottenProxy(server.endpoint, rotten=makes_one_of_many, status=400, code="EntityTooSmall") as proxy:
        profile = extra_profile(monkeypatch, tmp_path, server, endpoint=proxy.endpoint)
        done = replace(move, profiles=(move.source.server.profile, profile), opened={}).run()
        assert (done.copied, done.exit_code, proxy.refused > 0) == (1, 0, True), done
        assert body(move.destination, "video") == data
        move.destination.boto.delete_object(Bucket=move.destination.name, Key="video")
        reader = take_out(move.source.url, tmp_path / "bundle")
        outcome = restore(reader, f"s3://{move.destination.name}?profile={profile}")
    assert (outcome.items, outcome.left_out, outcome.findings) == (1, (), ())
    assert body(move.destination, "video") == data


@dataclass(slots=True)
class UniformProxy(HttpProxy):
    """Makes an object of parts of one size only, but for the last one, as Cloudflare R2 does."""

    sizes: dict[str, dict[int, int]] = field(default_factory=dict)

    def handle(self, asked: Asked) -> Answer:
        [upload] = asked.query.get("uploadId", [""])
        if asked.method == "PUT" and upload:
            self.sizes.setdefault(upload, {})[int(asked.query["partNumber"][0])] = len(asked.body)
        if asked.method == "POST" and upload:
            *sizes, last = (size for _, size in sorted(self.sizes[upload].items()))
            if len({*sizes}) > 1 or last > max(sizes, default=last):
                refused = refusal(400, "InvalidPart")
                message = b"All non-trailing parts must have the same length."
                return replace(refused, body=refused.body.replace(b"by the proxy", message))
        return self.forward(asked)


def test_parts_of_different_sizes_are_sent_in_equal_ones_where_no_others_are_taken(
    move: Move, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They were sent three times. Of further ones it is known."""
    old, new = move.source, move.destination
    uneven = (5 * 2**20, 6 * 2**20, 5 * 2**20)
    data = {key: [key.encode() * size for size in uneven] for key in "abc"}
    for key, parts in data.items():
        upload_parts(old, key, [(1, parts[0]), (2, parts[1]), (4 if key == "a" else 3, parts[2])])
    with UniformProxy(new.server.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, new.server, endpoint=proxy.endpoint)
        done = replace(move, profiles=(old.server.profile, profile), opened={}).run(workers=1)
        assert (done.copied, done.exit_code) == (3, 0), done
        sent_bytes = [sum(sizes.values()) for sizes in proxy.sizes.values()]
    assert sent_bytes == 4 * [sum(uneven)]
    assert {key: body(new, key) for key in data} == {key: b"".join(parts) for key, parts in data.items()}


def test_what_the_source_encrypts_by_a_key_is_read_once(
    encrypting_minio: S3Server,
    other_minio: S3Server,
    make_shop: MakeShop,
    encrypted: Encrypted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a sync and by an export: the ETag of its parts is made of no MD5s, and contradicts nothing."""
    shop, data = encrypted(make_shop(encrypting_minio)), bytes(range(256)) * 50_000
    upload(shop, "of-parts", data, 5 * 2**20)
    with CountingProxy(shop.server.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, shop.server, endpoint=proxy.endpoint)
        move = Move(shop, make_shop(other_minio), profiles=(profile, other_minio.profile))
        assert move.run().copied == 1
        synced_bytes = proxy.received
        reader = take_out(f"s3://{shop.name}?profile={profile}", tmp_path / "bundle")
        assert max(synced_bytes, proxy.received - synced_bytes) < 1.5 * len(data)
    reasons = [loss.reason for _, loss in reader.losses()]
    reasons += [loss[1] for row in move.record_rows() for loss in row["losses"]]
    assert not [reason for reason in reasons if "ETag looks like" in reason]
    assert body(move.destination, "of-parts") == data


@pytest.mark.parametrize("algorithm", ["CRC32", pytest.param("SHA256", marks=pytest.mark.torture)])
def test_what_the_source_encrypts_by_a_key_has_the_checksum_that_it_keeps(
    encrypting_minio: S3Server,
    other_minio: S3Server,
    make_shop: MakeShop,
    encrypted: Encrypted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    algorithm: str,
) -> None:
    """Its ETag says nothing of its bytes: those that were damaged on the way came as they were."""
    shop, damaged = encrypted(make_shop(encrypting_minio)), set[str]()
    data = {"large": bytes(range(256)) * 40_000, "small": b"small"}
    for key, content in data.items():
        shop.put(key, content, ChecksumAlgorithm=algorithm)

    class Proxy(HttpProxy):
        def handle(self, asked: Asked) -> Answer:
            is_first = has_data(asked) and asked.path not in damaged
            damaged.update({asked.path} if is_first else ())
            return flipped_answer(asked, self.forward) if is_first else self.forward(asked)

    with Proxy(shop.server.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, shop.server, endpoint=proxy.endpoint)
        move = Move(shop, make_shop(other_minio), profiles=(profile, other_minio.profile))
        done = move.run()
        assert (done.copied, done.exit_code, len(damaged)) == (2, 0, 2), done
        damaged.clear()
        assert take_out(f"s3://{shop.name}?profile={profile}", tmp_path / "bundle").info.complete
    assert move.contents(move.destination) == bodies_of(tmp_path / "bundle") == data


def test_an_upload_whose_parts_are_refused_is_not_left_behind(
    move: Move, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody would find it: it costs as much as an object."""
    server, part_bytes = move.destination.server, 5 * 2**20 + 1
    upload(move.source, "video", bytes(2 * part_bytes), part_bytes)

    def is_part(asked: Asked) -> bool:
        return asked.method == "PUT" and len(asked.body) == part_bytes and "partNumber" in asked.query

    with RottenProxy(server.endpoint, rotten=is_part, status=400, code="InvalidArgument") as proxy:
        profile = extra_profile(monkeypatch, tmp_path, server, endpoint=proxy.endpoint)
        done = replace(move, profiles=(move.source.server.profile, profile), opened={}).run()
    assert (done.copied, done.exit_code) == (1, 0), done
    assert "Uploads" not in move.destination.boto.list_multipart_uploads(
        Bucket=move.destination.name, Prefix="video"
    )


@pytest.mark.parametrize(
    ("in_parts", "at_end"),
    [
        pytest.param(False, False, marks=pytest.mark.torture),
        (True, True),
        pytest.param(True, False, marks=pytest.mark.torture),
    ],
)
def test_an_object_whose_upload_is_dropped_on_the_way_is_sent_again(
    move: Move, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_parts: bool, at_end: bool
) -> None:
    """As servers do after some days, by a rule or by themselves. It was left out until the next run, or came in other
    parts than the source's.
    """
    data = random.Random(3).randbytes(17 * 2**20 if in_parts else LARGE)  # three parts
    if in_parts:
        upload(move.source, "video", data, 6 * 2**20)
    else:
        move.source.put("video", data, ChecksumAlgorithm="CRC64NVME")
    boto, bucket = move.destination.boto, move.destination.name

    def drops(asked: Asked) -> bool:
        ends = asked.method == "POST" and "uploadId" in asked.query
        if (ends if at_end else asked.query.get("partNumber") == ["2"]) and not dropped:
            dropped.extend(asked.query["uploadId"])
            boto.abort_multipart_upload(Bucket=bucket, Key="video", UploadId=dropped[0])
        return asked.method in {"PUT", "POST"} and asked.query.get("uploadId") == dropped != []

    dropped: list[str] = []
    new = move.destination.server
    with RottenProxy(new.endpoint, rotten=drops, status=404, code="NoSuchUpload") as proxy:
        profile = extra_profile(monkeypatch, tmp_path, new, endpoint=proxy.endpoint)
        done = replace(move, profiles=(move.source.server.profile, profile), opened={}).run()
    assert (done.copied, done.exit_code, len(dropped)) == (1, 0, 1), done
    assert body(move.destination, "video") == data
    if in_parts:
        assert layout(move.destination, "video") == layout(move.source, "video")


@pytest.mark.parametrize("history", [True, pytest.param(False, marks=pytest.mark.torture)])
def test_an_older_object_is_not_taken_for_one_whose_upload_was_dropped_at_its_end(
    move: Move, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, history: bool
) -> None:
    """It has the same bytes, and other metadata; an older version the same metadata, too."""
    data = random.Random(3).randbytes(LARGE)
    old, new, key = move.source, move.destination, "video"
    if history:
        for shop in (old, new):
            shop.boto.put_bucket_versioning(Bucket=shop.name, VersioningConfiguration={"Status": "Enabled"})
    old.put(key, data, ChecksumAlgorithm="CRC64NVME", Metadata={"a": "new" if history else "old"})
    assert move.run(history=history).copied == 1
    old.put(key, data, ChecksumAlgorithm="CRC64NVME", Metadata={"a": "new"})
    dropped: list[str] = []

    def drops(asked: Asked) -> bool:
        if asked.method == "POST" and "uploadId" in asked.query and not dropped:
            dropped.extend(asked.query["uploadId"])
            new.boto.abort_multipart_upload(Bucket=new.name, Key=key, UploadId=dropped[0])
        return asked.method == "POST" and asked.query.get("uploadId") == dropped

    with RottenProxy(new.server.endpoint, rotten=drops, status=404, code="NoSuchUpload") as proxy:
        profile = extra_profile(monkeypatch, tmp_path, new.server, endpoint=proxy.endpoint)
        by_proxy = replace(move, profiles=(old.server.profile, profile), opened={})
        done = by_proxy.run(history=history)
    assert (done.copied, done.exit_code, len(dropped)) == (1, 0, 1), done
    assert new.boto.head_object(Bucket=new.name, Key=key)["Metadata"] == {"a": "new"}
    versions = new.boto.list_object_versions(Bucket=new.name, Prefix=key)["Versions"]
    assert len(versions) == (2 if history else 1)


@dataclass(slots=True)
class BadDigestProxy(HttpProxy):
    """Says of the first upload that it was damaged on the way."""

    first: list[str] | None = None

    def handle(self, asked: Asked) -> Answer:
        upload_id = asked.query.get("uploadId", [])
        if asked.method == "POST" and upload_id and self.first in (None, upload_id):
            self.first = upload_id
            return refusal(HTTPStatus.BAD_REQUEST, "BadDigest")
        return self.forward(asked)


def test_what_was_damaged_on_the_way_is_sent_again_in_the_same_parts(
    move: Move, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = move.destination.server
    upload(move.source, "video", bytes(range(256)) * 50_000, 5 * 2**20)
    with BadDigestProxy(server.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, server, endpoint=proxy.endpoint)
        done = replace(move, profiles=(move.source.server.profile, profile), opened={}).run()
    assert (done.copied, done.exit_code, bool(proxy.first)) == (1, 0, True), done
    assert layout(move.destination, "video") == layout(move.source, "video")
