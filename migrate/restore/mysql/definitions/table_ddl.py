"""The text of a table's definition, read without being fooled by what stands in quotes. Pure.

Definitions are as SHOW CREATE TABLE prints them under ``connection.PINNED``: names in backticks, quotes inside of
quotes doubled or behind a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_HIDDEN = "\0"
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*(?:'|\\?\Z)|"(?:[^"\\]|\\.)*(?:"|\\?\Z)|`[^`]*(?:`|\Z)""", re.DOTALL)
"""Quotes with what is in them; a doubled quote ends and begins."""
_STRUCTURE = re.compile(r"[(),]")


def options_of(sql: str) -> str:
    """Return what stands behind the columns of a table's definition, without what is in quotes."""
    _, close, _ = spans_of(sql)
    return masked(sql)[close + 1 :].replace(_HIDDEN, "")


def items_of(sql: str) -> tuple[int, int, list[str]]:
    """Return where the parentheses of the table open and close, and what stands between them, split at its commas."""
    open_, close, spans = spans_of(sql)
    return open_, close, [sql[begin:end] for begin, end in spans]


def spans_of(sql: str) -> tuple[int, int, list[tuple[int, int]]]:
    """Return the same with where each item begins and ends."""
    depth = begin = open_ = 0
    spans: list[tuple[int, int]] = []

    def add_span(end: int) -> None:
        text = sql[begin:end]
        spans.append((begin + len(text) - len(text.lstrip()), begin + len(text.rstrip())))

    for match in _STRUCTURE.finditer(masked(sql)):
        char, position = match[0], match.start()
        if char == "(":
            depth += 1
            if depth == 1:
                open_, begin = position, position + 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                add_span(position)
                return open_, position, spans
        elif depth == 1:
            add_span(position)
            begin = position + 1
    return open_, len(sql), spans


def closing(shown: str, start: int) -> int:
    """Return where the parenthesis that opens at ``start`` of a masked text has closed."""
    depth = 0
    for position in range(start, len(shown)):
        depth += {"(": 1, ")": -1}.get(shown[position], 0)
        if depth == 0:
            return position + 1
    return len(shown)


def masked(sql: str) -> str:
    """Return the text with everything in quotes, and the quotes, replaced by as many zero bytes."""
    return _QUOTED.sub(lambda match: _HIDDEN * len(match[0]), sql)


def edited(
    sql: str, pattern: re.Pattern[str], put: str | Callable[[re.Match[str]], str]
) -> tuple[str, list[str]]:
    """Replace what the pattern matches outside of quotes by a text, or by what ``put`` makes of each match; return the
    result and what stood there before.
    """
    before = []
    for match in reversed(list(pattern.finditer(masked(sql)))):
        before.append(sql[match.start() : match.end()])
        new = put if isinstance(put, str) else put(match)
        sql = sql[: match.start()] + new + sql[match.end() :]
    return sql, before[::-1]


def without_items(sql: str, is_out: Callable[[str], bool]) -> tuple[str, list[str]]:
    """Take columns, keys and constraints out of a table's definition; return it and what was taken out."""
    open_, close, items = items_of(sql)
    out = [item for item in items if is_out(item)]
    if not out:
        return sql, []
    remaining = ",\n  ".join(item for item in items if item not in out)
    return f"{sql[:open_]}(\n  {remaining}\n{sql[close:]}", out


_OWN_COLLATION = re.compile(r" COLLATE=(\w+)")
_COLLATION = re.compile(r"( CHARACTER SET \w+)? COLLATE (\w+)")


def inheriting(sql: str) -> str:
    """Return a table's definition without its own collation where a column has that by inheritance. MySQL prints it
    there too, if it is not its charset's usual one; read again it would be a column's choice and printed as such.
    """
    own = _OWN_COLLATION.search(options_of(sql))
    if own is None:
        return sql
    return edited(sql, _COLLATION, lambda match: "" if match.groups() == (None, own[1]) else match[0])[0]


_HAS_DEFAULT = re.compile(
    r" (?:NOT NULL|DEFAULT|AUTO_INCREMENT|GENERATED|AS)\b|^\0+ (?:\w*text|\w*blob|json|\w*geom\w*|\w*point|\w*string"
    r"|\w*polygon|vector)\b"
)


def undefaulted(sql: str) -> list[str]:
    """Return the columns, as quoted names, that may be NULL and have no default, as some have that a SELECT made. Read
    again they would have NULL for one. Of texts and bytes MySQL prints no default at all.
    """
    shown = ((item, masked(item)) for item in items_of(sql)[2] if item.startswith("`"))
    return [item[: hidden.find(" ")] for item, hidden in shown if not _HAS_DEFAULT.search(hidden)]


_COUNTER = re.compile(r" AUTO_INCREMENT=\d+")
_ARCHIVE = re.compile(r"\bENGINE=ARCHIVE\b")


def uncounted(sql: str) -> str:
    """Return the definition of an ARCHIVE table that gets rows without where its numbers go on: it takes none from
    before that, and goes on after the last one by itself. Others stay as they are.
    """
    return edited(sql, _COUNTER, "")[0] if _ARCHIVE.search(options_of(sql)) else sql


_LOCATIONS = re.compile(
    r"/\*!50100 TABLESPACE \0+(?: STORAGE \w+)? \*/ ?|\bTABLESPACE = \0+ ?|\b(?:DATA|INDEX) DIRECTORY ?= ?\0+ ?"
    r"|/\*!80016 ENCRYPTION=\0+ \*/ ?"
)
_OPTION = re.compile(r" \0+=(?:\w+|\0+)")
_ENCRYPTED = (" `ENCRYPTED`=", " `ENCRYPTION_KEY_ID`=")


def unplaced(sql: str) -> tuple[str, list[str]]:
    """Return a table's definition without where its file lies and how that is encrypted; and what was taken out."""
    sql, words = edited(sql, _LOCATIONS, "")
    for match in reversed(list(_OPTION.finditer(masked(sql)))):
        option = sql[match.start() : match.end()]
        if option.upper().startswith(_ENCRYPTED):
            words.append(option)
            sql = sql[: match.start()] + sql[match.end() :]
    return sql, [" ".join(word.split()) for word in words]


_TOKENS = re.compile(
    r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|(?P<name>`(?:[^`]|``)*`)(?P<point>\.?)""", re.DOTALL
)
_OF_A_COLUMN = (".", " AS ")


def in_database(sql: str, before: str, now: str) -> str:
    """Return a view, as SHOW CREATE VIEW prints it, with database ``before`` (both as quoted names) called ``now``. As
    it is where something else has that name too: a table's alias.
    """
    done, end = "", 0
    for match in _TOKENS.finditer(sql):
        if match["name"] != before or (not match["point"] and sql[: match.start()].endswith(_OF_A_COLUMN)):
            continue
        if not match["point"]:
            return sql
        done += f"{sql[end : match.start()]}{now}."
        end = match.end()
    return done + sql[end:]
