"""Rows that the destination refuses whatever gives way for them. They are left out and noted in the destination, with
their digest: the comparison expects the table without them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from exporters.api import Loss
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.row_digest import MODULUS, RowsDigest, to_hex
from exporters.structs import as_dict
from migrate.bundle.catalog import CatalogRow
from migrate.restore.mysql.destination import DestinationConnection, mark_done, read_done

_STEP = "refused "
_REASON_CHARACTERS = 300
"""A note has room for 700 characters."""


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
    """Note the rows, if there are any. Raises the driver's errors."""
    if digest.rows:
        refused = Refused(table, part, digest.rows, to_hex(digest.digest), reason[:_REASON_CHARACTERS])
        mark_done(connection, _STEP + json.dumps(as_dict(refused), ensure_ascii=False))


def read_refused(connection: DestinationConnection) -> list[Refused]:
    """Return all that is noted. Raises the driver's errors."""
    steps = [step for step in sorted(read_done(connection)) if step.startswith(_STEP)]
    return [Refused(**json.loads(step.removeprefix(_STEP))) for step in steps]


def forget_refused(connection: DestinationConnection, table: str) -> None:
    """Remove the notes of a table, whose rows are written again. Raises the driver's errors."""
    for step in read_done(connection):
        if step.startswith(_STEP) and Refused(**json.loads(step.removeprefix(_STEP))).table == table:
            connection.run(f"DELETE FROM {connection.done} WHERE name = {quote_literal(step)}")


def without_refused(table: CatalogRow, refused: Sequence[Refused]) -> CatalogRow:
    """Return a table's row of the catalog as if the refused rows were not there."""
    own = [refusal for refusal in refused if refusal.table == table.name]
    if not own:
        return table
    digest = (int(table.digest, 16) - sum(int(refusal.digest, 16) for refusal in own)) % MODULUS
    return replace(table, items=table.items - sum(refusal.rows for refusal in own), digest=to_hex(digest))


def losses_of(refused: Sequence[Refused]) -> list[Loss]:
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
