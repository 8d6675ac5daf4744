"""Rows into the destination: one transaction a part, or several small ones, together with the note that they are
done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import psycopg
from msgspec import Struct

from exporters.postgres.charset.server_conversion import database_encoding
from exporters.postgres.identifiers import quote_name, quote_qualified
from exporters.postgres.large_objects import NUMBER
from exporters.postgres.part_reader import blocks_of
from exporters.postgres.rows.copy_feed import copy_encoding
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.postgres.sessions.connection import PostgresAddress, connect, parse_url
from exporters.row_digest import Advance
from exporters.sql.columns import columns_in
from exporters.sql.parquet_read import ParquetPart, open_part
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.restore.common.connection_workers import ConnectionWorkers
from migrate.restore.common.table_parts import AttemptProgress, PartFile, batches_of, readable, reading_part
from migrate.restore.postgres import restore_state
from migrate.restore.postgres.definitions.refusals import (
    Check,
    destination_error,
    first_line,
    is_refusal,
    suspects,
    use_every_schema,
    without_checks,
)
from migrate.restore.postgres.destination import (
    ColumnTypes,
    column_types,
    connect_writer,
    has_generated,
    holds_lock,
    with_compression,
    without_triggers,
    without_user_triggers,
)
from migrate.restore.postgres.restore_state import mark_done
from migrate.restore.postgres.rows import copy_binary, large_objects
from migrate.restore.postgres.rows.prepared_parts import BINARY, CSV, ENCODING, PreparedParts
from migrate.restore.postgres.rows.source_charset import OwnEncoding, encoding_of
from migrate.restore.postgres.rows.value_filter import ValueFilter, lines_of_part
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.crash_points import durable

_PIECE_BYTES = 2**20
_BATCH_BYTES = 2 * 2**20
_BATCH_PARTS = 64
"""Parts that are together no larger are copied in one transaction, so many at most: each locks its table."""


_Rows = tuple[copy_binary.Block, int]
"""What COPY takes, and how many rows are in it."""


class _Attempt(Struct, kw_only=True):
    """An attempt to copy a part, over one connection. ``own``: its table, as in SQL; ``into``: the one that takes its
    rows. ``progress``: what was shown of it.
    """

    connection: psycopg.Connection[Any]
    part: PartFile
    own: str
    into: str
    progress: AttemptProgress
    was_refused: bool = False
    """Whether the destination has refused the rows before: names are looked up in every schema, no trigger fires, and
    long values are compressed.
    """
    waived: Sequence[Check] = ()
    """These checks wait until the rows are there."""
    filtered: bool = False
    """Whether values are left out that the table does not take."""
    parent: str = ""
    """The table that a partition leaves, since its rows belong into no partition of it here."""


class RowWriter:
    """Copies parts into one database, several at once. ``cancellation`` ends it. ``left_out`` names the rows that the
    destination refuses, ``damaged`` the parts that cannot be read: these are not marked as done, so a later run tries
    them again. ``prepared`` parts need not be read.
    """

    def __init__(
        self,
        reader: BundleReader,
        address: PostgresAddress,
        *,
        workers: int,
        advance: Advance,
        cancellation: CancellationToken | None = None,
        prepared: PreparedParts | None = None,
    ) -> None:
        self._reader = reader
        self._address = address
        self._workers = ConnectionWorkers(self._connect, workers, cancellation)
        self._advance = advance
        self._prepared = prepared or PreparedParts(reader)
        self._by_root: dict[str, str] = {}
        self._copied_as = ""
        """The encoding of text that is copied; known once there is a connection."""
        self._refused: list[PartFile] = []
        self.left_out: list[str] = []
        self.damaged: list[tuple[PartFile, DamageError]] = []
        self.rows_missing = False

    def write_all(self, parts: Sequence[PartFile]) -> list[PartFile]:
        """Copy every part; after the first error the others stop soon, and the error is raised. What a check refuses
        comes last: its function may read other tables. Returns what the destination refuses even so, for
        ``write_last``.
        """
        self._workers.run(batches_of(parts, size_bytes=_BATCH_BYTES, count=_BATCH_PARTS), self._write_batch)
        if not self._refused:
            return []
        with closing(self._connect()) as connection:
            return [part for part in self._refused if self._refusal(connection, part) is not None]

    def write_last(self, parts: Sequence[PartFile]) -> None:
        """Copy parts that the destination refused while it had no indexes and constraints yet: a value may name one.
        What it refuses even now comes without the values that it does not take, or is named in ``left_out``, and does
        not stop the rest: the comparison will miss it.
        """
        with closing(self._connect()) as connection:
            for part in parts:
                error = self._refusal(connection, part)
                if error is not None and self._refusal(connection, part, filtered=True) is not None:
                    self.left_out.append(f"rows of {_label(part)} ({part.name}): {first_line(error)}")

    def write(self, part: PartFile) -> bool:
        """Copy one part, in this thread; tell whether it is in. What was refused, or could not be read, is for
        ``write_all``, once all others are there. Raises ``Cancelled``.
        """
        self._workers.run_one([part], self._write_batch)
        return part not in self._refused and all(part != damaged for damaged, _ in self.damaged)

    def close(self) -> None:
        """End the sessions that are not at work."""
        self._workers.close()

    def _write_batch(self, connection: psycopg.Connection[Any], parts: Sequence[PartFile]) -> None:
        """Copy parts in one transaction; each in one of its own if anything of it is refused or damaged."""
        if len(parts) > 1 and self._copy_together(connection, parts):
            return
        for part in parts:
            attempt = self._attempt(connection, part)
            try:
                try:
                    self._copy_alone(attempt)
                except psycopg.errors.CheckViolation as exc:
                    attempt.into = self._partitioned_root(connection, attempt.own, exc)
                    self._copy_alone(attempt)
            except psycopg.Error as exc:
                if not is_refusal(exc, connection):
                    raise destination_error(exc, f"{attempt.own} ({part.name})") from exc
                self._refused.append(part)
            except DamageError as exc:
                self.damaged.append((part, exc))

    def _attempt(self, connection: psycopg.Connection[Any], part: PartFile) -> _Attempt:
        own = _label(part)
        into, progress = self._by_root.get(own, own), AttemptProgress(self._advance)
        return _Attempt(connection=connection, part=part, own=own, into=into, progress=progress)

    def _copy_together(self, connection: psycopg.Connection[Any], parts: Sequence[PartFile]) -> bool:
        """Copy parts in one transaction; tell whether that was possible."""
        if self._copied_as == ENCODING:
            self._prepared.prepare(parts)
        progress = AttemptProgress(self._advance)
        try:
            with durable("restore.postgres.rows_together"), connection.transaction():
                mark_done(connection, *(part.name for part in parts))
                types = column_types(connection, {_label(part) for part in parts})
                for part in parts:
                    own = _label(part)
                    attempt = _Attempt(connection=connection, part=part, own=own, into=own, progress=progress)
                    self._copy(attempt, types)
        except (psycopg.Error, DamageError):
            progress.take_back()
            if connection.closed:
                raise
            return False
        return True

    def _refusal(
        self, connection: psycopg.Connection[Any], part: PartFile, *, filtered: bool = False
    ) -> psycopg.Error | None:
        """Copy a part with all other rows there and all schemas in sight. What its rows violate even so, they violate
        at the source, where such a check is not looked at again. Where rows are missing because of damage, a check may
        need those. A partition whose rows belong into none here becomes a table of its own. Returns why the destination
        refuses it for another reason. ``filtered``: without the values that it does not take.
        """
        attempt = self._attempt(connection, part)
        attempt.was_refused, attempt.filtered = True, filtered
        while True:
            try:
                self._copy_alone(attempt)
            except psycopg.Error as exc:
                if not is_refusal(exc, connection):
                    raise destination_error(exc, f"{attempt.own} ({part.name})") from exc
                if not attempt.parent and (parent := _parent_of_misfit(connection, attempt.own, exc)):
                    attempt.parent, attempt.into = parent, attempt.own
                    continue
                checks = [
                    check for check in suspects(connection, exc, attempt.own) if check not in attempt.waived
                ]
                if not checks or self.rows_missing or self.damaged:
                    return exc
                attempt.waived = [*attempt.waived, *checks]
            except DamageError as exc:
                self.damaged.append((part, exc))
                return None
            else:
                return None

    def _partitioned_root(self, connection: psycopg.Connection[Any], label: str, error: psycopg.Error) -> str:
        """Return the partitioned table into which the rows of a partition go that belong into another one here: the
        hash of an enum, or the order of texts, differs between servers. Raises ``error`` where that is not the reason.
        """
        row = connection.execute(
            "SELECT p.relid::text FROM pg_partition_ancestors(%s::regclass) AS p(relid)"
            " WHERE p.relid = pg_partition_root(%s::regclass) AND p.relid <> %s::regclass",
            (label, label, label),
        ).fetchone()
        if row is None or error.diag.constraint_name:
            raise error
        self._by_root[label] = str(row[0])
        return str(row[0])

    def _copy_alone(self, attempt: _Attempt) -> None:
        """Copy a part in a transaction of its own. Checks that waited, and do not hold, are recorded as left out."""
        connection, part, own, into = attempt.connection, attempt.part, attempt.own, attempt.into
        notes = (
            [f"rows of {own} were divided among the partitions of {into} anew: they belong elsewhere here"]
            if into != own
            else []
        )
        try:
            with durable("restore.postgres.rows"), connection.transaction():
                if attempt.was_refused:
                    use_every_schema(connection, part.table.schema)
                mark_done(connection, part.name)
                if attempt.parent:
                    connection.execute(f"ALTER TABLE {attempt.parent} DETACH PARTITION {own}".encode())
                with ExitStack() as stack:
                    if attempt.was_refused:
                        stack.enter_context(without_user_triggers(connection, into))
                        stack.enter_context(with_compression(connection, into))
                    untrue = stack.enter_context(without_checks(connection, attempt.waived))
                    self._copy(attempt, column_types(connection, {into}))
                names = [f"{check.name} for rows that are there: some violate it" for check in untrue]
                if attempt.parent:
                    names.append(_detached(part.table, attempt.parent))
                restore_state.add_left_out(connection, part.name, names, notes)
        except DamageError:
            attempt.progress.take_back()
            raise
        except psycopg.Error as exc:
            attempt.progress.take_back()
            if not isinstance(exc, psycopg.errors.UniqueViolation) or exc.diag.schema_name != PROGRESS_SCHEMA:
                raise
            # A worker that was taken for dead, or whose lead is, has done it meanwhile.
            self._advance(part.rows, part.size_bytes)

    def _copy(self, attempt: _Attempt, types: Mapping[str, ColumnTypes]) -> None:
        """Copy a part. ``types``: of the columns of the destination's tables."""
        connection, part = attempt.connection, attempt.part
        own_types = types.get(attempt.into, ColumnTypes())
        prepared = (
            None if attempt.filtered else self._prepared.take(part, own_types.declared, self._copied_as)
        )
        if prepared is not None:
            self._send(attempt, prepared.types, prepared.options, iter([(prepared.data, prepared.rows)]))
            return
        with reading_part(part):
            file = open_part(self._reader.open(part.key))
            names = list(columns_in(file.schema_arrow, generated=False))
            every = list(columns_in(file.schema_arrow))
        generated = len(every) > len(names) and not has_generated(connection, attempt.into)
        names = every if generated else names
        if part.table.number == NUMBER:
            pieces = readable(part, large_objects.pieces_of(file), self._workers.cancellation)
            large_objects.write(connection, pieces, partial(attempt.progress.add, part))
        elif not names:
            rows = part.rows if not file.schema_arrow.names else file.metadata.num_rows
            connection.execute(
                f"INSERT INTO {attempt.into} SELECT FROM pg_catalog.generate_series(1, {rows})".encode()
            )
            attempt.progress.add(part, rows)
        else:
            with ExitStack() as stack:
                if attempt.filtered:
                    options, blocks = CSV, self._filtered(file, attempt, names, stack)
                else:
                    with reading_part(part):
                        options, blocks = self._blocks(file, own_types, stack, generated=generated)
                self._send(attempt, names, options, blocks)

    def _send(self, attempt: _Attempt, names: Iterable[str], options: str, blocks: Iterator[_Rows]) -> None:
        """Copy the blocks of these columns, each with its number of rows. ``options``: of COPY."""
        columns = ", ".join(map(quote_name, names))
        statement = f"COPY {attempt.into} ({columns}) FROM STDIN WITH ({options})"
        read = readable(attempt.part, blocks, self._workers.cancellation)
        with attempt.connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for piece, rows in _in_pieces(read):
                copy.write(piece)
                attempt.progress.add(attempt.part, rows)

    def _filtered(
        self, file: ParquetPart, attempt: _Attempt, names: Sequence[str], stack: ExitStack
    ) -> Iterator[_Rows]:
        """Yield the rows without the values that the table does not take, and how many rows of the part they were."""
        connection = stack.enter_context(closing(self._connect()))
        stack.enter_context(connection.transaction())
        use_every_schema(connection, attempt.part.table.schema)
        values = ValueFilter(connection, attempt.own, names)
        generated = len(names) == len(columns_in(file.schema_arrow))
        for lines in lines_of_part(file, generated=generated):
            yield b"".join(line + b"\n" for line in values.filtered(lines)), len(lines)

    def _blocks(
        self, file: ParquetPart, types: ColumnTypes, stack: ExitStack, *, generated: bool
    ) -> tuple[str, Iterator[_Rows]]:
        """Return COPY's options, and what to send with the number of rows in it; with ``generated`` the values, too,
        that the source's server computed. ``types`` of the destination's columns.
        """
        if encoding := encoding_of(file.schema_arrow):
            own = OwnEncoding(stack.enter_context(closing(self._connect())), encoding)
            return f"FORMAT csv, ENCODING '{own.copied_as}'", own.blocks_of(file, generated=generated)
        if self._copied_as == ENCODING and not generated:
            encoder = copy_binary.encoder_of(file.schema_arrow, types.declared, types.bases)
            if encoder is not None:
                return BINARY, encoder.blocks(file)
        return f"FORMAT csv, ENCODING '{self._copied_as}'", blocks_of(file, generated=generated)

    def _connect(self) -> psycopg.Connection[Any]:
        connection = connect_writer(self._address)
        without_triggers(connection)
        if not self._copied_as:
            self._copied_as = copy_encoding(database_encoding(connection))
        return connection


def _in_pieces(blocks: Iterator[_Rows]) -> Iterator[_Rows]:
    """Yield small blocks together, because each piece has the driver wait for the server. A large one comes alone, and
    is not copied before the driver cuts it.
    """
    pending: list[copy_binary.Block] = []
    size_bytes = rows = 0
    for block, rows_of_block in blocks:
        pending.append(block)
        size_bytes += len(block)
        rows += rows_of_block
        if size_bytes >= _PIECE_BYTES:
            yield pending[0] if len(pending) == 1 else b"".join(pending), rows
            pending, size_bytes, rows = [], 0, 0
    yield b"".join(pending), rows


def _parent_of_misfit(connection: psycopg.Connection[Any], label: str, error: psycopg.Error) -> str:
    """Return the partitioned table above a partition where the error says that a row belongs into no partition here, as
    where text sorts otherwise; "" for another error.
    """
    if not isinstance(error, psycopg.errors.CheckViolation) or error.diag.constraint_name:
        return ""
    row = connection.execute(
        "SELECT i.inhparent::regclass::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE c.oid = %s::regclass AND c.relispartition",
        (label,),
    ).fetchone()
    return str(row[0]) if row else ""


def _detached(table: CatalogRow, parent: str) -> str:
    """Return the sentence about a partition that has become a table of its own, under the name of pg_dump's entry."""
    name = f"{table.schema}.{table.name}"
    return (
        f"TABLE ATTACH {name}: some of its rows belong into no partition of {parent} here, so it has left it"
    )


def _label(part: PartFile) -> str:
    return quote_qualified(part.table.schema, part.table.name)


class PostgresRows:
    """A database that parts are copied into; see ``RowDestination``."""

    def __init__(self, url: str, secrets: Mapping[str, str]) -> None:
        self._address = parse_url(url, secrets)

    def is_led(self, lead: int) -> bool:
        """Ask the server for the lock's owner."""
        with connect(self._address) as connection:
            return holds_lock(connection, lead)

    def writer(self, reader: BundleReader, *, workers: int, cancellation: CancellationToken) -> RowWriter:
        """Return a writer that reports no progress: the leading machine counts parts."""
        return RowWriter(
            reader,
            self._address,
            workers=workers,
            advance=lambda _rows, _size_bytes: None,
            cancellation=cancellation,
        )
