"""Values that a server of the other flavour holds otherwise: -0 is 0 in MariaDB, and TIME ends with a whole second in
MySQL. A table that differs in nothing else is as whole as it can be there; which values are others is named.
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from exporters.base import Loss
from exporters.mysql.identifiers import quote_name
from exporters.mysql.long_rows import payload_pieces
from exporters.mysql.render import texts_of
from exporters.relational.long_values import LongRow
from exporters.relational.parquet import READ_ERRORS, open_part, rows_of
from exporters.relational.render import KIND, sides_of
from exporters.tally import Tally, tally_pieces, tally_texts
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.restore.relational.parts import damage, parts_of

_REALS = (b"mysqlfloat", b"mysqldouble")
_LAST_TIME = r"^(-?838:59:59\.)[0-9]*[1-9][0-9]*$"


def as_held(reader: BundleReader, table: CatalogRow, *, mariadb: bool) -> tuple[Tally, list[Loss]]:
    """Return a table's rows and digest as the target holds them, and a row for each column with other values. Raises
    ``DamageError``.
    """
    found, counts = Tally(), Counter[str]()
    for part in parts_of([table]):
        try:
            for some in rows_of(open_part(reader.open(part.key))):
                batch = some.batch if isinstance(some, LongRow) else some
                batch = _held(batch, counts, mariadb=mariadb)
                if isinstance(some, LongRow):
                    found += tally_pieces(payload_pieces(LongRow(batch, some.long)))
                else:
                    found += tally_texts(texts_of(batch))
        except READ_ERRORS as exc:
            raise damage(part, exc) from exc
    reason = (
        "of -0 are 0 here: MariaDB has none" if mariadb else "beyond 838:59:59 are that here: MySQL has none"
    )
    label = quote_name(table.name)
    return found, [
        Loss(f"{label}.{quote_name(name)}", "values", f"{count:,} {reason}") for name, count in counts.items()
    ]


def _held(batch: pa.RecordBatch, counts: Counter[str], *, mariadb: bool) -> pa.RecordBatch:
    columns = list(batch.columns)
    sides = sides_of(batch.schema)
    for number, field in enumerate(batch.schema):
        kind = field.metadata.get(KIND, b"")
        if mariadb and kind in _REALS:
            other, count = _without_sign(columns[number])
            at = number
        elif not mariadb and kind.startswith(b"clock") and field.name in sides:
            at = batch.schema.get_field_index(sides[field.name])
            other, count = _in_range(columns[at])
        else:
            continue
        if count:
            columns[at] = other
            counts[field.name] += count
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _without_sign(values: pa.Array) -> tuple[pa.Array, int]:
    """Return numbers with 0 for -0, which equals it, and how many these are."""
    zero = pa.scalar(0.0, values.type)
    minus = pc.and_(pc.equal(values, zero), pc.less(pc.divide(pa.scalar(1.0, values.type), values), zero))
    return pc.if_else(pc.fill_null(minus, fill_value=False), zero, values), pc.sum(minus).as_py() or 0


def _in_range(texts: pa.Array) -> tuple[pa.Array, int]:
    """Return times with nothing behind the last second that MySQL has, and how many had."""
    text = texts.cast(pa.string())
    beyond = pc.fill_null(pc.match_substring_regex(text, _LAST_TIME), fill_value=False)
    cut = [
        None
        if one is None
        else (one.partition(".")[0] + "." + "0" * len(one.partition(".")[2]) if far else one)
        for one, far in zip(text.to_pylist(), beyond.to_pylist(), strict=True)
    ]
    return pa.array(cut, pa.string()).cast(texts.type), pc.sum(beyond).as_py() or 0
