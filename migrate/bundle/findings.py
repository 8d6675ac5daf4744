"""What was looked for and found wrong: values, not exceptions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

Values = tuple[tuple[str, str | None], ...]
"""Columns with their values, in order; None is NULL. Long values are cut."""
Side = Literal["changed", "only in the bundle", "only in the database"]


class RowDifference(Struct, frozen=True):
    """One row that is not the same in the bundle and in a database. ``key`` names it, empty where the table has no key.

    ``expected`` is the bundle's row, ``found`` the database's: of a changed row the columns that differ, else all.
    ``part`` is the Parquet file in which the bundle has the row, empty where it has not.
    """

    side: Side
    key: Values
    expected: Values
    found: Values
    part: str = ""

    def as_json(self) -> Mapping[str, Any]:
        """Return it with columns as objects."""
        return {
            "side": self.side,
            "key": dict(self.key),
            "expected": dict(self.expected),
            "found": dict(self.found),
            "part": self.part,
        }


class Finding(Struct, frozen=True):
    """One thing that is not as the bundle says. ``key`` names the file (or table, or row range); ``what``
    says in words what is wrong; ``expected`` and ``found`` are the two values, empty where there are none.
    ``rows``: the first rows of a table that differ. ``incomplete``: it shows no damage: the server computes
    these rows by itself, of a materialized view, or they could not be compared. ``extra``: a file that no manifest
    names, so all that the bundle names may still be whole.
    """

    key: str
    what: str
    expected: str = ""
    found: str = ""
    rows: tuple[RowDifference, ...] = ()
    incomplete: bool = False
    extra: bool = False

    def __str__(self) -> str:
        both = {"expected": self.expected, "found": self.found}
        values = ", ".join(f"{word} {value}" for word, value in both.items() if value)
        return f"{self.key}: {self.what}" + (f": {values}" if values else "")

    def as_json(self) -> Mapping[str, Any]:
        """Return all of it, rows included where there are any."""
        rows: Sequence[Mapping[str, Any]] = [row.as_json() for row in self.rows]
        document = {"key": self.key, "what": self.what, "expected": self.expected, "found": self.found}
        marks = {"incomplete": self.incomplete, "extra": self.extra}
        return (
            document
            | ({"rows": rows} if rows else {})
            | {name: True for name, is_so in marks.items() if is_so}
        )


def only_extra(findings: Iterable[Finding]) -> bool:
    """Tell whether all that the bundle names is whole: at most files lie there that it does not name."""
    return all(finding.extra for finding in findings)
