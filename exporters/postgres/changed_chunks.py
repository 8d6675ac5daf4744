"""Has a chunk changed since an earlier snapshot? Asked of the row versions, not of the values.

A chunk has the same rows if as many are visible as then, and none of them was written by a transaction that
the earlier snapshot might not have seen. Transactions below the snapshot's xmin were all over when it was
taken; later ones, and subtransactions of running ones (which a snapshot's text does not list), count as
unseen. So a changed chunk is never taken for unchanged; an unchanged one may be done again.
"""

from __future__ import annotations

from msgspec import Struct

from exporters.api import Json
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.changes.slot import parse_lsn
from exporters.postgres.chunk_plan import Range, rows_of

_HALF = 1 << 31
_EPOCH = 1 << 32


class _Seen(Struct, frozen=True):
    """A snapshot's text, ``xmin:xmax:xip,…`` with 64-bit transaction numbers (PostgreSQL documentation,
    9.27).
    """

    xmin: int
    xmax: int

    @staticmethod
    def of(text: str) -> _Seen | None:
        parts = text.split(":")
        if len(parts) != 3 or not parts[0].isdecimal() or not parts[1].isdecimal():
            return None
        return _Seen(int(parts[0]), int(parts[1]))


def nothing_happened(before: str, now: str) -> bool:
    """Tell whether both snapshots see the same: no transaction ended in between. A standby's snapshot lists none of
    those that are running (src/backend/storage/ipc/procarray.c, ``GetSnapshotData``): any of them may have.
    """
    seen = _Seen.of(before)
    return seen is not None and before == now and (seen.xmin == seen.xmax or not before.endswith(":"))


def is_continued(before: Json, now: Json) -> bool:
    """Tell whether a server has all transactions of an earlier position. After a crash or a failover, or where it was
    put back, others may have the numbers of some.
    """
    start = "0/0"
    is_later = parse_lsn(before.get("lsn") or start) <= parse_lsn(now["lsn"] or start)
    return is_later and before.get("history") == now["history"]


def query(table: PostgresTable, pages: Range, before: str, now: str) -> str | None:
    """Return a query for the number of visible rows and of those that ``before`` may not have seen; None where this
    cannot be decided: transaction numbers have come around since, or rows change their text without being written.

    ``age`` counts in 32-bit steps from the current transaction. A frozen row's xmin may be ancient and look
    young: then the chunk is done again, which is only slower.
    """
    old, new = _Seen.of(before), _Seen.of(now)
    if not table.heap or table.refusal or any(column.shows_names for column in table.columns):
        return None
    if old is None or new is None or not 0 <= new.xmax - old.xmin < _HALF:
        return None
    unseen = f"pg_catalog.age(xmin) <= pg_catalog.age('{old.xmin % _EPOCH}'::pg_catalog.xid)"
    return f"SELECT count(*), count(*) FILTER (WHERE {unseen}) {rows_of(table, pages)}"
