"""Rows into the destination: one transaction a part, or for several small ones, together with the note that they are
done. Tables without transactions are noted afterwards: a MySQL that counts transactions (GTID) refuses to change them
within one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from functools import partial

import pymysql
from msgspec.structs import replace

from exporters.mysql.errors import as_source_errors, is_refused, number_of
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.sessions.driver_connection import BulkInsert, send
from exporters.row_digest import Advance
from exporters.sql.parquet_read import open_part, rows_of
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.restore.common.connection_workers import ConnectionWorkers
from migrate.restore.common.table_parts import (
    AttemptProgress,
    PartFile,
    batches_of,
    parts_of,
    readable,
    reading_part,
)
from migrate.restore.mysql.definitions.object_maker import needs_the_user
from migrate.restore.mysql.destination import DestinationConnection, make_empty
from migrate.restore.mysql.restore_state import forget_refused, mark_done, note_refused, read_done
from migrate.restore.mysql.rows.insert_statements import RowTooLargeError
from migrate.restore.mysql.rows.part_inserts import (
    PartInserts,
    Refusals,
    computed_of,
    pieces_of,
    transactional,
)
from migrate.restore.mysql.rows.relaxed_constraints import CHECK_VIOLATED, Relaxation, loosen
from migrate.restore.mysql.rows.system_versioning import (
    history_of,
    holding_still,
    lasting,
    momentary,
    require_history,
)
from migrate.runtime.crash_points import durable

_BULK_ROWS = 256
"""Fewer rows of a part come as SQL: to prepare a statement takes as long as they."""
_BATCH_BYTES, _BATCH_PARTS = 2**19, 64
"""How many bytes, and how many small parts, are one transaction: to begin and to end one takes as long as a few rows,
and as a server's disk takes.
"""
_TRIES = 5
_FEW = 256
"""How many rows are tried at once where some are refused."""
_NO_BULK = {1047, 1295, 1835, 4033}
"""The server does not take rows in bulk: something between it and us, or a binary log of statements."""
_PASSING = {1205, 1213}
"""A lock that was waited for too long, or in a circle: the same transaction may succeed now."""


class RowWriter:
    """Writes parts into one database, several at once. ``ours``: this restore has made the tables, and may change them
    for rows that they refuse; of others only checks give way. ``damaged`` are the parts that cannot be read,
    ``too_large`` those with rows above the server's max_allowed_packet: they are not marked as done, so a later run
    tries them again.
    """

    def __init__(
        self,
        reader: BundleReader,
        destination: DestinationConnection,
        *,
        workers: int,
        advance: Advance,
        ours: bool,
    ) -> None:
        self._reader, self._ours = reader, ours
        self._workers = ConnectionWorkers(destination.another, workers)
        self._destination, self._advance = destination, advance
        self._refused: list[PartFile] = []
        self.damaged: list[tuple[PartFile, DamageError]] = []
        self.too_large: list[tuple[PartFile, RowTooLargeError]] = []

    def write_all(self, parts: Sequence[PartFile]) -> None:
        """Write every part; after the first error the others stop soon, and the error is raised. What the server
        refuses comes last, without what of the table keeps it out.
        """
        self._write_all_momentary(parts)
        unwritten = {part.table.name for part in self._for_later()}
        todo = [part for part in parts if part.table.name not in unwritten]
        plain = [part for part in todo if _is_plain(part)]
        batches = batches_of(plain, size_bytes=_BATCH_BYTES, count=_BATCH_PARTS)
        self._workers.run([*batches, *([part] for part in todo if not _is_plain(part))], self._write_batch)
        if self._refused:
            with closing(self._destination.another()) as connection:
                for table in {part.table.name: part.table for part in self._refused}.values():
                    self._write_late(
                        connection, table, [p for p in self._refused if p.table.name == table.name]
                    )

    def _write_batch(self, connection: DestinationConnection, parts: Sequence[PartFile]) -> None:
        """Write parts in one transaction; each in one of its own if anything of it is refused or damaged."""
        if len(parts) > 1 and self._write_together(connection, parts):
            return
        for part in parts:
            self._write_or_wait(connection, part)

    def _write_together(self, connection: DestinationConnection, parts: Sequence[PartFile]) -> bool:
        """Write parts in one transaction; tell whether that was possible."""
        with translated(parts[0]):
            try:
                self._transaction(connection, parts, in_bulk=connection.takes_bulk)
            except pymysql.Error as exc:
                if not is_refused(exc):
                    raise
            except (DamageError, RowTooLargeError):
                pass  # it is named where that part is alone
            else:
                return True
            connection.run("ROLLBACK")
            return False

    def _write_or_wait(self, connection: DestinationConnection, part: PartFile) -> None:
        with translated(part):
            try:
                self._write(connection, part)
            except pymysql.Error as exc:
                if needs_the_user(exc):
                    raise
                self._refused.append(part)
            except (DamageError, RowTooLargeError) as exc:
                if not self._leave(connection, part, exc):
                    self._refused.append(part)

    def _leave(
        self, connection: DestinationConnection, part: PartFile, error: DamageError | RowTooLargeError
    ) -> bool:
        """Write nothing of a part in this run; tell whether a later run may write it. Raises the driver's errors."""
        connection.run("ROLLBACK")
        if isinstance(error, RowTooLargeError) and error.is_for_good:
            return False
        try:
            if isinstance(error, RowTooLargeError):
                opened = self._open(connection, part)
                rows = readable(part, opened.rows(), self._workers.cancellation)
                self.too_large.append((part, opened.largest(rows, opened.key(connection)) or error))
            else:
                self.damaged.append((part, error))
        except DamageError as exc:
            self.damaged.append((part, exc))
        return True

    def _write_late(
        self, connection: DestinationConnection, table: CatalogRow, parts: Sequence[PartFile]
    ) -> None:
        """Write parts of a table that the server has refused. Raises what ``translate`` returns."""
        todo = list(parts) if transactional(parts[0]) else self._emptied(connection, table)
        write = self._write
        while todo:
            with translated(todo[0]):
                try:
                    write(connection, todo[0])
                except pymysql.Error as exc:
                    if needs_the_user(exc) or write == self._write_singly:
                        raise
                    way = Relaxation.NONE
                    if self._ours or number_of(exc) == CHECK_VIOLATED:
                        way = loosen(connection, table.name, exc)
                    if way is Relaxation.NONE:
                        write = self._write_singly
                    if way is Relaxation.TABLE or not transactional(todo[0]):
                        todo = self._emptied(connection, table)
                except (DamageError, RowTooLargeError) as exc:
                    if self._leave(connection, todo[0], exc):
                        todo.pop(0)
                    else:
                        write = self._write_singly
                        todo = todo if transactional(todo[0]) else self._emptied(connection, table)
                else:
                    todo.pop(0)

    def _for_later(self) -> list[PartFile]:
        """Return the parts that a later run writes."""
        return [part for part, _ in (*self.damaged, *self.too_large)]

    def _emptied(self, connection: DestinationConnection, table: CatalogRow) -> list[PartFile]:
        """Return the parts of a table to write once nothing of it is there: one without transactions keeps the rows
        before the one that was refused.
        """
        left = self._for_later()
        own = parts_of([table])
        empty(connection, own)
        self._write_momentary(connection, table)
        return [part for part in own if part not in left]

    def _write(self, connection: DestinationConnection, part: PartFile) -> None:
        """Write a part, or nothing of it. Raises the driver's errors."""
        if history_of(part.table) and connection.takes_history:
            connection.run("SET SESSION system_versioning_insert_history = 1")
        in_bulk = connection.takes_bulk and _may_be_in_bulk(part)
        for left in reversed(range(_TRIES)):
            try:
                self._transaction(connection, [part], in_bulk=in_bulk)
            except pymysql.Error as exc:
                if not is_refused(exc):
                    raise
                connection.run("ROLLBACK")
                if in_bulk and number_of(exc) not in _PASSING:
                    in_bulk = False  # as SQL it may take it, such as NULL where none may be
                    if number_of(exc) in _NO_BULK:
                        connection.refuse_bulk()
                    continue
                if not transactional(part) or number_of(exc) not in _PASSING or not left:
                    raise
                time.sleep(random.uniform(0.05, 0.5))  # noqa: S311  so that two do not meet again
            else:
                return

    def _transaction(
        self, connection: DestinationConnection, parts: Sequence[PartFile], *, in_bulk: bool
    ) -> None:
        """Insert all rows of parts, ``in_bulk`` where they can be. What was shown of one that fails is taken back."""
        has_transactions = all(map(transactional, parts))
        progress = AttemptProgress(self._advance)
        try:
            if has_transactions:
                connection.run("BEGIN")
                mark_done(connection, *(part.name for part in parts))
            for part in parts:
                self._insert(connection, part, progress, in_bulk=in_bulk and _may_be_in_bulk(part))
            if not has_transactions:
                mark_done(connection, *(part.name for part in parts))
            with durable("restore.mysql.rows"):
                connection.run("COMMIT")
        except (pymysql.Error, DamageError, RowTooLargeError):
            progress.take_back()
            raise

    def _insert(
        self, connection: DestinationConnection, part: PartFile, progress: AttemptProgress, *, in_bulk: bool
    ) -> None:
        opened = self._open(connection, part)
        values = (some for rows in opened.rows() for some in opened.values(rows, in_bulk=in_bulk))
        readable_values = readable(part, values, self._workers.cancellation)
        with closing(BulkInsert(connection.raw, opened.prepared)) as bulk:
            for statement in opened.statements(readable_values):
                if statement.types:
                    bulk.run(statement.types, statement.pieces)
                else:
                    send(connection.raw, statement.pieces)
                progress.add(part, statement.rows)

    def _open(self, connection: DestinationConnection, part: PartFile) -> PartInserts:
        history = history_of(part.table)
        with reading_part(part):
            file = open_part(self._reader.open(part.key))
            require_history(file.schema_arrow, history)
            without = computed_of(connection, part.table.name, file.schema_arrow)
        select = partial(lasting if connection.takes_history else holding_still, history=history)
        without = without if connection.takes_history else [*history, *without]
        allowed = connection.longest_statement_bytes()
        return PartInserts(part, file, select, without, allowed, decimals=not connection.is_mariadb)

    def _write_singly(self, connection: DestinationConnection, part: PartFile) -> None:
        """Write a part without the rows that the server refuses, and note these. Raises the driver's errors."""
        opened = self._open(connection, part)
        if transactional(part):
            connection.run("BEGIN")
            mark_done(connection, part.name)
        refusals = Refusals()
        for rows in readable(part, opened.rows(), self._workers.cancellation):
            for piece in pieces_of(rows, _FEW if transactional(part) else 1):
                opened.insert(connection, piece, refusals)
        note_refused(connection, part.table.name, part.name, refusals.digest, refusals.reason)
        if not transactional(part):
            mark_done(connection, part.name)
        with durable("restore.mysql.single_rows"):
            connection.run("COMMIT")

    def _write_all_momentary(self, parts: Sequence[PartFile]) -> None:
        tables = {part.table.name: part.table for part in parts if history_of(part.table)}
        if tables and self._destination.takes_history:
            with closing(self._destination.another()) as connection:
                done = read_done(connection)
                for table in tables.values():
                    if done.isdisjoint({_momentary_step(table.name), *(p.name for p in parts_of([table]))}):
                        try:
                            self._write_momentary(connection, table)
                        except (DamageError, RowTooLargeError) as exc:
                            own = parts_of([table])
                            self._leave(connection, next((p for p in own if p.key == exc.about), own[0]), exc)

    def _write_momentary(self, connection: DestinationConnection, table: CatalogRow) -> None:
        """Write the rows that never held, while the table has no others: insert and delete them when they began."""
        history = history_of(table)
        if not history or not connection.takes_history:
            return
        connection.run("BEGIN")
        mark_done(connection, _momentary_step(table.name))
        refusals = Refusals()
        for part in parts_of([table]):
            with translated(part):
                opened = self._open(connection, part)
                opened = replace(opened, without=[*opened.without, *history])
                key = opened.key(connection)
                for some in readable(part, rows_of(opened.file), self._workers.cancellation):
                    for begin, rows in momentary(some, history):
                        connection.run(f"SET SESSION timestamp = {begin}")
                        opened.insert(connection, rows, refusals)
                        where = opened.where(rows, key)
                        connection.run(f"DELETE FROM {quote_name(table.name)}".encode() + where)
        connection.run("SET SESSION timestamp = DEFAULT")
        note_refused(connection, table.name, "", refusals.digest, refusals.reason)
        with durable("restore.mysql.momentary_rows"):
            connection.run("COMMIT")


def _momentary_step(table: str) -> str:
    return f"momentary {table}"


@contextmanager
def translated(part: PartFile) -> Iterator[None]:
    """Raise what ``translate`` returns for the driver's errors."""
    with as_source_errors(f"{quote_name(part.table.name)} ({part.name})"):
        yield


def _is_plain(part: PartFile) -> bool:
    """Tell whether rows may be written together with those of other tables."""
    return transactional(part) and not history_of(part.table)


def _may_be_in_bulk(part: PartFile) -> bool:
    return part.rows >= _BULK_ROWS and _is_plain(part)


def empty_unfinished(
    connection: DestinationConnection, parts: Sequence[PartFile], done: set[str]
) -> set[str]:
    """Return what of ``done`` still counts. Tables without transactions may hold a half of a part that is not done:
    they are emptied, and all of their parts are written again. Raises the driver's errors.
    """
    by_table: dict[str, list[PartFile]] = {}
    for part in parts:
        if not transactional(part):
            by_table.setdefault(part.table.name, []).append(part)
    again: set[str] = set()
    for own in by_table.values():
        if not all(part.name in done for part in own):
            empty(connection, own)
            again |= {part.name for part in own}
    return done - again


def empty(connection: DestinationConnection, parts: Sequence[PartFile]) -> None:
    """Remove the rows of a table, and the notes of what is done; ``parts`` are all of its own."""
    table = parts[0].table
    make_empty(connection, table.name)
    if history_of(table) and connection.is_mariadb:  # what is deleted there becomes history
        connection.run(f"DELETE HISTORY FROM {quote_name(table.name)}")
    _forget(connection, {_momentary_step(table.name), *(part.name for part in parts)})
    forget_refused(connection, table.name)


def _forget(connection: DestinationConnection, parts: AbstractSet[str]) -> None:
    for name in parts:
        connection.run(f"DELETE FROM {connection.done} WHERE name = {quote_literal(name)}")
