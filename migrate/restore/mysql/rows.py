"""Rows into the target: one transaction a part, together with the note that it is done. Tables without transactions
are noted afterwards: a MySQL that counts transactions (GTID) refuses to change them within one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain

import pyarrow as pa
import pymysql

from exporters.errors import SourceUsageError
from exporters.mysql.connect import Connection
from exporters.mysql.errors import DRIVER_ERRORS, is_refused, number_of, translate
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.wire import send
from exporters.relational.parquet import READ_ERRORS, open_part
from exporters.tally import Advance
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.restore.mysql.literals import LongValues, Values, columns_of, generated_of, values_of
from migrate.restore.mysql.loosen import CHECK_VIOLATED, Way, loosen
from migrate.restore.mysql.schema import needs_the_user
from migrate.restore.mysql.target import TargetConnection, make_empty, mark_done
from migrate.restore.relational.parts import PartFile, damage, parts_of, readable
from migrate.restore.relational.workers import Workers

STATEMENT_BYTES = 2**20
"""About so long is one INSERT, where the server takes as much."""
_TRIES = 5
_PASSING = {1205, 1213, 1180}
"""A lock that was waited for too long, or in a circle: the same transaction may succeed now. What MariaDB loads in
bulk it checks when that is committed, and cannot say what is wrong.
"""


class RowWriter:
    """Writes parts into one database, several at once. ``ours``: this restore has made the tables, and may change them
    for rows that they refuse; of others only checks give way.
    """

    def __init__(
        self, reader: BundleReader, target: TargetConnection, *, workers: int, advance: Advance, ours: bool
    ) -> None:
        self._reader, self._ours = reader, ours
        self._workers = Workers(target.another, workers)
        self._target, self._advance = target, advance
        self._refused: list[PartFile] = []

    def write_all(self, parts: Sequence[PartFile]) -> None:
        """Write every part; after the first error the others stop soon, and the error is raised. What the server
        refuses comes last, without what of the table keeps it out.
        """
        self._workers.run(parts, self._write_or_wait)
        if self._refused:
            with closing(self._target.another()) as connection:
                for table in {part.table.name: part.table for part in self._refused}.values():
                    self._write_late(
                        connection, table, [p for p in self._refused if p.table.name == table.name]
                    )

    def _write_or_wait(self, connection: TargetConnection, part: PartFile) -> None:
        with translated(part):
            try:
                self._write(connection, part)
            except pymysql.Error as exc:
                if needs_the_user(exc):
                    raise
                self._refused.append(part)

    def _write_late(self, connection: TargetConnection, table: CatalogRow, parts: Sequence[PartFile]) -> None:
        """Write parts of a table that the server has refused. Raises what ``translate`` returns."""
        todo = list(parts)
        while todo:
            with translated(todo[0]):
                try:
                    self._write(connection, todo[0])
                except pymysql.Error as exc:
                    may = not needs_the_user(exc) and (self._ours or number_of(exc) == CHECK_VIOLATED)
                    way = loosen(connection, table.name, exc) if may else Way.NONE
                    if way is Way.NONE:
                        raise
                    if way is Way.TABLE:
                        todo = list(parts_of([table]))
                        unwrite(connection, table.name, {part.name for part in todo})
                else:
                    todo.pop(0)

    def _write(self, connection: TargetConnection, part: PartFile) -> None:
        """Write a part, or nothing of it. Raises the driver's errors."""
        connection.run(f"SET SESSION unique_checks = {0 if _is_whole(part) else 1}")
        if history_of(part.table) and connection.takes_history:
            connection.run("SET SESSION system_versioning_insert_history = 1")
        for left in reversed(range(_TRIES)):
            try:
                self._transaction(connection, part)
            except pymysql.Error as exc:
                if not is_refused(exc):
                    raise
                connection.run("ROLLBACK")
                if not transactional(part) or number_of(exc) not in _PASSING or not left:
                    raise
                connection.run("SET SESSION unique_checks = 1")
                time.sleep(random.uniform(0.05, 0.5))  # noqa: S311  so that two do not meet again
            else:
                return

    def _transaction(self, connection: TargetConnection, part: PartFile) -> None:
        """Insert all rows of a part; what was shown of a part that fails is taken back."""
        shown_rows = shown_bytes = 0
        try:
            if transactional(part):
                connection.run("BEGIN")
                mark_done(connection, part.name)
            for statement in self._statements(connection, part):
                send(connection.raw, statement.pieces)
                size_bytes = part.size_bytes * (shown_rows + statement.rows) // part.rows - shown_bytes
                self._advance(statement.rows, size_bytes)
                shown_rows, shown_bytes = shown_rows + statement.rows, shown_bytes + size_bytes
            if not transactional(part):
                mark_done(connection, part.name)
            connection.run("COMMIT")
        except pymysql.Error:
            self._advance(-shown_rows, -shown_bytes)
            raise

    def _statements(self, connection: TargetConnection, part: PartFile) -> Iterator[Statement]:
        try:
            file = open_part(self._reader.open(part.key))
            history = [] if connection.takes_history else history_of(part.table)
            without = [*history, *computed_of(connection, part.table.name, file.schema_arrow)]
            names = columns_of(file.schema_arrow, without)
            head = (
                f"INSERT INTO {quote_name(part.table.name)} ({', '.join(map(quote_name, names))}) ".encode()
            )
        except READ_ERRORS as exc:
            raise damage(part, exc) from exc
        allowed = int(connection.value("SELECT @@SESSION.max_allowed_packet"))
        batches = readable(
            part,
            values_of(file, without, ends=history[-1:], decimals=not connection.is_mariadb),
            READ_ERRORS,
            self._workers.stopped,
        )
        found = statements(head, batches, min(STATEMENT_BYTES, allowed // 2))
        return (_fitting(statement, part, allowed) for statement in found)


_PLAIN = (
    "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {table}"
    " AND COALESCE(GENERATION_EXPRESSION, '') = ''"
)


def computed_of(connection: Connection, table: str, schema: pa.Schema) -> list[str]:
    """Return the columns that the source computed and this server does, too, or does without. Raises the driver's
    errors.
    """
    names = generated_of(schema)
    if not names:
        return []
    plain = {str(row[0]) for row in connection.rows(_PLAIN.format(table=quote_literal(table)))}
    return [name for name in names if name not in plain]


@contextmanager
def translated(part: PartFile) -> Iterator[None]:
    """Raise what ``translate`` returns for the driver's errors."""
    try:
        yield
    except InterruptedError:
        raise
    except DRIVER_ERRORS as exc:
        raise translate(exc, f"{quote_name(part.table.name)} ({part.name})") from exc


def _is_whole(part: PartFile) -> bool:
    """Tell whether it is all of its table. Then InnoDB may load it in bulk, which it does without unique_checks;
    it locks the table for that, so that others who write to it would wait until the end, or in a circle.
    """
    return len(part.table.details["parts"]) == 1


@dataclass(frozen=True, slots=True)
class Statement:
    """An INSERT in pieces: with how many rows, and about how long."""

    pieces: Iterable[bytes]
    rows: int
    size_bytes: int


def _fitting(statement: Statement, part: PartFile, allowed_bytes: int) -> Statement:
    """Return a statement that the server takes: from a longer one it would hang up. Raises ``SourceUsageError``."""
    if statement.size_bytes < allowed_bytes:
        return statement
    raise SourceUsageError(
        f"{quote_name(part.table.name)} ({part.name}): a row takes {statement.size_bytes:,} bytes as a statement, the"
        f" server's max_allowed_packet is {allowed_bytes:,}",
        next_step=f"SET GLOBAL max_allowed_packet = {min(2**30, 2 * statement.size_bytes)} there, then the same command"
        " again.",
    )


def statements(head: bytes, batches: Iterable[Values | LongValues], size_bytes: int) -> Iterator[Statement]:
    """Join rows to statements of about ``size_bytes``, which begin with ``head``; those with long values are statements
    of their own, and so are those with shapes that were never set: a SELECT of NULL is what lets MariaDB have them.
    """
    pending: list[bytes] = []
    size = 0
    for batch in batches:
        if isinstance(batch, LongValues):
            yield _alone(head, batch.pieces, never_set=batch.never_set)
        elif batch.never_set:
            yield from (_alone(head, partial(iter, [row]), never_set=True) for row in batch.rows)
        else:
            for row in batch.rows:
                if pending and size + len(row) > size_bytes:
                    yield _joined(head, pending)
                    pending, size = [], 0
                pending.append(row)
                size += len(row) + 3
    if pending:
        yield _joined(head, pending)


def _alone(head: bytes, pieces: Callable[[], Iterable[bytes]], *, never_set: bool) -> Statement:
    """Return a statement of one row."""
    begin, end = (head + b"SELECT ", b"") if never_set else (head + b"VALUES (", b")")
    return Statement(chain([begin], pieces(), [end]), 1, len(begin) + 1 + sum(map(len, pieces())))


def _joined(head: bytes, rows: Sequence[bytes]) -> Statement:
    statement = b"".join([head, b"VALUES (", b"),(".join(rows), b")"])
    return Statement([statement], len(rows), len(statement))


def history_of(table: CatalogRow) -> list[str]:
    """Return the two columns that say from when to when a row held; none where all rows hold."""
    return list(table.details.get("history", ()))


def transactional(part: PartFile) -> bool:
    """Tell whether a transaction that does not commit leaves nothing of it behind."""
    return str(part.table.details.get("engine", "")).upper() == "INNODB"


def empty_unfinished(connection: TargetConnection, parts: Sequence[PartFile], done: set[str]) -> set[str]:
    """Return what of ``done`` still counts. Tables without transactions may hold a half of a part that is not done:
    they are emptied, and all of their parts are written again. Raises the driver's errors.
    """
    by_table: dict[str, list[PartFile]] = {}
    for part in parts:
        if not transactional(part):
            by_table.setdefault(part.table.name, []).append(part)
    again: set[str] = set()
    for name, own in by_table.items():
        if all(part.name in done for part in own):
            continue
        make_empty(connection, name)
        if history_of(own[0].table) and connection.is_mariadb:  # what is deleted there becomes history
            connection.run(f"DELETE HISTORY FROM {quote_name(name)}")
        again |= {part.name for part in own}
    _forget(connection, again & done)
    return done - again


def unwrite(connection: TargetConnection, table: str, parts: AbstractSet[str]) -> None:
    """Remove the rows of a table, and the notes that these parts of it are done. Raises the driver's errors."""
    make_empty(connection, table)
    _forget(connection, parts)


def _forget(connection: TargetConnection, parts: AbstractSet[str]) -> None:
    for name in parts:
        connection.run(f"DELETE FROM {connection.done} WHERE name = {quote_literal(name)}")
