"""Killed, cut off, interrupted: the same command again brings the same result and sends little twice."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from migrate.bundle import layout
from migrate.errors import BusyError
from migrate.runtime.progress import Silent
from migrate.storage.api import MIN_PART_BYTES, MultipartStore
from migrate.storage.local.store import LocalStore
from migrate.storage.registry import open_location
from migrate.transfer.clean import clean
from migrate.transfer.destination import transfer_status
from migrate.transfer.run import transfer
from tests.tools.counting_proxy import CountingProxy
from tests.tools.profiles import extra_profile
from tests.tools.waiting import eventually
from tests.transfer.bags import MIB, contents, noise, seal
from tests.transfer.carriers import WORKERS, code_of, finish, start
from tests.transfer.conftest import EVERYWHERE


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    root = tmp_path_factory.mktemp("origin")
    packs = {f"app/packs/pack-{number:06}.tar": noise(31 * MIB, number) for number in range(2)}
    small = {f"app/tables/1/part-{number:06}.parquet": noise(900, number) for number in range(20)}
    return root, seal(LocalStore(root), packs | small)


def wait_for(store: MultipartStore, bytes_done: int) -> None:
    """Wait until so much is durable at the destination."""
    eventually(lambda: (status := transfer_status(store)) is not None and status.bytes_done >= bytes_done)


@pytest.mark.torture
def test_killed_at_random_moments_it_goes_on_and_ends_the_same(sealed, destination_url, destination):
    root, files = sealed
    moments = random.Random(4)
    done = 0
    for _ in range(3):
        process = start(root, destination_url, 40 * MIB)
        time.sleep(0.2 + moments.random())
        process.kill()
        process.join()
        arrived = contents(destination)
        assert {
            key: data for key, data in arrived.items() if not key.startswith("_work/")
        }.items() <= files.items()
        status = transfer_status(destination)
        if status is None:
            continue
        assert status.bytes_done >= done
        done = status.bytes_done
    finish(root, destination_url)
    assert contents(destination) == files
    assert list(destination.uploads()) == []


@pytest.mark.torture
def test_what_was_durable_at_the_kill_is_not_sent_again(sealed, minio, make_bucket, tmp_path, monkeypatch):
    root, files = sealed
    size = sum(map(len, files.values()))
    bucket = make_bucket(minio)
    direct = open_location(f"s3://{bucket}/b?profile={minio.profile}")
    with CountingProxy(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        url = f"s3://{bucket}/b?profile={profile}"
        process = start(root, url, 30 * MIB)
        wait_for(direct, 30 * MIB)
        process.kill()
        process.join()
        time.sleep(0.5)  # for what is in the proxy's hands
        first = proxy.sent
        finish(root, url)
        total = proxy.sent
    assert contents(direct) == files
    requests = 600 * 1024  # headers, listings, state
    assert total <= size + WORKERS * MIN_PART_BYTES + requests
    assert total - first <= size - 30 * MIB + WORKERS * MIN_PART_BYTES + requests


def test_a_finished_transfer_sends_no_payload_again(sealed, minio, make_bucket, tmp_path, monkeypatch):
    root, files = sealed
    bucket = make_bucket(minio)
    finish(root, f"s3://{bucket}/b?profile={minio.profile}")
    with CountingProxy(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        finish(root, f"s3://{bucket}/b?profile={profile}")
        assert proxy.sent < 200 * len(files) * 10
        assert proxy.received < 500 * 1024


def test_ctrl_c_stops_cleanly_and_leaves_what_can_be_gone_on_with(sealed, destination_url, destination):
    root, files = sealed
    process = start(root, destination_url, 10 * MIB)
    wait_for(destination, 10 * MIB)
    os.kill(process.pid, signal.SIGINT)
    assert code_of(process, 30) == 130
    status = transfer_status(destination)
    assert status is not None
    assert status.holder == ""
    assert status.bytes_done >= 10 * MIB
    finish(root, destination_url)
    assert contents(destination) == files


@EVERYWHERE
def test_a_running_transfer_is_left_alone_by_another_and_by_clean(sealed, destination_url, destination):
    root, files = sealed
    process = start(root, destination_url, 20 * MIB)
    wait_for(destination, 10 * MIB)
    os.kill(process.pid, signal.SIGSTOP)  # it has not ended, however long this takes
    try:
        with pytest.raises(BusyError):
            transfer(open_location(str(root)), destination, workers=2, progress=Silent())
        with pytest.raises(BusyError):
            clean(destination, dry_run=True)
        with pytest.raises(BusyError):
            clean(destination, dry_run=False)
        status = transfer_status(destination)
        assert status is not None
        assert f"process {process.pid}" in status.holder
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert code_of(process) == 0
    assert contents(destination) == files


@EVERYWHERE
def test_clean_names_and_removes_what_a_dead_run_left(sealed, destination_url, destination):
    root, files = sealed
    process = start(root, destination_url, 10 * MIB)
    wait_for(destination, 10 * MIB)
    process.kill()
    process.join()
    before = contents(destination)
    named = clean(destination, dry_run=True)
    uploads = [leaving for leaving in named if leaving.kind == "upload"]
    assert uploads
    assert all(leaving.key in files and leaving.age.total_seconds() < 120 for leaving in uploads)
    assert sum(leaving.size_bytes for leaving in uploads) > 0
    assert contents(destination) == before
    assert [leaving.key for leaving in clean(destination, dry_run=False)] == [
        leaving.key for leaving in named
    ]
    assert list(destination.uploads()) == []
    assert clean(destination, dry_run=True) == []
    finish(root, destination_url)
    assert contents(destination) == files


def test_clean_leaves_a_whole_bundle_as_it_is(destination):
    files = seal(destination, {"app/x": b"x"})
    destination.put(layout.TRANSFER_STATE, b"{}")
    assert [leaving.key for leaving in clean(destination, dry_run=False)] == [layout.TRANSFER_STATE]
    assert contents(destination) == files


def test_clean_keeps_the_records_of_an_export_that_can_go_on(destination):
    files = {"_work/export.json": b"{}", "_work/app/units/1.json": b"{}", "data/app/x": b"x"}
    for key, data in files.items():
        destination.put(key, data)
    destination.begin("data/app/large")
    assert [leaving.key for leaving in clean(destination, dry_run=False)] == ["data/app/large"]
    assert contents(destination) == files


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path):
    store = open_location(str(tmp_path / "location"))
    left = tmp_path / "location" / "_work" / ".tmp" / "0123"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    store.put("data/app/x", b"x")
    (leaving,) = clean(store, dry_run=False)
    assert (leaving.kind, leaving.size_bytes) == ("temporary file", 4)
    assert not left.exists()
    assert not (tmp_path / "location" / "_work").exists()


@pytest.mark.filterwarnings("ignore:unclosed scandir iterator:ResourceWarning")
def test_interrupted_in_the_middle_the_threads_end(sealed, tmp_path):
    """The caller's thread gets the interruption; no worker writes after ``transfer`` has returned. It may come between
    the opening of a directory and the ``with`` that closes it.
    """
    destination = open_location(str(tmp_path / "destination"))
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    origin = open_location(str(sealed[0]))
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        timer.start()  # it may come at once: outside it would end all tests
        for _ in range(1000):
            transfer(origin, destination, workers=2, progress=Silent(), recheck=True)
    # An interruption within Thread.start() can leave a thread listed that has ended.
    alive = [thread for thread in threading.enumerate() if thread.is_alive()]
    assert not [thread for thread in alive if thread.name.startswith("moveout-transfer")]
