"""A gentle export: short statements, pauses that follow the load, few connections; the same rows of one snapshot."""

from __future__ import annotations

import psycopg
import pytest

from exporters.postgres.sessions import gentle_pace
from exporters.postgres.sessions.gentle_pace import LONGEST_PAUSE_SECONDS, GentleReads, Pace, ServerLoad
from migrate.case.limits import gently, parse_limits
from tests.exporters.postgres.databases import column, run_sql
from tests.exporters.postgres.test_session_settings import LimitedHost, counting, export_with
from tests.tools.bundles import read_bundle

MIB = 2**20


def paused(*, seconds: float, load: ServerLoad = ServerLoad()) -> float:  # noqa: B008 - it is frozen
    """The pause after a statement, where one over as much took a tenth of a second before."""
    pace = Pace()
    pace.pause_after(8 * MIB, 0.1, ServerLoad())
    return pace.pause_after(8 * MIB, seconds, load)


def test_a_pause_is_longer_where_others_work_the_server_is_slower_or_replicas_are_behind():
    assert paused(seconds=0.1) == pytest.approx(0.1)
    assert paused(seconds=0.4) == pytest.approx(0.4 * 3)
    assert paused(seconds=0.1, load=ServerLoad(active_sessions=8)) == pytest.approx(0.3)
    assert paused(seconds=0.1, load=ServerLoad(lag_seconds=60)) == LONGEST_PAUSE_SECONDS


def test_a_statement_reads_as_much_as_takes_a_second():
    pace = Pace()
    pace.pause_after(8 * MIB, 4.0, ServerLoad())
    assert pace.next_bytes == 2 * MIB
    pace.pause_after(2 * MIB, 0.01, ServerLoad())
    assert pace.next_bytes == 4 * MIB  # twice as much at most


def test_connections_are_few_unless_their_number_is_given():
    assert gently(parse_limits(None, None, None)).max_connections == 3
    assert gently(parse_limits(8, None, None)).max_connections == 8


def test_a_gentle_export_reads_by_short_statements_under_one_snapshot(postgres, tmp_path, monkeypatch):
    url = postgres.database()
    run_sql(
        url,
        "CREATE TABLE t AS SELECT n AS id, repeat(md5(n::text), 8) AS text FROM generate_series(1, 20000) n",
    )
    monkeypatch.setattr(gentle_pace, "_FIRST_BYTES", MIB // 2)
    monkeypatch.setattr(gentle_pace, "_MOST_BYTES", MIB // 2)
    statements, asked = [], GentleReads.ranges

    def noted(reads, table, pages):
        for part in asked(reads, table, pages):
            statements.append(part)
            if len(statements) == 3:  # what others change meanwhile is not of the snapshot
                with psycopg.connect(url) as connection:
                    connection.execute("UPDATE t SET text = 'later' WHERE id > 100")
            yield part

    monkeypatch.setattr(GentleReads, "ranges", noted)
    host = LimitedHost(gentle=True, max_connections=3)
    with counting(url) as seen:
        assert export_with(host, url, tmp_path / "bundle", workers=4).complete
    assert len(statements) > 20  # of the rows and of the count
    assert seen() <= 3
    assert any("its snapshot is held" in note.lower() for note in host.notes)
    texts = column(read_bundle(tmp_path / "bundle"), "t", "text")
    assert len(texts) == 20000
    assert "later" not in texts
