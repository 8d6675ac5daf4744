"""Copies the rows of a table from a source to a destination: of tables whose changes are not in the log."""

from __future__ import annotations

from collections.abc import Iterator

from exporters.mysql.catalog import MysqlTable
from exporters.mysql.chunk_plan import row_select
from exporters.mysql.connection import Connection
from exporters.mysql.identifiers import quote_name
from exporters.mysql.rows.long_rows import read_payload, text_type
from exporters.mysql.rows.protocol_rows import send
from exporters.mysql.rows.row_columns import columns_of, parse_columns
from exporters.mysql.rows.row_feed import Feed
from exporters.sql.columns import Layout
from exporters.sql.large_values.long_values import LongRow, Spool
from migrate.restore.mysql.load_rows import STATEMENT_BYTES, statements
from migrate.restore.mysql.values.insert_values import LongValues, Values, generated_of, literals_of
from migrate.restore.mysql.values.insert_values import columns_of as written_columns


def copy_rows(table: MysqlTable, reader: Connection, writer: Connection) -> None:
    """Replace the rows of a table at the destination by the source's. Raises the driver's errors."""
    layout = Layout.of(table.columns)
    writer.run(f"TRUNCATE TABLE {table.label}")
    allowed = int(writer.value("SELECT @@SESSION.max_allowed_packet"))
    without = generated_of(layout.schema(frozenset()))
    names = written_columns(layout.schema(frozenset()), without)
    head = f"INSERT INTO {table.label} ({', '.join(map(quote_name, names))}) ".encode()
    literals = _literals(table, layout, Feed(reader), without, decimals=not writer.is_mariadb)
    for statement in statements(head, literals, min(STATEMENT_BYTES, allowed // 2)):
        send(writer.raw, statement.pieces)


def _literals(
    table: MysqlTable, layout: Layout, feed: Feed, without: list[str], *, decimals: bool
) -> Iterator[Values | LongValues]:
    """Yield the rows as lists of literals."""
    types = [text_type(column.kind) for column in table.columns]
    for rows in feed.rows(row_select(table)):
        if isinstance(rows, list):
            typed = parse_columns(columns_of(rows, types), layout, exactly=True)
            yield from literals_of(layout.batch(typed, frozenset(typed.sides)), without, decimals=decimals)
            continue
        with Spool() as spool:
            row = read_payload(rows.pieces, layout, spool)
            batch = layout.batch(row.typed, frozenset(row.typed.sides))
            yield from literals_of(LongRow(batch, row.long), without, decimals=decimals)
