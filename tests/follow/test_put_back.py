"""A server is put back from a copy of its files, and has the identity that it had.

A log that is read on from there would lack what was written before the captured position; so each such source stops by
name. One that only crashed goes on.
"""

import subprocess
from contextlib import contextmanager

import pytest

from exporters.errors import SourceGoneError
from migrate.case.model import Endpoint
from migrate.case.secrets import Secret
from migrate.changes.capture import Capture, resume_position
from migrate.changes.change_logs import open_change_log
from migrate.changes.segments import SegmentFolder, SegmentReader
from migrate.errors import UnreachableError
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres
from tests.tools.pooler import Pooler
from tests.tools.waiting import stream_of

BINARY_LOG = ["binlog-format=ROW", "binlog-row-metadata=FULL", "log-bin=binlog"]
TABLES = "CREATE TABLE t (id int PRIMARY KEY, v {text})"


class Source:
    """A server of its own, one followed database of it, and what is captured of that."""

    def __init__(self, server, run_sql, location, reached=lambda url: url):
        self.server = server
        self.url = server.database()
        self.run_sql = run_sql
        self.run_sql(self.url, TABLES.format(text="text" if "postgres" in self.url else "longtext"))
        endpoint = Endpoint(reached(self.url), {"password": Secret("env:OLD_PASSWORD")})
        self.log = open_change_log(endpoint, "put-back")
        with self.log.open_base() as self.base:
            self.folder = SegmentFolder(open_location(str(location)), "app", self.base.position)
        self.folder.begin()

    def write(self, *numbers):
        for number in numbers:
            self.run_sql(self.url, f"INSERT INTO t VALUES ({number}, '{number}')")

    def capture(self):
        end = self.log.end(self.base.log)
        after = resume_position(self.folder, self.base.position)
        with stream_of(self.log, self.base.log, after, self.folder) as stream:

            def until(position):
                return position >= end and stream.is_continuous

            Capture(self.folder).run(stream, CancellationToken(), until)

    def count(self):
        return sum(stored.message.kind.name == "BEGIN" for stored in SegmentReader(self.folder).read())

    def crash(self, between=lambda: None):
        """Kill the server, and start it again."""
        self.server.child.popen.kill()
        self.server.child.popen.wait()
        between()
        self.server.child.start_again(self.server.accepts)

    def copy(self, there):
        self.crash(lambda: subprocess.run(["cp", "-a", self.server.directory, there], check=True))

    def put_back(self, copy):
        def put_back():
            subprocess.run(["rm", "-r", self.server.directory], check=True)
            subprocess.run(["cp", "-a", copy, self.server.directory], check=True)

        self.crash(put_back)


FURTHER = [pytest.param(name, marks=pytest.mark.torture) for name in ("mysql", "polled")]


@pytest.fixture(params=["postgresql", "mariadb", *FURTHER])
def source(request, servers, tmp_path, monkeypatch):
    """``polled``: a PostgreSQL behind a pooler that refuses the replication protocol."""
    name, bundle = f"put-back-{request.param}", tmp_path / "bundle"
    if request.param in {"postgresql", "polled"}:
        server, run_sql = servers.postgres(name, settings=["wal_level=logical"]), postgres.run_sql
    else:
        server, run_sql = getattr(servers, request.param)(name, settings=BINARY_LOG), mysql.run_sql
    monkeypatch.setenv("OLD_PASSWORD", server.password)
    if request.param == "polled":
        with Pooler(server.port) as pooler:
            yield Source(server, run_sql, bundle, pooler.url)
    else:
        yield Source(server, run_sql, bundle)
    server.child.stop()


@contextmanager
def location_away_for_the_origin(folder, monkeypatch):
    """Take the location away while is read what the captured log was known by, as where a disk is not mounted."""
    read = SegmentFolder.origin

    def read_while_away(self):
        (folder / "bundle").rename(folder / "away")
        try:
            return read(self)
        finally:
            (folder / "away").rename(folder / "bundle")

    with monkeypatch.context() as patch:
        patch.setattr(SegmentFolder, "origin", read_while_away)
        yield


def test_a_source_that_was_put_back_stops_by_name_and_one_that_crashed_goes_on(source, tmp_path, monkeypatch):
    source.write(1)
    source.capture()
    source.copy(tmp_path / "copy")
    source.capture()
    source.write(2)
    source.capture()
    source.crash()
    source.write(3)
    source.capture()
    assert source.count() == 3, "after a crash nothing is missing, and nothing comes twice"

    source.put_back(tmp_path / "copy")
    with pytest.raises(SourceGoneError, match="put back to an earlier state"):
        source.capture()
    source.write(4)
    source.crash()
    source.run_sql(source.url, "INSERT INTO t SELECT 5, repeat('x', 100000)")
    source.write(6)
    with location_away_for_the_origin(tmp_path, monkeypatch), pytest.raises(UnreachableError):
        source.capture()  # nothing says which log was captured, so nothing is
    with pytest.raises(SourceGoneError, match="is another one than the captured one") as failed:
        source.capture()
    with pytest.raises(SourceGoneError, match="is another one than the captured one"):
        source.capture()  # the first attempt has acknowledged nothing
    assert "may have rows that this server lacks" in failed.value.next_step
    assert "moveout follow --delta" in failed.value.next_step
    assert source.count() == 3
