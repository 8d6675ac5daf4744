"""Where bundles travel to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from migrate.storage.api import MultipartStore
from migrate.storage.registry import open_location
from tests.tools.disks import tiny_disk
from tests.transfer.carriers import cut_smallest

__all__ = ["tiny_disk"]

EVERYWHERE = pytest.mark.parametrize(
    "destination_url",
    ["local", "minio", pytest.param("versitygw", marks=pytest.mark.torture)],
    indirect=True,
)
"""For what servers do otherwise than a directory; all else is tried with a directory, and with servers by long runs."""


@pytest.fixture(autouse=True)
def smallest_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """See ``cut_smallest``."""
    cut_smallest(monkeypatch)


@pytest.fixture(
    params=["local", *(pytest.param(name, marks=pytest.mark.torture) for name in ("minio", "versitygw"))]
)
def destination_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty location."""
    if request.param == "local":
        return str(tmp_path / "destination")
    server = request.getfixturevalue(request.param)
    bucket = request.getfixturevalue("make_bucket")(server)
    return f"s3://{bucket}/bundle?profile={server.profile}"


@pytest.fixture
def destination(destination_url: str) -> MultipartStore:
    """The store of ``destination_url``."""
    return open_location(destination_url)


@pytest.fixture
def s3_location(minio, make_bucket: Callable[..., str]) -> MultipartStore:
    """An empty location on MinIO."""
    return open_location(f"s3://{make_bucket(minio)}/bundle?profile={minio.profile}")
