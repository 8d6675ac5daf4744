"""How tables are cut into chunks (see ``exporters.sql.chunk_plan``), and the queries for their rows.

Chunks are half-open ranges of heap pages, the last one without an end, so that rows that appear later
always lie in one of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from exporters.postgres.catalog import PostgresColumn, PostgresTable
from exporters.postgres.charset.encodings import is_ambiguous
from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.sql.chunk_plan import Cut, Plan, plan_tables, share_bytes

CHUNK_BYTES = 96 * 2**20
"""About so much of a table's storage (TOAST included) is one unit, or less: see ``share_bytes``."""
BY_TID_SHARE = 4
"""Where pages are read by naming every row that could be on them, a unit is so much smaller: the server holds the
names of a unit's rows in memory.
"""
_PAGE_HEADER_BYTES, _LEAST_ROW_BYTES = 24, 28
"""What a page and a row take at least (src/include/access/htup_details.h, MaxHeapTuplesPerPage)."""

Range = tuple[int, int | None]


def make_plan(tables: Sequence[PostgresTable], former: Plan | None, workers: int) -> Plan:
    """Return the plan for ``tables``, see ``exporters.sql.chunk_plan``."""
    most_bytes = largest_chunk(tables, workers)
    return plan_tables(tables, former, lambda table: Cut(cut(table, most_bytes)))


def largest_chunk(tables: Sequence[PostgresTable], workers: int) -> int:
    """Return how many bytes of storage a chunk of these tables has at most."""
    return min(CHUNK_BYTES, share_bytes((table.size_bytes for table in tables), workers))


def cut(table: PostgresTable, most_bytes: int) -> tuple[Range, ...]:
    """Return the page ranges of a table's chunks; one open range where ranges cannot be read cheaply."""
    if not table.heap or table.condition or table.refusal:
        return ((0, None),)
    pages = table.heap_bytes // table.page_bytes
    chunk_bytes = most_bytes if table.tid_ranges else CHUNK_BYTES // BY_TID_SHARE
    chunks = max(1, round(table.size_bytes / chunk_bytes))
    step = max(1, -(-pages // chunks))
    starts = list(range(0, pages, step)) or [0]
    return tuple(zip(starts, [*starts[1:], None], strict=True))


def where_clause(table: PostgresTable, pages: Range) -> str:
    """Return the condition for a range of pages, empty for the whole table."""
    first, last = pages
    if not first and last is None:
        return ""
    if not table.tid_ranges:
        return f" WHERE ctid = ANY (ARRAY({_tids(table, pages)}))"
    conditions = [f"ctid >= '({first},0)'::pg_catalog.tid"] if first else []
    conditions += [f"ctid < '({last},0)'::pg_catalog.tid"] if last is not None else []
    return " WHERE " + " AND ".join(conditions)


def _tids(table: PostgresTable, pages: Range) -> str:
    """Return a query for the row ids of all rows that these pages can hold. The last page of an open range is the last
    one that the table has when the query runs. No row of the snapshot can be behind it.
    """
    first, last = pages
    rows = (table.page_bytes - _PAGE_HEADER_BYTES) // _LEAST_ROW_BYTES
    tids = ",".join(f'"(?,{row})"' for row in range(1, rows + 1))
    size = f"pg_catalog.pg_relation_size({quote_literal(table.label)}::pg_catalog.regclass)"
    end = f"{size} / {table.page_bytes} - 1" if last is None else f"{last - 1}"
    return (
        f"SELECT pg_catalog.unnest(pg_catalog.replace('{{{tids}}}', '?', page::pg_catalog.text)::pg_catalog.tid[])"
        f" FROM pg_catalog.generate_series({first}::pg_catalog.int8, {end}) AS p(page)"
    )


def is_replaced(table: PostgresTable) -> str:
    """Return the condition that a table has another file now than in the snapshot, or that its name is another one's,
    or nobody's. Of such a table a snapshot shows no rows, or shows them at other places. The holder's lock keeps it
    from that, until the holder ends, but not its schema from another name; whoever has just read the table keeps it,
    too. What functions say is of now.
    """
    now = f"pg_catalog.pg_relation_filenode(pg_catalog.to_regclass({quote_literal(table.label)}))"
    return f"({table.filenode}::pg_catalog.oid IS DISTINCT FROM {now})"


def rows_of(table: PostgresTable, pages: Range = (0, None)) -> str:
    """Return the FROM clause for the table's rows in a range of pages; a table that has a condition is
    never cut.
    """
    return f"FROM ONLY {table.label}{where_clause(table, pages) or ' ' + table.condition}".rstrip()


def canonical_select(table: PostgresTable, pages: Range) -> str:
    """Return the query whose CSV lines are the rows' text."""
    columns = ", ".join(column.expression for column in table.columns)
    return f"SELECT {columns} {rows_of(table, pages)}"


def copy_statement(source: str, encoding: str, *, are_text: bool = False) -> str:
    """Return the statement that reads a query in brackets, or a table, as CSV or in the text format."""
    return f"COPY {source} TO STDOUT WITH (FORMAT {'text' if are_text else 'csv'}, ENCODING '{encoding}')"


_LEAST_TOAST_BYTES = 2**15
"""A long value takes more than that in the TOAST table, however well it is compressed (at most 255 times, by LZ4)."""
_DIGITS, _PACKED = 2, 16
"""How much longer a text may be than its value, where that is measured, and where only its stored size is known."""


def may_have_long_rows(table: PostgresTable) -> bool:
    """Tell whether some rows of a table may be long."""
    return table.toast_bytes >= _LEAST_TOAST_BYTES


def longest_query(table: PostgresTable, pages: Range) -> str:
    """Return a query for about how long the longest row of a chunk is as text. Values are not read for it."""
    sizes = []
    for column in table.columns:
        name = quote_name(column.name)
        is_measured = column.measured or _CHARACTERS.fullmatch(column.sql_type)
        measure, times = ("octet_length", _DIGITS) if is_measured else ("pg_column_size", _PACKED)
        sizes.append(f"coalesce(pg_catalog.{measure}({name}), 0)::pg_catalog.int8 * {times}")
    return f"SELECT coalesce(max({' + '.join(sizes)}), 0) {rows_of(table, pages)}"


_CHARACTERS = re.compile(r"text|character(?: varying)?(?:\(\d+\))?")


def changing(table: PostgresTable, pages: Range, encoding: str) -> str | None:
    """Return a query for the number of rows of a chunk that have text which becomes another one by way of UTF-8; the
    server refuses it where some becomes nothing. None where no column holds text.
    """
    columns = [column for column in table.columns if not column.kind.plain]
    conditions = " OR ".join(_changes(_text(column), encoding) for column in columns)
    return f"SELECT count(*) FILTER (WHERE {conditions}) {rows_of(table, pages)}" if conditions else None


def _text(column: PostgresColumn) -> str:
    """Return the text of a value as COPY writes it. A cast would run code of the type's owner."""
    name = quote_name(column.name)
    is_text = _CHARACTERS.fullmatch(column.sql_type)
    return f"{name}::pg_catalog.text" if is_text else f"pg_catalog.concat({name})"


def _changes(text: str, encoding: str) -> str:
    converted = f"pg_catalog.convert_to({text}, 'UTF8')"
    if not is_ambiguous(encoding):
        return f"pg_catalog.octet_length({converted}) < 0"
    name = quote_literal(encoding)
    return f"pg_catalog.convert({converted}, 'UTF8', {name}) <> pg_catalog.convert_to({text}, {name})"
