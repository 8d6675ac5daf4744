"""What SHOW CREATE prints otherwise than the object is: read so that it is made again as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

from exporters.mysql.client_charsets import codec_of
from exporters.mysql.connection import Connection
from exporters.mysql.identifiers import of_database, quote_literal, quote_name

_USING = re.compile(r"\n    USING \(.*?\)\n", re.DOTALL)
_OF_A_ROUTINE = (
    "SELECT ROUTINE_COMMENT FROM information_schema.ROUTINES"
    f" WHERE {of_database('ROUTINE_SCHEMA')}"
    " AND ROUTINE_NAME = {name} AND ROUTINE_TYPE = {kind}"
)
_COMMENTS = {
    **dict.fromkeys(("function", "procedure", "package", "package body"), _OF_A_ROUTINE),
    "library": (
        "SELECT LIBRARY_COMMENT FROM information_schema.LIBRARIES"
        " WHERE LIBRARY_SCHEMA = {schema} AND LIBRARY_NAME = {name}"
    ),
    "event": (
        "SELECT EVENT_COMMENT FROM information_schema.EVENTS"
        f" WHERE {of_database('EVENT_SCHEMA')}"
        " AND EVENT_NAME = {name}"
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
"""Quotes within which a backslash is an ordinary character."""
_RETURNED = re.compile(rf" RETURNS (?:{_QUOTED}|[^\n'\"`])*", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"0": "\0", "n": "\n", "r": "\r", "Z": "\x1a"}
_LITERAL = re.compile(r"""`(?:[^`]|``)*`|"(?:[^"]|"")*"|('(?:[^'\\]|\\.|'')*')""", re.DOTALL)
_KEPT = (
    "SELECT VIEW_DEFINITION AS kept FROM information_schema.VIEWS"
    " WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name}"
)
_NO_TEXT = re.compile(r"[\x00-\x7f\udc80-\udcff]+")
_COUNTER = re.compile(
    r"^  `(?:[^`]|``)*` ([\w() ]+?) AUTO_INCREMENT(?=,?$| COMMENT | INVISIBLE)", re.MULTILINE
)
_LEAD_BYTES = {
    **dict.fromkeys(("sjis", "cp932"), "[\udc81-\udc9f\udce0-\udcfc]"),
    **dict.fromkeys(("gbk", "big5"), "[\udc81-\udcfe]"),
}
"""By the client's charset: what begins a character of two bytes, as ``surrogateescape`` has it."""
_EACH_ROW = re.compile(r"\bFOR EACH ROW\s", re.IGNORECASE)
_EVENT_HEADER = re.compile(
    r".*?(?: ON COMPLETION (?:NOT )?PRESERVE)? (?:ENABLE|DISABLE(?: ON \w+)?)(?: COMMENT '(?:[^'\\]|\\.|'')*')? DO ",
    re.DOTALL,
)


def with_bytes(connection: Connection, definition: dict[str, Any]) -> str:
    """Return a definition of which every byte is read as it is. The server prints views, and the bodies of routines,
    triggers and events, in the charset of the client that made them. Literals with introducers hold bytes that are no
    characters of it. ``codec_of`` gives the bytes again.
    """
    sql = _parsable(definition)
    if definition["kind"] != "view" and definition["kind"] not in _TWO_CHARSETS:
        return sql
    raw = _parsable({**definition, "sql": _raw(connection, definition)})
    codec = codec_of(str(definition.get("client", "utf8mb4")))
    if definition["kind"] == "view":
        sql = _decoded(raw, codec) or sql
        return sql if sql.isascii() or connection.is_mariadb else _as_kept(connection, definition, sql, codec)
    if raw.isascii() or codec == "utf-8":
        return raw or sql
    find_cuts = {"event": _event_cuts, "trigger": _trigger_cuts}.get(definition["kind"], _routine_cuts)
    cuts = find_cuts(_without_pairs(raw, definition["client"]))
    if not cuts:
        return sql
    own = _parts_of_client(definition["kind"], raw[cuts[0] :], is_mariadb=connection.is_mariadb)
    header = (
        (_of_client if number in own else _converted)(connection, raw[begin:end], definition["client"])
        for number, (begin, end) in enumerate(pairwise([0, *cuts]))
    )
    return "".join(header) + _decoded(raw[cuts[-1] :], codec)


def _parts_of_client(kind: str, rest: str, *, is_mariadb: bool) -> set[int]:
    """Return which parts of a header are printed in the client's charset: the parameters of a routine, by MariaDB its
    name, too, and all of a trigger. ``rest``: what follows the first part. Bytes of that charset may look like UTF-8:
    those of a client that sends UTF-8 and calls it ``latin1``.
    """
    first = {0} if is_mariadb and kind != "event" else set[int]()
    parameters = {1} if kind in {"function", "procedure"} and rest.startswith("(") else set[int]()
    return first | parameters


def _without_pairs(raw: str, charset: str) -> str:
    """Return a definition of the same length without characters of two bytes, the second of which may look like a
    backslash.
    """
    lead = _LEAD_BYTES.get(charset)
    return raw if lead is None else re.sub(f"{lead}.", "xx", raw, flags=re.DOTALL)


def _decoded(raw: str, codec: str) -> str:
    return raw.encode(errors="surrogateescape").decode(codec, "surrogateescape")


def _as_kept(connection: Connection, definition: dict[str, Any], sql: str, codec: str) -> str:
    """Return a view of MySQL that is stored again as it is stored now. A literal that is put together with bytes is
    encoded again when a view is made, each byte of it for a character. It is encoded once more when the view is shown,
    if that can be.
    """
    schema, name = quote_literal(connection.address.database), quote_literal(definition["name"])
    rows = connection.named(_KEPT.format(schema=schema, name=name))
    stored = [match[1] for match in _LITERAL.finditer(str(rows[0]["kept"] if rows else "")) if match[1]]
    shown = [match for match in _LITERAL.finditer(sql) if match[1]]
    if len(stored) != len(shown):
        return sql
    for literal, content in reversed(list(zip(shown, stored, strict=True))):
        if literal[1] != content and (literal[1] == _bytewise(content) or "?" in literal[1]):
            with suppress(UnicodeError):
                decoded = content.encode("latin-1").decode(codec, "surrogateescape")
                sql = sql[: literal.start()] + decoded + sql[literal.end() :]
    return sql


def _bytewise(literal: str) -> str:
    return literal.encode(errors="surrogateescape").decode("latin-1")


def _raw(connection: Connection, definition: dict[str, Any]) -> str:
    """Return what SHOW CREATE prints, unconverted: bytes that are no UTF-8 as ``surrogateescape`` has them."""
    connection.run("SET character_set_results = NULL")
    query = f"SHOW CREATE {definition['kind'].upper()} {quote_name(definition['name'])}"
    try:
        row = connection.named(query)[0]
    finally:
        connection.run("SET character_set_results = utf8mb4")
    names = ("create ", "sql original statement")
    raw = next((value for name, value in row.items() if name.startswith(names)), None) or ""
    if isinstance(raw, bytes):
        raw = raw.decode("utf-8", "surrogateescape")
    return str(raw)


def _parsable(definition: dict[str, Any]) -> str:
    """Return an event without the words for what is so anyway, which servers do not read in this mode."""
    sql = str(definition["sql"])
    if definition["kind"] != "event" or "HIGH_NOT_PRECEDENCE" not in definition.get("sql_mode", ""):
        return sql
    name, schedule, rest = sql.partition(" ON SCHEDULE ")
    return name + schedule + rest.replace(" ON COMPLETION NOT PRESERVE ", " ", 1)


def _converted(connection: Connection, raw: str, charset: str) -> str:
    """Return a part of a header, which is in UTF-8 or in the client's charset."""
    if not any("\udc80" <= char <= "\udcff" for char in raw):
        return raw
    converted = _decoded_by_server(connection, raw, charset)
    return raw if converted is None else converted


def _of_client(connection: Connection, raw: str, charset: str) -> str:
    """Return a part of a header, which is in the client's charset."""
    if raw.isascii():
        return raw
    codec = codec_of(charset)
    if codec != "ascii" or charset == codec:
        return _decoded(raw, codec)
    converted = _decoded_by_server(connection, raw, charset)
    return _decoded(raw, codec) if converted is None else converted


def _decoded_by_server(connection: Connection, raw: str, charset: str) -> str | None:
    """Return the characters that the server reads in bytes of a charset; None where it reads none."""
    digits = raw.encode(errors="surrogateescape").hex()
    converted = connection.value(f"SELECT CONVERT(CONVERT(X'{digits}' USING {charset}) USING utf8mb4)")
    return None if converted is None else str(converted)


def for_people(connection: Connection, definition: dict[str, Any]) -> str:
    """Return a definition without bytes of a charset that Python does not read, as far as the server converts them."""
    client = str(definition.get("client", "utf8mb4"))
    if client == "ascii" or codec_of(client) != "ascii":
        return str(definition["sql"])
    return _NO_TEXT.sub(lambda run: _converted(connection, run[0], client), definition["sql"])


def _event_cuts(sql: str) -> list[int]:
    """Return where the body of an event begins; nothing where that is not seen."""
    parts = sql.partition(" ON SCHEDULE ")
    match = _EVENT_HEADER.match(parts[2])
    return [len(parts[0]) + len(parts[1]) + match.end()] if match else []


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


def with_comment(connection: Connection, definition: dict[str, Any]) -> str:
    """Return a definition whose comment is read as it was. Servers print it with backslashes before backslashes, also
    where the object's own ``sql_mode`` takes these as they are.
    """
    query = _COMMENTS.get(definition["kind"])
    if query is None or _NO_ESCAPES not in definition.get("sql_mode", ""):
        return str(definition["sql"])
    schema, name = quote_literal(connection.address.database), quote_literal(definition["name"])
    comment = str(
        connection.value(
            query.format(schema=schema, name=name, kind=quote_literal(definition["kind"].upper()))
        )
        or ""
    )
    plain = comment.replace("'", "''")
    printed = plain.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\0")
    return str(definition["sql"]).replace(f"COMMENT '{printed}'", f"COMMENT '{plain}'", 1)


def with_returned(definition: dict[str, Any]) -> str:
    """Return a function whose type is read as it was: servers print backslashes in labels of ENUM and SET as in
    comments, but parameters as they were written.
    """
    sql = str(definition["sql"])
    if definition["kind"] != "function" or _NO_ESCAPES not in definition.get("sql_mode", ""):
        return sql
    depth = 0
    for match in re.finditer(rf"{_AS_WRITTEN}|([()])", sql, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(match[1], 0)
        if match[1] == ")" and depth == 0:
            returned = _RETURNED.match(sql, match.end())
            if returned is None:
                return sql
            plain = _ESCAPED.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), returned[0])
            return sql[: match.end()] + plain + sql[returned.end() :]
    return sql


def with_null(definition: dict[str, Any]) -> str:
    """Return a table whose AUTO_INCREMENT column may be NULL: MariaDB prints nothing for that, and would take it for
    NOT NULL.
    """
    if definition["kind"] != "table":
        return str(definition["sql"])
    return _COUNTER.sub(
        lambda match: match[0] if match[1].endswith("NOT NULL") else f"{match[0]} NULL", definition["sql"]
    )


def without_database(sql: str, database: str) -> str:
    """Return a definition that may be made in any database: MariaDB names that of a sequence in a default, MySQL that
    of a library that a routine uses.
    """
    quoted = quote_name(database)
    ansi = '"' + database.replace('"', '""') + '"'
    sql = re.sub(rf"\b((?:next|last)val\(){re.escape(quoted)}\.", r"\1", sql)
    return _USING.sub(lambda match: match[0].replace(f"{quoted}.", "").replace(f"{ansi}.", ""), sql, count=1)
