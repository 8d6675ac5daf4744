"""What fills materialized views, in the words of pg_dump, which from 18 on is asked for definitions only.

Else it would read every sequence, also one that is locked, and wait for ever (``pg_get_sequence_data``, which
``collectSequences`` in src/bin/pg_dump/pg_dump.c calls unless no rows are dumped). Without rows it refreshes no view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from exporters.postgres.schemas import PROGRESS_SCHEMA

DEFINITIONS_ONLY = 18
"""From this version of pg_dump on."""

_NEEDED = """
WITH RECURSIVE needed(view, oid) AS (
  SELECT oid, oid FROM pg_catalog.pg_class WHERE relkind = 'm'
  UNION SELECT n.view, d.refobjid FROM needed n
    JOIN pg_catalog.pg_rewrite r ON r.ev_class = n.oid
    JOIN pg_catalog.pg_depend d ON d.objid = r.oid AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)
"""
_IN_ORDER = """
ORDER BY (SELECT pg_catalog.count(*) FROM needed n JOIN pg_catalog.pg_class m ON m.oid = n.oid AND m.relkind = 'm'
  WHERE n.view = c.oid), s.nspname, c.relname
"""
"""Each after all that it reads."""
FILLED_VIEWS = f"""
{_NEEDED} SELECT s.nspname::text, c.relname::text FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace WHERE c.relkind = 'm' AND c.relispopulated {_IN_ORDER}
"""
"""Schema and name of the materialized views that are filled, each after all that it reads."""
_FILLED = f"""
{_NEEDED} SELECT pg_catalog.convert_to(pg_catalog.format(%(entry)s,
    pg_catalog.translate(c.relname, E'\\n\\r', '  '), pg_catalog.translate(s.nspname, E'\\n\\r', '  '),
    CASE WHEN %(portable)s THEN '-'
      ELSE pg_catalog.translate(pg_catalog.pg_get_userbyid(c.relowner), E'\\n\\r', '  ') END,
    s.nspname, c.relname), %(encoding)s)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated AND s.nspname <> %(progress)s
  AND c.oid <> ALL (%(without)s::pg_catalog.oid[]) AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
{_IN_ORDER}
"""
"""Those that were filled, as entries of a script."""
_ENTRY = """--
-- Name: %s; Type: MATERIALIZED VIEW DATA; Schema: %s; Owner: %s
--

REFRESH MATERIALIZED VIEW %I.%I;


"""


def read_refreshes(
    holder: psycopg.Connection[Any], without: Sequence[int], encoding: str, *, portable: bool
) -> bytes:
    """Return entries in this encoding that fill the materialized views, but those ``without``: they come at the end of
    post-data, where pg_dump has them too.
    """
    parameters = {
        "entry": _ENTRY,
        "portable": portable,
        "encoding": encoding,
        "progress": PROGRESS_SCHEMA,
        "without": list(without),
    }
    return b"".join(row[0] for row in holder.execute(_FILLED.encode(), parameters))
