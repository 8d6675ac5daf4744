"""A cluster of processes on this machine, and a bucket on one MinIO that goes into a bundle on another."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from scripts.dask_cluster import DaskCluster
from scripts.servers import S3Server


@pytest.fixture
def cluster(servers, tmp_path: Path) -> Iterator[DaskCluster]:
    """A scheduler without workers; they find the servers by their own environment."""
    with DaskCluster(tmp_path / "dask", environment=servers.environment) as running:
        yield running


@pytest.fixture
def place(other_minio: S3Server, make_bucket) -> str:
    """Where a bundle may be made."""
    return f"s3://{make_bucket(other_minio)}/bundle?profile={other_minio.profile}"


def fill(server: S3Server, bucket: str, *, small: int, large: int = 0, small_bytes: int = 3000) -> None:
    """Put ``small`` objects, and ``large`` ones of 9 MiB."""
    client = boto3.Session(profile_name=server.profile).client("s3")
    block = secrets.token_bytes(2**20)

    def put(key: str, body: bytes) -> None:
        client.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"n": str(len(body))})

    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(put, f"small/{n:05d}", (str(n).encode() + block)[: small_bytes + n])
            for n in range(small)
        ]
        jobs += [pool.submit(put, f"large/{n:03d}", str(n).encode() + block * 9) for n in range(large)]
        for job in jobs:
            job.result()
