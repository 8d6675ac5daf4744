"""Objects that are not locked by an export, and were dropped or renamed while their definitions were read.

pg_dump lists what there is as of the snapshot, and the server prints definitions with the names of now. What was
dropped since ends pg_dump, or is printed in part; what was renamed is printed in two ways, which do not fit together.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg

from exporters.postgres.definitions.system_schema import FIRST_OID

_IN_SCHEMAS = (
    ("relation", "class", "rel", "relkind IN ('v', 'S', 'p', 'f', 'c', 'm') AND relpersistence <> 't'"),
    ("type", "type", "typ", "typtype <> 'c' AND (typtype <> 'b' OR typelem = 0)"),
    ("function", "proc", "pro", "true"),
    ("operator", "operator", "opr", "true"),
    ("operator class", "opclass", "opc", "true"),
    ("operator family", "opfamily", "opf", "true"),
    ("collation", "collation", "coll", "true"),
    ("conversion", "conversion", "con", "true"),
    ("statistics object", "statistic_ext", "stx", "true"),
    ("constraint of a domain", "constraint", "con", "contypid <> 0"),
    ("text search configuration", "ts_config", "cfg", "true"),
    ("text search dictionary", "ts_dict", "dict", "true"),
    ("text search parser", "ts_parser", "prs", "true"),
    ("text search template", "ts_template", "tmpl", "true"),
)
"""What each is, its catalog, what the names of the catalog's columns begin with, and which of them count: of tables the
export holds locks, and indexes go with them.
"""
_OTHERS = (
    ("schema", "namespace", "nsp"),
    ("publication", "publication", "pub"),
    ("foreign server", "foreign_server", "srv"),
    ("foreign-data wrapper", "foreign_data_wrapper", "fdw"),
    ("extension", "extension", "ext"),
    ("language", "language", "lan"),
    ("event trigger", "event_trigger", "evt"),
)
_COLUMN = "column"
_COLUMNS = f"""
SELECT o.oid, pg_catalog.format('%s (%I.%I.%I)', a.attnum, n.nspname, o.relname, a.attname) AS name, a.xmin AS made
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class o ON o.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
WHERE o.oid >= {FIRST_OID} AND o.relkind IN ('v', 'c') AND o.relpersistence <> 't' AND n.nspname !~ '^pg_'
  AND a.attnum > 0 AND NOT a.attisdropped
"""
"""Columns of views, and attributes of composite types: two of them may have exchanged their names."""
_MADE = {
    "relation": "(SELECT t.xmin FROM pg_catalog.pg_type t WHERE t.oid = o.reltype)",
    "type": "o.xmin",
}
"""What is another one where an object of a kind has got back a name that others had meanwhile: CREATE OR REPLACE VIEW
leaves the type of a view as it was.
"""
_DIGEST = "pg_catalog.md5(pg_catalog.concat_ws(' ', made, name))"
"""Names as digests: a server may have cut one within a character, so that it is no text."""
_SELECTS = {
    _COLUMN: _COLUMNS,
    **{
        what: f"SELECT o.oid, pg_catalog.format('%I.%I', n.nspname, o.{word}name) AS name, {_MADE.get(what, 0)} AS made"
        f" FROM pg_catalog.pg_{catalog} o JOIN pg_catalog.pg_namespace n ON n.oid = o.{word}namespace"
        f" WHERE o.oid >= {FIRST_OID} AND n.nspname !~ '^pg_' AND {condition}"
        for what, catalog, word, condition in _IN_SCHEMAS
    },
    **{
        what: f"SELECT oid, pg_catalog.quote_ident({word}name) AS name, 0 AS made"
        f" FROM pg_catalog.pg_{catalog} WHERE oid >= {FIRST_OID} AND {word}name !~ '^pg_'"
        for what, catalog, word in _OTHERS
    },
}
_OBJECTS = " UNION ALL ".join(
    f"SELECT oid::pg_catalog.int8, '{what}', {_DIGEST} FROM ({select}) AS objects"
    for what, select in _SELECTS.items()
)
_TRANSACTIONS = """
SELECT pg_catalog.txid_current_snapshot()::pg_catalog.text WHERE NOT pg_catalog.pg_is_in_recovery()
"""
"""Which transactions are seen. Where these are the same, nothing was written since; a standby does not list those that
are open.
"""


def moved_object(snapshot: psycopg.Connection[Any], present: psycopg.Connection[Any]) -> str:
    """Return an object of a snapshot that is not there by its name any more, as words; "" where there is none. What was
    made since does not count. Raises the driver's errors.
    """
    seen_before = snapshot.execute(_TRANSACTIONS).fetchone()
    if seen_before is not None and seen_before == present.execute(_TRANSACTIONS).fetchone():
        return ""
    with snapshot.transaction():
        before = {*snapshot.execute(_OBJECTS.encode()).fetchall()}
    gone = before.difference(present.execute(_OBJECTS.encode()).fetchall())
    if not gone:
        return ""
    # A column last: its relation may have moved.
    oid, what, digest = min(gone, key=lambda moved: (moved[1] == _COLUMN, *moved))
    with suppress(psycopg.Error, UnicodeError), snapshot.transaction():
        where = f"oid = {oid} AND {_DIGEST} = '{digest}'"
        row = snapshot.execute(
            f"SELECT name FROM ({_SELECTS[what]}) AS objects WHERE {where}".encode()
        ).fetchone()
        return f"{what} {row[0]}" if row else f"{what} {oid}"
    return f"{what} {oid}"
