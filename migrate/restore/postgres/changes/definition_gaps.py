"""What a source defines and its destination lacks: no change log carries definitions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import psycopg

from exporters.postgres.changes.publication import BaseTable, base_tables
from exporters.postgres.changes.slot import PREFIX
from exporters.postgres.definitions.object_access import (
    ACCESS,
    TRANSACTION,
    changed_access,
    read_access,
    read_texts,
    state_at,
    without_newer,
)
from exporters.postgres.errors import as_source_errors
from exporters.postgres.identifiers import quote_literal
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.postgres.sessions.connection import connect, parse_url, session_settings
from migrate.bundle.reader import BundleReader
from migrate.changes.remainder import BothSides, DefinitionGaps
from migrate.restore.common.environment import note_other_settings
from migrate.restore.postgres.changes.follow_marks import tables_read_again
from migrate.restore.postgres.destination import without_event_triggers

_ARGUMENTS = r"regexp_replace(pg_get_function_identity_arguments(p.oid), '(^|, )IN ', '\1', 'g')"
"""From PostgreSQL 14 on it is printed that an argument of a procedure is for input."""
_OBJECTS = """
WITH schemas AS (
  SELECT oid, nspname FROM pg_catalog.pg_namespace
  WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', '{own}')),
relations AS (
  SELECT c.oid, c.relkind, c.relname, n.nspname, format('%I.%I', n.nspname, c.relname) AS label
  FROM pg_catalog.pg_class c JOIN schemas n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't'),
types AS (
  SELECT t.oid, t.typtype, format('%I.%I', n.nspname, t.typname) AS label
  FROM pg_catalog.pg_type t JOIN schemas n ON n.oid = t.typnamespace
  WHERE t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_catalog.pg_class c
    WHERE c.oid = t.typrelid AND c.relkind = 'c')),
others(class, oid) AS (
  {others}),
objects(kind, label, part_of, class, oid) AS (
  SELECT 'schema', quote_ident(nspname), '', 'pg_catalog.pg_namespace'::regclass, oid FROM schemas
  UNION ALL SELECT 'extension', quote_ident(extname), '', 'pg_catalog.pg_extension'::regclass, oid
  FROM pg_catalog.pg_extension
  UNION ALL SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
    WHEN 'f' THEN 'foreign table' ELSE 'table' END, label, '', 'pg_catalog.pg_class'::regclass, oid
  FROM relations WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL SELECT 'column', format('%s.%I (%s)', r.label, a.attname, format_type(a.atttypid, a.atttypmod)), r.label,
    'pg_catalog.pg_class'::regclass, r.oid
  FROM pg_catalog.pg_attribute a JOIN relations r ON r.oid = a.attrelid
  WHERE a.attnum > 0 AND NOT a.attisdropped AND r.relkind IN ('r', 'p')
  UNION ALL SELECT 'index', format('%I.%I', r.nspname, i.relname), r.label, 'pg_catalog.pg_class'::regclass, r.oid
  FROM pg_catalog.pg_index x JOIN relations r ON r.oid = x.indrelid JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
  WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = x.indexrelid)
  UNION ALL SELECT 'constraint', format('%I of %s', k.conname, r.label), r.label, 'pg_catalog.pg_class'::regclass, r.oid
  FROM pg_catalog.pg_constraint k JOIN relations r ON r.oid = k.conrelid
  WHERE k.contype IN ('c', 'p', 'u', 'x') OR k.contype = 'f' AND k.conparentid = 0
  UNION ALL SELECT 'trigger', format('%I of %s', g.tgname, r.label), r.label, 'pg_catalog.pg_class'::regclass, r.oid
  FROM pg_catalog.pg_trigger g JOIN relations r ON r.oid = g.tgrelid WHERE NOT g.tgisinternal
  UNION ALL SELECT 'policy', format('%I of %s', p.polname, r.label), r.label, 'pg_catalog.pg_class'::regclass, r.oid
  FROM pg_catalog.pg_policy p JOIN relations r ON r.oid = p.polrelid
  UNION ALL SELECT 'rule', format('%I of %s', w.rulename, r.label), r.label, 'pg_catalog.pg_class'::regclass, r.oid
  FROM pg_catalog.pg_rewrite w JOIN relations r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'
  UNION ALL SELECT 'function', format('%I.%I(%s)', n.nspname, p.proname, {arguments}), '',
    'pg_catalog.pg_proc'::regclass, p.oid
  FROM pg_catalog.pg_proc p JOIN schemas n ON n.oid = p.pronamespace
  UNION ALL SELECT 'type', label, '', 'pg_catalog.pg_type'::regclass, oid FROM types
  UNION ALL SELECT 'user mapping', format('for %s on server %I', CASE umuser WHEN 0 THEN 'PUBLIC' ELSE
    quote_ident(usename) END, srvname), '', 'pg_catalog.pg_user_mapping'::regclass, umid
  FROM pg_catalog.pg_user_mappings
  UNION ALL SELECT 'label', format('%L of %s', e.enumlabel, t.label), t.label, 'pg_catalog.pg_type'::regclass, t.oid
  FROM pg_catalog.pg_enum e JOIN types t ON t.oid = e.enumtypid
  UNION ALL SELECT i.type, i.identity, split_part(i.identity, ' in publication ', 2), o.class, o.oid
  FROM others o, pg_catalog.pg_identify_object(o.class, o.oid, 0) i
  WHERE o.oid >= {first_oid} AND i.identity !~ '{our_publications}')
SELECT textsend(kind), textsend(label), textsend(part_of) FROM objects o
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
  WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')
"""
_OTHERS = (
    "pg_am", "pg_cast", "pg_collation", "pg_conversion", "pg_event_trigger", "pg_foreign_data_wrapper",
    "pg_foreign_server", "pg_language", "pg_opclass", "pg_operator", "pg_opfamily", "pg_publication",
    "pg_publication_rel", "pg_statistic_ext", "pg_transform", "pg_ts_config", "pg_ts_dict", "pg_ts_parser",
    "pg_ts_template",
)  # fmt: skip
"""Catalogs of objects that the server itself names, by their types and identities."""
_MADE = {"pg_operator": "oprcode <> 0"}
"""An operator that another one only names, as its negator, is not made yet."""
_SINCE_15 = "pg_publication_namespace"
_VERSION_15 = 150000
_FIRST_OID = 16384
"""Numbers below are of objects that come with the server (FirstNormalObjectId)."""
_OBJECTS = (
    _OBJECTS.replace("{own}", PROGRESS_SCHEMA)
    .replace("{first_oid}", str(_FIRST_OID))
    .replace("{our_publications}", rf"(^| in publication )\"?{PREFIX}")
    .replace("{arguments}", _ARGUMENTS)
)
"""Objects by their kinds and names, and of what each is a part; those of extensions come with these. The server makes
foreign keys of partitions, also of those to which a key refers, and calls them otherwise in each version.
"""
_DEFINITIONS = r"""
WITH schemas AS (
  SELECT oid, nspname FROM pg_catalog.pg_namespace
  WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', '{own}')),
relations AS (
  SELECT c.*, n.nspname, format('%I.%I', n.nspname, c.relname) AS label
  FROM pg_catalog.pg_class c JOIN schemas n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't'),
published AS MATERIALIZED (
  SELECT t.* FROM pg_catalog.pg_publication_tables t WHERE t.pubname IN (
    SELECT p.pubname FROM pg_catalog.pg_publication_rel o JOIN pg_catalog.pg_publication p ON p.oid = o.prpubid
    WHERE to_jsonb(o) ->> 'prattrs' <> '' OR to_jsonb(o) ->> 'prqual' <> '')),
definitions(kind, label, stored, printed, made_by) AS (
  SELECT 'table', label, concat_ws(' ', relpersistence, relrowsecurity, relforcerowsecurity,
    pg_get_expr(relpartbound, r.oid), (SELECT string_agg(h.inhparent::regclass::text, ' ' ORDER BY h.inhseqno)
    FROM pg_catalog.pg_inherits h WHERE h.inhrelid = r.oid), ARRAY(SELECT unnest(r.reloptions) ORDER BY 1),
    (SELECT 'CLUSTER ON ' || i.relname FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
    WHERE x.indrelid = r.oid AND x.indisclustered)), '', NULL::xid
  FROM relations r WHERE r.relkind IN ('r', 'p')
  UNION ALL SELECT 'column', format('%s.%I (%s)', r.label, a.attname, format_type(a.atttypid, a.atttypmod)),
    concat_ws(' ', a.attnotnull, CASE WHEN r.relispartition THEN '' ELSE a.attidentity END, a.attgenerated <> '',
      d.oid IS NULL, (SELECT collname FROM
      pg_catalog.pg_collation l WHERE l.oid = a.attcollation), a.attstorage,
      coalesce(to_jsonb(a) ->> 'attcompression', ''), coalesce(a.attstattarget, -1),
      ARRAY(SELECT unnest(a.attoptions) ORDER BY 1)),
    pg_get_expr(d.adbin, d.adrelid), d.xmin
  FROM pg_catalog.pg_attribute a JOIN relations r ON r.oid = a.attrelid
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE a.attnum > 0 AND NOT a.attisdropped AND r.relkind IN ('r', 'p')
  UNION ALL SELECT 'index', format('%I.%I', r.nspname, i.relname), x.indisunique::text, pg_get_indexdef(x.indexrelid),
    x.xmin
  FROM pg_catalog.pg_index x JOIN relations r ON r.oid = x.indrelid JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
  UNION ALL SELECT 'constraint', format('%I of %s', k.conname, r.label),
    concat_ws(' ', k.contype, CASE WHEN k.contype IN ('p', 'u', 'f') THEN k.printed END), k.printed, k.made_by
  FROM relations r JOIN (SELECT conrelid, conname, contype, xmin AS made_by,
      regexp_replace(pg_get_constraintdef(oid), ' NOT VALID$', '') AS printed
    FROM pg_catalog.pg_constraint
    WHERE contype IN ('c', 'p', 'u', 'x') OR contype = 'f' AND conparentid = 0) AS k ON k.conrelid = r.oid
  UNION ALL SELECT 'trigger', format('%I of %s', g.tgname, r.label), concat_ws(' ', g.tgtype, g.tgenabled),
    pg_get_triggerdef(g.oid), g.xmin
  FROM pg_catalog.pg_trigger g JOIN relations r ON r.oid = g.tgrelid WHERE NOT g.tgisinternal
  UNION ALL SELECT 'policy', format('%I of %s', p.polname, r.label), concat_ws(' ', p.polcmd, p.polpermissive, (
      SELECT string_agg(CASE o WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(o)) END, ' '
        ORDER BY pg_get_userbyid(o)) FROM unnest(p.polroles) AS o)),
    concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid)), p.xmin
  FROM pg_catalog.pg_policy p JOIN relations r ON r.oid = p.polrelid
  UNION ALL SELECT 'function', format('%I.%I(%s)', n.nspname, p.proname, {arguments}),
    concat_ws(' ', l.lanname, p.prosrc, p.provolatile, p.proisstrict, p.prosecdef, p.proconfig, p.proleakproof,
      p.proparallel, g.aggtransfn, g.aggfinalfn, g.agginitval),
    regexp_replace(concat_ws(' ', pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
      CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END), '(^|\(|, )IN ', '\1', 'g'), p.xmin
  FROM pg_catalog.pg_proc p JOIN schemas n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang LEFT JOIN pg_catalog.pg_aggregate g ON g.aggfnoid = p.oid
  UNION ALL SELECT 'type', format('%I.%I', n.nspname, t.typname),
    concat_ws(' ', format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault IS NULL, (
      SELECT string_agg(k.conname, ' ' ORDER BY k.conname) FROM pg_catalog.pg_constraint k
      WHERE k.contypid = t.oid AND k.contype = 'c')),
    pg_get_expr(t.typdefaultbin, 0), t.xmin
  FROM pg_catalog.pg_type t JOIN schemas n ON n.oid = t.typnamespace WHERE t.typtype = 'd'
  UNION ALL SELECT 'type', r.label, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', '
    ORDER BY a.attnum), '', NULL
  FROM pg_catalog.pg_attribute a JOIN relations r ON r.oid = a.attrelid
  WHERE a.attnum > 0 AND NOT a.attisdropped AND r.relkind = 'c' GROUP BY r.label
  UNION ALL SELECT 'sequence', r.label, concat_ws(' ', format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement,
    s.seqmin, s.seqmax, s.seqcache, s.seqcycle, (SELECT format('OWNED BY %s.%I', o.label, a.attname)
      FROM pg_catalog.pg_depend d JOIN relations o ON o.oid = d.refobjid JOIN pg_catalog.pg_attribute a
      ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE d.classid = 'pg_catalog.pg_class'::regclass
      AND d.objid = r.oid AND d.refclassid = d.classid AND d.deptype = 'a')), '', NULL
  FROM pg_catalog.pg_sequence s JOIN relations r ON r.oid = s.seqrelid
  UNION ALL SELECT 'statistics object', i.identity, coalesce(to_jsonb(s) ->> 'stxstattarget', '-1'),
    pg_get_statisticsobjdef(s.oid), s.xmin
  FROM pg_catalog.pg_statistic_ext s, pg_catalog.pg_identify_object('pg_catalog.pg_statistic_ext'::regclass, s.oid, 0) i
  UNION ALL SELECT 'publication', quote_ident(pubname), concat_ws(' ', puballtables, pubinsert, pubupdate, pubdelete,
    pubtruncate, coalesce(to_jsonb(p) ->> 'pubviaroot', 'false')), '', NULL FROM pg_catalog.pg_publication p
  UNION ALL SELECT 'publication relation', format('%s in publication %s', r.label, p.pubname),
    CASE WHEN to_jsonb(o) ->> 'prattrs' <> '' THEN to_jsonb(t) ->> 'attnames' END, to_jsonb(t) ->> 'rowfilter', o.xmin
  FROM pg_catalog.pg_publication_rel o JOIN relations r ON r.oid = o.prrelid
  JOIN pg_catalog.pg_publication p ON p.oid = o.prpubid
  LEFT JOIN published t ON t.pubname = p.pubname AND t.schemaname = r.nspname AND t.tablename = r.relname
  UNION ALL SELECT 'event trigger', quote_ident(evtname),
    concat_ws(' ', evtevent, evtenabled, evtfoid::regproc, evttags), '', NULL FROM pg_catalog.pg_event_trigger
  UNION ALL SELECT 'server', quote_ident(srvname), '', concat_ws(' ', srvtype, srvversion,
    array_to_string(ARRAY(SELECT unnest(srvoptions) ORDER BY 1), ' ')), xmin
  FROM pg_catalog.pg_foreign_server
  UNION ALL SELECT 'extension', quote_ident(extname), '', extnamespace::regnamespace::text, xmin
  FROM pg_catalog.pg_extension
  UNION ALL SELECT 'foreign table', r.label, (
      SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
        array_to_string(ARRAY(SELECT unnest(a.attfdwoptions) ORDER BY 1), ' ')), ', ' ORDER BY a.attnum)
      FROM pg_catalog.pg_attribute a WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped),
    array_to_string(ARRAY(SELECT unnest(f.ftoptions) ORDER BY 1), ' '), f.xmin
  FROM pg_catalog.pg_foreign_table f JOIN relations r ON r.oid = f.ftrelid
  UNION ALL SELECT CASE r.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, r.label,
    CASE r.relkind WHEN 'v' THEN array_to_string(ARRAY(SELECT unnest(r.reloptions) ORDER BY 1), ' ') END,
    pg_get_viewdef(r.oid), w.xmin
  FROM relations r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid AND w.rulename = '_RETURN'
  UNION ALL SELECT 'rule', format('%I of %s', w.rulename, r.label), concat_ws(' ', w.ev_type, w.ev_enabled),
    pg_get_ruledef(w.oid), w.xmin
  FROM pg_catalog.pg_rewrite w JOIN relations r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN')
SELECT textsend(kind), textsend(label), textsend(coalesce(stored, '')), textsend(coalesce(printed, '')),
  textsend((age(made_by) BETWEEN 0 AND {age})::text)
FROM definitions
"""
_DEFINITIONS = _DEFINITIONS.replace("{own}", PROGRESS_SCHEMA).replace("{arguments}", _ARGUMENTS)
"""What each object is: as the server stores it, and as it prints it. What was printed and read back may be printed
otherwise, though it means the same; options also in another order. A partition numbers its rows as its parent does
(from PostgreSQL 17 on), and a virtual column has the values of a stored one. Whether it was made since the base says
the number of its transaction.
"""
_TABLES = """
SELECT textsend(n.nspname || '.' || c.relname), textsend(format('DROP TABLE %I.%I', n.nspname, c.relname)),
  textsend(c.oid::text)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'
"""
_COLUMNS = """
SELECT textsend(format('%I.%I', n.nspname, c.relname)), textsend(a.attname::text)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '{own}')
ORDER BY c.oid, a.attnum
""".replace("{own}", PROGRESS_SCHEMA)
_NEW_COLUMNS = """
SELECT textsend(n.nspname || '.' || c.relname), textsend(c.oid::text), textsend(a.attname::text),
  textsend(a.attnum::text), textsend(format('%I.%I.%I (%s)', n.nspname, c.relname, a.attname,
    format_type(a.atttypid, a.atttypmod))), textsend(format_type(a.atttypid, a.atttypmod)),
  textsend(CASE WHEN a.xmin = c.xmin THEN c.relfilenode ELSE 0 END::text)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND age(a.xmin) BETWEEN 0 AND {age}
"""
"""The columns that were defined since a transaction, and the file that the table has got by the same statement, if that
was the last one: a statement that changes the type of a column writes all rows anew (``USING``).
"""
_VIEWS = frozenset({"view", "materialized view", "rule"})
"""Servers of different versions print these differently."""
_PRINTED = "moveout_printed"
_PRINT_VIEW = f"SELECT textsend(pg_get_viewdef('pg_temp.{_PRINTED}'::regclass))"
_PRINT_RULE = """
SELECT textsend(pg_get_ruledef(w.oid)) FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class c ON c.oid = w.ev_class
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE format('%I of %I.%I', w.rulename, n.nspname, c.relname) = {}
"""
_MAJOR = 10000
_MAINTAIN_VERSION = 170000


def definition_gaps(
    sides: BothSides,
    skipped: Collection[str],
    log: Mapping[str, Any] | None,
) -> list[str]:
    """See ``exporters.engine.Engine.definition_gaps``. Raises ``SourceError``."""
    source = parse_url(sides.source_url, sides.source_secrets)
    destination = parse_url(sides.destination_url, sides.destination_secrets)
    with (
        closing(connect(source)) as reader,
        closing(connect(destination)) as writer,
        as_source_errors(f"{source.url} or {destination.url}"),
    ):
        missing = compare_definitions(reader, writer, skipped=skipped, log=log).missing
        anew = _columns_with_other_values(reader, writer, log or {})
        return [*missing, *anew, *_dropped(reader, writer, base_tables(log or {}))]


def definition_state(
    url: str, secrets: Mapping[str, str], reader: BundleReader | None, source: str
) -> dict[str, Any]:
    """See ``exporters.engine.Engine.definition_state``. Raises ``SourceError``, ``DamageError``."""
    return state_at(url, secrets, reader.newest_position(source) if reader else {})


def compare_definitions(
    source: psycopg.Connection[Any],
    destination: psycopg.Connection[Any],
    *,
    skipped: Collection[str],
    log: Mapping[str, Any] | None,
    is_all_access: bool = False,
) -> DefinitionGaps:
    """Return the objects (``index public.by_day``) that only one side has, and those that the source defines otherwise.
    Of one that is missing, or of a table ``skipped`` (``schema.name``), no parts are named. ``is_all_access``: owners,
    privileges, comments and settings are compared also where they have not changed since the base.
    """
    part_of, there = _objects(source), _objects(destination)
    whole = _whole(part_of, there) | {*skipped}
    defined, at_destination = _definitions(source, (log or {}).get(TRANSACTION)), _definitions(destination)
    common = part_of.keys() & defined.keys() & at_destination.keys()
    is_one_version = source.info.server_version // _MAJOR == destination.info.server_version // _MAJOR
    changed = sorted(
        name
        for name in common
        if _differs(name, defined[name], at_destination[name], None if is_one_version else destination)
    )
    gaps = [
        f"{kind} {label}{' as it is defined now' if (kind, label) in common else ''}"
        for kind, label in (*sorted(part_of.keys() - there.keys()), *changed)
        if part_of[kind, label] not in whole and label not in skipped
    ]
    orders = _columns(source), _columns(destination)
    gaps += [
        f"order of the columns of table {label}" for label in _in_other_order(*orders) if label not in skipped
    ]
    before = None if is_all_access else (log or {}).get(ACCESS)
    if is_all_access or isinstance(before, Mapping):
        sides = [read_access(side) for side in (source, destination)]
        if len({side.info.server_version >= _MAINTAIN_VERSION for side in (source, destination)}) > 1:
            sides = [*map(without_newer, sides)]
        access = changed_access(before, *sides)
        gaps += [f"{label} as it is now" for label in access]
    only_there = _whole(there, part_of)
    surplus = [
        f"{kind} {label}"
        for kind, label in sorted(there.keys() - part_of.keys())
        if there[kind, label] not in only_there
    ]
    settings = note_other_settings(*map(session_settings, (source, destination)))
    return DefinitionGaps(gaps, surplus, settings)


def _differs(
    name: tuple[str, str],
    definition: _Definition,
    present: _Definition,
    destination: psycopg.Connection[Any] | None,
) -> bool:
    """Tell whether an object is another one than at the ``destination``, which is named where its server is of another
    version.
    """
    kind, label = name
    if destination is None or kind not in _VIEWS or not definition.differs(present, as_printed=True):
        return definition.differs(present, as_printed=True)
    if definition.differs(present, as_printed=False):
        return True
    if kind == "rule":
        make = definition.printed.replace("CREATE RULE", "CREATE OR REPLACE RULE", 1)
        return _is_other(destination, make, _PRINT_RULE.format(quote_literal(label)), present.printed)
    make = f"CREATE TEMPORARY VIEW {_PRINTED} AS {definition.printed}"
    return _is_other(destination, make, _PRINT_VIEW, present.printed)


def _is_other(destination: psycopg.Connection[Any], make: str, print_it: str, present: str) -> bool:
    """Tell whether a view or rule is another one than the destination has, once its server has made and printed it,
    too: each version does so otherwise. Nothing of it stays. True where the destination lacks what it needs, or its
    table is in use, False where the role may not try that.
    """
    try:
        with destination.transaction(force_rollback=True), without_event_triggers(destination):
            destination.execute(b"SET LOCAL lock_timeout = '1s'")
            destination.execute(make.encode())
            ((printed,),) = read_texts(destination, print_it)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
        return False
    except psycopg.Error:
        if destination.closed:
            raise
        return True
    return printed != present


def _whole(side: Mapping[tuple[str, str], str], other: Mapping[tuple[str, str], str]) -> set[str]:
    """Return the names of objects with all their parts that only one side has."""
    return {label for kind, label in side.keys() - other.keys() if not side[kind, label]}


class _Definition(NamedTuple):
    stored: str
    printed: str
    is_new: bool

    def differs(self, other: _Definition, *, as_printed: bool) -> bool:
        """Tell whether the source's is another one than the destination's."""
        is_other = self.is_new and as_printed and self.printed != other.printed
        return is_other or self.stored != other.stored


def _definitions(
    connection: psycopg.Connection[Any], transaction: int | None = None
) -> dict[tuple[str, str], _Definition]:
    """Return what each object is, by kind and name. ``transaction``: those from there on have made new ones."""
    age = "-1" if transaction is None else f"age('{transaction % 2**32}'::xid)"
    query = _DEFINITIONS.replace("{age}", age)
    return {
        (kind, label): _Definition(stored, printed, is_new == "true")
        for kind, label, stored, printed, is_new in read_texts(connection, query)
    }


def _columns_with_other_values(
    source: psycopg.Connection[Any], destination: psycopg.Connection[Any], log: Mapping[str, Any]
) -> list[str]:
    """Return the columns that have the name of one that the base had, and are not the same: dropped and added again, or
    renamed. Then those that a statement has computed anew. Rows that nobody wrote to have other values in them, which
    are not in the log. Not of tables that were read again since.
    """
    tables, transaction = base_tables(log), log.get(TRANSACTION)
    if not tables or transaction is None:
        return []
    read_again = tables_read_again(destination)
    anew = read_texts(source, _NEW_COLUMNS.format(age=f"age('{transaction % 2**32}'::xid)"))
    made, computed = [], []
    for table, oid, name, number, label, sql_type, file in anew:
        base = tables.get(table)
        if base is None or base.oid != int(oid) or table in read_again:
            continue
        if base.columns.get(name, int(number)) != int(number):
            made.append(f"values of column {label}, which was made anew")
        elif base.types.get(name) == sql_type and base.file and int(file) not in {0, base.file}:
            computed.append(f"values of column {label}, which may have been computed anew")
    return [*sorted(made), *sorted(computed)]


def _columns(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Return the names of each table's columns, in their order."""
    columns: dict[str, list[str]] = {}
    for label, name in read_texts(connection, _COLUMNS):
        columns.setdefault(label, []).append(name)
    return columns


def _in_other_order(source: Mapping[str, list[str]], destination: Mapping[str, list[str]]) -> list[str]:
    """Return the tables whose columns are in another order, as where two have exchanged their names: rows are compared
    by the order of their values, so those that are equal may be so in other columns.
    """
    different = []
    for label in source.keys() & destination.keys():
        common = {*source[label]} & {*destination[label]}
        orders = [[name for name in side[label] if name in common] for side in (source, destination)]
        if orders[0] != orders[1]:
            different.append(label)
    return sorted(different)


def _dropped(
    source: psycopg.Connection[Any], destination: psycopg.Connection[Any], tables: Mapping[str, BaseTable]
) -> list[str]:
    """Return the statements that drop the tables which the source has dropped, not renamed, since the base."""
    rows = [*read_texts(source, _TABLES)]
    names, numbers = {name for name, _, _ in rows}, {int(number) for _, _, number in rows}
    gone = {name for name, table in tables.items() if name not in names and table.oid not in numbers}
    return (
        sorted(statement for name, statement, _ in read_texts(destination, _TABLES) if name in gone)
        if gone
        else []
    )


def _objects(connection: psycopg.Connection[Any]) -> dict[tuple[str, str], str]:
    """Return of what each object is a part, by kind and name."""
    catalogs = (*_OTHERS, _SINCE_15) if connection.info.server_version >= _VERSION_15 else _OTHERS
    others = (
        f"SELECT 'pg_catalog.{name}'::regclass, oid FROM pg_catalog.{name} WHERE {_MADE.get(name, 'true')}"
        for name in catalogs
    )
    query = _OBJECTS.replace("{others}", " UNION ALL ".join(others))
    return {(kind, label): part_of for kind, label, part_of in read_texts(connection, query)}
