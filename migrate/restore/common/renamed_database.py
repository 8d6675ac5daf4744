"""Objects whose definition contains their database's name, restored into a database of another name."""

from __future__ import annotations

import re
from collections.abc import Iterable

from exporters.api import Loss
from migrate.restore.common.table_restore import TableRestore

PROPERTY = "name of its database"
_SHOWN = 5
"""A note names at most so many objects; the ledger has all."""


def source_database(run: TableRestore) -> str:
    """Return the name of the source's database, "" where the bundle does not record it."""
    return str(run.position_value("database") or "")


def naming(database: str, *, quote: str) -> re.Pattern[str]:
    """Return what finds the name before a point, quoted or not, in whatever case; also within texts, where statements
    may be put together.
    """
    name, mark = re.escape(database), re.escape(quote)
    quoted = re.escape(database.replace(quote, quote * 2))
    plain = rf"|(?<![\w${mark}.]){name}" if re.fullmatch(r"[\w$]+", database) else ""
    return re.compile(rf"(?:{mark}{quoted}{mark}{plain})\s*\.\s*(?=[\w${mark}])", re.IGNORECASE)


def losses(objects: Iterable[str], *, before: str, now: str) -> list[Loss]:
    """Return a row for each object (as shown to users) that names the database ``before``."""
    reason = f"it names {before} itself: where that is the database, it is not {now}; look at it, and make it again"
    return [Loss(name, PROPERTY, reason) for name in objects]


def note_of(losses: list[Loss], *, before: str, now: str) -> str:
    """Return a note about these losses."""
    names = ", ".join(loss.item for loss in losses[:_SHOWN])
    more = f" and {len(losses) - _SHOWN} more" if len(losses) > _SHOWN else ""
    return f"the database was {before} and is {now} here; it is named by {names}{more}"
