"""PostgreSQL's own regression database, moved."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from scripts.outsiders.suite import Context, Row, Skipped


class PostgresqlRegress:
    """The database that PostgreSQL's regression tests leave."""

    name = "postgresql-regress"
    origin = "PostgreSQL's regression tests, from the Debian source package of the server in use"

    def obtain(self) -> Path | Skipped:
        """Return the unpacked source."""
        return Skipped("being written")

    def run(self, context: Context) -> Iterable[Row]:
        """Move the database in several variants."""
        yield Row("plain", skipped=str(context.material))


SUITE = PostgresqlRegress()
