"""Rows into the target: one transaction a part, together with the note that it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pyarrow.parquet as pq

from exporters.postgres import large_objects
from exporters.postgres.connect import Address
from exporters.postgres.errors import translate
from exporters.postgres.feed import copy_encoding
from exporters.postgres.identifiers import quote_name, quote_qualified
from exporters.relational.parquet import READ_ERRORS, blocks_of, column_names, open_part
from exporters.tally import Advance
from migrate.bundle.reader import BundleReader
from migrate.restore.postgres.target import connect_writer, mark_done
from migrate.restore.relational.parts import PartFile, damage, readable
from migrate.restore.relational.workers import Workers

_PIECE_BYTES = 2**20


class RowWriter:
    """Copies parts into one database, several at once."""

    def __init__(self, reader: BundleReader, address: Address, *, workers: int, advance: Advance) -> None:
        self._reader = reader
        self._workers = Workers(lambda: connect_writer(address), workers)
        self._advance = advance

    def write_all(self, parts: Sequence[PartFile]) -> None:
        """Copy every part; after the first error the others stop soon, and the error is raised."""
        self._workers.run(parts, self._write)

    def _write(self, connection: psycopg.Connection[Any], part: PartFile) -> None:
        try:
            with connection.transaction():
                mark_done(connection, part.name)
                self._copy(connection, part)
        except psycopg.Error as exc:
            label = quote_qualified(part.table.schema, part.table.name)
            raise translate(exc, f"{label} ({part.name})") from exc

    def _copy(self, connection: psycopg.Connection[Any], part: PartFile) -> None:
        try:
            file = open_part(self._reader.open(part.key))
            names = column_names(file, generated=False)
        except READ_ERRORS as exc:
            raise damage(part, exc) from exc
        if part.table.number == large_objects.NUMBER:
            self._write_large_objects(connection, file)
            return
        label = quote_qualified(part.table.schema, part.table.name)
        if not names:
            rows = part.rows if not file.schema_arrow.names else file.metadata.num_rows
            connection.execute(
                f"INSERT INTO {label} SELECT FROM pg_catalog.generate_series(1, {rows})".encode()
            )
            self._advance(rows, 0)
            return
        columns = ", ".join(map(quote_name, names))
        row = connection.execute("SELECT getdatabaseencoding()").fetchone()
        encoding = copy_encoding(row[0] if row else "UTF8")
        statement = f"COPY {label} ({columns}) FROM STDIN WITH (FORMAT csv, ENCODING '{encoding}')"
        with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            blocks = blocks_of(file, generated=False)
            for block, rows in readable(part, blocks, READ_ERRORS, self._workers.stopped):
                view = memoryview(block)
                for start in range(0, len(view), _PIECE_BYTES):
                    copy.write(view[start : start + _PIECE_BYTES])
                self._advance(rows, len(block))

    def _write_large_objects(self, connection: psycopg.Connection[Any], file: pq.ParquetFile) -> None:
        """Fill the objects that the definitions made empty; one that is not there is made."""
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number).to_pylist()
            for row in rows:
                connection.execute(
                    "SELECT pg_catalog.lo_create(%(oid)s::oid) WHERE NOT EXISTS"
                    " (SELECT FROM pg_catalog.pg_largeobject_metadata WHERE oid = %(oid)s::oid)",
                    {"oid": row["oid"]},
                )
                connection.execute(
                    "SELECT pg_catalog.lo_put(%s::oid, %s, %s)", (row["oid"], row["start"], row["data"])
                )
            self._advance(len(rows), sum(len(row["data"]) for row in rows))
