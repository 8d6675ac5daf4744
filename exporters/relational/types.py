"""What the engines say of a column: how its text becomes Arrow.

The rule for values that a type cannot hold is one for all kinds: the typed column is NULL there and the exact text
stands in a side column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

MAX_DECIMAL_DIGITS = 38


@dataclass(frozen=True, slots=True)
class Kind:
    """``expression`` makes the canonical SQL from a quoted column name. ``compared``: the text is parsed as a string
    first and every value rendered back. ``plain``: its text never needs quotes in CSV; ``quoted``: it always has them.
    """

    name: str
    parsed: pa.DataType
    stored: pa.DataType
    compared: bool = False
    plain: bool = True
    quoted: bool = False
    expression: Callable[[str], str] = str
