"""On a long link it is the questions that wait for each other which take time. A proxy counts them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.network.delay_proxy import DelayProxy, depth
from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.conftest import MakeShop, Shop, make_shop
from tests.tools.profiles import extra_profile

__all__ = ["make_shop"]

OBJECTS = 20
ONE_WAY_SECONDS = 0.1
TRIES = 3
"""Where others use the machine, requests seem to wait for each other that it had no time for: each time others."""


@pytest.fixture
def proxies(minio: S3Server, other_minio: S3Server) -> Iterator[tuple[DelayProxy, DelayProxy]]:
    """What makes the way to both servers long."""
    with (
        DelayProxy(minio.endpoint, ONE_WAY_SECONDS) as here,
        DelayProxy(other_minio.endpoint, ONE_WAY_SECONDS) as there,
    ):
        yield here, there


@pytest.fixture
def shops(minio: S3Server, other_minio: S3Server, make_shop: MakeShop) -> tuple[Shop, list[Shop]]:
    """A bucket with a few objects, and an empty one for each try."""
    source, destinations = make_shop(minio), [make_shop(other_minio) for _ in range(TRIES)]
    for number in range(OBJECTS):
        source.put(f"small/{number:02}", b"x" * 1000)
    return source, destinations


@pytest.fixture
def profiles(
    minio: S3Server,
    other_minio: S3Server,
    proxies: tuple[DelayProxy, DelayProxy],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> tuple[str, str]:
    """The profiles by which both are reached through the proxies."""
    here, there = proxies
    return (
        extra_profile(monkeypatch, tmp_path, minio, endpoint=here.endpoint),
        extra_profile(monkeypatch, tmp_path, other_minio, endpoint=there.endpoint),
    )


def depth_of(proxies: tuple[DelayProxy, DelayProxy], *words: str) -> int:
    """How many requests of a command waited for each other."""
    for proxy in proxies:
        proxy.requests.clear()
    done = call(*words, "--quiet")
    assert done.code == 0, done.err
    return depth(request for proxy in proxies for request in proxy.requests)


def test_the_requests_of_a_sync_do_not_wait_for_each_other(
    shops: tuple[Shop, list[Shop]], proxies: tuple[DelayProxy, DelayProxy], profiles: tuple[str, str]
) -> None:
    """12 rounds where nothing else is at work (75 when each waited for the one before); again 6 (29)."""
    source, destinations = shops
    rounds = []
    for destination in destinations:
        words = (
            "sync",
            f"old=s3://{source.name}?profile={profiles[0]}",
            f"new=s3://{destination.name}?profile={profiles[1]}",
        )
        rounds.append((depth_of(proxies, *words), depth_of(proxies, *words)))
        keys = list(destination.keys())
        assert len([key for key in keys if key.startswith("small/")]) == OBJECTS
        assert not [key for key in keys if "moveout-probe" in key]
        if rounds[-1][0] <= 18 and rounds[-1][1] <= 10:
            return
    raise AssertionError(rounds)


def test_the_requests_of_an_export_do_not_wait_for_each_other(
    shops: tuple[Shop, list[Shop]], proxies: tuple[DelayProxy, DelayProxy], profiles: tuple[str, str]
) -> None:
    """30 rounds where nothing else is at work (69 when each waited for the one before)."""
    source, destinations = shops
    words = ("export", f"media=s3://{source.name}?profile={profiles[0]}", "--to")
    bundles = (f"s3://{destination.name}/bundle?profile={profiles[1]}" for destination in destinations)
    assert any(depth_of(proxies, *words, bundle) <= 38 for bundle in bundles)
