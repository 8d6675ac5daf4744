"""What a restore left out, kept in a control table of the destination: while it runs by step, once finished in a record
that stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

import pymysql

from exporters.api import Loss
from exporters.mysql.connection import Connection, connect, parse_url
from exporters.mysql.control_tables import OWN_TABLE, ControlTables, find_control_tables
from exporters.mysql.errors import as_source_errors, is_about_the_thing, message_of
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.bundle.reader import BundleReader
from migrate.restore.common.left_out import FinishedRestore, unique
from migrate.restore.common.table_restore import State
from migrate.restore.mysql.destination import DestinationConnection
from migrate.runtime.crash_points import durable

_FINISHED = ""
"""The step of the record that stays."""


def how_to_forget(connection: DestinationConnection) -> str:
    """Return the note about the record that stays."""
    name = connection.left_out
    return (
        f"the destination keeps this list in table {name}, so that the same command and verify --against name it again;"
        f" to forget it: DROP TABLE {name}"
    )


def add(
    connection: DestinationConnection,
    state: State,
    step: str,
    *,
    left_out: Sequence[str] = (),
    notes: Sequence[str] = (),
    losses: Sequence[Loss] = (),
) -> None:
    """Record what a step left out, within the transaction that marks it as done, or before it is begun. Raises the
    driver's errors.
    """
    if left_out or notes or losses:
        _write(connection, state, step, FinishedRestore(state.only, left_out, notes, losses))


def forget(connection: DestinationConnection, step: str) -> None:
    """Remove what was recorded of a step: it has failed. Raises the driver's errors."""
    connection.run(f"DELETE FROM {connection.left_out} WHERE step = {quote_literal(step)}")


def read(connection: DestinationConnection) -> FinishedRestore:
    """Return all that the steps of this restore have recorded. Raises the driver's errors."""
    query = f"SELECT only_, entry FROM {connection.left_out} WHERE step <> '{_FINISHED}'"
    records = [FinishedRestore.decode(*map(str, row)) for row in connection.rows(query)]
    return FinishedRestore(
        "",
        unique(*(record.left_out for record in records)),
        unique(*(record.notes for record in records)),
        unique(*(record.losses for record in records)),
    )


def read_finished(
    connection: Connection, bundle: str, source: str, control: ControlTables
) -> list[FinishedRestore]:
    """Return the records of the finished restores of a source, of all or of parts of it. Raises the driver's errors."""
    if control.left_out not in find_control_tables(connection)[0]:
        return []
    query = (
        f"SELECT only_, entry FROM {quote_name(control.left_out)} WHERE step = '{_FINISHED}'"
        f" AND bundle = {quote_literal(bundle)} AND source = {quote_literal(source)}"
    )
    return [FinishedRestore.decode(*map(str, row)) for row in connection.rows(query)]


def begin(connection: DestinationConnection, state: State, *, every: bool) -> None:
    """Make the table. Records of this very restore, which is made anew, go; with ``every`` those of all: the database
    is empty. Raises the driver's errors.
    """
    if every:
        connection.run(f"DROP TABLE IF EXISTS {connection.left_out}")
    connection.run(
        f"CREATE TABLE IF NOT EXISTS {connection.left_out} (bundle VARCHAR(200), source VARCHAR(200), only_ LONGTEXT,"
        f" step VARCHAR(700), entry LONGTEXT) {OWN_TABLE}"
    )
    connection.run(f"DELETE FROM {connection.left_out} WHERE step <> '{_FINISHED}' OR {_is(state)}")


def finish(
    connection: DestinationConnection, state: State, record: FinishedRestore, superseded: Sequence[str] = ()
) -> None:
    """Write the record that stays where anything was left out, and remove what the steps have recorded, and the records
    of the source's restores from the ``superseded`` bundles. Raises the driver's errors.
    """
    connection.run("BEGIN")
    for bundle in superseded:
        connection.run(
            f"DELETE FROM {connection.left_out} WHERE bundle = {quote_literal(bundle)}"
            f" AND source = {quote_literal(state.source)}"
        )
    connection.run(f"DELETE FROM {connection.left_out} WHERE {_is(state)}")
    if record.left_out:
        _write(connection, state, _FINISHED, record)
    with durable("restore.mysql.finish"):
        connection.run("COMMIT")
    if connection.value(f"SELECT COUNT(*) FROM {connection.left_out}") == 0:
        connection.run(f"DROP TABLE {connection.left_out}")


def known(reader: BundleReader, source: str, url: str, secrets: Mapping[str, str]) -> list[FinishedRestore]:
    """Return what restores of a source have left out of a database: finished ones, and one that still has to be
    finished. Raises errors of ``exporters.errors``.
    """
    address = parse_url(url, secrets)
    with as_source_errors(address.url), closing(connect(address)) as connection:
        names, others = find_control_tables(connection)
        control = ControlTables.apart_from(others)
        try:
            records = read_finished(connection, reader.info.id, source, control)
            if control.about not in names:
                return records
            about = connection.rows(f"SELECT bundle, source, only_ FROM {quote_name(control.about)}")
        except pymysql.Error as exc:
            if not is_about_the_thing(exc):
                raise
            words = f"what a restore left out cannot be read: {message_of(exc)}"
            return [FinishedRestore("", [words])]
        if not about or about[0][:2] != (reader.info.id, source):
            return records
        words = f"a restore of {about[0][2] or source} is not finished: give its command again"
        destination = DestinationConnection(address, connection.raw, control)
        return [
            *records,
            FinishedRestore(about[0][2], [words, *read(destination).left_out], finished=False),
        ]


def _is(state: State) -> str:
    return (
        f"(bundle = {quote_literal(state.bundle)} AND source = {quote_literal(state.source)}"
        f" AND only_ = {quote_literal(state.only)})"
    )


def _write(connection: DestinationConnection, state: State, step: str, record: FinishedRestore) -> None:
    values = state.bundle, state.source, record.only, step, record.encode()
    connection.run(
        f"INSERT INTO {connection.left_out} VALUES ({', '.join(quote_literal(value) for value in values)})"
    )
