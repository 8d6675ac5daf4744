"""Scripts for psql, cut into statements the way psql does it, with meta-commands and COPY data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\* )
    | (?P<escaped> [eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) )
    | (?P<string> '(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) )
    | (?P<dollar> \$(?:[^\W\d]\w*)?\$ )
    | (?P<meta> \\[^\n]* )
    | (?P<word> [^\W\d][\w$]* | \d[\w.]* )
    | (?P<mark> [();] )
    """,
    re.VERBOSE | re.DOTALL,
)
_SENDS = re.compile(r"\\(?:g|gx|gset|gexec|gdesc|crosstabview|watch|bind)\b")
"""Meta-commands that end the statement before them."""
_FROM_STDIN = re.compile(r"\A(?:\s|--[^\n]*\n)*\\?copy\b.*\bfrom\s+(?:p?stdin)\b", re.IGNORECASE | re.DOTALL)
_STATEMENT_END = re.compile(r";[ \t]*(?:--.*)?$", re.MULTILINE)
_ROUTINE = re.compile(r"\A\s*create\s+(?:or\s+replace\s+)?(?:function|procedure)\b", re.IGNORECASE)
_DROP = re.compile(r"drop\s+(?!event\s+trigger\b)", re.IGNORECASE)
"""A dropped event trigger would refuse what later scripts do, so those drops stay."""


def split_script(text: str) -> list[str]:
    """Return the script's statements and meta-commands, each with what stands before it; joined they are the script."""
    pieces = []
    start = 0
    while start < len(text):
        end = _end_of_statement(text, start)
        if _FROM_STDIN.match(text[start:end]):
            end = _end_of_data(text, end)
        pieces.append(text[start:end])
        start = end
    return pieces


def _end_of_data(text: str, start: int) -> int:
    """Return where the data of a COPY ends; ``start`` where there is none: such a COPY is to fail."""
    data_end = re.compile(r"^\\\.(?:\n|\Z)", re.MULTILINE).search(text, start)
    if data_end is None or _STATEMENT_END.search(text, start, data_end.start()):
        return start
    return data_end.end()


def _end_of_statement(text: str, start: int) -> int:
    """Return where the statement or meta-command ends that begins at ``start``."""
    position, depth, statement_start = start, 0, -1
    while (token := _TOKEN.search(text, position)) is not None:
        position = _end_of_token(text, token)
        if token["comment"]:
            continue
        if token["meta"]:
            if position > token.start() + 2 and (statement_start < 0 or _SENDS.match(token[0])):
                return _after_newline(text, position)
            continue
        if token[0] == ";" and depth <= 0:
            return _after_newline(text, position)
        if statement_start < 0:
            statement_start = token.start()
        if token["word"]:
            depth += _block_change(token[0].lower(), depth, text[statement_start : token.start()])
        else:
            depth += {"(": 1, ")": -1}.get(token[0], 0)
    return len(text)


def _end_of_token(text: str, token: re.Match[str]) -> int:
    """Return where a token ends of which the pattern matches the beginning only."""
    if token[0] == "/*":
        return _end_of_comment(text, token.end())
    if token["dollar"]:
        closing = text.find(token[0], token.end())
        return len(text) if closing < 0 else closing + len(token[0])
    if token["meta"] and token[0].startswith("\\;"):
        return token.start() + 2
    return token.end()


def _end_of_comment(text: str, position: int) -> int:
    """Return where a comment in stars ends; there may be others in it."""
    depth = 1
    while depth:
        mark = re.compile(r"/\*|\*/").search(text, position)
        if mark is None:
            return len(text)
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
    return position


def _block_change(word: str, depth: int, before: str) -> int:
    """Return by how much a word changes the depth: the body of a routine in standard SQL has semicolons."""
    if word == "begin" and _ROUTINE.match(before):
        return 1
    if word == "case" and depth:
        return 1
    return -1 if word == "end" and depth else 0


def _after_newline(text: str, position: int) -> int:
    """Return the position after the rest of a line where only blanks are left on it."""
    rest = re.compile(r"[ \t]*\n").match(text, position)
    return rest.end() if rest else position


def is_drop(piece: str) -> bool:
    """True where a piece of a script drops an object."""
    code = re.sub(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)+", "", piece, flags=re.DOTALL)
    return _DROP.match(code) is not None


def without_drops(text: str) -> str:
    """Return the script without the statements that drop an object."""
    return "".join(piece for piece in split_script(text) if not is_drop(piece))


def cuts(pieces: Sequence[str]) -> Iterable[int]:
    """Yield the index of each piece that drops an object and follows one that does not."""
    for index in range(1, len(pieces)):
        if is_drop(pieces[index]) and not is_drop(pieces[index - 1]):
            yield index
