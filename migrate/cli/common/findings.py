"""Findings, as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from migrate.bundle.findings import Finding, RowDifference, Values
from migrate.cli.common.terminal import Console, Text, plain

SHOWN = 20
INCOMPLETE = "It was sealed INCOMPLETE: moveout status names what it lacks"
"""Follows a sentence about a bundle."""
EXTRA_STEP = "find out who wrote these files, then move them elsewhere or delete them"
_ROWS = 20
_VALUES = 6
_WIDTH = 160


def draw_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print the first findings with their first rows, and how many there are."""
    console.print(
        Text(f"{len(findings):,} {'finding' if len(findings) == 1 else 'findings'}", style="bold red")
    )
    for finding in findings[:SHOWN]:
        console.print(Text(f"  {plain(str(finding))}"))
        for row in finding.rows[:_ROWS]:
            console.print(Text(f"    {_row(row)}"))
        if len(finding.rows) > _ROWS:
            console.print(f"    and {len(finding.rows) - _ROWS} more rows (with --json)")
    if len(findings) > SHOWN:
        console.print(f"  and {len(findings) - SHOWN:,} more (all with --json)")


def _row(row: RowDifference) -> str:
    suffix = f"  ({row.part})" if row.part else ""
    if row.side == "changed":
        both = [
            f"{name}: {_value(old)} → {_value(new)}"
            for (name, old), (_, new) in zip(row.expected, row.found, strict=True)
        ]
        return f"{row.side}: {_pairs(row.key)}: {_first_values(both)}{suffix}"
    values = row.expected or row.found
    values_text = (
        _pairs(row.key) if row.key else _first_values([f"{name}={_value(value)}" for name, value in values])
    )
    return f"{row.side}: {values_text}{suffix}"


def _pairs(values: Values) -> str:
    return ", ".join(f"{plain(name)}={_value(value)}" for name, value in values)


def _first_values(texts: Sequence[str]) -> str:
    remainder = f", … ({len(texts) - _VALUES} more)" if len(texts) > _VALUES else ""
    return plain(", ".join(texts[:_VALUES])) + remainder


def _value(value: str | None) -> str:
    if value is None:
        return "NULL"
    return plain(value if len(value) <= _WIDTH else value[:_WIDTH] + "…")
