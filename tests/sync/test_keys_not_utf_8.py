"""Keys that are not UTF-8, as some servers list them: what has such a key cannot be named, all others leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from exporters.selection import Selection
from migrate.storage.s3.source_bucket import open_bucket
from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop, Shop, bodies_of, take_out
from tests.sync.conftest import Move
from tests.tools.http_proxy import Answer, Asked, HttpProxy
from tests.tools.profiles import extra_profile

NAMED = {"a": b"1", "z/ü+ x": b"22"}
SHOWN = "%E4/caf%E9"


@dataclass(slots=True)
class Latin1Proxy(HttpProxy):
    """Lists the object ``latin-1`` by a key that is not UTF-8; ``is_raw``: not percent-encoded."""

    is_raw: bool = False

    def handle(self, asked: Asked) -> Answer | None:
        answer = self.forward(asked)
        if not asked.query.keys() & {"list-type", "versions"}:
            return answer
        key = b"\xe4/caf\xe9" if self.is_raw else SHOWN.encode()
        body = answer.body.replace(b"<Key>latin-1<", b"<Key>" + key + b"<")
        body = body.replace(b"KeyMarker>latin-1<", b"KeyMarker>" + key + b"<")
        return replace(answer, body=body, size_bytes=len(body))


Through = Callable[[Shop], AbstractContextManager[tuple[Latin1Proxy, str]]]


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Through:
    @contextmanager
    def proxied(shop: Shop) -> Iterator[tuple[Latin1Proxy, str]]:
        for key, body in {**NAMED, "latin-1": b"333"}.items():
            shop.put(key, body)
        with Latin1Proxy(shop.server.endpoint) as proxy:
            yield proxy, extra_profile(monkeypatch, tmp_path, shop.server, endpoint=proxy.endpoint)

    return proxied


@pytest.mark.parametrize("history", [False, pytest.param(True, marks=pytest.mark.torture)])
def test_an_export_names_what_it_cannot_hold(
    minio: S3Server, make_shop: MakeShop, through: Through, tmp_path: Path, history: bool
) -> None:
    shop = make_shop(minio)
    if history:
        versioning = {"Status": "Enabled"}
        shop.boto.put_bucket_versioning(Bucket=shop.name, VersioningConfiguration=versioning)
    with through(shop) as (_, profile):
        url = f"s3://{shop.name}?profile={profile}"
        reader = take_out(url, tmp_path / "bundle")
        assert bodies_of(tmp_path / "bundle") == NAMED
        assert not reader.info.complete
        [(_, gap)] = reader.gaps()
        assert (gap.item, gap.disposition) == (SHOWN, "failed")
        assert "not UTF-8" in gap.reason
        chosen = take_out(url, tmp_path / "chosen", selection=Selection(exclude=("caf*",)))
        assert chosen.info.complete
        [(_, gap)] = chosen.gaps()
        assert (gap.item, gap.disposition) == (SHOWN, "excluded")


def test_raw_bytes_are_no_error_of_the_listing(
    minio: S3Server, make_shop: MakeShop, through: Through
) -> None:
    """Also where that key is the first, of which an unknown server is asked whether it has tags and ACLs."""
    shop = make_shop(minio)
    with through(shop) as (proxy, profile):
        proxy.is_raw, proxy.name = True, "Unknown"
        shop.boto.delete_object(Bucket=shop.name, Key="a")
        bucket = open_bucket(f"s3://{shop.name}?profile={profile}")
        assert bucket.has_acls
        assert [summary.key for summary in bucket.list()] == ["z/ü+ x"]
        assert bucket.not_utf_8 == {SHOWN}


def test_a_sync_names_what_it_cannot_copy(move: Move, through: Through) -> None:
    with through(move.source) as (_, profile):
        moved = replace(move, profiles=(profile, move.destination.server.profile))
        outcome = moved.run(cutover=True)
        assert move.contents(move.destination) == NAMED
        assert [(gap.item, gap.disposition) for gap in outcome.gaps] == [(SHOWN, "failed")]
        assert (outcome.listed, outcome.failed, outcome.proof) == (3, 1, None)
        assert moved.run(selection=Selection(exclude=("caf*",)), cutover=True).proof


def test_a_sync_to_a_bucket_with_such_a_key_is_not_proved_equal(move: Move, through: Through) -> None:
    with through(move.destination) as (_, profile):
        for key, body in NAMED.items():
            move.source.put(key, body)
        outcome = replace(move, profiles=(move.source.server.profile, profile)).run(cutover=True)
        assert (outcome.same + outcome.adopted, outcome.extra, outcome.extras) == (2, 1, (SHOWN,))
        assert SHOWN in outcome.unproven
        outcome = replace(move, profiles=(move.source.server.profile, profile)).run(delete=True)
        assert [gap.item for gap in outcome.gaps] == [SHOWN]
