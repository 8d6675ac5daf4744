"""What a restore left out, kept in the destination. While the restore runs, that lies next to the record of finished
steps, written in the same transactions. Once it is finished, it is in a record that stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import psycopg

from exporters.postgres.errors import as_source_errors
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.postgres.sessions.connection import connect, parse_url
from migrate.bundle.reader import BundleReader
from migrate.restore.common.left_out import FinishedRestore, unique
from migrate.restore.postgres.definitions.refusals import first_line
from migrate.restore.postgres.destination import PostgresState

_TABLE = f"{PROGRESS_SCHEMA}.left_out"
_FINISHED = f"{PROGRESS_SCHEMA}.finished"
HOW_TO_FORGET = (
    f"the destination keeps this list in schema {PROGRESS_SCHEMA}, so the same command and verify --against name it"
    f" again; to forget it: DROP TABLE {PROGRESS_SCHEMA}.finished"
)


def add(
    connection: psycopg.Connection[Any],
    step: str,
    left_out: Sequence[str] = (),
    notes: Sequence[str] = (),
    *,
    passwordless: Sequence[str] = (),
) -> None:
    """Record what a step left out, what is to be noted of it, and the roles that it made and that need a password,
    within the transaction that marks it as done.
    """
    if left_out or notes or passwordless:
        entry = FinishedRestore("", left_out, notes, passwordless=passwordless).encode()
        connection.execute(f"INSERT INTO {_TABLE} (step, entry) VALUES (%s, %s)".encode(), (step, entry))


def read(connection: psycopg.Connection[Any]) -> FinishedRestore:
    """Return all that finished steps have recorded, each sentence once."""
    rows = connection.execute(f"SELECT entry FROM {_TABLE} ORDER BY id".encode()).fetchall()
    records = [FinishedRestore.decode("", entry) for (entry,) in rows]
    return FinishedRestore(
        "",
        unique(*(record.left_out for record in records)),
        unique(*(record.notes for record in records)),
        passwordless=unique(*(record.passwordless for record in records)),
    )


def read_finished(connection: psycopg.Connection[Any], bundle: str, source: str) -> list[FinishedRestore]:
    """Return the records of the finished restores of a source, of all or of parts of it."""
    if not _exists(connection, "finished"):
        return []
    rows = connection.execute(
        f"SELECT only_, entry FROM {_FINISHED} WHERE (bundle, source) = (%s, %s) ORDER BY finished_at".encode(),
        (bundle, source),
    ).fetchall()
    return [FinishedRestore.decode(*row) for row in rows]


def known(reader: BundleReader, source: str, url: str, secrets: Mapping[str, str]) -> list[FinishedRestore]:
    """Return what restores of a source have left out of a database: finished ones, and one that still has to be
    finished. Raises errors of ``exporters.errors``.
    """
    address = parse_url(url, secrets)
    with as_source_errors(address.url), closing(connect(address)) as connection:
        if not (_exists(connection, "about") or _exists(connection, "finished")):
            return []
        try:
            return _known(connection, reader.info.id, source)
        except psycopg.errors.InsufficientPrivilege as exc:
            words = f"schema {PROGRESS_SCHEMA} says what a restore left out, and cannot be read: {first_line(exc)}"
            return [FinishedRestore("", [words])]


def _known(connection: psycopg.Connection[Any], bundle: str, source: str) -> list[FinishedRestore]:
    records = read_finished(connection, bundle, source)
    if not _exists(connection, "about"):
        return records
    about = connection.execute(
        f"SELECT bundle, source, only_ FROM {PROGRESS_SCHEMA}.about".encode()
    ).fetchone()
    if about is None or about[:2] != (bundle, source):
        return records
    words = f"a restore of {about[2] or source} is not finished: give its command again"
    return [*records, FinishedRestore(about[2], [words, *read(connection).left_out], finished=False)]


def forget_finished(connection: psycopg.Connection[Any], state: PostgresState, *, every: bool) -> None:
    """Remove the record of this very restore before it is made anew; with ``every`` those of all others, too: the
    database is empty.
    """
    if every:
        connection.execute(f"DROP SCHEMA IF EXISTS {PROGRESS_SCHEMA} CASCADE".encode())
    elif _exists(connection, "finished"):
        connection.execute(
            f"DELETE FROM {_FINISHED} WHERE (bundle, source, only_) = (%s, %s, %s)".encode(),
            (state.bundle, state.source, state.only),
        )


def forget_superseded(
    connection: psycopg.Connection[Any], state: PostgresState, bundles: Sequence[str]
) -> None:
    """Remove the records of a source's restores from these bundles, within the transaction that ends the restore."""
    if bundles and _exists(connection, "finished"):
        connection.execute(
            f"DELETE FROM {_FINISHED} WHERE source = %s AND bundle = ANY(%s)".encode(),
            (state.source, list(bundles)),
        )
        row = connection.execute(f"SELECT count(*) FROM {_FINISHED}".encode()).fetchone()
        if row == (0,):
            connection.execute(f"DROP TABLE {_FINISHED}".encode())


def end(connection: psycopg.Connection[Any], *, keep: bool) -> None:
    """Remove the state of a restore, within the transaction that ends it. ``keep``: it has left something out, so
    ``write_finished`` follows.
    """
    if keep:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {_FINISHED} (bundle text, source text, only_ text,"
            " finished_at timestamptz DEFAULT pg_catalog.now(), entry text)".encode()
        )
    if keep or _exists(connection, "finished") or _exists(connection, "follow"):
        tables = ", ".join(f"{PROGRESS_SCHEMA}.{name}" for name in ("about", "done", "left_out"))
        connection.execute(f"DROP TABLE {tables}".encode())
    else:
        connection.execute(f"DROP SCHEMA {PROGRESS_SCHEMA} CASCADE".encode())


def write_finished(
    connection: psycopg.Connection[Any], state: PostgresState, record: FinishedRestore
) -> None:
    """Write the record that stays, within the transaction that ends the restore."""
    connection.execute(
        f"INSERT INTO {_FINISHED} (bundle, source, only_, entry) VALUES (%s, %s, %s, %s)".encode(),
        (state.bundle, state.source, record.only, record.encode()),
    )


def _exists(connection: psycopg.Connection[Any], table: str) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s)",
        (PROGRESS_SCHEMA, table),
    ).fetchone()
    return bool(row and row[0])
