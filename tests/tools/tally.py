"""What long tests did, in figures: printed at the end of a run, where ``make scoreboard`` reads them."""

from __future__ import annotations

from collections import Counter

import pytest

_COUNTED = Counter[str]()


def count(what: str, number: int = 1) -> None:
    """Count what a test has done and checked, such as kills."""
    _COUNTED[what] += number


def print_counts(terminal: pytest.TerminalReporter) -> None:
    """Print a line with the figures, if there are any."""
    if _COUNTED:
        terminal.write_line("counted: " + ", ".join(f"{what}={_COUNTED[what]}" for what in sorted(_COUNTED)))
