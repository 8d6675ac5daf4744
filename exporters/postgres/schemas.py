"""Schemas: the one that moveout makes for itself, and those in which code of a database's own finds its names."""

from __future__ import annotations

PROGRESS_SCHEMA = "moveout_restore"
"""Where a restore keeps its place in the destination; never a part of the data."""

SEARCH_EVERY_SCHEMA = (
    "SELECT pg_catalog.set_config('search_path', (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(nspname), ', '"
    " ORDER BY nspname <> 'public', nspname) FROM pg_catalog.pg_namespace"
    f" WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', '{PROGRESS_SCHEMA}')), true)"
)
"""Until the end of the transaction code of the database's own finds what it names without a schema, as it does for an
application. What we ask ourselves is not found elsewhere for it: pg_catalog comes first.
"""
