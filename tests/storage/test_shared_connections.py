"""Clients of one endpoint share connections, and open some before they are needed."""

from __future__ import annotations

from migrate.storage.s3.client import parse
from migrate.storage.s3.source_bucket import open_bucket
from migrate.storage.s3.store import S3Store
from scripts.network.delay_proxy import DelayProxy
from tests.tools.profiles import extra_profile


def test_clients_of_one_endpoint_share_connections(minio, make_bucket, monkeypatch, tmp_path):
    with DelayProxy(minio.endpoint, 0.0) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        url = f"s3://{make_bucket(minio)}?profile={profile}"
        bucket = open_bucket(url)
        bucket.http.warm(3)
        idle = len(bucket.http._idle)
        store = S3Store(parse(url))
        store.put("a", b"content")
        assert [info.key for info in store.list()] == ["a"]
        assert store.stat("a").size_bytes == 7
        assert [summary.key for summary in bucket.list()] == ["a"]
        first = [request for request in proxy.requests if request.is_first]
        assert idle == 3
        assert len(first) <= 3
