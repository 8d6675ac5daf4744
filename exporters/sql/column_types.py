"""What the engines say of a column: how its text becomes Arrow.

The rule for values that a type cannot hold is one for all kinds: the typed column is NULL there and the exact text
stands in a side column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from exporters.sql.value_codec import ValueCodec

MAX_DECIMAL_DIGITS = 38


@dataclass(frozen=True, slots=True)
class Kind:
    """How a column's values are read. ``codec``: between their text and values of the type ``stored``; the text is
    ``parsed`` as another type before. ``expression`` makes the canonical SQL from a quoted column name. ``compared``:
    the text is parsed as a string first and every value rendered back. ``plain``: its text is ASCII and never needs
    quotes in CSV; ``characters``: it is characters, which need quotes in SQL and may come in bytes that are not UTF-8.
    ``direct``: values that come by columns are not their text but already what is stored. ``encoding``: the database's
    own, where values may come in that instead (``column_metadata.OWN``).
    """

    codec: ValueCodec
    parsed: pa.DataType
    stored: pa.DataType
    compared: bool = False
    plain: bool = True
    characters: bool = False
    direct: bool = False
    encoding: str = ""
    expression: Callable[[str], str] = str

    @property
    def name(self) -> str:
        """What the metadata of the field say."""
        return self.codec.name
