"""A bucket leaves as a bundle and comes up again somewhere else."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from exporters.doctor import ExamineRequest
from exporters.objects import key_oddities
from migrate.bundle.object_index import object_rows
from migrate.bundle.reader import BundleReader
from migrate.doctor.bucket_destination import examine
from migrate.errors import GoneError, NotAllowedError, NotEmptyError
from migrate.restore.common.api import RestoreOutcome
from migrate.restore.objects import restore as restore_module
from migrate.runtime.progress import Silent
from migrate.storage.checksums import crc64nvme
from migrate.storage.registry import open_location
from migrate.storage.s3 import capability_probe
from migrate.storage.s3.capability_probe import ProbePlan, probe
from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.metadata.object_metadata import Description
from migrate.storage.s3.store import S3Store
from migrate.verify.compare import ComparisonRequest
from migrate.verify.live_bucket import compare_bucket
from scripts.servers import S3Server
from tests.export.victims import run
from tests.exporters.objects.conftest import FilledShop, MakeShop, Shop, fill, take_out
from tests.sync.conftest import Move
from tests.tools.bundles import restore_from
from tests.tools.clients import boto_client
from tests.tools.counting import Counting
from tests.tools.http_proxy import Asked
from tests.tools.profiles import extra_profile
from tests.tools.renaming_proxy import RenamingProxy
from tests.tools.rotten_proxy import RottenProxy
from tests.tools.small_parts import LARGE, PART, small_parts

__all__ = ["small_parts"]


def restore(reader: BundleReader, url: str, *, merge: bool = False) -> RestoreOutcome:
    return restore_from(reader, "shop", url, workers=2, merge=merge)


def compare(reader: BundleReader, url: str, *, read_all: bool = False) -> list[str]:
    return [
        str(one)
        for one in compare_bucket(
            ComparisonRequest(reader, "shop", url, workers=2, progress=Silent(), read_all=read_all)
        ).findings
    ]


@dataclass(frozen=True)
class Sealed:
    """A bundle of a bucket with objects of every kind."""

    objects: Mapping[str, bytes]
    folder: Path
    reader: BundleReader


@pytest.fixture(scope="module")
def sealed(minio: S3Server, filled: FilledShop, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """One for all tests that do not change it."""
    shop, objects = filled(minio)
    folder = tmp_path_factory.mktemp("sealed") / "bundle"
    return Sealed(objects, folder, take_out(shop.url, folder))


@pytest.fixture(scope="module")
def video(minio: S3Server, make_bucket, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """A bundle of one object that goes in parts."""
    shop = Shop(minio, make_bucket(minio), boto_client(minio.profile))
    body = bytes(range(256)) * (LARGE // 256)
    shop.put("video", body, ContentType="video/mp4", Metadata={"a": "b"}, Tagging="t=1")
    folder = tmp_path_factory.mktemp("video") / "bundle"
    return Sealed({"video": body}, folder, take_out(shop.url, folder))


def test_round_trip(shop: Shop, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path) -> None:
    """Bytes, headers, metadata and tags are the same at the new host; a second restore writes nothing."""
    objects = fill(shop)
    reader = take_out(shop.url, tmp_path / "bundle")
    destination = make_shop(other_minio)
    outcome = restore(reader, destination.url)
    assert (outcome.items, outcome.skipped_items, outcome.findings) == (len(objects), 0, ())
    assert sorted(destination.keys()) == sorted(objects)
    for key in ("large.bin", "a b?c%2F\nx", "empty"):
        body = destination.boto.get_object(Bucket=destination.name, Key=key)["Body"].read()
        assert hashlib.sha256(body).digest() == hashlib.sha256(objects[key]).digest()
    head = destination.boto.head_object(Bucket=destination.name, Key="described")
    assert head["ContentEncoding"] == "gzip"
    assert head["CacheControl"] == "max-age=60"
    assert head["Metadata"]["some-name"] == "some value"
    tags = destination.boto.get_object_tagging(Bucket=destination.name, Key="described")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"project": "blue sky", "owner": "me+you"}
    assert compare(reader, destination.url) == compare(reader, destination.url, read_all=True) == []
    again = restore(reader, destination.url)
    assert (again.items, again.skipped_items, again.size_bytes) == (len(objects), len(objects), 0)


def test_all_agree_on_what_is_moveouts_own(
    shop: Shop, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """What a killed run has left is an object of others neither for doctor, nor for a comparison, nor for a restore. So
    is the record of a sync: a cutover syncs the bucket that a restore has filled, and the same restore may be typed
    again.
    """
    shop.put("a", b"1")
    reader = take_out(shop.url, tmp_path / "bundle")
    destination = make_shop(other_minio)
    own = (
        ".moveout-sync/e3b0c44298fc1c14/report.json",
        ".moveout-restore/_work/x",
        "moveout-probe-0123456789ab/x",
    )
    for key in own:
        destination.put(key, b"x")
        assert [finding.check for finding in examine(ExamineRequest(destination.url)).findings] == [], key
    restore(reader, destination.url)
    for key in own:
        destination.put(key, b"x")
        assert compare(reader, destination.url) == [], key
    assert restore(reader, destination.url).skipped_items == 1
    destination.put("b", b"2")
    with pytest.raises(NotEmptyError, match="'b' is an object that is not in the bundle"):
        restore(reader, destination.url)


def test_credentials_that_end_during_a_comparison_are_no_differences(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, asked_for = make_shop(minio), []
    for number in range(3):
        shop.put(str(number), b"1")
    reader = take_out(shop.url, tmp_path / "bundle")

    def has_ended(asked: Asked) -> bool:
        asked_for.extend([asked.path] * (asked.method == "HEAD"))
        return bool(asked_for)

    with RottenProxy(minio.endpoint, rotten=has_ended, status=403) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        with pytest.raises(NotAllowedError):
            compare(reader, f"s3://{shop.name}?profile={profile}")


def test_objects_that_are_there_with_other_metadata_or_tags_are_named(
    shop: Shop, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing shows their bytes alone: they were taken for restored."""
    shop.put("a", b"1", Metadata={"n": "1"})
    shop.put("b", b"1", Tagging="n=1")
    shop.put("c", b"1", ContentType="text/css")
    reader = take_out(shop.url, tmp_path / "bundle")
    destination = make_shop(other_minio)
    for key in "abc":
        destination.put(key, b"1")
    outcome = restore(reader, destination.url)
    assert [finding[:1] for finding in outcome.findings] == ["a", "b", "c"]
    monkeypatch.setattr(restore_module, "_LOOKED_AT", 1)
    outcome = restore(reader, destination.url)
    assert [finding[:1] for finding in outcome.findings] == ["a"]
    assert ["of 2 objects that" in note for note in outcome.notes] == [True]


def test_that_metadata_could_not_be_compared_is_noted(
    shop: Shop, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("a", b"1", Metadata={"n": "1"})
    shop.put("b", b"1")
    reader = take_out(shop.url, tmp_path / "bundle")
    destination = make_shop(other_minio)
    destination.put("a", b"1")

    def asks_of_a(asked: Asked) -> bool:
        return asked.method == "HEAD" and asked.path.endswith("/a")

    with RottenProxy(other_minio.endpoint, rotten=asks_of_a, status=403) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, other_minio, endpoint=proxy.endpoint)
        outcome = restore(reader, f"s3://{destination.name}?profile={profile}")
    assert ["of 1 object that" in note for note in outcome.notes] == [True]


@pytest.mark.parametrize("content", [b"", b"1"])
def test_what_is_called_like_its_prefix_has_no_key_in_a_bucket(
    minio: S3Server, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path, content: bytes
) -> None:
    """A request for an object without a key is one for the bucket itself: it would make it, or remove it. Where it only
    marks the folder, nothing is missing without it, as an AWS console makes one.
    """
    shop, restored, synced = make_shop(minio), make_shop(other_minio), make_shop(other_minio)
    shop.put("photos/", content)
    shop.put("photos/a", b"1")
    url = shop.url.replace("?", "/photos?")
    reader = take_out(url, tmp_path / "bundle")
    outcome = restore(reader, restored.url)
    done = Move(shop, synced, source_prefix="photos/").run(cutover=True)
    synced_keys = synced.keys()
    assert [key for key in synced_keys if not key.startswith(".moveout")] == restored.keys() == ["a"]
    if content:
        [left_out] = outcome.left_out
        assert left_out.startswith("'' has no name: it is what its prefix is called")
        assert compare(reader, restored.url) == [": is not in the bucket"]
        assert done.exit_code == 3
    else:
        assert (outcome.left_out, compare(reader, restored.url)) == ((), [])
        assert restore(reader, restored.url).skipped_items == 1
        assert (done.exit_code, done.proof is not None) == (0, True)
        assert done.excluded == 1


def test_into_versitygw(versitygw: S3Server, make_shop: MakeShop, sealed: Sealed) -> None:
    """Another kind of server takes everything but what it says it does not."""
    destination, objects, reader = make_shop(versitygw), sealed.objects, sealed.reader
    outcome = restore(reader, destination.url)
    assert outcome.items + len(outcome.left_out) == len(objects)
    missing = set(objects) - set(destination.keys())
    assert len(missing) == len(outcome.left_out)
    assert all("is not in the bucket" in one for one in compare(reader, destination.url))


def test_goes_on_after_an_interruption(other_minio: S3Server, make_shop: MakeShop, sealed: Sealed) -> None:
    destination, objects, reader = make_shop(other_minio), sealed.objects, sealed.reader
    for key in ("small/001.bin", "small/002.bin"):
        destination.put(key, objects[key])
    for key in ("moveout-probe-0123456789ab/\u00e9", "/moveout-probe-0123456789ab"):
        destination.put(key, b"what a killed restore had tried the destination out with")
    outcome = restore(reader, destination.url)
    assert (outcome.items, outcome.skipped_items) == (len(objects), 2)
    assert set(destination.keys()) == set(objects)


def die_while_trying(url: str) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    capability_probe.ALWAYS, capability_probe._clear = frozenset(), die
    probe(open_destination_bucket(url), ProbePlan({key_oddities.LEADING}))


def test_what_a_killed_probe_leaves_lies_behind_the_prefix(
    other_minio: S3Server, make_shop: MakeShop
) -> None:
    destination = make_shop(other_minio)
    victim = run(die_while_trying, destination.url.replace("?", "/kept/?"))
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    (left,) = destination.keys()
    assert left.startswith("kept/")


def test_parts_of_a_large_object_are_not_sent_twice(
    other_minio: S3Server, make_shop: MakeShop, video: Sealed
) -> None:
    destination, reader, body = make_shop(other_minio), video.reader, video.objects["video"]
    location = {"Bucket": destination.name, "Key": "video"}
    upload = destination.boto.create_multipart_upload(
        **location, ContentType="video/mp4", Metadata={"a": "b"}, ChecksumAlgorithm="CRC64NVME",
        ChecksumType="FULL_OBJECT", Tagging="t=1",
    )["UploadId"]  # fmt: skip
    part = body[:PART]
    destination.boto.upload_part(
        **location, UploadId=upload, PartNumber=1, Body=part, ChecksumAlgorithm="CRC64NVME"
    )
    counted = Counting()
    outcome = restore_from(reader, "shop", destination.url, workers=2, progress=counted)
    assert outcome.findings == ()
    assert (counted.skipped_bytes, counted.sent_bytes) == (len(part), len(body) - len(part))
    assert compare(reader, destination.url, read_all=True) == []


def test_parts_of_which_the_destination_makes_something_else_are_all_sent_anew(
    other_minio: S3Server, make_shop: MakeShop, video: Sealed, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination, reader = make_shop(other_minio), video.reader
    complete, tried = S3Store.complete, []

    def refused_once(store, key, upload, parts, *, crc64nvme):
        tried.append(upload)
        wrong = crc64nvme if upload != tried[0] else crc64nvme ^ 1
        return complete(store, key, upload, parts, crc64nvme=wrong)

    monkeypatch.setattr(S3Store, "complete", refused_once)
    assert restore(reader, destination.url).findings == ()
    assert len(set(tried)) == 2
    assert compare(reader, destination.url, read_all=True) == []
    assert "Uploads" not in destination.boto.list_multipart_uploads(Bucket=destination.name, Prefix="video")


@pytest.mark.parametrize(
    ("server", "asked"),
    [
        pytest.param("versitygw", {}, marks=pytest.mark.torture),
        pytest.param("minio", {"ChecksumAlgorithm": "CRC32"}, marks=pytest.mark.torture),
        ("minio", {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}),
    ],
    ids=["none", "crc32", "crc64nvme"],
    indirect=["server"],
)
def test_an_upload_that_another_program_had_begun_does_not_describe_the_object(
    asked: dict[str, str], server: S3Server, make_shop: MakeShop, video: Sealed
) -> None:
    """Its parts may be those of the object; its metadata, tags and checksums are not."""
    destination, reader, body = make_shop(server), video.reader, video.objects["video"]
    enabled = {"Status": "Enabled"}
    destination.boto.put_bucket_versioning(Bucket=destination.name, VersioningConfiguration=enabled)
    which = {"Bucket": destination.name, "Key": "video"}
    begun = destination.boto.create_multipart_upload(**which, **asked)["UploadId"]
    algorithm = {name: value for name, value in asked.items() if name == "ChecksumAlgorithm"}
    destination.boto.upload_part(**which, UploadId=begun, PartNumber=1, Body=body[:PART], **algorithm)
    assert restore(reader, destination.url).findings == ()
    assert compare(reader, destination.url, read_all=True) == []
    assert len(destination.boto.list_object_versions(Bucket=destination.name)["Versions"]) == 1


@pytest.mark.parametrize(
    ("key", "body"),
    [("foreign", b"x"), pytest.param("small/003.bin", b"something else", marks=pytest.mark.torture)],
    ids=["foreign", "other"],
)
def test_a_bucket_in_use_is_not_touched(
    other_minio: S3Server, make_shop: MakeShop, sealed: Sealed, key: str, body: bytes
) -> None:
    """Without --merge nothing is written; with it, what is there stays as it is."""
    destination, reader = make_shop(other_minio), sealed.reader
    destination.put(key, body)
    with pytest.raises(NotEmptyError, match=key):
        restore(reader, destination.url)
    assert destination.keys() == [key]
    outcome = restore(reader, destination.url, merge=True)
    assert len(outcome.findings) == (key != "foreign")
    assert destination.boto.get_object(Bucket=destination.name, Key=key)["Body"].read() == body


def test_keys_that_the_destination_would_change(
    versitygw: S3Server, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """MinIO stores '/lead' as 'lead' and refuses 'a//b': both stay out, by name, and nothing is overwritten."""
    destination = make_shop(other_minio)
    kinds = key_oddities.Oddities()
    keys = ["../up", "./dot", "/lead", "a", "a//b", "a/b", "dir/", "n\nl", "w" * 300, "\u0001"]
    seen = set().union(*(kinds.of(key, 0) for key in sorted(keys)))
    assert {
        key_oddities.LEADING,
        key_oddities.EMPTY,
        key_oddities.OBJECT_AS_DIRECTORY,
        key_oddities.LONG,
    } <= seen
    refused = probe(open_destination_bucket(destination.url), ProbePlan(seen)).refused_keys
    assert {key_oddities.LEADING, key_oddities.EMPTY, key_oddities.DOTDOT, key_oddities.LONG} <= set(refused)
    assert "U+000A" not in " ".join(refused)
    assert destination.keys() == []
    strict = make_shop(versitygw)
    refused = probe(open_destination_bucket(strict.url), ProbePlan(seen)).refused_keys
    assert {key_oddities.OBJECT_AS_DIRECTORY, key_oddities.DOTDOT, key_oddities.DOT} <= set(refused)
    assert strict.keys() == []


def test_keys_that_the_destination_would_change_in_silence(
    other_minio: S3Server, make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers 200: only its listings show other names, only a look that nothing is kept of what was said."""
    destination = make_shop(other_minio)
    kinds = key_oddities.Oddities()
    seen = set().union(*(kinds.of(key, 1) for key in sorted(["a\\b", "c\u0001d", "dir/", "plain"])))
    with RenamingProxy(other_minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, other_minio, endpoint=proxy.endpoint)
        url = f"s3://{destination.name}?profile={profile}"
        backslash, control = f"{key_oddities.CHARACTER}U+005C", f"{key_oddities.CHARACTER}U+0001"
        refused = probe(open_destination_bucket(url), ProbePlan(seen)).refused_keys
        assert refused.keys() == {backslash, key_oddities.DIRECTORY_WITH_BYTES}
        assert refused[backslash].startswith("stores it as")
        assert refused[key_oddities.DIRECTORY_WITH_BYTES] == "does not keep its headers and metadata"
        destination.boto.put_bucket_versioning(
            Bucket=destination.name, VersioningConfiguration={"Status": "Enabled"}
        )
        refused = probe(open_destination_bucket(url), ProbePlan(seen)).refused_keys
        assert refused.keys() == {backslash, control, key_oddities.DIRECTORY_WITH_BYTES}
    left = destination.boto.list_object_versions(Bucket=destination.name)
    assert "Versions" not in left
    assert "DeleteMarkers" not in left


def test_keys_of_which_the_destination_says_that_access_is_denied(
    other_minio: S3Server, make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MinIO did on single drives (2022-05) of keys that end in a slash; but if nothing is allowed, nothing is."""
    destination = make_shop(other_minio)
    kinds = frozenset({key_oddities.DIRECTORY_WITH_BYTES})
    with RottenProxy(other_minio.endpoint, status=403) as proxy:
        proxy.rotten = lambda asked: asked.method == "PUT" and asked.path.endswith("/")
        profile = extra_profile(monkeypatch, tmp_path, other_minio, endpoint=proxy.endpoint)
        url = f"s3://{destination.name}?profile={profile}"
        refused = probe(open_destination_bucket(url), ProbePlan(kinds)).refused_keys
        assert refused.keys() == kinds
        assert "AccessDenied" in refused[key_oddities.DIRECTORY_WITH_BYTES]
        assert destination.keys() == []
        proxy.rotten = lambda asked: asked.method == "PUT"
        with pytest.raises(NotAllowedError):
            probe(open_destination_bucket(url), ProbePlan(kinds))


def test_another_prefix(minio: S3Server, make_shop: MakeShop, tmp_path: Path) -> None:
    """Keys under one prefix come to lie under another; what lies beside is neither exported nor in the way."""
    shop, destination = make_shop(minio), make_shop(minio)
    shop.put("photos/a")
    shop.put("photos/sub/b")
    shop.put("photos2/c")
    destination.put("elsewhere")
    reader = take_out(f"s3://{shop.name}/photos?profile={minio.profile}", tmp_path / "bundle")
    url = f"s3://{destination.name}/old/pictures/?profile={minio.profile}"
    assert restore(reader, url).items == 2
    assert destination.keys() == ["elsewhere", "old/pictures/a", "old/pictures/sub/b"]
    assert compare(reader, url) == []


def test_damage_in_a_pack_is_named_and_not_restored(
    other_minio: S3Server, make_shop: MakeShop, sealed: Sealed, tmp_path: Path
) -> None:
    destination = make_shop(other_minio)
    shutil.copytree(sealed.folder, tmp_path / "bundle")
    pack = tmp_path / "bundle/data/shop/packs/pack-000000.tar"
    data = bytearray(pack.read_bytes())
    data[data.index(bytes([14]) * 500) + 7] ^= 1
    pack.write_bytes(data)
    outcome = restore(BundleReader(open_location(str(tmp_path / "bundle"))), destination.url)
    assert [one.split(":")[0] for one in outcome.findings] == ["small/014.bin"]
    assert sorted(destination.keys()) == sorted(set(sealed.objects) - {"small/014.bin"})


def test_a_missing_large_file_is_named_and_comes_after_a_repair(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    shop, destination = make_shop(minio), make_shop(minio)
    shop.put("large.bin", bytes(LARGE))
    shop.put("small.bin", b"small")
    reader = take_out(shop.url, tmp_path / "bundle")
    (key,) = (row.file for row in object_rows(reader, "shop") if row.key == "large.bin")
    file = tmp_path / "bundle" / key
    file.rename(tmp_path / "away")
    for _ in range(2):
        outcome = restore(reader, destination.url)
        assert outcome.findings == (f"large.bin: {key}: expected a file, found none; not restored",)
        assert destination.keys() == ["small.bin"]
    (tmp_path / "away").rename(file)
    outcome = restore(reader, destination.url)
    assert (outcome.findings, outcome.left_out, outcome.skipped_items) == ((), (), 1)
    assert sorted(destination.keys()) == ["large.bin", "small.bin"]


def test_settings_come_along(
    minio: S3Server, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    shop, destination = make_shop(minio), make_shop(other_minio)
    shop.put("a")
    rules = {"TagSet": [{"Key": "team", "Value": "blue"}]}
    shop.boto.put_bucket_tagging(Bucket=shop.name, Tagging=rules)
    shop.boto.put_bucket_versioning(Bucket=shop.name, VersioningConfiguration={"Status": "Enabled"})
    reader = take_out(shop.url, tmp_path / "bundle")
    assert restore(reader, destination.url).notes == ()
    assert destination.boto.get_bucket_tagging(Bucket=destination.name)["TagSet"] == rules["TagSet"]
    assert destination.boto.get_bucket_versioning(Bucket=destination.name)["Status"] == "Enabled"
    assert reader.catalog()[0].details["history"]


def test_no_such_bucket(minio: S3Server, make_shop: MakeShop, tmp_path: Path) -> None:
    shop = make_shop(minio)
    shop.put("a")
    reader = take_out(shop.url, tmp_path / "bundle")
    with pytest.raises(GoneError):
        restore(reader, f"s3://no-such-bucket-here?profile={minio.profile}")


def test_metadata_that_is_no_ascii_arrives_also_with_what_goes_in_parts(
    versitygw: S3Server, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """And an upload in parts has the same parts, so the same ETag; a checksum of the source's own kind stays."""
    shop, destination = make_shop(versitygw), make_shop(other_minio)
    source = open_destination_bucket(shop.url)
    metadata = {"name": "J\u00fcrgen \u65e5\u672c", "plain": "a  b"}
    assert source.put(Description("small", metadata=metadata), b"body").error is None
    body = bytes(range(256)) * (13 * 4096)
    parts = source.parts()
    upload = parts.begin_described(Description("large", metadata=metadata, tags={"t": "\u00e4"}))
    sent = [
        parts.put_part("large", upload, number, body[start : start + 6 * 2**20])
        for number, start in enumerate(range(0, len(body), 6 * 2**20), 1)
    ]
    parts.complete("large", upload, sent, crc64nvme=crc64nvme(body))
    one_upload = parts.begin_described(Description("one"))
    one_part = parts.put_part("one", one_upload, 1, body[: 2**20])
    parts.complete("one", one_upload, [one_part], crc64nvme=crc64nvme(body[: 2**20]))
    shop.put("own", b"checked", ChecksumAlgorithm="SHA256")
    reader = take_out(shop.url, tmp_path / "bundle")
    assert restore(reader, destination.url).findings == ()
    assert [one.partition(":")[2] for one in compare(reader, destination.url, read_all=True)] == [
        " has other tags: t: expected \u00e4, found nothing"
    ]
    old, new = (one.boto.head_object(Bucket=one.name, Key="large")["ETag"] for one in (shop, destination))
    assert old == new
    assert new.endswith('-3"')
    old, new = (one.boto.head_object(Bucket=one.name, Key="one")["ETag"] for one in (shop, destination))
    assert old == new
    assert new.endswith('-1"')
    wanted = {"Bucket": destination.name, "Key": "own", "ChecksumMode": "ENABLED"}
    assert "ChecksumSHA256" in destination.boto.head_object(**wanted)


def test_odd_keys_arrive_or_are_named(
    minio: S3Server, versitygw: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """Each under its own name, or in the ledger before anything was written: none merged, none in silence."""
    shop, destination = make_shop(minio), make_shop(versitygw)
    keys = [
        "E\u0301", "\u00c9", "e", "E", "back\\slash", "...", "a..b", "tail ", " head", "%41", "q?x", "h#x",
        "ctl\u0001x", "ctl\u000bx", "cr\rx", "del\x7f", "\ufffe", "emoji-\U0001f600", "name", "name/",
        "x" * 255, ("y" * 99 + "/") * 10 + "z" * 24,
    ]  # fmt: skip
    for key in keys:
        shop.put(key, b"" if key.endswith("/") else key.encode())
    reader = take_out(shop.url, tmp_path / "bundle")
    account = tmp_path / "account"
    outcome = restore_from(reader, "shop", destination.url, workers=2, report=open_location(str(account)))
    lost = {
        row["item"]
        for row in pq.read_table(account / "shop/losses.parquet").to_pylist()
        if row["property"] == "object"
    }
    assert set(destination.keys()) == set(keys) - lost
    assert {"ctl\u0001x", "ctl\u000bx", "\ufffe", "name/"} <= lost
    assert len(outcome.left_out) == len(lost)
    for key in set(keys) - lost:
        assert destination.boto.get_object(Bucket=destination.name, Key=key)["Body"].read() == key.encode()
