"""Languages that no extension has, with their handlers.

Where the handler is the server's own, pg_dump writes CREATE OR REPLACE PROCEDURAL LANGUAGE with nothing but the name,
which servers take for CREATE EXTENSION (dumpProcLang in src/bin/pg_dump/pg_dump.c).
"""

from __future__ import annotations

from typing import Any

import psycopg

from exporters.postgres.definitions.system_schema import FIRST_OID

_LANGUAGES = """
SELECT pg_catalog.convert_to(
    pg_catalog.format(E'CREATE OR REPLACE PROCEDURAL LANGUAGE %%I;\\n', l.lanname), %(encoding)s),
  pg_catalog.convert_to(pg_catalog.format(E'CREATE %%sPROCEDURAL LANGUAGE %%I HANDLER %%s%%s%%s;\\n',
    CASE WHEN l.lanpltrusted THEN 'TRUSTED ' ELSE '' END, l.lanname,
    (SELECT pg_catalog.format('%%I.%%I', n.nspname, p.proname) FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = l.lanplcallfoid),
    (SELECT pg_catalog.format(' INLINE %%I.%%I', n.nspname, p.proname) FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = l.laninline),
    (SELECT pg_catalog.format(' VALIDATOR %%I.%%I', n.nspname, p.proname) FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = l.lanvalidator)), %(encoding)s)
FROM pg_catalog.pg_language l WHERE l.lanispl AND l.oid >= %(first)s AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
  WHERE d.classid = 'pg_catalog.pg_language'::pg_catalog.regclass AND d.objid = l.oid AND d.deptype = 'e')
"""


def with_handlers(script: bytes, holder: psycopg.Connection[Any], encoding: str) -> bytes:
    """Return pre-data in this encoding with the handlers of such languages."""
    for bare, whole in holder.execute(
        _LANGUAGES.encode(), {"encoding": encoding, "first": FIRST_OID}
    ).fetchall():
        script = script.replace(b"\n" + bytes(bare), b"\n" + bytes(whole), 1)
    return script
