"""Whether the triggers fire that the server made for constraints, which pg_dump's statements leave out."""

from __future__ import annotations

from typing import Any

import psycopg

from exporters.postgres.query_rows import fetch
from exporters.postgres.schemas import PROGRESS_SCHEMA

_OF_CONSTRAINTS = """
SELECT n.nspname::text AS schema, c.relname::text AS "table", kn.nspname::text AS constraint_schema,
  kc.relname::text AS constraint_table, k.conname::text AS "constraint", p.proname::text AS function,
  t.tgname::text AS name, t.tgenabled::text AS state
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  WITH RECURSIVE above(oid, parent) AS (
    SELECT oid, conparentid FROM pg_catalog.pg_constraint WHERE oid = t.tgconstraint
    UNION ALL SELECT o.oid, o.conparentid FROM above JOIN pg_catalog.pg_constraint o ON o.oid = above.parent)
  SELECT oid FROM above WHERE parent = 0) AS top
JOIN pg_catalog.pg_constraint k ON k.oid = top.oid
JOIN pg_catalog.pg_class kc ON kc.oid = k.conrelid JOIN pg_catalog.pg_namespace kn ON kn.oid = kc.relnamespace
WHERE t.tgisinternal AND n.nspname <> %(progress)s AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (%(every)s OR t.tgenabled <> 'O')
ORDER BY c.relkind = 'p' DESC, 1, 2, 3, 4, 5, 6
"""
"""A trigger is named for the number of its constraint, which is another one on every server. So it is known by its
table, its function and the constraint, of partitions' constraints the one above all.
"""


def constraint_triggers(connection: psycopg.Connection[Any], *, every: bool) -> list[dict[str, Any]]:
    """Return the triggers of constraints as rows, those of partitioned tables first: all of them, or those whose
    ``state`` (pg_trigger.tgenabled) is not that of a new one. Raises what the driver raises.
    """
    return fetch(connection, _OF_CONSTRAINTS, {"progress": PROGRESS_SCHEMA, "every": every})
