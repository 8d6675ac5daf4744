"""Rows into the target: one transaction a part, together with the note that it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import psycopg
import pyarrow.parquet as pq

from exporters.postgres import large_objects
from exporters.postgres.connect import Address
from exporters.postgres.errors import translate
from exporters.postgres.feed import copy_encoding
from exporters.postgres.identifiers import quote_name, quote_qualified
from exporters.relational.parquet import READ_ERRORS, blocks_of, column_names, open_part
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.restore.postgres.target import connect_writer, mark_done

_PIECE_BYTES = 2**20

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PartFile:
    """A part of a table: ``name`` relative to ``data/<source>/``, unique within the source."""

    table: CatalogRow
    name: str
    rows: int

    @property
    def key(self) -> str:
        """Its key in the bundle."""
        return layout.source_file(self.table.source, self.name)


def parts_of(tables: Sequence[CatalogRow]) -> list[PartFile]:
    """Return all parts of these tables."""
    return [
        PartFile(table, part["name"], part["rows"]) for table in tables for part in table.details["parts"]
    ]


class RowWriter:
    """Copies parts into one database, several at once."""

    def __init__(self, reader: BundleReader, address: Address, *, workers: int, advance: Advance) -> None:
        self._reader = reader
        self._address = address
        self._workers = max(1, workers)
        self._advance = advance
        self._idle: list[psycopg.Connection[Any]] = []
        self._stop = threading.Event()

    def write_all(self, parts: Sequence[PartFile]) -> None:
        """Copy every part; after the first error the others stop soon, and the error is raised."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="moveout-restore") as pool:
            futures = [pool.submit(self._write, part) for part in parts]
            try:
                _first_error(futures)
            finally:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                while self._idle:
                    self._idle.pop().close()

    def _write(self, part: PartFile) -> None:
        if self._stop.is_set():
            return
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = connect_writer(self._address)
        try:
            with connection.transaction():
                mark_done(connection, part.name)
                self._copy(connection, part)
        except psycopg.Error as exc:
            connection.close()
            label = quote_qualified(part.table.schema, part.table.name)
            raise translate(exc, f"{label} ({part.name})") from exc
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def _copy(self, connection: psycopg.Connection[Any], part: PartFile) -> None:
        try:
            file = open_part(self._reader.open(part.key))
            names = column_names(file, generated=False)
        except READ_ERRORS as exc:
            raise _damage(part, exc) from exc
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
            for block, rows in self._blocks(part, file):
                view = memoryview(block)
                for start in range(0, len(view), _PIECE_BYTES):
                    copy.write(view[start : start + _PIECE_BYTES])
                self._advance(rows, len(block))

    def _blocks(self, part: PartFile, file: pq.ParquetFile) -> Any:
        blocks = blocks_of(file, generated=False)
        while True:
            if self._stop.is_set():
                raise InterruptedError
            try:
                block = next(blocks, None)
            except READ_ERRORS as exc:
                raise _damage(part, exc) from exc
            if block is None:
                return
            yield block

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


def _first_error(futures: Sequence[Future[None]]) -> None:
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()


def _damage(part: PartFile, error: BaseException) -> DamageError:
    return DamageError(
        part.key,
        expected="a readable Parquet file",
        found=str(error).splitlines()[0] if str(error) else type(error).__name__,
        next_step="Run verify --level full on the bundle and fetch the file again.",
    )
