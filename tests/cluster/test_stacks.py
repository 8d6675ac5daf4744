"""No worker looks at the stacks of its threads where CPython may wait for itself meanwhile."""

from __future__ import annotations

import sys

import pytest

from tests.cli.conftest import call
from tests.cluster.conftest import fill
from tests.cluster.test_transfer import by


@pytest.mark.skipif(sys.version_info >= (3, 11, 9), reason="this Python may look")
def test_a_worker_takes_no_samples_of_its_threads_once_it_has_work(within, minio, bucket, location):
    from distributed import Client  # a second, which each process that collects the tests would spend

    cluster = within(workers=1, threads=2)
    fill(minio, bucket, small=10)
    with Client(cluster.address) as client:
        assert "profile" in done_again_and_again(client)
        source = f"media=s3://{bucket}?profile={minio.profile}"
        ended = call("export", source, "--to", location, *by(cluster))
        assert ended.code == 0, ended.err
        assert not {"profile", "profile-cycle"} & done_again_and_again(client)


def done_again_and_again(client):
    """What the only worker does so, by Dask's names."""
    (callbacks,) = client.run(lambda dask_worker: set(dask_worker.periodic_callbacks)).values()
    return callbacks
