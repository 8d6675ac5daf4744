"""Defaults that are expressions: MySQL wants parentheses around them where MariaDB does without. Pure."""

from __future__ import annotations

import re

from migrate.restore.mysql.table_ddl import closing, items_of, masked

_DEFAULT = re.compile(r" DEFAULT (?=\S)")
_FUNCTION = re.compile(r"(?!current_timestamp\b)\w+(?=\()", re.IGNORECASE)
_LONG = re.compile(
    r"\0+ (?:(?:tiny|medium|long)?(?:text|blob)|json|geometry|point|\w*linestring|\w*polygon)\b"
)
_LITERAL = re.compile(r"\w*\0+")


def bracketed(sql: str) -> str:
    """Return a table's definition with parentheses around defaults that are functions, and around those of texts."""
    open_, close, items = items_of(sql)
    done = [_column(item) for item in items]
    return sql if done == items else f"{sql[:open_]}(\n  " + ",\n  ".join(done) + f"\n{sql[close:]}"


def _column(item: str) -> str:
    shown = masked(item)
    found = _DEFAULT.search(shown) if shown.startswith("\0") else None
    if found is None:
        return item
    start = found.end()
    if (function := _FUNCTION.match(shown, start)) is not None:
        end = closing(shown, function.end())
    elif _LONG.match(shown) and (literal := _LITERAL.match(shown, start)) is not None:
        end = literal.end()
    else:
        return item
    return f"{item[:start]}({item[start:end]}){item[end:]}"
