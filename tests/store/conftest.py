"""The places that the contract is tried on."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from migrate.store.base import MultipartStore
from migrate.store.local import LocalStore
from migrate.store.s3 import S3Store
from migrate.store.s3_client import parse
from tests.tools.disks import tiny_disk

__all__ = ["tiny_disk"]

Reopen = Callable[[], MultipartStore]


@pytest.fixture(params=["local", "minio", "versitygw"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Open the same, at first empty, place again and again: each time as if by another process."""
    if request.param == "local":
        return lambda: LocalStore(tmp_path / "place")
    server = request.getfixturevalue(request.param)
    bucket = request.getfixturevalue("make_bucket")(server)
    url = f"s3://{bucket}/some/{secrets.token_hex(4)}?profile={server.profile}"
    return lambda: S3Store(parse(url))


@pytest.fixture
def store(reopen: Reopen) -> MultipartStore:
    """An empty place."""
    return reopen()
