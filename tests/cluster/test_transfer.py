"""A sealed bundle carried by the workers of a cluster arrives as it was."""

from __future__ import annotations

import signal

import pytest

from migrate.storage.registry import open_location
from scripts.dask_cluster import kill
from tests.cli.conftest import call, run
from tests.tools.waiting import eventually
from tests.transfer.bags import MIB, contents, noise, seal


@pytest.fixture
def origin(minio, make_bucket):
    """Where the bundle lies."""
    return f"s3://{make_bucket(minio)}/bundle?profile={minio.profile}"


def by(cluster):
    return ("--scheduler", cluster.address)


def payload(*, large=3):
    parts = {f"app/tables/1/part-{n:06}.parquet": noise(3000 + n, n) for n in range(50)}
    return parts | {f"app/packs/pack-{n:06}.tar": noise(20 * MIB + n, n) for n in range(large)}


def test_two_workers_carry_a_bundle_then_there_is_nothing_left_to_do(pair, origin, location):
    """Every file, hashed on the way; sealed last; the same command again moves nothing."""
    files = seal(open_location(origin), payload())
    ended = call("transfer", origin, location, *by(pair), "--json")
    assert ended.code == 0, ended.err
    assert ended.json["result"]["files_moved"] == len(files)
    assert contents(open_location(location)) == files
    again = call("transfer", origin, location, *by(pair), "--json")
    assert (again.code, again.json["result"]["files_moved"]) == (0, 0)


@pytest.mark.torture
def test_damage_at_the_origin_is_found_by_the_workers_and_nothing_is_sealed(cluster, origin, location):
    """6, the file named; the others are there."""
    cluster.join()
    store = open_location(origin)
    files = seal(store, payload())
    damaged = "data/app/packs/pack-000001.tar"
    store.put(damaged, bytes(len(files[damaged])))
    cluster.wait()
    ended = run("transfer", origin, location, *by(cluster), "--json")
    assert ended.code == 6, ended.err
    assert [found["key"] for found in ended.json["result"]["findings"]] == [damaged]
    there = contents(open_location(location))
    assert damaged not in there
    assert "tagmanifest-sha256.txt" not in there
    assert sum(key.startswith("data/") for key in there) == len(payload()) - 1


@pytest.mark.torture
def test_a_worker_dies_another_joins_and_ctrl_c_then_threads_finish_it(cluster, origin, location, begin):
    """What was durable is not sent again."""
    first = cluster.join()
    cluster.join()
    files = seal(open_location(origin), payload(large=12))
    cluster.wait()
    store = open_location(location)

    def arrived():
        return sum(info.key.endswith(".tar") for info in store.list("data/"))

    moving = begin("transfer", origin, location, *by(cluster), "--bwlimit", "10M")
    eventually(lambda: arrived() >= 2)
    kill(first)
    cluster.join()
    eventually(lambda: arrived() >= 5)
    moving.popen.send_signal(signal.SIGINT)
    ended = moving.end(15)
    assert ended.code == 130, ended.err
    before = arrived()
    ended = run("transfer", origin, location, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["result"]["bytes_skipped"] >= before * 20 * MIB
    assert contents(store) == files
    assert list(store.uploads()) == []
