"""An export by the workers of a cluster comes to the same bundle as one by threads."""

from __future__ import annotations

from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.cli.conftest import call
from tests.cluster.conftest import fill
from tests.cluster.test_transfer import by


def content(location):
    """The SHA-256 of every file of the payload, but of the catalog, which holds when the bucket was listed."""
    lines = open_location(str(location)).read("manifest-sha256.txt").decode().splitlines()
    return sorted(line for line in lines if not line.endswith("data/catalog.parquet"))


def test_two_workers_make_the_bundle_that_threads_make(pair, minio, bucket, make_bucket, location, tmp_path):
    """Sealed and complete; two sources, objects in packs and by themselves."""
    other = make_bucket(minio)
    fill(minio, bucket, small=30, large=4)
    fill(minio, other, small=3)
    source = [
        f"{name}=s3://{one}?profile={minio.profile}" for name, one in (("media", bucket), ("more", other))
    ]
    ended = call("export", *source, "--to", location, *by(pair), "--json")
    assert ended.code == 0, ended.err
    assert pair.took_part() == 2
    assert call("export", *source, "--to", tmp_path / "alone").code == 0
    assert content(location) == content(tmp_path / "alone")
    assert verify(open_location(location), Level.FULL, workers=2, progress=Silent()).findings == []
