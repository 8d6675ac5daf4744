"""An export with a limit on bytes a second and a moment to seal: units arrive one after the other, not none."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from exporters.limits import Limits
from migrate.case.model import Endpoint
from migrate.export.open_sources import open_source
from migrate.export.outcome import ExportOptions
from migrate.export.run import export
from migrate.export.seal_time import SealTime
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Silent
from migrate.storage.rate_limit import SMALL_BYTES, RateLimiter
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.tools.clients import boto_client


@pytest.mark.torture
@pytest.mark.parametrize("size_bytes", [8 * 2**20, 8 * 2**20 + 1], ids=["in packs", "by themselves"])
def test_large_objects_arrive_before_the_seal_at_a_small_rate(minio, bucket, tmp_path, size_bytes):
    client = boto_client(minio.profile)
    for number in range(16):
        client.put_object(Bucket=bucket, Key=f"{number:02}", Body=os.urandom(size_bytes))
    limiter, cancellation = RateLimiter(10**6), CancellationToken()

    def open_store(token):
        return open_location(
            str(tmp_path / "bundle"), rate_limiter=limiter, at_once_bytes=SMALL_BYTES, cancellation=token
        )

    endpoint = Endpoint(f"s3://{bucket}?profile={minio.profile}")
    source = open_source("photos", endpoint, Limits(), lambda _: None)
    moment = datetime.now(UTC) + timedelta(seconds=40)
    options = ExportOptions(seal_time=SealTime(moment), open_unit_store=open_store, rate_limiter=limiter)
    sealed = export(
        [source],
        open_store(cancellation),
        workers=8,
        progress=Silent(),
        options=options,
        cancellation=cancellation,
    )
    late_seconds = (datetime.now(UTC) - moment).total_seconds()
    assert (sealed.stopped_early, sealed.exit_code) == (True, 3)
    assert sum(source.size_bytes for source in sealed.sources) >= 25 * 10**6
    assert late_seconds < 8
    assert verify(open_store(cancellation), Level.FULL, workers=2, progress=Silent()).findings == []
