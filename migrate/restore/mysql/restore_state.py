"""What a restore keeps in control tables of the destination: how far it came, and what it left out.

A part's rows and the note that it is done are one transaction, so a run can die at any moment. Definitions are not
transactional in MySQL; they are noted after they are made, and one that was made but not noted is recognised by its
being there. What was left out is recorded by step while the restore runs, and once it is finished in a record that
stays. Functions raise the driver's errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import pymysql
from msgspec import Struct
from msgspec.structs import replace

from exporters.api import Loss
from exporters.mysql.connection import Connection, connect, parse_url
from exporters.mysql.control_tables import OWN_TABLE, ControlTables, find_control_tables
from exporters.mysql.errors import as_source_errors, is_about_the_thing, message_of
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.row_digest import MODULUS, RowsDigest, to_hex
from exporters.structs import as_dict
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.restore.common.api import UnfinishedRestore
from migrate.restore.common.left_out import FinishedRestore
from migrate.restore.common.table_restore import State
from migrate.restore.mysql.destination import DestinationConnection, MysqlDestination
from migrate.runtime.crash_points import durable

_FINISHED = ""
"""The step of the record that stays."""
_WITHOUT, _LOSS_CHARACTERS = "without ", 400
_REFUSED, _REFUSAL_CHARACTERS = "refused ", 300
"""How notes begin of what a table is without, and of rows that are refused, and how long the reason may be: a note has
room for 700 characters.
"""


def read_state(destination: MysqlDestination) -> State | None:
    """Return what an earlier restore left, None where there was none."""
    connection = destination.connection
    if connection.control.about not in destination.existing:
        return None
    rows = connection.rows(f"SELECT bundle, source, only_ FROM {connection.about}")
    return State(*rows[0]) if rows else None


def begin_state(destination: MysqlDestination, state: State, *, alone: bool = False) -> None:
    """Make the tables; the row that records which restore owns them comes last. Records of this very restore, which is
    made anew, go; those of all where it is ``alone``: the database is empty.
    """
    connection = destination.connection
    if alone and connection.control.left_out in destination.existing:
        connection.run(f"DROP TABLE IF EXISTS {connection.left_out}")
    connection.run(
        f"CREATE TABLE IF NOT EXISTS {connection.left_out} (bundle VARCHAR(200), source VARCHAR(200), only_ LONGTEXT,"
        f" step VARCHAR(700), entry LONGTEXT) {OWN_TABLE}"
    )
    connection.run(f"DELETE FROM {connection.left_out} WHERE step <> '{_FINISHED}' OR {_is(state)}")
    connection.run(
        f"CREATE TABLE IF NOT EXISTS {connection.done} (name VARCHAR(700) PRIMARY KEY) {OWN_TABLE}"
    )
    connection.run(f"DELETE FROM {connection.done}")
    connection.run(
        f"CREATE TABLE IF NOT EXISTS {connection.about}"
        f" (bundle VARCHAR(200), source VARCHAR(200), only_ LONGTEXT) {OWN_TABLE}"
    )
    values = ", ".join(map(quote_literal, (state.bundle, state.source, state.only)))
    connection.run(f"INSERT INTO {connection.about} VALUES ({values})")


def read_done(connection: DestinationConnection) -> set[str]:
    """Return the names of the parts and steps that are done."""
    return {str(row[0]) for row in connection.rows(f"SELECT name FROM {connection.done}")}


def mark_done(connection: DestinationConnection, *names: str) -> None:
    """Say, within the transaction that does it, that parts or steps are done."""
    values = ", ".join(f"({quote_literal(name)})" for name in names)
    connection.run(f"INSERT INTO {connection.done} VALUES {values}")


def finish(
    destination: MysqlDestination, state: State, record: FinishedRestore, superseded: Sequence[str] = ()
) -> None:
    """Write the record that stays where anything was left out, and remove all else, and the records of the source's
    restores from the ``superseded`` bundles.
    """
    connection = destination.connection
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
    drop_state(destination)


def drop_state(destination: MysqlDestination) -> None:
    """Remove the tables: the restore is over."""
    connection = destination.connection
    connection.run(f"DROP TABLE IF EXISTS {connection.about}, {connection.done}, {connection.again}")


def add_left_out(
    connection: DestinationConnection,
    state: State,
    step: str,
    *,
    left_out: Sequence[str] = (),
    notes: Sequence[str] = (),
    losses: Sequence[Loss] = (),
) -> None:
    """Record what a step left out, within the transaction that marks it as done, or before it is begun."""
    if left_out or notes or losses:
        _write(connection, state, step, FinishedRestore(state.only, left_out, notes, losses))


def forget_left_out(connection: DestinationConnection, step: str) -> None:
    """Remove what was recorded of a step: it has failed."""
    connection.run(f"DELETE FROM {connection.left_out} WHERE step = {quote_literal(step)}")


def read_left_out(connection: DestinationConnection) -> FinishedRestore:
    """Return all that the steps of this restore have recorded."""
    query = f"SELECT only_, entry FROM {connection.left_out} WHERE step <> '{_FINISHED}'"
    return FinishedRestore.joined(FinishedRestore.decode(*map(str, row)) for row in connection.rows(query))


def read_finished(
    connection: Connection, bundle: str, source: str, control: ControlTables
) -> list[FinishedRestore]:
    """Return the records of the finished restores of a source, of all or of parts of it."""
    if control.left_out not in find_control_tables(connection)[0]:
        return []
    query = (
        f"SELECT only_, entry FROM {quote_name(control.left_out)} WHERE step = '{_FINISHED}'"
        f" AND bundle = {quote_literal(bundle)} AND source = {quote_literal(source)}"
    )
    return [FinishedRestore.decode(*map(str, row)) for row in connection.rows(query)]


def read_records(
    reader: BundleReader, source: str, url: str, secrets: Mapping[str, str]
) -> list[FinishedRestore]:
    """Return what finished restores, and an unfinished restore, left out of a database."""
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
            FinishedRestore(about[0][2], [words, *read_left_out(destination).left_out], finished=False),
        ]


def how_to_forget(connection: DestinationConnection) -> str:
    """Return the note about the record that stays."""
    name = connection.left_out
    return (
        f"the destination keeps this list in table {name}, so that the same command and verify --against name it again;"
        f" to forget it: DROP TABLE {name}"
    )


def unfinished_restore(url: str, secrets: Mapping[str, str]) -> UnfinishedRestore | None:
    """See ``Engine.unfinished_restore``. What other restores have left out stays, and so do the triggers that a repair
    has dropped, and how far changes were applied. Raises ``SourceError``.
    """
    address = parse_url(url, secrets)
    with closing(connect(address)) as connection, as_source_errors(address.url):
        present, others = find_control_tables(connection)
        control = ControlTables.apart_from(others)
        if not present & {control.about, control.done}:
            return None
        of_all = {control.about, control.done, control.again, control.away, control.left_out}
        names = [name for name in control.names if name in present & of_all]
        if control.left_out in names:
            query = f"SELECT COUNT(*) FROM {quote_name(control.left_out)} WHERE step = ''"
            if connection.value(query):
                names.remove(control.left_out)
        about = f"SELECT bundle, source FROM {quote_name(control.about)}"
        rows = connection.rows(about) if control.about in present else []
    bundle, source = map(str, rows[0]) if rows else ("", "")
    labels = ", ".join(map(quote_name, names))
    return UnfinishedRestore(bundle, source, f"tables {labels}", f"DROP TABLE {labels};")


# ---- What a table is without, because the destination, or its own rows there, would not have it. Each loss is noted
# before it is done, so that the run that ends the restore names it, whichever run did it.


def note_loss(connection: DestinationConnection, loss: Loss) -> None:
    """Note what is to be left out."""
    if _step_of(loss) not in read_done(connection):
        mark_done(connection, _step_of(loss))


def forget_loss(connection: DestinationConnection, loss: Loss) -> None:
    """It is there nevertheless."""
    connection.run(f"DELETE FROM {connection.done} WHERE name = {quote_literal(_step_of(loss))}")


def noted_losses(connection: DestinationConnection) -> Iterator[Loss]:
    """Yield all that is noted."""
    for step in sorted(read_done(connection)):
        if step.startswith(_WITHOUT):
            yield Loss(*json.loads(step.removeprefix(_WITHOUT)))


def _step_of(loss: Loss) -> str:
    reason = loss.reason
    if len(reason) > _LOSS_CHARACTERS:
        reason = f"{reason[: _LOSS_CHARACTERS // 2]} … {reason[-_LOSS_CHARACTERS // 2 :]}"
    return _WITHOUT + json.dumps([loss.item, loss.property, reason], ensure_ascii=False)


# ---- Rows that the destination refuses whatever gives way for them. They are noted with their digest: the comparison
# expects the table without them.


class Refused(Struct, frozen=True):
    """Refused rows of one part of a table, and the server's error message for the last one."""

    table: str
    part: str
    rows: int
    digest: str
    reason: str


def note_refused(
    connection: DestinationConnection, table: str, part: str, digest: RowsDigest, reason: str
) -> None:
    """Note the rows, if there are any."""
    if digest.rows:
        refused = Refused(table, part, digest.rows, to_hex(digest.digest), reason[:_REFUSAL_CHARACTERS])
        mark_done(connection, _REFUSED + json.dumps(as_dict(refused), ensure_ascii=False))


def read_refused(connection: DestinationConnection) -> list[Refused]:
    """Return all that is noted."""
    steps = [step for step in sorted(read_done(connection)) if step.startswith(_REFUSED)]
    return [Refused(**json.loads(step.removeprefix(_REFUSED))) for step in steps]


def forget_refused(connection: DestinationConnection, table: str) -> None:
    """Remove the notes of a table, whose rows are written again."""
    for step in read_done(connection):
        if step.startswith(_REFUSED) and Refused(**json.loads(step.removeprefix(_REFUSED))).table == table:
            connection.run(f"DELETE FROM {connection.done} WHERE name = {quote_literal(step)}")


def without_refused(table: CatalogRow, refused: Sequence[Refused]) -> CatalogRow:
    """Return a table's row of the catalog as if the refused rows were not there."""
    own = [refusal for refusal in refused if refusal.table == table.name]
    if not own:
        return table
    digest = (int(table.digest, 16) - sum(int(refusal.digest, 16) for refusal in own)) % MODULUS
    return replace(table, items=table.items - sum(refusal.rows for refusal in own), digest=to_hex(digest))


def refused_losses(refused: Sequence[Refused]) -> list[Loss]:
    """Return a loss for each table."""
    by_table: dict[str, list[Refused]] = {}
    for refusal in refused:
        by_table.setdefault(refusal.table, []).append(refusal)
    return [
        Loss(quote_name(name), "rows", f"{_rows(own)} left out: {own[-1].reason}")
        for name, own in by_table.items()
    ]


def _rows(refused: Sequence[Refused]) -> str:
    rows = sum(refusal.rows for refusal in refused)
    return "1 row is" if rows == 1 else f"{rows:,} rows are"


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
