"""Workers that die or join in the middle, leads that are stopped or killed: the same command ends with the bundle."""

from __future__ import annotations

import signal

import pytest

from migrate.bundle import layout
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from scripts.dask_cluster import kill
from tests.cli.conftest import run
from tests.cluster.conftest import committed, fill
from tests.tools.waiting import eventually

pytestmark = pytest.mark.torture


@pytest.fixture
def source(minio, bucket):
    """A bucket of some thirty units."""
    fill(minio, bucket, small=200, large=30)
    return f"media=s3://{bucket}?profile={minio.profile}"


@pytest.fixture
def words(source, location, cluster):
    """An export by the cluster, slow enough to get in between: 280 MB at 12 MB a second."""
    return export_words(source, location, cluster, "12M")


def export_words(source, location, cluster, rate):
    executor = ("--scheduler", cluster.address)
    return ("export", source, "--to", location, *executor, "--bwlimit", rate)


def is_whole(location):
    return verify(open_location(location), Level.FULL, workers=2, progress=Silent()).findings == []


def test_one_worker_dies_and_another_joins(cluster, words, location, begin):
    """What the dead one had committed stays, what it had begun is done by others, the newcomer among them."""
    first = cluster.join()
    cluster.join()
    cluster.wait()
    export = begin(*words)
    eventually(lambda: committed(location) > 6)
    kill(first)
    newcomer = cluster.join()
    ended = export.end()
    assert ended.code == 0, ended.err
    assert is_whole(location)
    cluster.wait(newcomer)
    assert "'cancel_job'" in newcomer.log.read_text()


def test_all_workers_die_and_the_lead_waits_for_new_ones(cluster, words, location, begin):
    """It says so, and goes on as soon as somebody is there."""
    first = cluster.join()
    cluster.wait()
    export = begin(*words)
    eventually(lambda: committed(location) > 3)
    kill(first)
    done = committed(location)
    eventually(lambda: "no worker is there" in export.said)
    cluster.join()
    ended = export.end()
    assert ended.code == 0, ended.err
    assert committed(location) == 0 < done, "the work files are gone after the seal"
    assert is_whole(location)


def test_ctrl_c_stops_the_workers_and_the_same_command_goes_on_alone(cluster, words, source, location, begin):
    """130; nobody writes any more, the lease is free at once; threads go on from the workers' records."""
    cluster.join()
    cluster.join()
    cluster.wait()
    export = begin(*words)
    eventually(lambda: committed(location) > 4)
    export.popen.send_signal(signal.SIGINT)
    ended = export.end(15)
    assert ended.code == 130, ended.err
    store = open_location(location)
    done = committed(location)
    assert not any(info.key == layout.LEASE for info in store.list(layout.WORK))
    before = {info.key: info.etag for info in store.list()}
    assert run("export", source, "--to", location, "--json").code == 0
    kept = {info.key: info.etag for info in store.list("data/media/") if "index" not in info.key}
    assert len(kept.items() & before.items()) >= done > 4
    assert is_whole(location)


def test_a_killed_lead_leaves_no_worker_that_commits(cluster, words, location, begin):
    """Its lease has to grow stale first, since others wrote under it; then the same command takes over."""
    cluster.join()
    cluster.wait()
    lead = begin(*words)
    eventually(lambda: committed(location) > 4)
    lead.popen.kill()
    lead.end()
    done = committed(location)
    ended = run(*words)
    assert ended.code == 0, ended.err
    assert "whether that run still lives" in ended.err
    assert "took over" in ended.err
    assert done > 4
    assert is_whole(location)


def test_a_scheduler_that_dies_ends_the_run_and_threads_finish_it(cluster, words, source, location, begin):
    """5, with what to do; nothing that was committed is lost."""
    cluster.join()
    cluster.wait()
    export = begin(*words)
    eventually(lambda: committed(location) > 4)
    kill(cluster.scheduler)
    ended = export.end(60)
    assert ended.code == 5, ended.err
    assert "run the same command" in ended.err
    ended = run("export", source, "--to", location)
    assert ended.code == 0, ended.err
    assert is_whole(location)


def test_a_worker_without_the_credentials_is_given_nothing_more(cluster, words, location):
    """The others do its part; who is not fit is named."""
    lost = cluster.join(environment={"AWS_SHARED_CREDENTIALS_FILE": "/dev/null"})
    cluster.wait(lost)
    cluster.join()
    cluster.wait()
    ended = run(*words[:-2])
    assert ended.code == 0, ended.err
    assert "is given nothing more" in ended.err
    assert is_whole(location)


def test_workers_that_all_die_of_the_same_work_are_not_the_end(cluster, minio, bucket, location, begin):
    """Dask gives a task up after some deaths; then its pieces are given out one by one."""
    fill(minio, bucket, small=0, large=3)
    source = f"media=s3://{bucket}?profile={minio.profile}"
    export = begin(*export_words(source, location, cluster, "1M"))
    for _ in range(9):
        victim = cluster.join(threads=4)
        cluster.wait(victim)
        eventually(lambda log=victim.log: log.read_text().count("'exchange'") > 2)
        if "piece by piece" in export.said:
            break
        kill(victim)
    else:
        victim = cluster.join()
    ended = export.end()
    assert ended.code == 0, ended.err
    assert "piece by piece" in ended.err
    assert is_whole(location)
