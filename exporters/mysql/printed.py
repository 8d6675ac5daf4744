"""What SHOW CREATE prints otherwise than the object is: read so that it is made again as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from exporters.mysql.connect import Connection
from exporters.mysql.identifiers import quote_literal, quote_name

_USING = re.compile(r"\n    USING \(.*?\)\n", re.DOTALL)
_OF_A_ROUTINE = (
    "SELECT ROUTINE_COMMENT FROM information_schema.ROUTINES"
    " WHERE ROUTINE_SCHEMA = {schema} AND ROUTINE_NAME = {name} AND ROUTINE_TYPE = {kind}"
)
_COMMENTS = {
    **dict.fromkeys(("function", "procedure", "package", "package body"), _OF_A_ROUTINE),
    "library": (
        "SELECT LIBRARY_COMMENT FROM information_schema.LIBRARIES"
        " WHERE LIBRARY_SCHEMA = {schema} AND LIBRARY_NAME = {name}"
    ),
    "event": (
        "SELECT EVENT_COMMENT FROM information_schema.EVENTS"
        " WHERE EVENT_SCHEMA = {schema} AND EVENT_NAME = {name}"
    ),
}
_COMMENT = "    COMMENT '"
_NO_ESCAPES = "NO_BACKSLASH_ESCAPES"
_TWO_CHARSETS = frozenset({"function", "procedure", "package", "package body", "event", "trigger"})
"""Their bodies are kept in the charset of the client that made them, comments in UTF-8, and names in either."""
_CHARACTERISTICS = re.compile(
    r"(?:    (?:LANGUAGE \w+|NO SQL|CONTAINS SQL|READS SQL DATA|MODIFIES SQL DATA|DETERMINISTIC|SQL SECURITY INVOKER"
    r"|COMMENT '(?:[^'\\\n]|\\.|'')*')\n)*"
)
_QUOTED = r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`"""
_AS_WRITTEN = r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`"""
"""Of quotes within which a backslash is one."""
_RETURNED = re.compile(rf" RETURNS (?:{_QUOTED}|[^\n'\"`])*", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"0": "\0", "n": "\n", "r": "\r", "Z": "\x1a"}
_LITERAL = re.compile(r"""`(?:[^`]|``)*`|"(?:[^"]|"")*"|('(?:[^'\\]|\\.|'')*')""", re.DOTALL)
_KEPT = (
    "SELECT VIEW_DEFINITION AS kept FROM information_schema.VIEWS"
    " WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name}"
)
_EACH_ROW = re.compile(r"\bFOR EACH ROW\s", re.IGNORECASE)
_EVENT_HEADER = re.compile(
    r".*?(?: ON COMPLETION (?:NOT )?PRESERVE)? (?:ENABLE|DISABLE(?: ON \w+)?)(?: COMMENT '(?:[^'\\]|\\.|'')*')? DO ",
    re.DOTALL,
)


def with_header(connection: Connection, found: dict[str, Any]) -> str:
    """Return a definition whose name, parameters and comment are read as they are. Servers print some of these in UTF-8
    before a body in the client's charset, and then take all of it for the latter.
    """
    sql = _parsable(found)
    if found["kind"] == "view":
        doubtful = "?" in sql and found.get("client", "").startswith(("utf8", "ascii"))
        sql = (doubtful and _raw(connection, found)) or sql
        return sql if sql.isascii() or connection.is_mariadb else _as_kept(connection, found, sql)
    if found["kind"] not in _TWO_CHARSETS or sql.isascii() or found.get("client", "utf8").startswith("utf8"):
        return sql
    raw = _parsable({**found, "sql": _raw(connection, found)})
    cuts = {"event": _event_cuts, "trigger": _trigger_cuts}.get(found["kind"], _routine_cuts)
    theirs, ours = cuts(raw), cuts(sql)
    if not theirs or len(theirs) != len(ours):
        return sql
    pieces = zip(_between(theirs), _between(ours), strict=True)
    header = [_piece(raw[slice(*one)], sql[slice(*other)]) for one, other in pieces]
    return "".join(header) + sql[ours[-1] :]


def _as_kept(connection: Connection, found: dict[str, Any], sql: str) -> str:
    """Return a view of MySQL that is kept again as it is kept now. A literal that is put together with bytes is encoded
    anew, each byte of its UTF-8 for a character, when a view is made, and once more when it is shown.
    """
    schema, name = quote_literal(connection.address.database), quote_literal(found["name"])
    rows = connection.named(_KEPT.format(schema=schema, name=name))
    kept = [one[1] for one in _LITERAL.finditer(str(rows[0]["kept"] if rows else "")) if one[1]]
    shown = [one for one in _LITERAL.finditer(sql) if one[1]]
    if len(kept) != len(shown):
        return sql
    for literal, one in reversed(list(zip(shown, kept, strict=True))):
        if literal[1] != one and literal[1] == _bytewise(one):
            with suppress(UnicodeError):
                sql = sql[: literal.start()] + one.encode("latin-1").decode() + sql[literal.end() :]
    return sql


def _bytewise(literal: str) -> str:
    return literal.encode(errors="surrogateescape").decode("latin-1")


def _raw(connection: Connection, found: dict[str, Any]) -> str:
    """Return what SHOW CREATE prints, of no charset: bytes that are no UTF-8 as ``surrogateescape`` has them."""
    connection.run("SET character_set_results = NULL")
    try:
        row = connection.named(f"SHOW CREATE {found['kind'].upper()} {quote_name(found['name'])}")[0]
    finally:
        connection.run("SET character_set_results = utf8mb4")
    names = ("create ", "sql original statement")
    raw = next((value for name, value in row.items() if name.startswith(names)), None) or ""
    if isinstance(raw, bytes):
        raw = raw.decode("utf-8", "surrogateescape")
    return str(raw)


def _parsable(found: dict[str, Any]) -> str:
    """Return an event without the words for what is so anyway, which servers do not read in this mode."""
    sql = str(found["sql"])
    if found["kind"] != "event" or "HIGH_NOT_PRECEDENCE" not in found.get("sql_mode", ""):
        return sql
    name, schedule, rest = sql.partition(" ON SCHEDULE ")
    return name + schedule + rest.replace(" ON COMPLETION NOT PRESERVE ", " ", 1)


def _piece(raw: str, converted: str) -> str:
    return converted if any("\ud800" <= char <= "\udfff" for char in raw) else raw


def _between(cuts: Sequence[int]) -> list[tuple[int, int]]:
    return list(pairwise([0, *cuts]))


def _event_cuts(sql: str) -> list[int]:
    """Return where the body of an event begins; nothing where that is not seen."""
    words = sql.partition(" ON SCHEDULE ")
    match = _EVENT_HEADER.match(words[2])
    return [len(words[0]) + len(words[1]) + match.end()] if match else []


def _trigger_cuts(sql: str) -> list[int]:
    """Return where the body of a trigger begins; nothing where that is not seen."""
    shown = re.sub(_QUOTED, lambda match: "x" * len(match[0]), sql, flags=re.DOTALL)
    match = _EACH_ROW.search(shown)
    return [match.end()] if match else []


def _routine_cuts(sql: str) -> list[int]:
    """Return where parameters begin and end, if there are any, and the comment and the body begin; nothing where that
    is not seen.
    """
    depth, cuts = 0, list[int]()
    for position, char in _unquoted(sql):
        if char == "(" and depth == 0 and not cuts:
            cuts.append(position)
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == ")" and depth == 0 and len(cuts) == 1:
            cuts.append(position)
        if depth == 0 and sql.startswith(_COMMENT, position):  # a package's stands on the first line
            cuts.append(position)
        if char == "\n" and depth == 0:
            match = _CHARACTERISTICS.match(sql, position + 1)
            return [*cuts, match.end()] if match else []
    return []


def _unquoted(sql: str) -> Iterator[tuple[int, str]]:
    for match in re.finditer(rf"{_QUOTED}|(.)", sql, re.DOTALL):
        if match[1]:
            yield match.start(), match[1]


def with_comment(connection: Connection, found: dict[str, Any]) -> str:
    """Return a definition whose comment is read as it was. Servers print it with backslashes before backslashes, also
    where the object's own ``sql_mode`` takes these as they are.
    """
    query = _COMMENTS.get(found["kind"])
    if query is None or _NO_ESCAPES not in found.get("sql_mode", ""):
        return str(found["sql"])
    schema, name = quote_literal(connection.address.database), quote_literal(found["name"])
    comment = str(
        connection.value(query.format(schema=schema, name=name, kind=quote_literal(found["kind"].upper())))
        or ""
    )
    plain = comment.replace("'", "''")
    printed = plain.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\0")
    return str(found["sql"]).replace(f"COMMENT '{printed}'", f"COMMENT '{plain}'", 1)


def with_returned(found: dict[str, Any]) -> str:
    """Return a function whose type is read as it was: servers print backslashes in labels of ENUM and SET as in
    comments, but parameters as they were written.
    """
    sql = str(found["sql"])
    if found["kind"] != "function" or _NO_ESCAPES not in found.get("sql_mode", ""):
        return sql
    depth = 0
    for match in re.finditer(rf"{_AS_WRITTEN}|([()])", sql, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(match[1], 0)
        if match[1] == ")" and depth == 0:
            returned = _RETURNED.match(sql, match.end())
            if returned is None:
                return sql
            plain = _ESCAPED.sub(lambda one: _ESCAPES.get(one[1], one[1]), returned[0])
            return sql[: match.end()] + plain + sql[returned.end() :]
    return sql


def without_database(sql: str, database: str) -> str:
    """Return a definition that may be made in any database: MariaDB names that of a sequence in a default, MySQL that
    of a library that a routine uses.
    """
    own = quote_name(database)
    ansi = '"' + database.replace('"', '""') + '"'
    sql = re.sub(rf"\b((?:next|last)val\(){re.escape(own)}\.", r"\1", sql)
    return _USING.sub(lambda match: match[0].replace(f"{own}.", "").replace(f"{ansi}.", ""), sql, count=1)
