"""Live PostgreSQL databases, read to be compared with a bundle; see ``exporters.engine.LiveReader``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, closing

from exporters.engine import LiveRows
from exporters.postgres.errors import DRIVER_ERRORS, translate
from exporters.postgres.live_digests import live_tables
from exporters.postgres.live_rows import live_rows
from exporters.postgres.sessions.connection import connect, parse_url
from exporters.row_digest import Advance, RowsDigest

_COUNTS = """
SELECT s.schemaname::text, s.relname::text, concat_ws(' ', s.relid, pg_relation_filenode(s.relid),
  s.n_tup_ins, s.n_tup_upd, s.n_tup_del, d.stats_reset, a.stats_reset, pg_postmaster_start_time(), labels.md5,
  (SELECT md5(string_agg(c.attnum || ' ' || c.xmin, ',' ORDER BY c.attnum)) FROM pg_attribute c
    WHERE c.attrelid = s.relid AND c.attnum > 0))
FROM pg_stat_user_tables s, pg_stat_database d, pg_stat_archiver a,
  (SELECT md5(string_agg(oid || ' ' || xmin, ',' ORDER BY oid)) FROM pg_enum) labels
WHERE d.datname = current_database() AND current_setting('track_counts')::bool
"""
"""After a crash the counts begin anew, and ``stats_reset`` is then (PostgreSQL manual, "The Cumulative Statistics
System"). ``xmin`` says that a column or a label was defined anew: rows can have another text since.
"""


class PostgresLiveReader:
    """The methods are those of ``LiveReader``."""

    def live_tables(
        self,
        url: str,
        *,
        secrets: Mapping[str, str],
        workers: int,
        advance: Advance,
        also: Collection[tuple[str, str]] = (),
        unread: dict[tuple[str, str], str] | None = None,
        without: Collection[tuple[str, str]] = (),
    ) -> Mapping[tuple[str, str], RowsDigest]:
        """Read every table under one snapshot, in parallel."""
        address = parse_url(url, password=secrets.get("password"))
        return live_tables(
            address, workers=workers, advance=advance, also=also, unread=unread, without=without
        )

    def write_counters(self, url: str, *, secrets: Mapping[str, str]) -> Mapping[tuple[str, str], str]:
        """See ``WriteCounters``: the counts of rows that were written, the file and the columns of the table."""
        address = parse_url(url, password=secrets.get("password"))
        with closing(connect(address)) as connection:
            try:
                return {
                    (schema, name): counts for schema, name, counts in connection.execute(_COUNTS.encode())
                }
            except DRIVER_ERRORS as exc:
                raise translate(exc, address.url) from exc

    def live_rows(self, url: str, *, secrets: Mapping[str, str]) -> AbstractContextManager[LiveRows]:
        """Open the database under one snapshot."""
        return live_rows(parse_url(url, password=secrets.get("password")))
