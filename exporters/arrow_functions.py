"""Arrow's functions, by the names of ``pyarrow.compute``. That wraps all 286 of them when it is imported, which takes
25 ms. The few functions below are called by every export, sync or restore, so they go to Arrow without it. Any other
imports it, as do methods such as ``Array.cast``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pyarrow._compute import call_function


def __getattr__(name: str) -> Any:
    """Return a function of ``pyarrow.compute``, and keep it here."""
    function = globals()[name] = getattr(import_module("pyarrow.compute"), name)
    return function


def binary_length(values: Any) -> Any:
    """Return the bytes of each text."""
    return call_function("binary_length", [values])


def count_distinct(values: Any) -> Any:
    """Return how many different values there are, NULL not counted."""
    return call_function("count_distinct", [values])


def less(left: Any, right: Any) -> Any:
    """Tell of each value whether it is less than the other."""
    return call_function("less", [left, right])


def sum(values: Any) -> Any:  # noqa: A001  Arrow's name
    """Return the sum, NULL of no values."""
    return call_function("sum", [values])
