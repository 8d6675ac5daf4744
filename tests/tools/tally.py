"""What long tests did, in figures: printed at the end of a run, where ``make scoreboard`` reads them."""

from __future__ import annotations

from collections import Counter

import pytest

_COUNTED, _UNCHECKED = Counter[str](), Counter[str]()


def count(what: str, number: int = 1) -> None:
    """Count what a test has done and checked, such as faults that were overcome."""
    _COUNTED[what] += number


def count_if_passed(what: str, number: int = 1) -> None:
    """Count what is checked only later, such as a kill: it counts once the test has passed."""
    _UNCHECKED[what] += number


def end_test(*, passed: bool) -> None:
    """Count what was waiting for the end of the test, or forget it if the test has failed."""
    if passed:
        _COUNTED.update(_UNCHECKED)
    _UNCHECKED.clear()


def print_counts(terminal: pytest.TerminalReporter) -> None:
    """Print a line with the figures, if there are any."""
    if _COUNTED:
        terminal.write_line("counted: " + ", ".join(f"{what}={_COUNTED[what]}" for what in sorted(_COUNTED)))
