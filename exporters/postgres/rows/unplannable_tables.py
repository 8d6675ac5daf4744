"""Tables of which the server plans no query, because code that it runs for the plan refuses.

To plan a query is to work out what is constant in the expressions of the table's indexes and statistics, also of those
that the query does not need (get_relation_info in src/backend/optimizer/util/plancat.c). ``COPY table TO`` reads
without a plan, and so pg_dump never meets such code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pyarrow as pa
from msgspec.structs import replace

from exporters.postgres.catalog import PostgresTable
from exporters.postgres.errors import in_one_line
from exporters.postgres.identifiers import quote_name
from exporters.postgres.rows.csv_rows import csv_fields, split_lines
from exporters.postgres.rows.text_codec.float_text import float_text
from exporters.postgres.schemas import SEARCH_EVERY_SCHEMA
from exporters.postgres.sessions.snapshot_transaction import NOT_FOUND
from exporters.sql.row_blocks import LongRowText, RowBlocks, SentRows

_INDEXES = "SELECT indrelid::int8 FROM pg_catalog.pg_index WHERE indexprs IS NOT NULL OR indpred IS NOT NULL"
_STATISTICS = "SELECT stxrelid::int8 FROM pg_catalog.pg_statistic_ext WHERE stxexprs IS NOT NULL"
_STATISTICS_VERSION = 140000
"""From here on statistics may be of expressions."""
_BATCH = 50
_END = "ROLLBACK TO SAVEPOINT moveout_plan; RELEASE SAVEPOINT moveout_plan"
_OF_THE_SERVER = ("08", "40", "53", "55P03", "57")
"""SQLSTATEs that do not concern the table."""


def note_refusals(holder: psycopg.Connection[Any], tables: Sequence[PostgresTable]) -> list[PostgresTable]:
    """Return the tables, each with the reason why no query of it can be planned, where there is one. Within the
    caller's transaction, which keeps no lock for it.
    """
    query = (
        f"{_INDEXES} UNION {_STATISTICS}" if holder.info.server_version >= _STATISTICS_VERSION else _INDEXES
    )
    with_code = {row[0] for row in holder.execute(query.encode())}
    doubtful = [table for table in tables if table.oid in with_code and table.exported]
    reasons: dict[int, str] = {}
    for start in range(0, len(doubtful), _BATCH):
        batch = doubtful[start : start + _BATCH]
        if _refusal(holder, batch):
            reasons |= {table.oid: _refusal(holder, [table]) for table in batch}
    return [_refused(table, reasons.get(table.oid, "")) for table in tables]


def _refusal(holder: psycopg.Connection[Any], tables: Sequence[PostgresTable]) -> str:
    """Return why the server does not plan a query of each of these tables, "" where it does."""
    statements = "; ".join(f"EXPLAIN SELECT FROM ONLY {table.label}" for table in tables)
    reason = ""
    for settings in ("", f"{SEARCH_EVERY_SCHEMA}; "):
        holder.execute("SAVEPOINT moveout_plan")
        try:
            holder.execute(f"{settings}{statements}".encode())
        except psycopg.Error as exc:
            state = exc.sqlstate or ""
            if holder.broken or not state or state.startswith(_OF_THE_SERVER):
                raise
            reason = reason or in_one_line(exc)
            holder.execute(_END)
            if state not in NOT_FOUND:
                return reason
        else:
            holder.execute(_END)
            return ""
    return reason


def _refused(table: PostgresTable, reason: str) -> PostgresTable:
    """Return a table as COPY reads it by its name: without generated columns."""
    if not reason:
        return table
    read = tuple(column for column in table.columns if not column.generated)
    unread = tuple(column.name for column in table.columns if column.generated)
    return replace(table, refusal=reason, columns=read, unread=unread)


def copied(table: PostgresTable) -> str:
    """Return what to write after COPY to read the table without a plan."""
    names = ", ".join(quote_name(column.name) for column in table.columns)
    return f"{table.label} ({names})" if names else table.label


def counted(table: PostgresTable) -> str:
    """Return the same for counting its rows: one column is enough."""
    return copied(replace(table, columns=table.columns[:1]))


def as_selected(table: PostgresTable, source: RowBlocks) -> RowBlocks:
    """Yield rows as COPY writes them as the canonical query writes them: ``real`` as the ``double precision`` that it
    is.
    """
    numbers = [number for number, column in enumerate(table.columns) if column.kind.name == "float4"]
    for block in source:
        if not numbers or isinstance(block, SentRows):
            yield block
        elif isinstance(block, LongRowText):
            line = _widened(b"".join(block.pieces) + b"\n", numbers)
            yield LongRowText(iter([line.removesuffix(b"\n")]))
        else:
            yield _widened(bytes(block), numbers)


def _widened(block: bytes, numbers: Sequence[int]) -> bytes:
    rows = [csv_fields(line) for line in split_lines(block)]
    for number in numbers:
        singles = pa.array([row[number].decode() or None for row in rows], pa.string()).cast(pa.float32())
        for row, text in zip(rows, float_text(singles.cast(pa.float64())).to_pylist(), strict=True):
            row[number] = (text or "").encode()
    return b"".join(b",".join(row) + b"\n" for row in rows)
