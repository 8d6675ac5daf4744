"""Text of a database in UTF-16. Python hands text over in UTF-8, and SQLite takes U+FFFE and U+FFFF for U+FFFD where it
converts that (src/utf.c, ``READ_UTF8``). A literal of bytes is taken as it is.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from exporters.sqlite.rows.row_batches import UTF_16_CODECS
from exporters.sqlite.rows.value_text import RawText

_CHANGED = re.compile("[\ufffe\uffff]")


def codec_of(connection: sqlite3.Connection) -> str | None:
    """Return Python's name of the database's encoding, None where that is UTF-8."""
    return UTF_16_CODECS.get(connection.execute("PRAGMA encoding").fetchone()[0])


def kept(value: Any, codec: str) -> Any:
    """Return a value; text that SQLite would change as its bytes."""
    if type(value) is str and _CHANGED.search(value):
        return RawText(value.encode(codec))
    return value


def literal(value: RawText) -> str:
    """Return bytes as an expression for text: only in a literal SQLite takes them to be in the database's encoding."""
    return f"CAST(x'{value.hex()}' AS TEXT)"
