"""Live MySQL and MariaDB databases, read to be compared with a bundle; see ``exporters.engine.LiveReader``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, closing

from exporters.engine import LiveRows, WriteState
from exporters.mysql.connection import connect, parse_url
from exporters.mysql.errors import DRIVER_ERRORS, translate
from exporters.mysql.identifiers import quote_literal
from exporters.mysql.live_digests import live_tables
from exporters.mysql.live_rows import live_rows
from exporters.row_digest import Advance, RowsDigest

_CACHING = "information_schema_stats_expiry"
"""MySQL 8.0 and later say what they knew up to a day ago."""
_WRITTEN = """
SELECT TABLE_NAME, CONCAT_WS(' ', CREATE_TIME, COALESCE(UPDATE_TIME, 'never'), NOW() - INTERVAL
  (SELECT VARIABLE_VALUE FROM {status} WHERE VARIABLE_NAME = 'Uptime') SECOND, (
  SELECT SUM(CRC32(CONCAT_WS(' ', c.ORDINAL_POSITION, c.COLUMN_NAME, c.COLUMN_TYPE, c.COLLATION_NAME,
    c.GENERATION_EXPRESSION))) FROM information_schema.COLUMNS c
  WHERE c.TABLE_SCHEMA = {schema} AND c.TABLE_NAME = TABLES.TABLE_NAME))
FROM information_schema.TABLES
WHERE TABLE_SCHEMA = {schema} AND ENGINE = 'InnoDB' AND COALESCE(CREATE_OPTIONS, '') NOT LIKE '%partitioned%'
  AND COALESCE(UPDATE_TIME < NOW() - INTERVAL 2 SECOND, TRUE)
"""


class MysqlLiveReader:
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
        del also, unread
        address = parse_url(url, password=secrets.get("password"))
        return live_tables(
            address, workers=workers, advance=advance, without_tables={name for _, name in without}
        )

    def write_states(self, url: str, *, secrets: Mapping[str, str]) -> Mapping[tuple[str, str], WriteState]:
        """See ``WriteCounters``: InnoDB's time of the last write, and the columns of the table. That time has whole
        seconds, so a table that was just written to is left out. The server knows none of partitioned tables, and
        forgets it when it starts.
        """
        address = parse_url(url, password=secrets.get("password"))
        with closing(connect(address)) as connection:
            try:
                if connection.variable(_CACHING) is not None:
                    connection.run(f"SET SESSION {_CACHING} = 0")
                status = (
                    "information_schema.GLOBAL_STATUS"
                    if connection.is_mariadb
                    else "performance_schema.global_status"
                )
                query = _WRITTEN.format(schema=quote_literal(address.database), status=status)
                return {("", str(name)): WriteState(str(state)) for name, state in connection.rows(query)}
            except DRIVER_ERRORS as exc:
                raise translate(exc, address.url) from exc

    def uncounted_sessions(self, url: str, *, secrets: Mapping[str, str]) -> Sequence[str]:
        """See ``WriteCounters``: the time of a write is there at once."""
        del url, secrets
        return ()

    def live_rows(self, url: str, *, secrets: Mapping[str, str]) -> AbstractContextManager[LiveRows]:
        """Open the database under one snapshot."""
        return live_rows(parse_url(url, password=secrets.get("password")))
