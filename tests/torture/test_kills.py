"""SIGKILL at random moments, then the same command again: same result, and nothing done is done again."""

import hashlib
import os
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from migrate.storage.api import PART_BYTES
from scripts import proof
from scripts.metrics import received_bytes
from tests.tools.clients import boto_client
from tests.torture.bundles import export_killed, tables_of
from tests.torture.command import moveout, must

pytestmark = pytest.mark.torture

KILLS = int(os.environ.get("MOVEOUT_KILLS", "50"))
"""Kills in all; spread over export, transfer and restore."""
WORKERS = 4
ROUNDS = range(-(-KILLS // 3))
SLACK_BYTES = 2**20
"""Lists, lease and other small writes beside the payload."""


def content(bundle: Path) -> dict:
    """What a bundle says: tables with digests, objects with hashes and headers; not how Parquet codes it."""
    index = ds.dataset(bundle / "data/media/index", format="parquet").to_table().to_pylist()
    where = {"pack", "pack_offset", "offset", "length", "large", "large_id"}
    objects = {row["key"]: {k: v for k, v in row.items() if k not in where} for row in index}
    return {"tables": tables_of(bundle), "objects": objects}


@pytest.fixture(scope="module")
def whole(bundle):
    return content(bundle.path)


@pytest.mark.parametrize("number", ROUNDS)
def test_an_export_that_was_killed_goes_on(number, old_host, bundle, whole, moments, tmp_path):
    location = tmp_path / "bundle"
    words = ("export", *old_host.sources, "--to", location, "--workers", WORKERS)
    moment = moments("export", bundle.seconds, len(ROUNDS))[number]
    export_killed(words, location, moment)
    assert content(location) == whole
    must("verify", location, "--level", "full")


@pytest.fixture(scope="module")
def transfer_seconds(bundle, other_minio, make_bucket):
    to = f"s3://{make_bucket(other_minio)}/b?profile={other_minio.profile}"
    return must("transfer", bundle.path, to, "--workers", WORKERS).seconds


@pytest.mark.parametrize("number", ROUNDS)
def test_a_transfer_that_was_killed_goes_on(
    number, bundle, other_minio, make_bucket, moments, transfer_seconds
):
    name = make_bucket(other_minio)
    words = ("transfer", bundle.path, f"s3://{name}/b?profile={other_minio.profile}", "--workers", WORKERS)
    moment = moments("transfer", transfer_seconds, len(ROUNDS))[number]
    before = received_bytes(other_minio.endpoint)
    moveout(*words, kill_after=moment)
    must(*words)
    sent = received_bytes(other_minio.endpoint) - before
    files = {str(path.relative_to(bundle.path)): path for path in bundle.path.rglob("*") if path.is_file()}
    again = sent - sum(path.stat().st_size for path in files.values())
    assert again <= WORKERS * PART_BYTES + SLACK_BYTES
    client = boto_client(other_minio.profile)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix="b/")
    there = {item["Key"].removeprefix("b/") for page in pages for item in page["Contents"]}
    assert there == set(files)
    for key, path in files.items():
        arrived = hashlib.sha256()
        for block in client.get_object(Bucket=name, Key=f"b/{key}")["Body"].iter_chunks(2**20):
            arrived.update(block)
        with path.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").digest() == arrived.digest(), key


def destinations(other_postgres, other_minio, name):
    url = other_postgres.database()
    boto_client(other_minio.profile).create_bucket(Bucket=name)
    return url, (f"app={url}", f"media=s3://{name}?profile={other_minio.profile}")


@pytest.fixture(scope="module")
def restore_seconds(bundle, other_postgres, other_minio):
    _, pairs = destinations(other_postgres, other_minio, "restored-whole")
    return must("restore", bundle.path, *pairs).seconds


@pytest.mark.parametrize("number", ROUNDS)
def test_a_restore_that_was_killed_goes_on(
    number, old_host, bundle, postgres, other_postgres, other_minio, moments, restore_seconds
):
    # The same bucket name on both servers, so that the two can be compared by name.
    client = boto_client(other_minio.profile)
    _empty(client, old_host.bucket)
    url, pairs = destinations(other_postgres, other_minio, old_host.bucket)
    words = ("restore", bundle.path, *pairs, "--workers", WORKERS)
    moveout(*words, kill_after=moments("restore", restore_seconds, len(ROUNDS))[number])
    must(*words)
    proof.compare_databases(old_host.database, url)
    proof.compare_schemas(postgres.bin_dir, old_host.database, url)
    proof.compare_buckets(old_host.profile, other_minio.profile, old_host.bucket)


def _empty(client, name):
    if name not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        return
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
        keys = [{"Key": item["Key"]} for item in page.get("Contents", ())]
        if keys:
            client.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True})
    client.delete_bucket(Bucket=name)
