"""One chunk of rows: CSV lines of COPY in, Parquet parts out; and digests only, of what lives in a server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.api import Json, Outcome, Sink
from exporters.postgres.rows.copy_feed import SmallRows
from exporters.postgres.rows.csv_rows import (
    QUOTES,
    QUOTES_ALONE,
    BlockParser,
    csv_fields,
    digest_block,
    split_lines,
    unquoted,
)
from exporters.postgres.rows.long_lines import line_pieces, read_line
from exporters.row_digest import Advance, RowsDigest, digest_empty_rows, digest_texts
from exporters.sql.chunk_export import ChunkExport
from exporters.sql.columns import Kind, Layout, ParsedBlock, Typed
from exporters.sql.row_blocks import LongRowText, RowBlocks, SentRows, digest_long
from exporters.sql.value_codec import rendered


def export_rows(source: RowBlocks, layout: Layout, sink: Sink, spec: Json, facts: Json) -> Outcome:
    """Export rows into Parquet files; see ``ChunkExport``. Return what the unit came to, with more ``facts``. Raises
    ``SourceError`` if the server's count of rows is another.
    """
    sent_rows, parser = 0, BlockParser(layout)
    parse = parser.parse_proved  # of the first block: see PROVED_ROWS
    with closing(source), ChunkExport(layout, sink, spec) as chunk:
        for block in source:
            if isinstance(block, SentRows):
                sent_rows = block.count
            elif isinstance(block, LongRowText):
                chunk.add_long(block, read_line, line_pieces)
            elif layout.columns:
                chunk.add(parse(block))
                parse = parser.parse
        return chunk.finish(facts, sent_rows)


def export_small(chunk: ParsedBlock, layout: Layout, sink: Sink, spec: Json, facts: Json) -> Outcome:
    """Export the rows of a small chunk like ``export_rows``; see ``typed_together``."""
    with ChunkExport(layout, sink, spec) as export:
        if chunk.typed.rows:
            export.add(chunk)
        return export.finish(facts)


def digest_rows(source: RowBlocks, advance: Advance | None, *, has_columns: bool) -> RowsDigest:
    """Return rows and digest. Rows without columns are those that the server counts."""
    digest = RowsDigest()
    sent_rows = 0
    with closing(source):
        for block in source:
            if isinstance(block, SentRows):
                sent_rows = block.count
                continue
            if isinstance(block, LongRowText):
                size_bytes, part = digest_long(block)
            else:
                size_bytes, part = len(block), digest_block(block)
            digest += part
            if advance is not None:
                advance(part.rows, size_bytes)
    return digest if has_columns else digest_empty_rows(sent_rows)


Fields = Sequence[Sequence[bytes]]
"""The fields of some rows as they stand in their lines, column by column."""
_Place = tuple[int, int]
"""The number of a chunk, and the position of a column in it."""


def typed_together(chunks: Sequence[tuple[Layout, SmallRows]]) -> list[ParsedBlock | None]:
    """Return chunks of few rows, parsed together: a call of Arrow costs more than the values of a small table, so it
    gets the values of many tables at once, those of each kind as one column. Every value is rendered back and compared
    with its text. None for a chunk in which one differs, or that has to be parsed by itself for another reason.
    """
    lines = [split_lines(rows.block) for _, rows in chunks]
    fields = [_fields(*chunk, own_lines) for chunk, own_lines in zip(chunks, lines, strict=True)]
    places: dict[tuple[Kind, bool], list[_Place]] = {}
    for number, (layout, _) in enumerate(chunks):
        columns = layout.columns if fields[number] is not None else ()
        for position, column in enumerate(columns):
            places.setdefault((column.kind, len(columns) == 1), []).append((number, position))
    arrays: dict[_Place, pa.Array] = {}
    for (kind, alone), places_of_kind in places.items():
        texts = [(place, (fields[place[0]] or ())[place[1]]) for place in places_of_kind]
        arrays.update(_typed(kind, texts, alone=alone))
    parsed: list[ParsedBlock | None] = []
    for number, (layout, rows) in enumerate(chunks):
        positions = range(len(layout.columns))
        if not positions or any((number, position) not in arrays for position in positions):
            parsed.append(None)
        else:
            typed = Typed(tuple(arrays[number, position] for position in positions), {}, len(lines[number]))
            parsed.append(ParsedBlock(typed, digest_texts(lines[number]), len(rows.block)))
    return parsed


def _fields(layout: Layout, rows: SmallRows, lines: Sequence[bytes]) -> Fields | None:
    """Return the fields of a chunk; None where its text may not be UTF-8, or its lines are not as they should be."""
    columns = layout.columns
    if any(column.kind.encoding or pa.types.is_binary(column.kind.parsed) for column in columns):
        return None
    quoted = b'"' in rows.block
    fields = [csv_fields(line) if quoted else line.split(b",") for line in lines]
    if len(lines) != rows.sent_rows or any(len(fields_of_row) != len(columns) for fields_of_row in fields):
        return None
    return list(zip(*fields, strict=True)) if fields else [()] * len(columns)


def _typed(
    kind: Kind, texts: Sequence[tuple[_Place, Sequence[bytes]]], *, alone: bool
) -> Iterable[tuple[_Place, pa.Array]]:
    """Yield those columns of a kind that render to their texts again. ``alone``: each is the only one of its table."""
    fields = [field for _, column in texts for field in column]
    values = [field or None for field in fields] if kind.plain else [unquoted(field) for field in fields]
    try:
        typed = kind.codec.parse(pc.cast(pa.array(values, pa.binary()), pa.string()), kind.stored)
    except pa.ArrowInvalid:
        return
    back = rendered(kind.codec, typed)
    if not kind.plain:
        back = (QUOTES_ALONE if alone else QUOTES).around(back)
    back_fields = [field or b"" for field in back.to_pylist()]
    start = 0
    for place, column in texts:
        end = start + len(column)
        if back_fields[start:end] == list(column):
            yield place, typed[start:end]
        start = end
