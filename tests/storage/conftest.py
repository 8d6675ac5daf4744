"""The locations that the contract is tried on."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from migrate.storage.api import MultipartStore
from migrate.storage.local.store import LocalStore
from migrate.storage.s3.client import parse
from migrate.storage.s3.store import S3Store
from tests.tools.disks import tiny_disk

__all__ = ["tiny_disk"]

Reopen = Callable[[], MultipartStore]


@pytest.fixture(params=["local", "minio", pytest.param("versitygw", marks=pytest.mark.torture)])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Open the same, at first empty, location again and again: each time as if by another process. Its listings have
    short pages.
    """
    if request.param == "local":
        return lambda: LocalStore(tmp_path / "location")
    server = request.getfixturevalue(request.param)
    bucket = request.getfixturevalue("make_bucket")(server)
    url = f"s3://{bucket}/some/{secrets.token_hex(4)}?profile={server.profile}"

    def opened() -> S3Store:
        store = S3Store(parse(url))
        store._page_size = 5
        return store

    return opened


@pytest.fixture
def store(reopen: Reopen) -> MultipartStore:
    """An empty location."""
    return reopen()
