"""Live PostgreSQL databases, read to be compared with a bundle; see ``exporters.engine.LiveReader``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing

from exporters.engine import KeyedRows, LiveRows, LiveTables, TablesRequest, WriteState
from exporters.postgres.catalog import COMPOSITES, NAMED
from exporters.postgres.errors import as_source_errors, has_ended
from exporters.postgres.live_digests import digests_requested
from exporters.postgres.live_rows import live_rows
from exporters.postgres.sessions.connection import connect, parse_url
from exporters.postgres.sessions.snapshot_session import open_snapshot
from exporters.sql.snapshots import lost_with_sessions

_STATES = f"""
WITH RECURSIVE parts(whole, part) AS MATERIALIZED (
  SELECT t.oid, p.oid FROM pg_type t CROSS JOIN LATERAL (VALUES (t.typelem), (t.typbasetype)) AS p(oid)
  WHERE p.oid <> 0
  UNION ALL SELECT t.oid, m.atttypid FROM pg_attribute m JOIN pg_type t ON t.typrelid = m.attrelid WHERE m.attnum > 0),
named(oid) AS (
  SELECT t.oid FROM pg_type t WHERE t.typname ~ '{NAMED}' AND t.typnamespace = 'pg_catalog'::regnamespace
  UNION SELECT p.whole FROM named n JOIN parts p ON p.part = n.oid)
SELECT s.schemaname::text, s.relname::text, concat_ws(' ', s.relid, pg_relation_filenode(s.relid),
  d.stats_reset, a.stats_reset, pg_postmaster_start_time(), labels.md5,
  (SELECT md5(string_agg(c.attnum || ' ' || c.xmin, ',' ORDER BY c.attnum)) FROM pg_attribute c
    WHERE c.attrelid = s.relid AND c.attnum > 0),
  (SELECT string_agg(concat_ws(' ', r.oid, r.xmin, p.xmin), ',' ORDER BY r.oid) FROM pg_publication_rel r
    JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = s.relid)),
  (s.n_tup_ins + s.n_tup_upd + s.n_tup_del)::int8
FROM pg_stat_user_tables s, pg_stat_database d, pg_stat_archiver a,
  (SELECT md5(concat((SELECT string_agg(oid || ' ' || xmin, ',' ORDER BY oid) FROM pg_enum), ' ', (
    SELECT string_agg(concat_ws(' ', t.attrelid, t.attnum, t.xmin), ',' ORDER BY t.attrelid, t.attnum)
    FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid WHERE {COMPOSITES})))) labels
WHERE d.datname = current_database() AND current_setting('track_counts')::bool
  AND NOT EXISTS (SELECT FROM pg_attribute c JOIN named n ON n.oid = c.atttypid
    WHERE c.attrelid = s.relid AND c.attnum > 0)
"""
"""After a crash the counts begin anew, and ``stats_reset`` is then (PostgreSQL manual, "The Cumulative Statistics
System"). ``xmin`` says that a column, a label or an attribute of a type was defined anew, so that rows can have another
text since, or a publication, so that the log may lack changes. Of tables whose values are shown by names nothing says
it, for names change elsewhere.
"""
_UNCOUNTED = """
SELECT concat_ws(' ', 'session', pid, 'of', usename, nullif('(' || application_name || ')', '()'))
FROM pg_stat_activity
WHERE datname = current_database() AND application_name NOT LIKE 'moveout%' AND usesysid IS NOT NULL
  AND coalesce(backend_type, '') NOT IN ('parallel worker', 'walsender')
  AND (state = 'idle' AND {counted}) IS NOT TRUE
ORDER BY backend_start
"""
_COUNTED = "state_change < now() - interval '15 s'"
_COUNTED_BEFORE_15 = "false"
"""A session passes on its counts when it is idle, at once or after ten seconds (PGSTAT_IDLE_INTERVAL in
src/backend/utils/activity/pgstat.c). Before PostgreSQL 15 some wait for its next statement, however long that takes.
"""
_LIVE_COUNTS_VERSION, _STALE_SECONDS = 150000, 0.6
"""Before, a server may say what it knew half a second ago (PGSTAT_STAT_INTERVAL in src/backend/postmaster/pgstat.c)."""


class PostgresLiveReader:
    """The methods are those of ``LiveReader``."""

    def live_tables(self, url: str, request: TablesRequest, *, secrets: Mapping[str, str]) -> LiveTables:
        """Read every table under one snapshot, in parallel."""
        address = parse_url(url, secrets)
        with (
            open_snapshot(address) as (session, tables),
            lost_with_sessions(address.url, has_ended),
        ):
            return digests_requested(session, tables, request)

    def write_states(
        self, url: str, *, secrets: Mapping[str, str], is_settled: bool = False
    ) -> Mapping[tuple[str, str], WriteState]:
        """See ``WriteCounters``: the counts of rows that were written, the file and the columns of the table. A session
        counts what it has written when its transaction has ended.
        """
        del is_settled
        address = parse_url(url, secrets)
        with closing(connect(address)) as connection:
            if connection.info.server_version < _LIVE_COUNTS_VERSION:
                time.sleep(_STALE_SECONDS)
            with as_source_errors(address.url):
                rows = connection.execute(_STATES.encode()).fetchall()
        return {(schema, name): WriteState(identity, count) for schema, name, identity, count in rows}

    def uncounted_sessions(self, url: str, *, secrets: Mapping[str, str]) -> Sequence[str]:
        """See ``WriteCounters``."""
        address = parse_url(url, secrets)
        with closing(connect(address)) as connection:
            is_live = connection.info.server_version >= _LIVE_COUNTS_VERSION
            counted = _COUNTED if is_live else _COUNTED_BEFORE_15
            with as_source_errors(address.url):
                rows = connection.execute(_UNCOUNTED.format(counted=counted).encode()).fetchall()
        return [session for (session,) in rows]

    def live_rows(self, url: str, *, secrets: Mapping[str, str]) -> AbstractContextManager[LiveRows]:
        """Open the database under one snapshot."""
        return live_rows(parse_url(url, secrets))

    def keyed_rows(
        self, url: str, *, secrets: Mapping[str, str], is_one_moment: bool
    ) -> AbstractContextManager[KeyedRows]:
        """See ``KeyedReader``: one snapshot costs no more."""
        del is_one_moment
        return live_rows(parse_url(url, secrets))
