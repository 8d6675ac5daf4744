"""A table as a destination has it, for those who write changes to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

import psycopg
from msgspec import Struct
from msgspec.structs import force_setattr

from exporters.postgres.changes.pgoutput import Column, Relation, Row
from exporters.postgres.identifiers import quote_name, quote_qualified
from migrate.changes.apply import ChangeConflictError

_FIRST_USER_OID = 16384
"""Below it a type has the same number on every server (src/include/access/transam.h, FirstNormalObjectId)."""
_GENERATED_VERSION = 120000
_FULL = "f"
_COLUMNS = """
SELECT a.attname, a.atttypid::int8, a.atttypmod, format_type(a.atttypid, a.atttypmod),
  quote_ident(n.nspname) || '.' || quote_ident(t.typname),
  CASE WHEN t.typdelim = ',' AND t.typcategory NOT IN ('A', 'C') THEN (
    SELECT quote_ident(l.nspname) || '.' || quote_ident(y.typname)
    FROM pg_type y JOIN pg_namespace l ON l.oid = y.typnamespace WHERE y.oid = t.typarray) ELSE '' END,
  a.attidentity = 'a', {generated}
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_KEYS = """
SELECT array_agg(a.attname ORDER BY k.number), array_agg(o.operator ORDER BY k.number)
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS k(column_, class, number)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.column_
JOIN pg_opclass c ON c.oid = k.class
LEFT JOIN LATERAL (SELECT format('OPERATOR(%I.%s)', n.nspname, p.oprname) FROM pg_amop m
  JOIN pg_operator p ON p.oid = m.amopopr JOIN pg_namespace n ON n.oid = p.oprnamespace
  WHERE m.amopfamily = c.opcfamily AND m.amopstrategy = 3
    AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype) AS o(operator) ON true
WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
  AND i.indexprs IS NULL
GROUP BY i.indexrelid, i.indisprimary HAVING bool_and(a.attnotnull) AND bool_and(o.operator IS NOT NULL)
ORDER BY i.indisprimary DESC, count(*), i.indexrelid
"""
_FACTS = """
SELECT to_regclass($1) IS NOT NULL,
  EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass($1) AND NOT tgisinternal AND tgenabled IN ('A', 'R'))
  OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = to_regclass($1) AND ev_enabled IN ('A', 'R'))
"""
_TYPE_NAME = "SELECT format_type($1::oid, $2::int)"


class DestinationColumn(Struct, frozen=True):
    """A column into which changes are written. ``declared``: its type as in its definition. ``sql_type``: the same
    without a length. ``array_type``: "" where ``unnest`` would not return such values from an array: those of arrays
    would be taken apart, and so would rows. ``is_always_identity``: only a statement that overrides the server
    writes it. ``is_generated``: the server alone does.
    """

    name: str
    type_oid: int
    modifier: int
    declared: str
    sql_type: str
    array_type: str
    is_always_identity: bool
    is_generated: bool

    @property
    def quoted(self) -> str:
        """The name, as in SQL."""
        return quote_name(self.name)


class DestinationTable(Struct, frozen=True):
    """A table of a destination, its ``columns`` in the order of the source's messages. ``key``: the columns by whose
    values rows are found, with the operators that tell whether these are equal; none where rows are found by all
    values. ``has_old_rows``: the source sends the whole old row. ``acts``: it has triggers or rules that act on
    replicas, too.
    """

    label: str
    columns: tuple[DestinationColumn, ...]
    key: tuple[int, ...]
    operators: tuple[str, ...]
    has_old_rows: bool
    acts: bool
    key_of: Callable[[Row], Row] = itemgetter(slice(0))
    """Returns the values of the key. It follows from ``key``."""

    def __post_init__(self) -> None:
        force_setattr(self, "key_of", _values_at(self.key))

    @property
    def written(self) -> tuple[int, ...]:
        """The columns that statements write: all but the generated ones, which a source may send, too."""
        return tuple([index for index, column in enumerate(self.columns) if not column.is_generated])

    def written_of(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return rows without what no statement writes."""
        written = self.written
        if len(written) == len(self.columns):
            return rows
        return [tuple([row[index] for index in written]) for row in rows]


@cache
def _values_at(places: tuple[int, ...]) -> Callable[[Row], Row]:
    """Return what takes the values at some places out of a row. It runs for each change."""
    if len(places) > 1:
        return itemgetter(*places)
    start = places[0] if places else 0
    return itemgetter(slice(start, start + len(places)))


def read_table(
    connection: psycopg.Connection[Any], relation: Relation, position: str, *, sends_generated: bool = False
) -> DestinationTable:
    """Return the table of a relation of the source. ``position``: from where on it looks as ``relation`` says.
    ``sends_generated``: the source sends the values of generated columns. Raises ``ChangeConflictError`` where the
    destination's looks otherwise.
    """
    label = quote_qualified(relation.schema, relation.name)
    generated = "a.attgenerated <> ''" if connection.info.server_version >= _GENERATED_VERSION else "false"
    rows = connection.execute(_COLUMNS.replace("{generated}", generated).encode(), (label,)).fetchall()
    columns = {row[0]: DestinationColumn(*row) for row in rows}
    exists, acts = connection.execute(_FACTS.encode(), (label,)).fetchone() or (False, False)
    if not exists:
        raise ChangeConflictError(
            f"{label} changes at {position}, and is not at the destination",
            next_step="make it there as it is at the source; then moveout resync fills it",
        )
    _check_shape(connection, relation, label, columns, position, sends_generated=sends_generated)
    chosen = tuple(columns[column.name] for column in relation.columns)
    names = [column.name for column in relation.columns]
    key, operators = _key(connection, relation, label)
    return DestinationTable(
        label, chosen, tuple(names.index(name) for name in key), operators, relation.identity == _FULL, acts
    )


def _key(
    connection: psycopg.Connection[Any], relation: Relation, label: str
) -> tuple[Sequence[str], tuple[str, ...]]:
    """Return the names of the columns by which rows are looked up, and their operators. They are those of the replica
    identity, or, where that is the whole row, of a unique index of the destination.
    """
    identity = [column.name for column in relation.columns if column.is_key]
    is_whole = relation.identity == _FULL
    for names, operators in connection.execute(_KEYS.encode(), (label,)).fetchall():
        if {*names} <= {*identity} if is_whole else sorted(names) == sorted(identity):
            return names, tuple(operators)
    return ([], ()) if is_whole else (identity, ("",) * len(identity))


def _check_shape(
    connection: psycopg.Connection[Any],
    relation: Relation,
    label: str,
    columns: Mapping[str, DestinationColumn],
    position: str,
    *,
    sends_generated: bool,
) -> None:
    """Raise ``ChangeConflictError`` unless a relation has the columns of the destination's table."""
    sent = {column.name: column for column in relation.columns}
    missing = [column for name, column in sent.items() if name not in columns]
    extra = [name for name, column in columns.items() if name not in sent and not column.is_generated]
    fixed = (
        [] if sends_generated else [name for name in sent if name in columns and columns[name].is_generated]
    )
    differences = [
        *(f"the column {quote_name(column.name)} is not at the destination" for column in missing),
        *(f"the column {quote_name(name)} is only at the destination" for name in extra),
        *(f"the column {quote_name(name)} is generated at the destination only" for name in fixed),
    ]
    steps = [f"ADD COLUMN {quote_name(c.name)} {_type_name(connection, c)}" for c in missing]
    steps += [f"DROP COLUMN {quote_name(name)}" for name in extra]
    steps += [f"ALTER COLUMN {quote_name(name)} DROP EXPRESSION" for name in fixed]
    if len(missing) == len(extra) == 1 and _same_type(missing[0], columns[extra[0]]):
        steps = [f"RENAME COLUMN {quote_name(extra[0])} TO {quote_name(missing[0].name)}"]
    for name, column in sent.items():
        if name in columns and not _same_type(column, columns[name]):
            declared = _type_name(connection, column)
            differences.append(
                f"the column {quote_name(name)} is {declared}, at the destination {columns[name].declared}"
            )
            steps.append(f"ALTER COLUMN {quote_name(name)} TYPE {declared}")
    computed = "; a column that the source computes (GENERATED) is then to be added again, as it has it"
    if differences:
        raise ChangeConflictError(
            f"from {position} on the source has another definition of {label}: {'; '.join(differences)}",
            next_step="give the source's ALTER TABLE at the destination, too, such as"
            f" ALTER TABLE {label} {', '.join(steps)}{computed if extra else ''}; then run the same command again, or"
            " first moveout resync, if the source's ALTER TABLE has rewritten its rows",
        )


def _same_type(column: Column, other: DestinationColumn) -> bool:
    """Tell whether two columns have the same type, as far as that can be decided for types of users."""
    both_known = max(column.type_oid, other.type_oid) < _FIRST_USER_OID
    return column.modifier == other.modifier and (
        column.type_oid == other.type_oid
        if both_known
        else min(column.type_oid, other.type_oid) >= _FIRST_USER_OID
    )


def _type_name(connection: psycopg.Connection[Any], column: Column) -> str:
    """Return the name of a column's type at the source."""
    if column.type_oid >= _FIRST_USER_OID:
        return "(its type at the source)"
    row = connection.execute(_TYPE_NAME.encode(), (str(column.type_oid), str(column.modifier))).fetchone()
    return str(row[0]) if row else "?"
