"""Objects that are encrypted with a key of the customer's own (SSE-C): they leave where the key is given; where not, no
older version is taken for them.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from migrate.case.secrets import Secret
from migrate.errors import UsageError
from scripts.servers import S3Server, Servers
from tests.cli.conftest import call
from tests.exporters.objects.conftest import Shop
from tests.exporters.objects.test_history import make_old_shop
from tests.sync.test_history import bodies, history
from tests.tools.raw_s3 import raw_request

LARGE = bytes(9 * 2**20)


@pytest.fixture(scope="module")
def tls_minio(servers: Servers) -> S3Server:
    """A MinIO that speaks TLS, without which it takes no keys of customers."""
    return servers.minio("tls-minio", tls=True)


@pytest.fixture(scope="module")
def key() -> bytes:
    return secrets.token_bytes(32)


@pytest.fixture(scope="module")
def source(tls_minio: S3Server, key: bytes) -> Shop:
    """Plain objects, encrypted ones, a history of both, and one in parts."""
    shop = make_old_shop(tls_minio, lock=False)
    prefix = "x-amz-server-side-encryption-customer"
    headers = {
        f"{prefix}-algorithm": b"AES256",
        f"{prefix}-key": base64.b64encode(key),
        f"{prefix}-key-md5": base64.b64encode(hashlib.md5(key).digest()),
    }
    raw_request(tls_minio, "PUT", f"{shop.name}/both", {}, b"plain")
    raw_request(tls_minio, "PUT", f"{shop.name}/both", headers, b"secret")
    raw_request(tls_minio, "PUT", f"{shop.name}/large", headers, LARGE)
    raw_request(tls_minio, "PUT", f"{shop.name}/plain", {}, b"plain")
    where = {"Bucket": shop.name, "Key": "parts", "SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}
    where["UploadId"] = shop.boto.create_multipart_upload(**where)["UploadId"]
    parts = [
        {"PartNumber": number, "ETag": shop.boto.upload_part(**where, PartNumber=number, Body=body)["ETag"]}
        for number, body in ((1, bytes(5 * 2**20)), (2, b"rest"))
    ]
    shop.boto.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    return shop


def whole(shop: Shop) -> dict[str, list[bytes]]:
    return {name: bodies(shop, name) for name in ("both", "large", "parts", "plain")}


WHOLE = {
    "both": [b"plain", b"secret"],
    "large": [LARGE],
    "parts": [bytes(5 * 2**20) + b"rest"],
    "plain": [b"plain"],
}


@pytest.mark.torture
def test_without_the_key_no_older_version_is_current(
    source: Shop, key: bytes, minio: S3Server, tmp_path: Path
) -> None:
    """Neither after a restore nor after a sync; and both go on once the key is given."""
    location, restored = str(tmp_path / "bundle"), make_old_shop(minio, lock=False)
    done = call("export", f"shop={source.url}", "--to", location, "--quiet")
    assert done.code == 3
    assert "sse_c" in done.out
    assert "large: large" not in done.out
    done = call("restore", location, f"shop={restored.url}", "--quiet", "--json")
    assert done.code == 3
    [outcome] = done.json["result"]["restored"]
    assert [it.split()[0] for it in outcome["left_out"]] == ["both", "large", "parts"]
    assert "sse_c" in outcome["left_out"][0]
    assert (
        call("verify", location, "--against", f"shop={restored.url}", "--quiet").code == 3
    )  # not 6: no difference
    synced = make_old_shop(minio, lock=False)
    words = ("sync", f"old={source.url}", f"new={synced.url}", "--history", "--quiet")
    for _ in range(2):
        assert call(*words).code == 3
        for shop in (restored, synced):
            assert [(row[0], row[-1]) for row in history(shop)["both"]] == [(False, b"plain"), (True, "true")]
            assert set(history(shop)) == {"both", "plain"}
    (tmp_path / "key").write_bytes(key)
    with_key = f"{source.url}&sse_c=file:{tmp_path / 'key'}"
    done = call("sync", f"old={with_key}", f"new={synced.url}", "--history", "--cutover", "--quiet", "--json")
    assert (done.code, done.json["result"]["proof"] is not None) == (0, True)
    assert whole(synced) == WHOLE
    assert call("export", f"shop={with_key}", "--to", location, "--quiet").code == 0


def test_with_the_key_all_of_it_leaves(source: Shop, key: bytes, minio: S3Server, tmp_path: Path) -> None:
    """Named in the case file; at the new host the objects lie in clear, and the ledger says so."""
    (tmp_path / "key").write_text(base64.b64encode(key).decode() + "\n")
    restored = make_old_shop(minio, lock=False)
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[[source]]\nname = "shop"\nurl = "{source.url}"\nsse_c = "file:key"\n'
        f'[bundle]\nlocation = "bundle"\n[[destination]]\nsource = "shop"\nurl = "{restored.url}"\n'
    )
    assert call("export", "-c", str(case), "--quiet").code == 0
    assert call("restore", "-c", str(case), "--quiet").code == 0
    assert whole(restored) == WHOLE
    rows = pq.read_table(tmp_path / "bundle/data/losses.parquet").to_pylist()
    encrypted = [row["item"].split()[0] for row in rows if row["property"] == "encryption"]
    assert encrypted == ["both", "large", "parts"]
    files = [path.read_bytes() for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert not any(key in data or base64.b64encode(key) in data for data in files)


@pytest.mark.parametrize(
    "text", [bytes(range(32)), base64.b64encode(bytes(range(32))) + b"\n", bytes(range(32)).hex().encode()]
)
def test_a_key_is_kept_as_bytes_or_as_text(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(text)
    assert base64.b64decode(Secret("file:key", tmp_path).reveal_key()) == bytes(range(32))


def test_what_is_no_key_is_said(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("short")
    with pytest.raises(UsageError, match="256 bits"):
        Secret("file:key", tmp_path).reveal_key()
