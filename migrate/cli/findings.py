"""Findings, as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from migrate.bundle.findings import Finding

_SHOWN = 20


def draw_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print the first findings and how many there are."""
    console.print(
        Text(f"{len(findings):,} {'finding' if len(findings) == 1 else 'findings'}", style="bold red")
    )
    for finding in findings[:_SHOWN]:
        console.print(Text(f"  {finding}"))
    if len(findings) > _SHOWN:
        console.print(f"  and {len(findings) - _SHOWN:,} more (all with --json)")
