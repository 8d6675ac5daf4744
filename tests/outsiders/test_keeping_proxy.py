"""A bucket is kept as it was before each deletion, with its settings, in a MinIO of its own."""

import io
import socket
from datetime import UTC, datetime
from urllib.parse import urlsplit

import minio
import pytest
import urllib3
from minio.commonconfig import ENABLED, Tags
from minio.credentials import Credentials
from minio.signer import presign_v4
from minio.versioningconfig import VersioningConfig

from scripts.outsiders.bucket_move import buckets_of, client_of, read_contents, read_settings
from scripts.outsiders.keeping_proxy import KeepingProxy
from scripts.servers import Servers

POLICY = """{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"],
 "Resource": ["arn:aws:s3:::tests/*"]}]}"""


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
            client.set_bucket_policy("tests", POLICY)
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
            client.delete_bucket_policy("tests")
            client.put_object("tests", "last", io.BytesIO(b"3"), 1)
            proxy.keep_all()
            last = read_contents(client_of(server), "tests")
        kept = servers.minio("kept")
        client = client_of(kept)
        assert buckets_of(kept) == ["tests", "tests-1"], "a copy with a policy under another name is not made"
        assert read_contents(client, "tests")["small"] == full["small"][1:2]
        assert {"policy", "versioning", "tagging"} == set(read_settings(client, "tests"))
        assert read_contents(client, "tests-1") == last != full
        assert read_settings(client, "tests-1") == read_settings(client_of(server), "tests")


@pytest.mark.torture
def test_a_listener_does_not_wait_for_ever_where_there_are_no_events(tmp_path):
    with Servers(tmp_path, keeps_data=False) as servers:
        server = servers.minio("old")
        client_of(server).make_bucket("tests")
        with KeepingProxy(server, tmp_path / "kept" / "data") as proxy:
            url = presign_v4(
                method="GET",
                url=urlsplit(f"http://{proxy.netloc}/tests?events=s3%3AObjectCreated%3A%2A"),
                region="us-east-1",
                credentials=Credentials(server.access_key, server.secret_key),
                date=datetime.now(UTC),
                expires=60,
            )
            response = urllib3.PoolManager(retries=False).request("GET", url.geturl(), timeout=20)
            assert (response.status, response.data) == (200, b"")


@pytest.mark.torture
def test_a_client_that_asks_first_is_told_to_go_on(tmp_path):
    with (
        Servers(tmp_path, keeps_data=False) as servers,
        KeepingProxy(servers.minio("old"), tmp_path / "kept" / "data") as proxy,
    ):
        host, _, port = proxy.netloc.partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(
                b"PUT /tests/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
            )
            assert client.recv(100).startswith(b"HTTP/1.1 100")
