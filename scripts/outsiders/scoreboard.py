"""The scoreboard of ``make outsiders``: a line per variant, the defects below it, a summary at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scripts.outsiders.suite import Suite, SuiteRow

_SHOWN = 25
_COLUMNS = ("moved", "equal", "reported", "unreported", "errors")


def print_title(suite: Suite) -> None:
    """Print the suite's name and origin, and the head of its table."""
    print(f"\n== {suite.name}: {suite.origin}")
    print(f"{'variant':44}" + "".join(f"{name:>12}" for name in _COLUMNS), flush=True)


def print_row(row: SuiteRow) -> None:
    """Print one variant's figures, then what it shows."""
    if row.skipped:
        print(f"{row.variant:44} SKIPPED: {row.skipped}", flush=True)
        return
    print(f"{row.variant:44}" + "".join(f"{figure:12}" for figure in _figures(row)))
    for label, lines in (("UNREPORTED", row.unreported), ("ERROR", row.errors)):
        for line in lines[:_SHOWN]:
            print(f"  {label}: {line}")
        if len(lines) > _SHOWN:
            print(f"  and {len(lines) - _SHOWN} more")
    print(end="", flush=True)


def print_summary(results: Mapping[str, Sequence[SuiteRow]]) -> None:
    """Print one line per suite."""
    print(f"\n{'suite':44}" + "".join(f"{name:>12}" for name in _COLUMNS))
    for name, rows in results.items():
        ran = [row for row in rows if not row.skipped]
        if not ran:
            print(f"{name:44} SKIPPED: {rows[0].skipped if rows else 'nothing was run in time'}")
            continue
        totals = map(sum, zip(*map(_figures, ran), strict=True))
        skipped = len(rows) - len(ran)
        more = f"  ({skipped} of {len(rows)} variants skipped)" if skipped else ""
        print(f"{name:44}" + "".join(f"{total:12}" for total in totals) + more)


def _figures(row: SuiteRow) -> tuple[int, ...]:
    return row.moved, row.equal, len(row.losses), len(row.unreported), len(row.errors)
