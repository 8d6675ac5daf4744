"""Large objects into the destination: found by their numbers, which must not be another's there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec
import psycopg
import pyarrow.parquet as pq
from msgspec import Struct

from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.postgres.large_objects import NUMBER
from migrate.restore.common.table_parts import parts_of, reading_part
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.postgres.definitions.dump_script import Name
from migrate.restore.postgres.definitions.recorded_definitions import RecordedLargeObject
from migrate.restore.postgres.definitions.roles import grants

_THERE = """
SELECT min(m.oid) FROM pg_catalog.pg_largeobject_metadata m
WHERE m.oid = ANY (%s::oid[]) AND (NOT %s OR pg_catalog.lo_get(m.oid, 0, 1) <> '')
"""
_PAGE_BYTES = 2048
"""The bytes of an object in one row of pg_largeobject (LOBLKSIZE in src/include/storage/large_object.h)."""
_ZEROS = bytes(_PAGE_BYTES)


def numbers(run: TableRestore, damaged: Collection[Name] = ()) -> set[int]:
    """Return the numbers of the bundle's objects, unless they are among what is ``damaged``. Raises ``DamageError``."""
    oids: set[int] = set()
    tables = [table for table in run.tables if table.number == NUMBER]
    for part in parts_of([table for table in tables if table.key not in damaged]):
        with reading_part(part), pq.ParquetFile(run.reader.open(part.key)) as file:
            oids.update(map(int, file.read(["oid"]).column("oid").unique().to_pylist()))
    return oids


def in_the_way(connection: psycopg.Connection[Any], run: TableRestore, *, filled: bool) -> str:
    """Return an object whose number is the bundle's, or ""; with ``filled`` only if it is not empty."""
    oids = sorted(numbers(run))
    row = connection.execute(_THERE.encode(), (oids, filled)).fetchone() if oids else None
    return f"large object {row[0]}" if row and row[0] is not None else ""


def pieces_of(file: pq.ParquetFile) -> Iterator[list[_Piece]]:
    """Yield the pieces of objects, a row group at a time. Raises what ``READ_ERRORS`` lists."""
    for number in range(file.num_row_groups):
        rows = file.read_row_group(number, columns=list(_Piece.__struct_fields__))
        yield msgspec.convert(rows.to_pylist(), list[_Piece])


class _Piece(Struct, frozen=True):
    """Bytes of an object from ``start`` on."""

    oid: int
    start: int
    data: bytes


def write(
    connection: psycopg.Connection[Any], groups: Iterator[list[_Piece]], advance: Callable[[int], None]
) -> None:
    """Fill the objects that the definitions made empty; one that is not there is made."""
    for pieces in groups:
        with connection.cursor() as cursor:
            cursor.executemany(
                "SELECT pg_catalog.lo_create(%(oid)s::oid) WHERE NOT EXISTS"
                " (SELECT FROM pg_catalog.pg_largeobject_metadata WHERE oid = %(oid)s::oid)",
                [{"oid": oid} for oid in sorted({piece.oid for piece in pieces})],
            )
            cursor.executemany(
                "SELECT pg_catalog.lo_put(%s::oid, %s, %b)",
                [
                    (piece.oid, piece.start + offset, data)
                    for piece in pieces
                    for offset, data in without_holes(piece.data)
                ],
            )
        advance(len(pieces))


def without_holes(piece: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes of a piece that are to be written, each with its offset: all but pages of zeros, which the server
    reads as such where it has none. The last page is written always, because the object's size depends on it.
    """
    if _ZEROS not in piece:
        yield 0, piece
        return
    last = (len(piece) - 1) // _PAGE_BYTES * _PAGE_BYTES

    def is_written(offset: int) -> bool:
        return offset == last or piece[offset : offset + _PAGE_BYTES] != _ZEROS

    for written, offsets in groupby(range(0, len(piece), _PAGE_BYTES), is_written):
        if written:
            pages = list(offsets)
            yield pages[0], piece[pages[0] : pages[-1] + _PAGE_BYTES]


def describe_large_objects(
    objects: Sequence[RecordedLargeObject], *, portable: bool
) -> Iterator[tuple[str, str]]:
    """Yield what statements set, and them: owner and privileges, unless ``portable``, and comments."""
    for large_object in objects:
        name = f"LARGE OBJECT {large_object['oid']}"
        statements = [] if portable else [f"ALTER {name} OWNER TO {quote_name(large_object['owner'])}"]
        if not portable:
            statements += grants(
                name, large_object["owner"], large_object["privileges"], key="schema/large-objects.json"
            )
        if large_object["comment"]:
            statements.append(f"COMMENT ON {name} IS {quote_literal(large_object['comment'])}")
        if statements:
            yield f"owner, privileges and comment of {name}", "; ".join(statements)
