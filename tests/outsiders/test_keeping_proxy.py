"""A bucket is kept as it was before each deletion, with its settings, in a MinIO of its own."""

import io

import minio
import pytest
from minio.commonconfig import ENABLED, Tags
from minio.versioningconfig import VersioningConfig

from scripts.outsiders.bucket_move import buckets_of, client_of, read_contents, read_settings
from scripts.outsiders.keeping_proxy import KeepingProxy
from scripts.servers import Servers


@pytest.mark.torture
def test_what_clients_delete_is_kept(tmp_path):
    with Servers(tmp_path, keeps_data=False) as servers:
        server = servers.minio("old")
        with KeepingProxy(server, tmp_path / "kept" / "data") as proxy:
            client = minio.Minio(
                proxy.netloc, server.access_key, server.secret_key, secure=False, region="us-east-1"
            )
            client.make_bucket("tests")
            client.set_bucket_versioning("tests", VersioningConfig(ENABLED))
            tags = Tags.new_bucket_tags()
            tags["of"] = "clients"
            client.set_bucket_tags("tests", tags)
            large = bytes(2**21)
            client.put_object("tests", "a/large", io.BytesIO(large), len(large))
            version = client.put_object("tests", "small", io.BytesIO(b"1"), 1).version_id
            client.remove_object("tests", "small")
            marker = client.put_object("tests", "small", io.BytesIO(b"2"), 1).version_id
            full = read_contents(client_of(server), "tests")
            for key, version_id in ("small", version), ("small", marker):
                client.remove_object("tests", key, version_id=version_id)
            client.put_object("tests", "last", io.BytesIO(b"3"), 1)
            proxy.keep_all()
            last = read_contents(client_of(server), "tests")
        kept = servers.minio("kept")
        client = client_of(kept)
        assert buckets_of(kept) == ["tests-1", "tests-2", "tests-3"]
        assert sorted(read_contents(client, "tests-1")) == ["a/large", "small"]
        assert read_contents(client, "tests-2") == full
        assert read_contents(client, "tests-3") == last != full
        assert {"versioning", "tagging"} == set(read_settings(client, "tests-2"))
        assert read_settings(client, "tests-2") == read_settings(client_of(server), "tests")
