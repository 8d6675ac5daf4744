r"""pg_dump's script, cut into its entries.

pg_dump writes a comment before every object (``-- Name: …; Type: …; Schema: …; Owner: …``). The same words may stand
inside of a function's body, a comment or a default. So the script is read as the server reads it (PostgreSQL
documentation, 4.1): only a comment that stands outside of all quotes begins an entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from msgspec import Struct

NAME = rb'(?:"(?:[^"]|"")+"|[a-z_\x80-\xff][a-z0-9_$\x80-\xff]*)'
"""An identifier as pg_dump writes it."""
QUALIFIED = rb"(?:" + NAME + rb"\." + NAME + rb")"

Name = tuple[str, str]
"""Schema and name of an object."""

_RESTRICT = re.compile(rb"^\\(?:un)?restrict \S+\n", re.MULTILINE)
_SETTING = re.compile(rb"^SET ([a-z_]+) = [^;\n]*;\n", re.MULTILINE)
_OBJECT = b"\n-- Name: "

_TOKEN = re.compile(
    rb"""(?P<comment>--[^\n]*)
    |(?P<block>/\*)
    |(?<![A-Za-z0-9_$\x80-\xff])(?:[eE]'(?:[^'\\]++|\\.|'')*+'|(?P<dollar>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$))
    |'[^']*'|"[^"]*\"""",
    re.VERBOSE | re.DOTALL,
)
_CODE = re.compile(
    _TOKEN.pattern + rb"""|(?P<code>[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*|[(),;])""", _TOKEN.flags
)
_BLOCK_EDGE = re.compile(rb"/\*|\*/")
_HEADER = re.compile(rb"-- Name: (.*); Type: ([^;]*); Schema: (.*); Owner: (.*)", re.DOTALL)
_HEADER_MARK = b"-- Name: "
_RULE = b"--\n"
"""The line before it."""
_TRAILING_SETTINGS = re.compile(rb"(?:\n+SET default_[a-z_]+ = [^\n]*;)+\s*\Z")


class DumpEntry(Struct, frozen=True):
    """One object of a script. ``number`` counts from 0 and is the same whenever the script is read.
    ``kind`` is pg_dump's word (``INDEX``, ``FK CONSTRAINT``); ``name`` and ``schema`` are for messages
    (pg_dump replaces line ends in them). ``sql`` includes the settings (``SET default_…``) that are in
    force for it.
    """

    number: int
    kind: str
    name: str
    schema: str
    sql: bytes

    @property
    def label(self) -> str:
        """``INDEX public.some_idx``, for messages."""
        location = "" if self.schema == "-" else f"{self.schema}."
        kind = "" if self.name.startswith(f"{self.kind} ") else f"{self.kind} "
        return f"{kind}{location}{self.name}"


class Script(Struct, frozen=True):
    """A section. ``head`` are the settings under which all of it is run."""

    head: bytes
    entries: tuple[DumpEntry, ...]


def plain_sql(script: bytes, known_settings: set[str]) -> bytes:
    r"""Return a script of pg_dump's as the server takes it. It lacks psql's ``\restrict`` pair, which stands outside of
    every object, and settings at its head that an older server does not support.
    """
    head, mark, rest = script.partition(_OBJECT)
    head = _RESTRICT.sub(b"", head)
    head = _SETTING.sub(lambda match: match[0] if match[1].decode() in known_settings else b"", head)
    before, close, after = rest.rpartition(b"\n\\unrestrict ")
    if close and after.count(b"\n") <= 2:
        rest = before + b"\n"
    return head + mark + rest


def split_script(script: bytes) -> Script:
    """Cut what ``plain_sql`` returned into head and entries."""
    starts = list(_headers(script))
    head = script[: starts[0]] if starts else script
    settings = _trailing_settings(head)
    entries = []
    for number, (start, end) in enumerate(pairwise([*starts, len(script)])):
        text = script[start:end]
        entries.append(_entry(number, text, settings))
        settings = _trailing_settings(text) or settings
    return Script(head, tuple(entries))


def _entry(number: int, text: bytes, settings: bytes) -> DumpEntry:
    line, _, rest = text.removeprefix(_RULE).partition(b"\n")
    match = _HEADER.fullmatch(line)
    name, kind, schema = (match[i].decode(errors="replace") for i in (1, 2, 3)) if match else ("", "", "-")
    return DumpEntry(number, kind, name, schema, settings + b"\n" + rest if settings else rest)


def _trailing_settings(text: bytes) -> bytes:
    """Return the settings at the end of an entry's text: pg_dump changes them between two entries, for
    those to come.
    """
    match = _TRAILING_SETTINGS.search(text) if b"\nSET default_" in text else None
    return match[0].strip() if match else b""


def _headers(script: bytes) -> Iterator[int]:
    """Yield where each entry begins: at the line before its name."""
    position = 0
    while (token := _TOKEN.search(script, position)) is not None:
        position = token.end()
        if token["comment"] is not None:
            if token["comment"].startswith(_HEADER_MARK) and script.endswith(_RULE, 0, token.start()):
                yield token.start() - len(_RULE)
        elif token["block"] is not None:
            position = _end_of_block(script, position)
        elif token["dollar"] is not None:
            end = script.find(token["dollar"], position)
            position = len(script) if end < 0 else end + len(token["dollar"])


def tokens(sql: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    """Yield where words, parentheses, commas and semicolons stand outside of quotes and comments, and which."""
    while (token := _CODE.search(sql, position)) is not None:
        position = token.end()
        if token["code"] is not None:
            yield token.start(), token["code"]
        elif token["block"] is not None:
            position = _end_of_block(sql, position)
        elif token["dollar"] is not None:
            end = sql.find(token["dollar"], position)
            position = len(sql) if end < 0 else end + len(token["dollar"])


def _end_of_block(script: bytes, position: int) -> int:
    """Comments between ``/*`` and ``*/`` nest."""
    depth = 1
    while depth:
        edge = _BLOCK_EDGE.search(script, position)
        if edge is None:
            return len(script)
        depth += 1 if edge[0] == b"/*" else -1
        position = edge.end()
    return position


def unquote(qualified: bytes) -> Name:
    """Return schema and name of what ``QUALIFIED`` matches."""
    schema, name = re.findall(NAME, qualified)
    return _plain(schema), _plain(name)


def _plain(name: bytes) -> str:
    if name.startswith(b'"'):
        name = name[1:-1].replace(b'""', b'"')
    return name.decode(errors="replace")
