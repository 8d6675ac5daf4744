"""Where long lines of prose are broken on a terminal: at spaces, but never in a command that somebody will copy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_COMMANDS = (
    "moveout|aws|chmod|chown|mc|mkdir|mysql|pip|psql|ssh-add|ssh-keygen|sudo"
    "|ALTER|CALL|CREATE|DROP|GRANT|REVOKE|SELECT|SET"
)
_KEPT = re.compile(rf"`[^`]*`|\"[^\"]*\"|\b(?:{_COMMANDS}) \S.*?(?=[.,:;)]+ |$)")
"""Commands, up to the end of their part of the sentence, and what stands in quotes."""
_PROSE = re.compile(r" *(?:[→!] |moveout: )")
_BULLETS = ("→ ", "! ")


def is_prose(line: str) -> bool:
    """Tell whether a line is a next step, a warning or an error."""
    return _PROSE.match(line) is not None


def indent_of(line: str) -> int:
    """Return how far the further lines of a line are indented."""
    text = line.lstrip(" ")
    return len(line) - len(text) + (2 if text.startswith(_BULLETS) else 0)


def breaks(line: str, width: int, measure: Callable[[str], int]) -> Iterator[int]:
    """Yield the positions of the spaces to break a line at. ``measure`` returns how many columns a text takes."""
    kept = [match.span() for match in _KEPT.finditer(line)]
    indent = indent_of(line)
    spaces = [
        position
        for position, character in enumerate(line)
        if character == " " and position >= indent and not any(start < position < end for start, end in kept)
    ]
    begin, last, left = 0, None, width
    for position in (*spaces, len(line)):
        if last is not None and measure(line[begin:position]) > left:
            yield last
            begin, left = last + 1, width - indent
        last = position
