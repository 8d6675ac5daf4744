"""Reads a table of a followed source again, at a later position, while the source is written to.

Changes of the table are left out from the beginning on, and that is written at the destination: a run that dies leaves
a table that the cutover reads again. The rows are made equal to a snapshot whose position in the log is exact. Then
that position is written, and changes that were committed before it are left out, later ones applied.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from exporters.engine import RereadableLog
from migrate.changes.apply import RereadingWriter
from migrate.errors import IncompleteError, UsageError
from migrate.follow.followed import FollowedSource
from migrate.repair.live_repair import repair_table
from migrate.repair.repair import TableRepair
from migrate.runtime.cancellation import CancellationToken


def reread_table(
    followed: FollowedSource,
    schema: str,
    name: str,
    *,
    cancellation: CancellationToken,
    note: Callable[[str], None],
) -> tuple[TableRepair, str]:
    """Read a table again; return what differed, and the position from which on its changes are applied. Raises
    ``UsageError`` where its engine cannot, or the table cannot be followed; ``BusyError`` while changes are applied;
    ``IncompleteError`` where rows are refused; errors of both servers.
    """
    log = followed.open_log()
    table = f"{schema}.{name}"
    with closing(followed.open_writer()) as writer:
        if not isinstance(log, RereadableLog) or not isinstance(writer, RereadingWriter):
            raise UsageError(
                f"tables of {followed.name} cannot be read again while they are followed",
                next_step=f"moveout verify --against {followed.name}=… --repair --from {followed.name}=… while nothing"
                " is written",
            )
        mark = writer.mark()
        if mark is None or mark.base != followed.base:
            raise IncompleteError(
                f"{followed.destination.shown} was not restored from this bundle yet",
                next_step="moveout restore brings it up; then give the same command again",
            )
        with log.reread(followed.log, schema, name, note) as (position, rows):
            writer.begin_again(table)
            repaired = repair_table(rows, followed.destination, schema, name, cancellation=cancellation)
        if repaired.reason:
            raise IncompleteError(
                f"{table} could not be made equal: {repaired.reason}",
                next_step="make the table at the destination as it is at the source, then give the same command again;"
                " until then its changes are left out",
            )
        writer.end_again(table, position)
    return repaired, log.show(position)
