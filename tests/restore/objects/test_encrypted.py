"""A destination that encrypts by a key of its own: ETags are no MD5s there, and that is no damage."""

from __future__ import annotations

import hashlib
import io
import itertools
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from botocore.config import Config

from exporters.objects.source_checksums import is_md5_of
from scripts.servers import KMS_KEY, S3Server
from tests.exporters.objects.conftest import MakeShop, Shop, take_out
from tests.exporters.objects.histories import make_history, read_history
from tests.exporters.objects.test_history import compare, make_old_shop, restore
from tests.sync.conftest import Move
from tests.tools.busy_proxy import BusyProxy

Encrypted = Callable[[Shop], Shop]


@pytest.fixture
def encrypted() -> Encrypted:
    """Make a bucket encrypt all that is written to it by the server's key."""

    def make(shop: Shop) -> Shop:
        rule = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KMS_KEY}
        shop.boto.put_bucket_encryption(
            Bucket=shop.name,
            ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": rule}]},
        )
        shop.put("probe", b"probe")
        head = shop.boto.head_object(Bucket=shop.name, Key="probe")
        assert head["ETag"].strip('"') != hashlib.md5(b"probe").hexdigest()
        shop.boto.delete_object(Bucket=shop.name, Key="probe", VersionId=head.get("VersionId", "null"))
        return shop

    return make


@pytest.fixture
def source(minio: S3Server, make_shop: MakeShop) -> Shop:
    """Objects of which the server keeps a CRC64NVME, a SHA-256, or nothing but the ETag."""
    shop = make_shop(minio)
    plain = boto3.Session(profile_name=minio.profile).client(
        "s3", config=Config(request_checksum_calculation="when_required")
    )
    for number in range(8):
        body = bytes([number]) * 5000 * number
        shop.put(f"crc/{number}", body, ChecksumAlgorithm="CRC64NVME")
        shop.put(f"own/{number}", body, ChecksumSHA256=b64encode(hashlib.sha256(body).digest()).decode())
        plain.put_object(Bucket=shop.name, Key=f"none/{number}", Body=body)
    return shop


def test_what_the_destination_encrypts_is_restored_and_found_again(
    source: Shop, encrypting_minio: S3Server, make_shop: MakeShop, encrypted: Encrypted, tmp_path: Path
) -> None:
    destination = encrypted(make_shop(encrypting_minio))
    reader = take_out(source.url, tmp_path / "bundle")
    outcome = restore(reader, destination.url)
    assert (outcome.items, outcome.findings) == (24, ())
    again = restore(reader, destination.url)
    assert (again.skipped_items, again.findings) == (24, ())
    assert compare(reader, destination.url) == []


@pytest.mark.torture
def test_no_version_is_made_twice_where_the_destination_encrypts(
    minio: S3Server,
    encrypting_minio: S3Server,
    encrypted: Encrypted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether a request worked whose answer was lost is not told by an ETag."""
    shop, destination = make_old_shop(minio), encrypted(make_old_shop(encrypting_minio))
    count = make_history(shop, keys=12, versions=4)
    reader = take_out(shop.url, tmp_path / "bundle")
    asked = itertools.count()

    def lose(method: str, path: str) -> bool:
        return method == "PUT" and "/user-" in path and next(asked) % 3 == 0

    with BusyProxy(encrypting_minio.endpoint, lose=lose) as proxy, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", encrypting_minio.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", encrypting_minio.secret_key)
        outcome = restore(reader, f"s3://{destination.name}")
    assert proxy.lost >= 5
    assert (outcome.items, outcome.findings) == (count, ())

    def without_etags(server: S3Server, name: str) -> dict[str, list[tuple[object, ...]]]:
        history = read_history(server, name)
        return {key: [row[:3] + row[4:] for row in rows] for key, rows in history.items()}

    assert without_etags(encrypting_minio, destination.name) == without_etags(minio, shop.name)


def test_a_sync_to_a_destination_that_encrypts_loses_nothing(
    source: Shop, encrypting_minio: S3Server, make_shop: MakeShop, encrypted: Encrypted
) -> None:
    """And says so: what was read is what the source has, whatever the destination calls it."""
    move = Move(source, encrypted(make_shop(encrypting_minio)))
    outcome = move.run(cutover=True)
    assert (outcome.copied, outcome.damaged, outcome.proof is not None) == (24, (), True)
    assert move.contents(move.source) == move.contents(move.destination)
    lost = pq.read_table(io.BytesIO(move.location().read("losses.parquet")))
    assert "ETag" not in lost["property"].to_pylist()


def test_an_md5_that_nothing_can_be_compared_with_is_not_computed(
    encrypting_minio: S3Server, make_shop: MakeShop, encrypted: Encrypted, tmp_path: Path
) -> None:
    """It would be half of the work."""
    shop = encrypted(make_shop(encrypting_minio))
    plain = boto3.Session(profile_name=encrypting_minio.profile).client(
        "s3", config=Config(request_checksum_calculation="when_required")
    )
    plain.put_object(Bucket=shop.name, Key="large", Body=bytes(9 * 2**20))
    reader = take_out(shop.url, tmp_path / "bundle")
    assert reader.info.complete
    [row] = pq.read_table(tmp_path / "bundle/data/shop/index").to_pylist()
    assert (row["md5"], row["sha256"]) == (None, hashlib.sha256(bytes(9 * 2**20)).hexdigest())


@pytest.mark.parametrize(
    ("headers", "is_md5"),
    [
        ({}, True),
        ({"x-amz-server-side-encryption": "AES256"}, True),
        ({"x-amz-server-side-encryption": "aws:kms"}, False),
        ({"x-amz-server-side-encryption": "aws:kms:dsse"}, False),
        ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, False),
    ],
)
def test_an_etag_is_an_md5_where_nothing_else_encrypts(headers: dict[str, str], is_md5: bool) -> None:
    assert is_md5_of("0" * 32, headers) is is_md5
    assert not is_md5_of("0" * 32 + "-2", headers)
