"""What a restore that has not ended keeps at a PostgreSQL destination."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from exporters.postgres.errors import as_source_errors
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.postgres.sessions.connection import connect, parse_url
from migrate.restore.common.api import UnfinishedRestore

_OWN = ("about", "done", "left_out")
_TABLES = "SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = %s"


def unfinished_restore(url: str, secrets: Mapping[str, str]) -> UnfinishedRestore | None:
    """See ``Engine.unfinished_restore``. Where the schema has what other restores left out, or how far changes were
    applied, these stay. Raises ``SourceError``.
    """
    address = parse_url(url, secrets)
    with closing(connect(address)) as connection, as_source_errors(address.url):
        tables = {str(name) for (name,) in connection.execute(_TABLES, (PROGRESS_SCHEMA,))}
        if "about" not in tables:
            return None
        row = connection.execute(f"SELECT bundle, source FROM {PROGRESS_SCHEMA}.about".encode()).fetchone()
    bundle, source = row or ("", "")
    labels = ", ".join(f"{PROGRESS_SCHEMA}.{name}" for name in _OWN if name in tables)
    if tables <= {*_OWN}:
        return UnfinishedRestore(
            bundle, source, f"schema {PROGRESS_SCHEMA}", f"DROP SCHEMA {PROGRESS_SCHEMA} CASCADE;"
        )
    return UnfinishedRestore(bundle, source, f"tables {labels}", f"DROP TABLE {labels};")
