"""Every pair of servers: what leaves one arrives at the other under its own name, or is named before anything moves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import boto3
import botocore.exceptions
import pyarrow.parquet as pq
import pytest
from botocore.config import Config

from exporters.objects.server_quirks import QUIRKS
from migrate.bundle.reader import BundleReader
from migrate.errors import NotEmptyError
from migrate.storage.registry import open_location
from migrate.storage.s3.access.minio_accounts import Accounts
from migrate.storage.s3.client import parse
from migrate.storage.s3.source_bucket import open_bucket
from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.conftest import MakeShop, Shop, take_out
from tests.restore.objects.test_encrypted import Encrypted, encrypted
from tests.sync.test_large import upload
from tests.tools.bundles import restore_from
from tests.tools.clients import boto_client
from tests.tools.http_proxy import Asked
from tests.tools.profiles import extra_profile
from tests.tools.rotten_proxy import RottenProxy
from tests.tools.small_parts import LARGE, small_parts

__all__ = ["encrypted", "small_parts"]

SERVERS = ("minio", "versitygw", "rclone")
HOSTILE = (
    "a//b", "/lead", "lead", "../x", "x/./y", ".", "..", "beside", "beside/", "beneath", "beneath/x", "dir/", "full/",
    "\x01control", "tab\tkey", "line\nbreak", "return\rkey", "del\x7fkey", "c1\x85key", "non\ufffe", "quote\"'<&>",
    "Case", "case", "é-composed", "e\u0301-composed", "plus+ %2F%00", "back\\slash", "trailing ", " leading",
    "a..b/c...d", "long/" + "k" * 254, "long/" + "k" * 256, "w" * 120 + ("/" + "w" * 112) * 8, "😀/日本",
)  # fmt: skip


def fill(shop: Shop) -> dict[str, bytes]:
    """Put what the server takes; what it shows afterwards is what it has."""
    for number, key in enumerate(HOSTILE):
        if shop.server.profile == "rclone" and not key.isprintable():
            continue  # it takes them, and then fails at every listing of the bucket (rclone 1.75)
        try:
            shop.boto.put_object(
                Bucket=shop.name,
                Key=key,
                Body=b"" if key.endswith("/") and key != "full/" else b"%d" % number,
            )
        except botocore.exceptions.ClientError:
            continue
    bucket = open_bucket(shop.url)
    listed = list(bucket.list())
    return {
        one.summary.key: one.body for one in bucket.fetch(listed, window_bytes=1 << 20) if one.error is None
    }


def restored(reader: BundleReader, destination: Shop, account: Path) -> tuple[set[str], list[str]]:
    """Restore; return the keys that the ledger says beforehand will not be there, and what was left out."""
    outcome = restore_from(reader, "shop", destination.url, workers=2, report=open_location(str(account)))
    rows = pq.read_table(account / "shop/losses.parquet").to_pylist()
    return {row["item"] for row in rows if row["property"] == "object"}, list(outcome.left_out)


def content(shop: Shop) -> dict[str, bytes]:
    bucket = open_bucket(shop.url)
    fetched = list(bucket.fetch(list(bucket.list()), window_bytes=1 << 20))
    return {one.summary.key: one.body for one in fetched}


@pytest.fixture(scope="module")
def leaving(
    request: pytest.FixtureRequest,
    make_bucket: Callable[[S3Server], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[BundleReader, dict[str, bytes]]]:
    """A bundle of each server's hostile keys, made once."""

    made: dict[str, tuple[BundleReader, dict[str, bytes]]] = {}

    def of(name: str) -> tuple[BundleReader, dict[str, bytes]]:
        if name not in made:
            server = request.getfixturevalue(name)
            shop = Shop(server, make_bucket(server), boto_client(server.profile))
            there = fill(shop)
            made[name] = take_out(shop.url, tmp_path_factory.mktemp(name) / "bundle"), there
        return made[name]

    return of


USUAL = {("minio", "versitygw"), ("versitygw", "minio"), ("minio", "rclone")}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(*pair, marks=[] if pair in USUAL else pytest.mark.torture)
        for pair in product(SERVERS, SERVERS)
    ],
)
def test_every_key_arrives_under_its_own_name_or_is_named_before(
    old: str,
    new: str,
    leaving: Callable[[str], tuple[BundleReader, dict[str, bytes]]],
    make_shop: MakeShop,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    reader, there = leaving(old)
    rows = [row for batch in reader.index("shop") for row in batch.to_pylist()]
    assert {row["key"] for row in rows if row["disposition"] == "exported"} == set(there)
    destination = make_shop(request.getfixturevalue(new))
    lost, findings = restored(reader, destination, tmp_path / "account")
    arrived = content(destination)
    assert arrived == {key: body for key, body in there.items() if key not in lost}
    absent = [gap for _, gap in reader.gaps() if gap.disposition == "failed"]
    assert len(findings) == len(lost) + len(absent)
    assert len(arrived) > 10


def test_a_destination_that_keeps_no_tags_is_found_out(
    minio: S3Server, rclone: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    shop, destination = make_shop(minio), make_shop(rclone)
    shop.put("tagged", b"x", Tagging="a=b")
    outcome = restore_from(
        take_out(shop.url, tmp_path / "bundle"),
        "shop",
        destination.url,
        workers=2,
        report=open_location(str(tmp_path / "account")),
    )
    assert outcome.findings == ()
    rows = pq.read_table(tmp_path / "account/shop/losses.parquet").to_pylist()
    assert [row["item"] for row in rows if row["property"] == "tag"] == ["tagged"]


@pytest.fixture(scope="module")
def large(
    minio: S3Server, make_bucket: Callable[[S3Server], str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Shop, BundleReader]:
    """A bucket with an object that goes in parts, and its bundle."""
    shop = Shop(minio, make_bucket(minio), boto_client(minio.profile))
    shop.put("large", bytes(LARGE))
    return shop, take_out(shop.url, tmp_path_factory.mktemp("large") / "bundle")


def test_objects_in_parts_arrive_where_no_unfinished_upload_is_an_error(
    large: tuple[Shop, BundleReader],
    other_minio: S3Server,
    make_shop: MakeShop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As rclone answers. They were left out, since one looks for uploads of theirs first."""
    (_, reader), destination = large, make_shop(other_minio)

    def lists_uploads(asked: Asked) -> bool:
        return asked.method == "GET" and "uploads" in asked.query

    server = destination.server
    with RottenProxy(server.endpoint, rotten=lists_uploads, status=404, code="NoSuchUpload") as proxy:
        profile = extra_profile(monkeypatch, tmp_path, server, endpoint=proxy.endpoint)
        outcome = restore_from(reader, "shop", f"s3://{destination.name}?profile={profile}")
    assert (outcome.left_out, destination.keys()) == ((), ["large"])


@pytest.mark.parametrize("kind", ["parts", pytest.param("encrypted", marks=pytest.mark.torture)])
def test_what_is_there_is_read_where_no_checksum_tells(
    minio: S3Server,
    other_minio: S3Server,
    encrypting_minio: S3Server,
    make_shop: MakeShop,
    encrypted: Encrypted,
    tmp_path: Path,
    kind: str,
) -> None:
    """A destination may have an MD5 where the source has none. What a restore had written was an object of others."""
    data, destination = bytes(range(256)) * 40_000, make_shop(other_minio)
    if kind == "parts":
        shop = make_shop(minio)
        upload(shop, "large", data, 5 * 2**20)
    else:
        shop = encrypted(make_shop(encrypting_minio))
        shop.put("large", data, ChecksumAlgorithm="CRC64NVME")
    reader = take_out(shop.url, tmp_path / "bundle")
    plain = boto3.Session(profile_name=other_minio.profile).client(
        "s3", config=Config(request_checksum_calculation="when_required")
    )
    plain.put_object(Bucket=destination.name, Key="large", Body=data)
    assert restore_from(reader, "shop", destination.url).skipped_items == 1
    plain.put_object(Bucket=destination.name, Key="large", Body=data[::-1])
    with pytest.raises(NotEmptyError):
        restore_from(reader, "shop", destination.url)


def test_objects_in_parts_arrive_where_nobody_may_list_unfinished_uploads(
    large: tuple[Shop, BundleReader],
    other_minio: S3Server,
    make_shop: MakeShop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were left out. A bundle needs that right, and doctor says so."""
    (shop, reader), destination = large, make_shop(other_minio)
    everything = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
    denied = {**everything, "Effect": "Deny", "Action": ["s3:ListBucketMultipartUploads"]}
    accounts = Accounts(parse(f"s3://none?profile={destination.server.profile}"))
    policy = {"Version": "2012-10-17", "Statement": [everything, denied]}
    account = accounts.add("no-uploads", policy, datetime.now(UTC) + timedelta(days=1))
    profile = extra_profile(
        monkeypatch,
        tmp_path,
        destination.server,
        access_key=account.access_key,
        secret_key=account.secret_key,
    )
    outcome = restore_from(reader, "shop", f"s3://{destination.name}?profile={profile}")
    assert (outcome.left_out, destination.keys()) == ((), ["large"])
    done = call("doctor", f"shop={shop.url}", "--to", f"s3://{destination.name}/bundle?profile={profile}")
    assert (done.code, "s3:ListBucketMultipartUploads on its bucket" in " ".join(done.out.split())) == (
        3,
        True,
    )


def test_every_quirk_says_where_it_is_known_from() -> None:
    assert all(quirk.source and quirk.server == quirk.server.lower() for quirk in QUIRKS)
    assert len({(quirk.server, quirk.trait) for quirk in QUIRKS}) == len(QUIRKS)
