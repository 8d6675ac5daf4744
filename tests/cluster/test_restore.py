"""A bucket filled by the workers of a cluster is as one filled by threads."""

from __future__ import annotations

import secrets
import signal
import sqlite3
import time
from contextlib import closing

import pyarrow.parquet as pq
import pytest

from migrate.bundle.lease import Lease
from migrate.restore.objects.lease import RestoreFolder
from migrate.storage.registry import open_location
from migrate.storage.s3.destination_bucket import open_destination_bucket
from scripts.dask_cluster import kill
from tests.cli.conftest import call, run
from tests.cluster.conftest import fill
from tests.cluster.test_transfer import by
from tests.exporters.objects.histories import make_history, read_history
from tests.exporters.objects.test_history import make_old_shop
from tests.tools.clients import boto_client
from tests.tools.waiting import eventually


@pytest.fixture
def bundle(minio, bucket, tmp_path):
    """Some three hundred small objects, and large ones."""

    def make(**counts):
        fill(minio, bucket, **counts)
        location = tmp_path / "bundle"
        assert call("export", f"media=s3://{bucket}?profile={minio.profile}", "--to", location).code == 0
        return location

    return make


@pytest.fixture
def destination(other_minio, make_bucket):
    return Destination(other_minio, make_bucket(other_minio))


class Destination:
    """A bucket to be filled, seen by boto alone."""

    def __init__(self, server, name):
        self.url = f"s3://{name}?profile={server.profile}"
        self.name = name
        self.client = boto_client(server.profile)

    def keys(self):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def versions(self):
        pages = self.client.get_paginator("list_object_versions").paginate(Bucket=self.name)
        return [one for page in pages for kind in ("Versions", "DeleteMarkers") for one in page.get(kind, ())]

    def arrived(self):
        """Return how many objects of the source are there. What the destination is tried out with is not."""
        return sum(key.startswith(("small/", "large/", "user-")) for key in self.keys())


def compare(location, destination):
    return call("verify", location, "--against", f"media={destination.url}", "--level", "full")


@pytest.mark.torture
def test_two_workers_fill_a_bucket_and_leave_nothing_else(pair, bundle, destination, tmp_path):
    """Objects of all sizes; then there is nothing left to do, by threads either; the account is the same."""
    location = bundle(small=300, large=5)
    words = ("restore", location, f"media={destination.url}")
    ended = call(*words, *by(pair), "--report-to", tmp_path / "there", "--json")
    assert ended.code == 0, ended.err
    (outcome,) = ended.json["result"]["restored"]
    assert (outcome["items"], outcome["skipped_items"], outcome["findings"]) == (305, 0, [])
    assert compare(location, destination).code == 0
    assert len(destination.keys()) == 305
    assert pair.took_part() == 2
    again = call(*words, "--report-to", tmp_path / "again", "--json")
    assert again.json["result"]["restored"][0]["skipped_items"] == 305
    losses = [pq.read_table(tmp_path / one / "media/losses.parquet") for one in ("there", "again")]
    assert losses[0].equals(losses[1])


@pytest.mark.torture
def test_histories_come_up_in_their_order(pair, minio, other_minio, tmp_path):
    """All versions, each once; the map says which became which; no version of what the run itself kept is left."""
    shop, there = make_old_shop(minio), make_old_shop(other_minio)
    count = make_history(shop, keys=30, versions=6)
    assert call("export", f"shop={shop.url}", "--to", tmp_path / "bundle").code == 0
    words = ("restore", tmp_path / "bundle", f"shop={there.url}", "--report-to", tmp_path / "account")
    ended = call(*words, *by(pair), "--json")
    assert ended.code == 0, ended.err
    assert ended.json["result"]["restored"][0]["items"] == count
    assert read_history(minio, shop.name) == read_history(other_minio, there.name)
    moved = pq.read_table(tmp_path / "account/shop/versions.parquet").to_pylist()
    assert len({row["new_version_id"] for row in moved}) == len(moved) == count


def test_a_run_by_threads_waits_for_the_lease_of_another(bundle, destination):
    """5 with who has it, and nothing is written."""
    location = bundle(small=3)
    folder = RestoreFolder(open_destination_bucket(destination.url))
    with Lease(open_location(folder.url), "restore", alone=False, beat_seconds=1):
        ended = call("restore", location, f"media={destination.url}")
    assert ended.code != 0
    assert "in use: restore" in ended.err
    assert destination.keys() == []


def test_a_bucket_that_locks_all_is_filled_by_one_machine(pair, bundle, other_minio):
    """A lease in it could never be removed."""
    location = bundle(small=3)
    name = f"locked-{secrets.token_hex(4)}"
    there = Destination(other_minio, name)
    there.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    there.client.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    ended = call("restore", location, f"media={there.url}", *by(pair))
    assert ended.code == 0, ended.err
    assert "only one machine may fill it" in ended.err
    assert len(there.keys()) == 3


def test_a_database_is_brought_up_by_the_lead(within, tmp_path):
    """And a note says so; no worker need be there."""
    with closing(sqlite3.connect(tmp_path / "some.db")) as connection, connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    assert call("export", f"file=sqlite:///{tmp_path / 'some.db'}", "--to", tmp_path / "bundle").code == 0
    ended = call("restore", tmp_path / "bundle", f"file=sqlite:///{tmp_path / 'new.db'}", *by(within()))
    assert ended.code == 0, ended.err
    assert "file can only be restored by one machine" in ended.err


@pytest.fixture
def slowly(cluster, bundle, destination):
    """A restore slow enough to get in between: 180 MB at 12 MB a second."""
    location = bundle(small=200, large=20)
    return location, ("restore", location, f"media={destination.url}", *by(cluster), "--bwlimit", "12M")


@pytest.mark.torture
def test_a_worker_dies_and_another_joins(cluster, slowly, destination, begin):
    """What it had begun is looked at and done by others, the newcomer among them."""
    location, words = slowly
    first = cluster.join()
    cluster.join()
    cluster.wait()
    began = time.monotonic()
    restore = begin(*words)
    eventually(lambda: destination.arrived() > 3)
    kill(first)
    newcomer = cluster.join()
    ended = restore.end()
    assert ended.code == 0, ended.err
    assert time.monotonic() - began > 180 / 12 * 0.8, "the limit is for all of them"
    assert compare(location, destination).code == 0
    cluster.wait(newcomer)
    assert "'cancel_job'" in newcomer.log.read_text()
    assert len(destination.keys()) == 220


@pytest.mark.torture
def test_a_killed_lead_leaves_no_worker_that_writes(cluster, slowly, destination, begin):
    """The next run waits for its lease to grow stale; by threads as well as by the cluster."""
    location, words = slowly
    cluster.join()
    cluster.wait()
    lead = begin(*words)
    eventually(lambda: destination.arrived() > 3)
    lead.popen.kill()
    lead.end()
    ended = run(*words[:3], "--json")
    assert ended.code == 0, ended.err
    assert "whether that run still lives" in ended.err
    assert ended.json["result"]["restored"][0]["skipped_items"] > 3
    assert compare(location, destination).code == 0
    assert len(destination.keys()) == 220


@pytest.mark.torture
def test_ctrl_c_stops_the_workers_and_the_same_command_goes_on(cluster, slowly, destination, begin):
    """130; the lease is free at once, and what lies there is not written again."""
    location, words = slowly
    cluster.join()
    cluster.join()
    cluster.wait()
    restore = begin(*words)
    eventually(lambda: destination.arrived() > 3)
    restore.popen.send_signal(signal.SIGINT)
    ended = restore.end(20)
    assert ended.code == 130, ended.err
    done = destination.arrived()
    ended = run(*words[:-2], "--json")
    assert ended.code == 0, ended.err
    assert ended.json["result"]["restored"][0]["skipped_items"] >= done
    assert compare(location, destination).code == 0
    assert len(destination.keys()) == 220


@pytest.fixture
def old(minio, other_minio, tmp_path):
    """A bundle of histories, and a bucket that is to have them: both buckets, how many versions, the command."""
    shop, there = make_old_shop(minio), make_old_shop(other_minio)
    count = make_history(shop, keys=300, versions=10)
    assert run("export", f"shop={shop.url}", "--to", tmp_path / "bundle").code == 0
    words = ("restore", tmp_path / "bundle", f"shop={there.url}", "--report-to", tmp_path / "account")
    return shop, there, count, words


@pytest.mark.torture
def test_no_version_is_made_twice_when_a_worker_dies(cluster, minio, other_minio, old, tmp_path, begin):
    """In the middle of histories: another one looks how far it has come."""
    shop, there, count, words = old
    first = cluster.join()
    cluster.wait()
    destination = Destination(other_minio, there.name)
    restore = begin(*words, *by(cluster))
    eventually(lambda: destination.arrived() > 20)
    kill(first)
    cluster.join()
    ended = restore.end()
    assert ended.code == 0, ended.err
    assert read_history(minio, shop.name) == read_history(other_minio, there.name)
    moved = pq.read_table(tmp_path / "account/shop/versions.parquet").to_pylist()
    assert len({row["new_version_id"] for row in moved}) == len(moved) == count
    assert len(destination.versions()) == count


@pytest.mark.torture
def test_no_version_is_made_twice_when_the_lead_dies(cluster, minio, other_minio, old, begin):
    """In the middle of histories: its worker stops before the next lead takes over, and the same cluster goes on."""
    shop, there, count, words = old
    cluster.join()
    cluster.wait()
    destination = Destination(other_minio, there.name)
    lead = begin(*words, *by(cluster))
    eventually(lambda: destination.arrived() > 20)
    lead.popen.kill()
    lead.end()
    ended = run(*words, *by(cluster), "--json")
    assert ended.code == 0, ended.err
    assert "whether that run still lives" in ended.err
    assert ended.json["result"]["restored"][0]["skipped_items"] > 20
    assert read_history(minio, shop.name) == read_history(other_minio, there.name)
    assert len(destination.versions()) == count
