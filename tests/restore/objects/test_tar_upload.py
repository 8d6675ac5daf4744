"""Many small objects in one request to a MinIO: what arrives is the same as one by one, and keeps its time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.compare import ComparisonRequest
from migrate.verify.live_bucket import compare_bucket
from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop, Shop, fill, take_out
from tests.exporters.objects.test_history import make_old_shop
from tests.tools.bundles import restore_from
from tests.tools.http_proxy import Answer, Asked, HttpProxy
from tests.tools.profiles import extra_profile


@dataclass(slots=True)
class Counting(HttpProxy):
    """Keeps what is put."""

    puts: list[Asked] = field(default_factory=list)

    def handle(self, asked: Asked) -> Answer | None:
        if asked.method == "PUT":
            self.puts.append(asked)
        return self.forward(asked)


def test_a_tar_becomes_objects(
    shops: tuple[Shop, Shop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, destination = shops
    fill(shop)
    for number in range(10):
        shop.put(f"tagged/{number:02d}", b"%d" % number, Metadata={"n": str(number)}, Tagging="a=b%20c&d=e")
    reader = take_out(shop.url, tmp_path / "bundle")
    with Counting(destination.server.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, destination.server, endpoint=proxy.endpoint)
        outcome = restore_from(
            reader,
            "shop",
            f"s3://{destination.name}?profile={profile}",
            workers=2,
            report=open_location(str(tmp_path / "account")),
            pack_small_objects=True,
        )
    assert (outcome.findings, outcome.notes) == ((), ())
    objects = [
        asked for asked in proxy.puts if "moveout-probe" not in asked.path and asked.path.count("/") > 1
    ]
    assert len(objects) < 20 < len(destination.keys())
    assert sorted(destination.keys()) == sorted(shop.keys())
    assert (
        list(
            compare_bucket(
                ComparisonRequest(reader, "shop", destination.url, workers=2, progress=Silent())
            ).findings
        )
        == []
    )
    for key in ("tagged/07", "described"):
        old, new = (one.boto.head_object(Bucket=one.name, Key=key) for one in (shop, destination))
        for name in ("ETag", "Metadata", "ContentType"):
            assert old[name] == new[name]
        tags = [
            one.boto.get_object_tagging(Bucket=one.name, Key=key)["TagSet"] for one in (shop, destination)
        ]
        assert sorted(map(str, tags[0])) == sorted(map(str, tags[1]))
    old, new = (one.boto.head_object(Bucket=one.name, Key="tagged/07") for one in (shop, destination))
    assert old["LastModified"] == new["LastModified"]
    ledger = pq.read_table(tmp_path / "account/shop/losses.parquet").to_pylist()
    lost = {row["item"] for row in ledger if row["property"] == "own checksum"}
    assert "tagged/07" in lost


def test_a_destination_that_keeps_versions_or_unpacks_nothing_gets_one_by_one(
    minio: S3Server, versitygw: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    shop = make_shop(minio)
    for number in range(30):
        shop.put(f"{number:02d}")
    reader = take_out(shop.url, tmp_path / "bundle")
    for destination in (make_old_shop(minio, lock=False), make_shop(versitygw)):
        outcome = restore_from(
            reader, "shop", destination.url, workers=2, report=None, pack_small_objects=True
        )
        assert (outcome.items, outcome.findings) == (30, ())
        assert any("one by one" in note for note in outcome.notes)
        assert destination.keys() == shop.keys()
