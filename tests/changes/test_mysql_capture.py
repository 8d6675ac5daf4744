"""Two captures of one binary log after each other: what the first one writes last is not written again."""

import secrets
from concurrent.futures import ThreadPoolExecutor

from exporters.mysql.changes.log import open_change_log
from migrate.changes.capture import Capture, resume_position
from migrate.changes.capture_thread import keep_capturing
from migrate.changes.segments import SegmentFolder, SegmentReader
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from tests.exporters.mysql.databases import fetch, run_sql
from tests.tools.waiting import eventually

WAITS = "SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = 'User lock'"


def test_a_capture_that_waits_for_the_one_before_has_nothing_twice(followed_mariadb, tmp_path):
    url, name = followed_mariadb.database(), f"case-{secrets.token_hex(4)}"
    run_sql(url, "CREATE TABLE t (id INT)")
    log, later_log = (open_change_log(url, {}, name) for _ in range(2))
    with log.open_base() as base:
        folder = SegmentFolder(open_location(str(tmp_path)), "app", base.position)
    folder.begin()
    cancellation = CancellationToken()
    with ThreadPoolExecutor(1) as threads:
        try:
            with log.stream(base.log, resume_position(folder, base.position), folder) as stream:
                arguments = (later_log, base.described, folder, cancellation)
                later = threads.submit(keep_capturing, *arguments, note=print, retain_bytes=None)
                eventually(lambda: fetch(url, WAITS))
                run_sql(url, "INSERT INTO t VALUES (1)")
                Capture(folder).run(stream, cancellation, end=log.end(base.log))
            run_sql(url, "INSERT INTO t VALUES (2)")
            end = log.end(base.log)
            eventually(lambda: resume_position(folder, 0) >= end or later.done())
        finally:
            cancellation.cancel()
    later.result()
    begun = [stored for stored in SegmentReader(folder).read() if stored.message.kind.name == "BEGIN"]
    assert len(begun) == 2
