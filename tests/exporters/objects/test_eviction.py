"""The source shuts its customer out in the middle: what is there is sealed, what is missing is named, and another
credential goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from exporters.objects import unit_plan
from migrate.storage.s3.access.minio_accounts import Accounts
from migrate.storage.s3.client import parse
from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.conftest import Shop, bodies_of
from tests.tools.clients import boto_client
from tests.tools.shut_proxy import ShutProxy
from tests.tools.tally import count

OBJECTS = 60
SHARES = (0.05, 0.5, 0.75)
_REQUESTS: dict[str, int] = {}
"""How many an undisturbed export makes, by the name of the bucket."""


@pytest.fixture(scope="module")
def evicted(minio: S3Server, make_bucket: Callable[[S3Server], str]) -> tuple[Shop, dict[str, bytes]]:
    shop = Shop(minio, make_bucket(minio), boto_client(minio.profile))
    bodies = {f"photos/{number:03d}": bytes([number]) * (number * 20) for number in range(OBJECTS)}
    bodies |= {f"films/{number}": bytes([number]) * (9 * 2**20) for number in range(2)}
    for key, body in bodies.items():
        shop.put(key, body, Tagging="a=b" if key.endswith("7") else "")
    return shop, bodies


@pytest.fixture(scope="module")
def second_account(minio: S3Server) -> tuple[str, str]:
    """Another credential for the same server."""
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}],
    }
    accounts = Accounts(parse(f"s3://none?profile={minio.profile}"))
    made = accounts.add("second", policy, datetime.now(UTC) + timedelta(days=1))
    return made.access_key, made.secret_key


def export(shop: Shop, location: Path, proxy: ShutProxy, account: tuple[str, str]) -> int:
    environment = {
        "AWS_ENDPOINT_URL": proxy.endpoint,
        "AWS_ACCESS_KEY_ID": account[0],
        "AWS_SECRET_ACCESS_KEY": account[1],
    }
    words = ("export", f"shop=s3://{shop.name}", "--to", location, "--workers", "2", "--quiet")
    ended = call(*words, env=environment)
    assert ended.code in {0, 3, 4}, ended.err
    return ended.code


def evict(
    evicted: tuple[Shop, dict[str, bytes]], second: tuple[str, str], share: float, location: Path
) -> int:
    """Shut the customer out after this share of the requests; return the exit code once all is checked."""
    shop, bodies = evicted
    first = (shop.server.access_key, shop.server.secret_key)
    with ShutProxy(shop.server.endpoint, account=first[0]) as proxy:
        if shop.name not in _REQUESTS:
            assert export(shop, location.with_name("whole"), proxy, first) == 0
            _REQUESTS[shop.name] = proxy.passed
        proxy.after, proxy.passed = int(_REQUESTS[shop.name] * share), 0
        code = export(shop, location, proxy, first)
        assert proxy.refused
        if code == 0:
            check_settings_denied(location, bodies)
            count("evictions")
            return code
        if (location / "tagmanifest-sha256.txt").exists():
            check_incomplete(location, bodies)
        else:
            assert code == 4
        assert export(shop, location, proxy, second) == 0
    assert json.loads((location / "meta/bundle.json").read_text())["complete"]
    assert bodies_of(location) == bodies
    assert call("verify", location, "--level", "full", "--quiet").code == 0
    count("evictions")
    return code


def check_incomplete(location: Path, bodies: dict[str, bytes]) -> None:
    """What is there is right, and what is not is named, each by name."""
    assert not json.loads((location / "meta/bundle.json").read_text())["complete"]
    there = bodies_of(location)
    assert there.items() <= bodies.items()
    gaps = [
        row
        for row in pq.read_table(location / "data/gaps.parquet").to_pylist()
        if row["disposition"] == "failed"
    ]
    assert {row["item"] for row in gaps} - {f"a second listing of {name}" for name in names(location)} == (
        bodies.keys() - there.keys()
    )
    assert call("verify", location, "--level", "full", "--quiet").code in {0, 3}


def check_settings_denied(location: Path, bodies: dict[str, bytes]) -> None:
    """Only the bucket's own settings were refused: every object is there, and the ledger names the settings."""
    assert bodies_of(location) == bodies
    losses = pq.read_table(location / "data/losses.parquet").to_pylist()
    assert any(row["reason"] == "these credentials may not read it" for row in losses)


def names(location: Path) -> set[str]:
    return {row["name"] for row in pq.read_table(location / "data/catalog.parquet").to_pylist()}


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.torture
def test_an_eviction_in_the_middle(
    evicted: tuple[Shop, dict[str, bytes]],
    second_account: tuple[str, str],
    share: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unit_plan, "PACK_OBJECTS", 20)
    evict(evicted, second_account, share, tmp_path / "bundle")
