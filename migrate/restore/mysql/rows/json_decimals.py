"""JSON for MySQL, whose documents hold exact decimals next to doubles.

The server prints both as plain numbers, and makes a double of each number that it parses: ``1.50`` would come back as
``1.5``. So a document in which a number is not what a double prints is put together by functions, the decimals as SQL
literals. A decimal that prints as a double does cannot be distinguished from one.

Of JSON so long that it is never whole in memory, the document is sent as a text, in pieces, and what no double
prints is put in its place by JSON_SET. Where decimals stand is found while the text passes: nothing is held but their
paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import chain

import pyarrow as pa
from msgspec import Struct, field

from exporters import arrow_functions as pc
from exporters.mysql.identifiers import quote_literal

_SUSPECT = r"\.[0-9]+0(?:[^0-9eE]|$)|[0-9.]{16,}"
"""Where decimals may be that no double prints: shorter numbers without zeros at the end are the same as doubles."""
_INTEGERS = range(-(2**63), 2**64)
_FIXED = range(-14, 16)
"""Where the point of a double may stand, counted from its first digit, without an exponent (DBL_DIG), unless digits
follow it.
"""
_NUMBER = re.compile(rb"[-0-9][0-9.eE+-]*")
_INSIDE = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_MARKS = (b"{", b"}", b"[", b"]", b",")
_REST = re.compile(rb"[^\"\[\]{},0-9-]+")


class _Number(str):
    """A number as it was printed."""

    __slots__ = ()


def with_decimals(texts: pa.Array, literals: pa.Array) -> pa.Array:
    """Return SQL for JSON texts: their ``literals`` but where a document holds decimals."""
    suspect = pc.fill_null(pc.match_substring_regex(texts, _SUSPECT), fill_value=False)
    if not pc.any(suspect, min_count=0).as_py():
        return literals
    expressions = [
        _expression(text) or literal
        for text, literal in zip(
            texts.filter(suspect).to_pylist(), literals.filter(suspect).to_pylist(), strict=True
        )
    ]
    return pc.replace_with_mask(literals, suspect, pa.array(expressions, literals.type))


def _expression(text: bytes | str) -> bytes | None:
    """Return SQL for a document that holds decimals, None for one that holds none or cannot be read."""
    try:
        document = json.loads(text, parse_float=_Number, parse_int=_Number)
    except (ValueError, RecursionError):
        return None
    return _sql(document).encode() if _holds_decimal(document) else None


def _sql(value: object) -> str:
    if not _holds_decimal(value):
        return f"CAST({quote_literal(_printed(value))} AS JSON)"
    if isinstance(value, dict):
        return f"JSON_OBJECT({','.join(f'{quote_literal(name)},{_sql(member)}' for name, member in value.items())})"
    if isinstance(value, list):
        return f"JSON_ARRAY({','.join(map(_sql, value))})"
    return f"CAST({value} AS JSON)"


def _holds_decimal(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_decimal, value.values()))
    if isinstance(value, list):
        return any(map(_holds_decimal, value))
    return isinstance(value, _Number) and is_decimal(value)


def _printed(value: object) -> str:
    """Return JSON with its numbers as they were."""
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{_printed(str(name))}:{_printed(member)}" for name, member in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(_printed, value)) + "]"
    return value if isinstance(value, _Number) else json.dumps(value, ensure_ascii=False)


def is_decimal(number: str) -> bool:
    """Tell whether MySQL prints a number so only if it is a decimal."""
    if "e" in number or "E" in number:
        return False
    if "." not in number:
        return int(number) not in _INTEGERS
    return number != printed_double(float(number))


def printed_double(number: float) -> str:
    """Return a double as MySQL prints it in JSON (my_gcvt in strings/dtoa.cc)."""
    sign, digit_values, exponent = Decimal(repr(number)).normalize().as_tuple()
    digits, minus = "".join(map(str, digit_values)), "-" * sign
    point = len(digits) + int(exponent) if number else 1
    if point not in _FIXED and not 0 < point < len(digits):
        mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        return f"{minus}{mantissa}e{point - 1}"
    if point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    return f"{minus}{digits[:point].ljust(point, '0')}.{digits[point:] or '0'}"


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
