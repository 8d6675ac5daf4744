"""The progress file beside a bundle: written, tolerated, and believed only as long as its writer lives."""

import os
import time

import pytest
from msgspec.structs import replace

from migrate.case.model import Endpoint
from migrate.cli.progress.progress_reports import unlocked_store
from migrate.errors import NoSpaceError, NotAllowedError
from migrate.progress.meter import Meter
from migrate.progress.progress_file import ProgressFile, encode, read_reports
from migrate.progress.state import from_json
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.process_identity import this_process
from migrate.runtime.progress import SourceTask
from migrate.storage.api import StoreWrapper
from migrate.storage.registry import open_location
from tests.tools.clients import boto_client
from tests.tools.waiting import eventually

KEY = "_work/progress-export.json"


def begun_meter():
    meter = Meter(under_way=lambda: 0)
    meter.open("export")
    meter.begin("export app", items=10, size_bytes=1000, of=SourceTask("app"))
    meter.advance(items=5, size_bytes=500)
    return meter


def test_a_location_that_refuses_the_file_costs_nothing(tmp_path):
    def refuse():
        raise NotAllowedError("you may only read here")

    local = open_location(str(tmp_path))
    meter = begun_meter()
    with ProgressFile("export", meter, [refuse, lambda: local]):
        eventually(lambda: read_reports([local]))
        assert read_reports([local])[0].state.fraction == 0.5
    assert not (tmp_path / KEY).exists()
    with ProgressFile("export", meter, [refuse]):
        time.sleep(0.5)


def test_a_disk_that_fills_keeps_no_file_that_calls_the_run_dead(tmp_path):
    class Filling(StoreWrapper):
        is_full = False

        def put(self, key, data, *, sha256=None):
            if self.is_full:
                raise NoSpaceError("No space left on device")
            return super().put(key, data, sha256=sha256)

    disk, local = open_location(str(tmp_path / "disk")), open_location(str(tmp_path / "local"))
    filling, meter = Filling(disk), begun_meter()
    with ProgressFile("export", meter, [lambda: filling, lambda: local]):
        eventually(lambda: read_reports([disk]))
        filling.is_full = True
        meter.advance(items=4, size_bytes=400)
        eventually(lambda: read_reports([local]))
    assert read_reports([disk, local]) == []


def test_nothing_is_written_before_the_work_has_begun_and_an_error_stays(tmp_path):
    """By then the location may belong to another run."""
    store = open_location(str(tmp_path))
    meter = Meter(under_way=lambda: 0)
    with ProgressFile("export", meter, [lambda: store]):
        time.sleep(0.5)
    assert not (tmp_path / KEY).exists()

    def work():
        with ProgressFile("export", begun_meter(), [lambda: store]):
            eventually((tmp_path / KEY).exists)
            raise NotAllowedError("the key was taken away")

    with pytest.raises(NotAllowedError):
        work()
    (report,) = read_reports([store])
    assert (report.alive, report.state.ended) == (False, "the key was taken away")


def test_a_writer_that_nobody_knows_is_believed_for_half_a_minute(tmp_path):
    store = open_location(str(tmp_path))
    elsewhere = replace(this_process(), host="elsewhere", machine="another")
    store.put(KEY, encode(begun_meter().state(), elsewhere))
    assert read_reports([store])[0].alive
    then = time.time() - 180
    os.utime(tmp_path / KEY, (then, then))
    (report,) = read_reports([store])
    assert not report.alive
    assert 179 < report.age_seconds < 200
    store.put(KEY, encode(begun_meter().state(), replace(this_process(), started="1")))
    assert not read_reports([store])[0].alive  # of this machine, and gone


def test_a_sealed_bundle_in_a_bucket_with_object_lock_gets_no_file(minio, bucket, tmp_path):
    """What is written there may have to stay for years."""
    client = boto_client(minio.profile)
    locked = f"{bucket}-locked"
    client.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True)
    location = Endpoint(f"s3://{locked}/b?profile={minio.profile}")
    local, token = open_location(str(tmp_path)), CancellationToken()
    with ProgressFile("verify", begun_meter(), [lambda: unlocked_store(location, token), lambda: local]):
        eventually(lambda: read_reports([local]))
    assert client.list_object_versions(Bucket=locked).get("Versions", []) == []
    store = unlocked_store(Endpoint(f"s3://{bucket}/b?profile={minio.profile}"), token)
    with ProgressFile("verify", begun_meter(), [lambda: store]):
        eventually(lambda: read_reports([store]))
    assert read_reports([store]) == []


def test_a_state_is_the_same_after_writing_and_what_is_malformed_is_not_there(tmp_path):
    state = begun_meter().state()
    again = from_json(state.as_json())
    assert again.as_json() == state.as_json()
    store = open_location(str(tmp_path))
    for data in (b"{", b'{"version":1}', b'{"version":1,"process":{},"tasks":[],"stages":[]}'):
        store.put(KEY, data)
        assert read_reports([store]) == []
