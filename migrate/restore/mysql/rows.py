"""Rows into the target: one transaction a part, together with the note that it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

from exporters.mysql.connect import Address, Connection, connect
from exporters.mysql.errors import DRIVER_ERRORS, translate
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.relational.parquet import READ_ERRORS, open_part
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.restore.mysql.literals import columns_of, values_of
from migrate.restore.mysql.target import DONE, mark_done

STATEMENT_BYTES = 2**20
"""About so long is one INSERT, where the server takes as much."""

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

    @property
    def transactional(self) -> bool:
        """Whether a transaction that does not commit leaves nothing behind."""
        return str(self.table.details.get("engine", "")).upper() == "INNODB"


def parts_of(tables: Sequence[CatalogRow]) -> list[PartFile]:
    """Return all parts of these tables."""
    return [
        PartFile(table, part["name"], part["rows"]) for table in tables for part in table.details["parts"]
    ]


class RowWriter:
    """Writes parts into one database, several at once."""

    def __init__(self, reader: BundleReader, address: Address, *, workers: int, advance: Advance) -> None:
        self._reader = reader
        self._address = address
        self._workers = max(1, workers)
        self._advance = advance
        self._idle: list[Connection] = []
        self._stop = threading.Event()

    def write_all(self, parts: Sequence[PartFile]) -> None:
        """Write every part; after the first error the others stop soon, and the error is raised."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="moveout-restore") as pool:
            futures = [pool.submit(self._write, part) for part in parts]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                errors = [error for future in done if (error := future.exception())]
                for error in errors:
                    if not isinstance(error, InterruptedError):
                        raise error
                for future in futures:
                    future.result()
            finally:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                while self._idle:
                    self._idle.pop().close()

    def _write(self, part: PartFile) -> None:
        if self._stop.is_set():
            raise InterruptedError
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = connect(self._address, settings=["SESSION unique_checks = 0"])
        try:
            connection.run("BEGIN")
            mark_done(connection, part.name)
            self._insert(connection, part)
            connection.run("COMMIT")
        except DRIVER_ERRORS as exc:
            connection.close()
            if isinstance(exc, InterruptedError):
                raise
            raise translate(exc, f"{quote_name(part.table.name)} ({part.name})") from exc
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def _insert(self, connection: Connection, part: PartFile) -> None:
        try:
            file = open_part(self._reader.open(part.key))
            names = columns_of(file.schema_arrow)
        except READ_ERRORS as exc:
            raise damage(part, exc) from exc
        head = f"INSERT INTO {quote_name(part.table.name)} ({', '.join(map(quote_name, names))}) VALUES ".encode()
        allowed = int(connection.value("SELECT @@SESSION.max_allowed_packet"))
        for statement, rows in statements(
            head, self._batches(part, file), min(STATEMENT_BYTES, allowed // 2)
        ):
            connection.raw.query(statement)
            self._advance(rows, len(statement))

    def _batches(self, part: PartFile, file: object) -> Iterator[list[bytes]]:
        batches = values_of(file)
        while True:
            if self._stop.is_set():
                raise InterruptedError
            try:
                batch = next(batches, None)
            except READ_ERRORS as exc:
                raise damage(part, exc) from exc
            if batch is None:
                return
            yield batch


def statements(head: bytes, batches: Iterator[list[bytes]], size_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Join rows to statements of about ``size_bytes``; yield each with its number of rows."""
    pending: list[bytes] = []
    size = 0
    for batch in batches:
        for row in batch:
            if pending and size + len(row) > size_bytes:
                yield head + b",".join(pending), len(pending)
                pending, size = [], 0
            pending.append(row)
            size += len(row) + 1
    if pending:
        yield head + b",".join(pending), len(pending)


def damage(part: PartFile, error: Exception) -> DamageError:
    """Return what to tell of a part that cannot be read."""
    return DamageError(
        part.key,
        expected="a Parquet part",
        found=str(error)[:200],
        next_step="Run verify on the bundle; fetch it again if it is damaged.",
    )


def empty_unfinished(connection: Connection, parts: Sequence[PartFile], done: set[str]) -> set[str]:
    """Return what of ``done`` still counts. Tables without transactions may hold a half of a part that is not done:
    they are emptied, and all of their parts are written again. Raises the driver's errors.
    """
    by_table: dict[str, list[PartFile]] = {}
    for part in parts:
        if not part.transactional:
            by_table.setdefault(part.table.name, []).append(part)
    again: set[str] = set()
    for name, own in by_table.items():
        if all(part.name in done for part in own):
            continue
        connection.run(f"DELETE FROM {quote_name(name)}")
        again |= {part.name for part in own}
    for name in again & done:
        connection.run(f"DELETE FROM {DONE} WHERE name = {quote_literal(name)}")
    return done - again
