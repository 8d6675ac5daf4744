"""Objects that a server lists and cannot read, on and on. Each is a gap by name and holds up nothing else. A later run
adds what it can have by then, and loses nothing that is there, even if the source gives less than before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from exporters.errors import SourceUnreachableError
from exporters.objects import outage_detection
from exporters.objects.acls import fill
from exporters.objects.outage_detection import OutageDetector
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.storage.s3.http import concurrent_requests
from migrate.verify.run import Level, verify
from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.conftest import MakeShop, Shop, bodies_of
from tests.sync.conftest import Move
from tests.tools.http_proxy import Asked
from tests.tools.profiles import extra_profile
from tests.tools.rotten_proxy import RottenProxy

LARGE = 9 * 2**20
ROTTEN = frozenset({"small/07", "large/1"})


def bodies() -> dict[str, bytes]:
    small = {f"small/{number:02d}": b"%d" % number * number for number in range(20)}
    return small | {f"large/{number}": bytes([number]) * LARGE for number in range(2)}


def reads(*keys: str) -> Callable[[Asked], bool]:
    """Tell of reads of these objects; without any, of all objects."""

    def fits(asked: Asked) -> bool:
        key = asked.path.split("/", 2)[-1]
        return asked.method == "GET" and asked.path.count("/") > 1 and bool(key) and (not keys or key in keys)

    return fits


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrent_requests, "RETRY_SECONDS", 1.0)


@pytest.fixture
def rotten(minio: S3Server, make_shop: MakeShop) -> Iterator[tuple[Shop, RottenProxy]]:
    """A bucket, and the way to it on which two of its objects cannot be read."""
    shop = make_shop(minio)
    for key, body in bodies().items():
        shop.put(key, body)
    with RottenProxy(minio.endpoint, rotten=reads(*ROTTEN)) as proxy:
        yield shop, proxy


def export(shop: Shop, proxy: RottenProxy, location: Path) -> int:
    summary = {"AWS_ACCESS_KEY_ID": shop.server.access_key, "AWS_SECRET_ACCESS_KEY": shop.server.secret_key}
    words = ("export", f"shop=s3://{shop.name}", "--to", location, "--workers", "2", "--quiet")
    return call(*words, env={"AWS_ENDPOINT_URL": proxy.endpoint, **summary}).code


def check(location: Path, gaps: frozenset[str]) -> None:
    assert bodies_of(location) == {key: body for key, body in bodies().items() if key not in gaps}
    named = pq.read_table(location / "data/gaps.parquet").to_pylist() if gaps else []
    assert {row["item"] for row in named if row["disposition"] == "failed"} == gaps
    assert json.loads((location / "meta/bundle.json").read_text())["complete"] is not bool(gaps)
    assert verify(open_location(str(location)), Level.FULL, workers=2, progress=Silent()).findings == []


@pytest.mark.usefixtures("patience")
def test_what_cannot_be_read_is_a_gap_and_the_rest_leaves(
    rotten: tuple[Shop, RottenProxy], tmp_path: Path
) -> None:
    shop, proxy = rotten
    location = tmp_path / "bundle"
    assert export(shop, proxy, location) == 3
    check(location, ROTTEN)
    first = (location / "data/shop/packs/pack-000000.tar").read_bytes()
    proxy.rotten = reads("large/1")
    assert export(shop, proxy, location) == 3
    check(location, frozenset({"large/1"}))
    assert (location / "data/shop/packs/pack-000000.tar").read_bytes() == first
    assert sorted(path.name for path in (location / "data/shop/packs").iterdir()) == [
        "pack-000000-1.tar",
        "pack-000000.tar",
    ]
    proxy.rotten = reads("nothing")
    assert export(shop, proxy, location) == 0
    check(location, frozenset())


@pytest.mark.usefixtures("patience")
@pytest.mark.torture
def test_a_source_that_gives_less_than_before_takes_nothing_away(
    rotten: tuple[Shop, RottenProxy], tmp_path: Path
) -> None:
    """The host shuts the customer out between two runs: of the objects only, then of everything."""
    shop, proxy = rotten
    location = tmp_path / "bundle"
    assert export(shop, proxy, location) == 3
    proxy.status, proxy.rotten = 403, reads()
    assert export(shop, proxy, location) == 3
    check(location, ROTTEN)
    proxy.rotten = lambda _: True
    assert export(shop, proxy, location) == 3
    check(location, ROTTEN)
    for key in bodies():
        if key not in ROTTEN:
            shop.boto.delete_object(Bucket=shop.name, Key=key)
    proxy.rotten = reads("nothing")
    assert export(shop, proxy, location) == 0
    check(location, frozenset())


@pytest.mark.usefixtures("patience")
def test_many_in_a_row_are_an_outage(
    rotten: tuple[Shop, RottenProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the run stops, nothing is sealed, and the same command goes on."""
    monkeypatch.setattr(outage_detection, "OUTAGE", 3)
    monkeypatch.setattr("migrate.export.unit_runner.RETRY_WAITS", (0.0,))
    shop, proxy = rotten
    proxy.rotten = reads()
    assert export(shop, proxy, tmp_path / "bundle") == 5
    assert not (tmp_path / "bundle/meta/bundle.json").exists()
    proxy.rotten = reads("nothing")
    assert export(shop, proxy, tmp_path / "bundle") == 0
    check(tmp_path / "bundle", frozenset())


def copied(destination: Shop) -> set[str]:
    return {key for key in list(destination.keys()) if not key.startswith(".moveout-sync/")}


class NoAcls:
    """A bucket that lists, and answers nothing when asked for ACLs."""

    has_acls = True

    def list(self) -> Iterator[object]:
        return iter(())

    def acls(self, wanted: Iterator[tuple[str, str]]) -> Iterator[tuple[None, SourceUnreachableError]]:
        for _ in wanted:
            yield None, SourceUnreachableError("an internal error")


def test_an_acl_that_cannot_be_read_costs_the_acl_alone() -> None:
    rows = [{"key": "a", "version_id": None, "disposition": "exported", "is_delete_marker": False}]
    bucket = NoAcls()
    [loss] = fill(bucket, rows, OutageDetector(bucket))  # type: ignore[arg-type]
    assert (loss.item, loss.property) == ("a", "ACL")


@pytest.mark.usefixtures("patience")
@pytest.mark.torture
def test_a_sync_goes_past_what_cannot_be_read(
    rotten: tuple[Shop, RottenProxy],
    other_minio: S3Server,
    make_shop: MakeShop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop, proxy = rotten
    destination = make_shop(other_minio)
    profile = extra_profile(monkeypatch, tmp_path, shop.server, endpoint=proxy.endpoint)
    move = Move(shop, destination, profiles=(profile, other_minio.profile))
    outcome = move.run()
    assert outcome.exit_code == 3
    assert copied(destination) == bodies().keys() - ROTTEN
    proxy.rotten = reads("nothing")
    assert move.run().exit_code == 0
    assert copied(destination) == bodies().keys()
