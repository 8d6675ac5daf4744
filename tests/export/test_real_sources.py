"""A PostgreSQL database and a MinIO bucket, to a bundle on MinIO: exported, read, verified, spoilt, found."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import signal
import threading

import psycopg
import pyarrow.parquet as pq
import pytest

from exporters.postgres.sessions import connection
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.cli.common.sources import open_sources
from migrate.errors import BusyError
from migrate.export.outcome import ExportOptions
from migrate.export.run import export
from migrate.export.status import SourceStatus, export_status
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.export.sources import Numbers
from tests.export.victims import die_at_write, run
from tests.tools.clients import boto_client

BODIES = {f"many/{number:03}": secrets.token_bytes(100 + number) for number in range(20)} | {
    "odd/a b\n": b"odd",
    "empty": b"",
    "big": secrets.token_bytes(9 * 2**20),
}


@pytest.fixture(scope="module")
def sources(minio, postgres, make_bucket):
    """A table of 3,000 rows, an empty one, and a bucket."""
    url = postgres.database()
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("CREATE TABLE people (id int PRIMARY KEY, name text, balance numeric, born timestamptz)")
        db.execute("INSERT INTO people SELECT i, 'n' || i, i / 7.0, now() FROM generate_series(1, 3000) i")
        db.execute("CREATE TABLE nobody (id int)")
    bucket = make_bucket(minio)
    client = boto_client(minio.profile)
    for key, body in BODIES.items():
        client.put_object(Bucket=bucket, Key=key, Body=body)
    return {"app": Endpoint(url), "media": Endpoint(f"s3://{bucket}?profile={minio.profile}")}


@pytest.fixture(scope="module")
def location(other_minio, make_bucket, sources):
    """The sealed bundle."""
    store = open_location(f"s3://{make_bucket(other_minio)}/case?profile={other_minio.profile}")
    with open_sources(sources) as opened:
        outcome = export(opened, store, workers=4, progress=Silent())
    assert outcome.complete, [source.reasons for source in outcome.sources]
    return store


def test_the_bundle_is_whole(location):
    assert verify(location, Level.FULL, workers=4, progress=Silent()).findings == []
    assert {info.key for info in location.list("_work/")} == set()


def test_the_reader_gives_what_was_put_in(location):
    reader = BundleReader(location)
    rows = {(row.source, row.name): row for row in reader.catalog()}
    assert rows["app", "people"].items == 3000
    assert rows["app", "nobody"].items == 0
    (bucket,) = [row for row in rows.values() if row.kind == "bucket"]
    assert bucket.items == len(BODIES)
    index = [row for batch in reader.index("media") for row in batch.to_pylist()]
    assert {row["key"] for row in index} == set(BODIES)
    pack = next(row for row in index if row["key"] == "odd/a b\n")
    assert location.read(f"data/media/{pack['pack']}", pack["offset"], pack["length"]) == b"odd"
    with reader.open(next(reader.source_files("app", "tables/")).key) as file:
        assert pq.ParquetFile(file).schema_arrow.names


class Stopping(Silent):
    """Stops a server's main process for some seconds, so that it lets nobody in, when its snapshot has been taken."""

    def __init__(self, process_id, monkeypatch):
        self.process_id = process_id
        self.monkeypatch = monkeypatch

    def begin(self, what, **_):
        if what == "export app":
            self.monkeypatch.setattr(connection, "CONNECT_SECONDS", 1)
            os.kill(self.process_id, signal.SIGSTOP)
            threading.Timer(5, os.kill, (self.process_id, signal.SIGCONT)).start()


def test_an_export_waits_for_new_connections_to_a_source_that_has_answered(postgres, tmp_path, monkeypatch):
    url = postgres.database()
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("CREATE TABLE people AS SELECT i FROM generate_series(1, 3000) i")
    store = open_location(str(tmp_path / "bundle"))
    options = ExportOptions(attempts=1)
    with open_sources({"app": Endpoint(url)}) as opened:
        progress = Stopping(postgres.child.popen.pid, monkeypatch)
        outcome = export(opened, store, workers=1, progress=progress, options=options)
    assert outcome.complete, outcome.broken


def test_a_flipped_bit_is_found_and_named(location):
    """In one file of each kind: Parquet, definitions, indexes, packs; for packs the object is named too."""
    kinds = {info.key.rpartition("/")[0]: info for info in location.list("data/") if info.size_bytes}
    assert {"data/media/packs", "data/media/index", "data/media/large", "data/app/schema"} <= set(kinds)
    for info in kinds.values():
        good = location.read(info.key)
        at = good.index(BODIES["many/007"]) if "/packs/" in info.key else len(good) // 2
        location.put(info.key, good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        found = verify(location, Level.FULL, workers=4, progress=Silent()).findings
        location.put(info.key, good)
        assert info.key in "\n".join(map(str, found)), info.key
        if "/packs/" in info.key:
            assert any("object 'many/007' has another SHA-256" in finding.what for finding in found)


def test_values_that_were_changed_before_the_seal_are_found(location):
    """A file whose hash is right but whose rows are not those that were read: the table's digest tells."""
    reader = BundleReader(location)
    (directory,) = [row.directory for row in reader.catalog() if row.name == "people"]
    file = next(reader.source_files("app", f"{directory}/"))
    table = pq.read_table(io.BytesIO(location.read(file.key)))
    keys = {info.key: location.read(info.key) for info in location.list()}
    out = io.BytesIO()
    pq.write_table(table.slice(1), out)
    forge(location, {**keys, file.key: out.getvalue()})
    found = "\n".join(map(str, verify(location, Level.FULL, workers=2, progress=Silent()).findings))
    forge(location, keys)
    assert "expected 3000, found 2999" in found
    assert verify(location, Level.FULL, workers=2, progress=Silent()).findings == []


def forge(store, files):
    """Seal ``files`` anew, as somebody would who wants no hash to be wrong."""

    def sha(data):
        return hashlib.sha256(data).hexdigest()

    files = dict(files)
    lines = [json.loads(line) for line in files[layout.FILES].splitlines()]
    for line in lines:
        data = files[line["key"]]
        line |= {"sha256": sha(data), "size_bytes": len(data)}
    files[layout.FILES] = b"".join(
        json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n" for line in lines
    )
    files[layout.MANIFEST] = "".join(f"{line['sha256']}  {line['key']}\n" for line in lines).encode()
    oxum = f"{sum(line['size_bytes'] for line in lines)}.{len(lines)}"
    info = files[layout.BAG_INFO].decode().splitlines()
    info = [f"Payload-Oxum: {oxum}" if line.startswith("Payload-Oxum") else line for line in info]
    files[layout.BAG_INFO] = "".join(f"{line}\n" for line in info).encode()
    tags = sorted(key for key in files if not key.startswith("data/") and key != layout.TAG_MANIFEST)
    files[layout.TAG_MANIFEST] = "".join(f"{sha(files[key])}  {key}\n" for key in tags).encode()
    for key, data in files.items():
        store.put(key, data)


@pytest.mark.parametrize("server", ["other_minio", pytest.param("versitygw", marks=pytest.mark.torture)])
def test_killed_on_a_bucket_then_the_same_command(request, server, make_bucket):
    """The lease of the dead process is taken over at once, there too."""
    server = request.getfixturevalue(server)
    url = f"s3://{make_bucket(server)}/p?profile={server.profile}"
    for fatal in (9, 16):
        victim = run(die_at_write, url, fatal)
        victim.join()
        assert victim.exitcode == -9
    store = open_location(url)
    source = Numbers(count=15)
    status: SourceStatus = export_status(store).sources[0]
    assert (status.done.units, status.finished) == (2, True)
    assert export([source], store, workers=2, progress=Silent()).complete
    assert source.exported == []
    assert verify(store, Level.FULL, workers=2, progress=Silent()).findings == []


def test_a_second_run_on_a_bucket_is_refused(other_minio, make_bucket):
    store = open_location(f"s3://{make_bucket(other_minio)}?profile={other_minio.profile}")

    def again() -> None:
        with pytest.raises(BusyError, match="is in use: export on"):
            export([Numbers()], store, workers=1, progress=Silent())

    assert export([Numbers(on_finish=again)], store, workers=1, progress=Silent()).complete
