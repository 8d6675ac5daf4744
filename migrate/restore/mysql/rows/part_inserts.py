"""A part of a table as the statements that insert its rows; and which rows the server refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pymysql
from msgspec import Struct, field

from exporters.mysql.connection import Connection
from exporters.mysql.errors import message_of
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.rows.arrow_to_rows import texts_of
from exporters.mysql.rows.long_rows import payload_pieces
from exporters.mysql.sessions.driver_connection import send
from exporters.row_digest import RowsDigest, digest_pieces, digest_texts
from exporters.sql.large_values.long_values import LongRow, batch_of
from exporters.sql.parquet_read import ParquetPart, rows_of
from migrate.number_text import list_words
from migrate.restore.common.table_parts import PartFile
from migrate.restore.mysql.definitions.object_maker import needs_the_user
from migrate.restore.mysql.rows.bulk_rows import bulk_rows
from migrate.restore.mysql.rows.insert_statements import (
    JoinedRows,
    LongValues,
    RowTooLargeError,
    Statement,
    Values,
    columns_of,
    fitting,
    generated_of,
    insert_head,
    insert_statements,
    literals_of,
)

Select = Callable[[pa.RecordBatch | LongRow], pa.RecordBatch | LongRow]
"""Chooses rows."""

_MOST_REFUSED = 1000
"""After this many refused rows of a part no more of it are tried."""
_KEY_CHARACTERS = 60
"""How much of a key's value names a row."""
_PRIMARY = (
    "SELECT COLUMN_NAME FROM information_schema.STATISTICS"
    " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {table} AND INDEX_NAME = 'PRIMARY'"
)
_PLAIN = (
    "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {table}"
    " AND COALESCE(GENERATION_EXPRESSION, '') = ''"
)


class Refusals(Struct):
    """Rows that were refused, and the server's last error message."""

    digest: RowsDigest = field(default_factory=RowsDigest)
    reason: str = ""


class PartInserts(Struct, frozen=True):
    """A part: which of its rows and columns are written, and how long the destination's server lets a statement be.
    ``decimals``: it keeps decimals in JSON.
    """

    part: PartFile
    file: ParquetPart
    select: Select
    without: Sequence[str]
    allowed_bytes: int
    decimals: bool

    def rows(self) -> Iterator[pa.RecordBatch | LongRow]:
        """Return the rows that are written, a few thousand at a time, and those with long values alone."""
        return map(self.select, rows_of(self.file))

    def literals(self, rows: pa.RecordBatch | LongRow) -> Iterator[Values | LongValues]:
        """Return the value lists of rows."""
        return literals_of(rows, self.without, decimals=self.decimals)

    def values(self, rows: pa.RecordBatch | LongRow, *, in_bulk: bool) -> Iterator[JoinedRows | LongValues]:
        """Return the rows as they are written: ``in_bulk`` where they can be."""
        some = bulk_rows(rows, self.without) if in_bulk and not isinstance(rows, LongRow) else None
        if some is None:
            yield from self.literals(rows)
        else:
            yield some

    @property
    def prepared(self) -> str:
        """The INSERT for rows in bulk."""
        names = columns_of(self.file.schema_arrow, self.without)
        return f"{insert_head(self.part.table.name, names)}VALUES ({','.join('?' * len(names))})"

    @property
    def about(self) -> str:
        """What errors call it."""
        return f"{quote_name(self.part.table.name)} ({self.part.name})"

    def statements(self, batches: Iterable[JoinedRows | LongValues]) -> Iterator[Statement]:
        """Return the INSERTs. Raises ``RowTooLargeError`` where the server does not take one."""
        inserts = self._inserts(batches)
        return (fitting(statement, self.about, self.allowed_bytes) for statement in inserts)

    def _inserts(self, batches: Iterable[JoinedRows | LongValues]) -> Iterator[Statement]:
        names = columns_of(self.file.schema_arrow, self.without)
        return insert_statements(self.part.table.name, names, batches, self.allowed_bytes)

    def largest(
        self, batches: Iterable[pa.RecordBatch | LongRow], key: Sequence[str]
    ) -> RowTooLargeError | None:
        """Return the error for those of the rows that the server does not take: it names them by their key."""
        rows: list[str] = []
        most_bytes = 0
        for batch in batches:
            if self._size_of(batch) < self.allowed_bytes:
                continue
            for row in pieces_of(batch, 1):
                if (size_bytes := self._size_of(row)) >= self.allowed_bytes:
                    rows.append(_row_words(row, key))
                    most_bytes = max(most_bytes, size_bytes)
        if not rows:
            return None
        return RowTooLargeError(f"{self.about}, {list_words(rows, 3)}", most_bytes, self.allowed_bytes)

    def _size_of(self, rows: pa.RecordBatch | LongRow) -> int:
        """Return how many bytes the longest INSERT of rows has."""
        return max((statement.size_bytes for statement in self._inserts(self.literals(rows))), default=0)

    def key(self, connection: Connection) -> list[str]:
        """Return the primary key's columns, as far as they are written. Raises the driver's errors."""
        names = columns_of(self.file.schema_arrow, self.without)
        rows = connection.rows(_PRIMARY.format(table=quote_literal(self.part.table.name)))
        return [str(name) for (name,) in rows if name in names]

    def where(self, rows: pa.RecordBatch | LongRow, key: Sequence[str]) -> bytes:
        """Return the condition for these rows among those that hold: that finds them by the key, if there is one."""
        if not key:
            return b""
        batch = batch_of(rows)
        others = [field.name for field in self.file.schema_arrow if field.name not in key]
        literals = [
            row
            for values in literals_of(batch, others, decimals=self.decimals)
            if isinstance(values, Values)
            for row in values.rows
        ]
        columns = ", ".join(map(quote_name, columns_of(self.file.schema_arrow, others)))
        return f" WHERE ({columns}) IN (".encode() + b",".join(b"(%b)" % row for row in literals) + b")"

    def insert(self, connection: Connection, rows: pa.RecordBatch | LongRow, refusals: Refusals) -> None:
        """Insert some rows; one by one, if the server refuses them together. Raises the driver's errors."""
        if refusals.digest.rows >= _MOST_REFUSED:
            refusals.digest += digest_of(rows)
            return
        undo = transactional(self.part)
        try:
            if undo:
                connection.run("SAVEPOINT rows_of_moveout")
            for statement in self.statements(self.literals(rows)):
                send(connection.raw, statement.pieces)
        except (pymysql.Error, RowTooLargeError) as exc:
            alone = _count(rows) == 1
            if _ends_a_part(exc, alone=alone):
                raise
            if undo:
                connection.run("ROLLBACK TO rows_of_moveout")
            if alone:
                refusals.digest += digest_of(rows)
                too_large = isinstance(exc, RowTooLargeError)
                refusals.reason = exc.explanation if too_large else message_of(exc)
            else:
                for row in pieces_of(rows, 1):
                    self.insert(connection, row, refusals)


def _ends_a_part(error: pymysql.Error | RowTooLargeError, *, alone: bool) -> bool:
    """Tell whether nothing more of a part is written after the error of some rows, or of one ``alone``."""
    if isinstance(error, RowTooLargeError):
        return alone and not error.is_for_good
    return needs_the_user(error)


def _row_words(row: pa.RecordBatch | LongRow, key: Sequence[str]) -> str:
    """Return which row it is: ``id` = 7``."""
    values = [(name, batch_of(row).column(name)[0].as_py()) for name in key]
    words = (f"{quote_name(name)} = {str(value)[:_KEY_CHARACTERS]}" for name, value in values)
    return " and ".join(words) or "a row without a key"


def _count(rows: pa.RecordBatch | LongRow) -> int:
    return 1 if isinstance(rows, LongRow) else int(rows.num_rows)


def pieces_of(rows: pa.RecordBatch | LongRow, most_rows: int) -> Iterator[pa.RecordBatch | LongRow]:
    """Yield rows, so many at a time."""
    if isinstance(rows, LongRow):
        yield from [rows] * rows.batch.num_rows
    else:
        yield from (rows.slice(first, most_rows) for first in range(0, rows.num_rows, most_rows))


def digest_of(rows: pa.RecordBatch | LongRow) -> RowsDigest:
    """Return the digest of rows as the bundle has them."""
    return digest_pieces(payload_pieces(rows)) if isinstance(rows, LongRow) else digest_texts(texts_of(rows))


def computed_of(connection: Connection, table: str, schema: pa.Schema) -> list[str]:
    """Return the columns that the source computed, and that this server computes too, or lacks."""
    names = generated_of(schema)
    if not names:
        return []
    plain = {str(row[0]) for row in connection.rows(_PLAIN.format(table=quote_literal(table)))}
    return [name for name in names if name not in plain]


def transactional(part: PartFile) -> bool:
    """Tell whether a transaction that does not commit leaves nothing of it behind."""
    return str(part.table.details.get("engine", "")).upper() == "INNODB"
