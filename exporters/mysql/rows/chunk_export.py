"""One chunk of rows: packets from a session, Parquet parts out; and digests only, of what lives in a server.

The text of a row is the payload of its packet, as it came: see ``render``.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from exporters.api import Sink
from exporters.errors import SourceError
from exporters.mysql.catalog import Table
from exporters.mysql.chunk_plan import Range, row_select
from exporters.mysql.rows.arrow_to_rows import texts_of
from exporters.mysql.rows.column_types import TOO_LONG
from exporters.mysql.rows.long_rows import PayloadReader, payload_pieces
from exporters.mysql.rows.row_columns import columns_of
from exporters.mysql.rows.row_feed import Feed
from exporters.row_digest import Advance, Tally, tally_texts
from exporters.sql.blocks import OnColumns, OnLong, TallyText
from exporters.sql.chunk_export import Copied, Rendering, copy_columns
from exporters.sql.column_layout import Layout


def export_rows(feed: Feed, table: Table, keys: Range, *, layout: Layout, sink: Sink, stem: str) -> Copied:
    """Export the rows of an interval. Raises ``SourceError``."""
    return copy_columns(
        lambda take, long: _read(feed, table, keys, take, long), layout, sink, stem, RENDERING
    )


RENDERING = Rendering(texts_of, payload_pieces, PayloadReader)


def tally_rows(feed: Feed, table: Table, keys: Range, advance: Advance | None = None) -> Tally:
    """Return rows and digest of an interval. Raises ``SourceError``."""
    total = Tally()

    def take(rows: list[bytes]) -> None:
        add(tally_texts(rows), sum(map(len, rows)))

    def add(found: Tally, size_bytes: int) -> None:
        nonlocal total
        total += found
        if advance is not None:
            advance(found.rows, size_bytes)

    feed.rows(row_select(table, keys), take, lambda: TallyText(add))
    return total


def _read(feed: Feed, table: Table, keys: Range, take: OnColumns, long: OnLong) -> int:
    kinds = [column.kind for column in table.columns]
    types = [pa.string() if kind.plain and not kind.direct else pa.binary() for kind in kinds]
    charsets = [i for i, kind in enumerate(kinds) if kind.name == "charset"]

    def taken(rows: list[bytes]) -> None:
        columns = columns_of(rows, types)
        for i in charsets:
            if pc.any(pc.equal(columns[i], TOO_LONG.encode()), min_count=0).as_py():
                raise SourceError(
                    f"{table.label}: a value of {table.columns[i].name} is longer than the server's max_allowed_packet"
                    " in UTF-8",
                    next_step="Raise max_allowed_packet on the server, then give the command again.",
                )
        take(columns, rows)

    return feed.rows(row_select(table, keys), taken, long)
