"""Decimals within JSON so long that it is never whole in memory: see ``json_decimals``.

The document is sent as a text, in pieces, and what no double prints is put in its place by JSON_SET. Where decimals
stand is found while the text passes: nothing is held but their paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from msgspec import Struct, field

from exporters.mysql.identifiers import quote_literal
from migrate.restore.mysql.values.json_decimals import is_decimal

_NUMBER = re.compile(rb"[-0-9][0-9.eE+-]*")
_INSIDE = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_MARKS = (b"{", b"}", b"[", b"]", b",")
_REST = re.compile(rb"[^\"\[\]{},0-9-]+")


def with_paths(document: Iterable[bytes], text: Iterable[bytes]) -> Iterator[bytes]:
    """Yield SQL for a document: its literal, with the decimals of its ``text`` put in."""
    decimals = list(decimals_in(text))
    if not decimals:
        yield from document
        return
    yield b"JSON_SET("
    yield from document
    for path, number in decimals:
        yield f",{quote_literal(path)},CAST({number} AS JSON)".encode()
    yield b")"


def decimals_in(text: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Yield path and digits of each number that no double prints."""
    path = _Path()
    rest, inside = b"", False
    for piece in chain(text, [b" "]):
        rest += piece
        at = 0
        while at < len(rest):
            char = rest[at : at + 1]
            if inside or char == b'"':
                at += 0 if inside else 1
                end = _end_of(_INSIDE, rest, at)
                path.named(rest[at:end], more=inside)
                inside = end >= len(rest) or rest[end : end + 1] == b"\\"
                at = end if inside else end + 1
                if inside:
                    break
            elif number := _NUMBER.match(rest, at):
                if number.end() == len(rest):
                    break
                at = number.end()
                if is_decimal(number[0].decode()):
                    yield path.words(), number[0].decode()
            elif char in _MARKS:
                path.mark(char)
                at += 1
            else:
                at = _end_of(_REST, rest, at)
        rest = rest[at:]


def _end_of(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at + 1


class _Path(Struct):
    """Where in a document one is: names and numbers of cells, the outermost first."""

    _steps: list[bytes | int] = field(default_factory=list)
    _expects_name: bool = False
    _in_name: bool = False

    def mark(self, mark: bytes) -> None:
        """Pass a bracket or a comma."""
        if mark in b"{[":
            self._steps.append(b"" if mark == b"{" else 0)
        elif mark in b"}]":
            self._steps.pop()
        elif isinstance(self._steps[-1], int):
            self._steps[-1] += 1
        self._expects_name = mark == b"{" or (mark == b"," and not isinstance(self._steps[-1], int))

    def named(self, text: bytes, *, more: bool) -> None:
        """Pass a string, or ``more`` of one: a member's name, where one is expected."""
        if not more:
            self._in_name, self._expects_name = self._expects_name, False
        if self._in_name:
            step = self._steps[-1]
            self._steps[-1] = (step if more and isinstance(step, bytes) else b"") + text

    def words(self) -> str:
        """Return it as JSON functions have it."""
        steps = (f"[{step}]" if isinstance(step, int) else f'."{step.decode()}"' for step in self._steps)
        return "$" + "".join(steps)
