"""Output for people. Names and values come from strangers, so control characters in them are escaped.

Styles and tables are rich's. Where nobody looks, in a pipe or from cron, lines are written as they are: to import rich
takes 20 ms of each command.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import sys
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Self, TextIO

from migrate.errors import MoveoutError
from migrate.number_text import count_words

if TYPE_CHECKING:
    import rich.console
    import rich.rule
    import rich.text

_TERMINAL_VARIABLES = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""Each of them makes rich take for a terminal what is none, or the other way round."""


def plain(text: str) -> str:
    """Return text on one line, with everything escaped that a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


class Text:
    """Text in pieces, each with its style of rich. ``style`` is that of all pieces, where their own says nothing."""

    def __init__(self, text: str = "", style: str = "") -> None:
        self._style = style
        self.pieces: list[tuple[str, str]] = [(text, style)] if text else []

    @classmethod
    def assemble(cls, *parts: str | tuple[str, str] | Text) -> Self:
        """Return texts behind one another, some of them with their styles."""
        whole = cls()
        for part in parts:
            if isinstance(part, Text):
                whole.pieces += part.pieces
            else:
                whole.append(*((part,) if isinstance(part, str) else part))
        return whole

    def append(self, text: str, style: str = "") -> None:
        """Add some text at the end."""
        self.pieces.append((text, f"{self._style} {style}".strip()))

    def __str__(self) -> str:
        return "".join(text for text, _ in self.pieces)

    def __rich__(self) -> rich.text.Text:
        from rich.text import Text as RichText  # noqa: PLC0415

        return RichText.assemble(*self.pieces)


def data_output() -> TextIO:
    """Return stdout for data and JSON, which are UTF-8 whatever the locale is: nothing of them may be replaced."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="strict")
    return sys.stdout


class Heading:
    """A title, and a line behind it to the end of the page."""

    def __init__(self, title: str) -> None:
        self._title = title

    def __str__(self) -> str:
        line = "─" if sys.stdout.encoding.lower().startswith("utf") else "-"
        return f"{self._title} ".ljust(shutil.get_terminal_size().columns, line)

    def __rich__(self) -> rich.rule.Rule:
        from rich.rule import Rule as RichRule  # noqa: PLC0415

        return RichRule(self._title, align="left")


class ErrorWords:
    """How errors are printed: whole, or by a few words that refer to where they were explained."""

    def __init__(self) -> None:
        self._short: dict[str, str] = {}

    def refer(self, error: MoveoutError, words: str) -> None:
        """From now on print these words for the explanation of an error, and its next step no more."""
        self._short.setdefault(error.explanation, words)

    def explained(self, explanation: str) -> str:
        """Return an explanation, or the words that refer to it."""
        return self._short.get(explanation, explanation)

    def of(self, error: MoveoutError) -> str:
        """Return an error as a sentence."""
        return error.sentence(self.explained)

    def behind(self, happened: str, error: MoveoutError | None) -> str:
        """Return what happened, and the error behind it, where there is any."""
        return ": ".join(filter(None, (happened, "" if error is None else self.of(error))))

    def next_step(self, error: MoveoutError) -> str:
        """Return what to do about an error; "" where that was printed."""
        return "" if error.explanation in self._short else error.next_step


class Console:
    """Prints to stdout or stderr. Nothing but our own styles and lines moves the cursor. ``on``: a console of rich to
    print on, instead.
    """

    def __init__(self, on: rich.console.Console | None = None, *, stderr: bool = False) -> None:
        self._stderr = stderr
        self.errors = ErrorWords()
        if on is not None:
            self.rich = on
        has_variable = any(os.environ.get(name) for name in _TERMINAL_VARIABLES)
        self._is_plain = on is None and not has_variable and not self._stream.isatty()

    @functools.cached_property
    def rich(self) -> rich.console.Console:
        """The console of rich."""
        from migrate.cli.common.rich_terminal import make_console  # noqa: PLC0415  20 ms

        return make_console(plain, stderr=self._stderr)

    @property
    def is_terminal(self) -> bool:
        """Whether it prints on a terminal."""
        return not self._is_plain and self.rich.is_terminal

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self.rich.width

    @property
    def encoding(self) -> str:
        """The encoding of what is printed."""
        return self.rich.encoding

    def print(self, *objects: object, style: str | None = None, end: str = "\n", wrap: bool = True) -> None:
        """Print texts, or what rich can draw. On a terminal a text is broken at spaces, unless somebody will copy it:
        ``wrap``.

        What cannot be written to stderr is dropped: a log that is full, or that nobody reads, ends no run. Raises
        ``OSError`` where stdout cannot be written.
        """
        try:
            self._print(*objects, style=style, end=end, wrap=wrap)
        except OSError:
            if not self._stderr:
                raise

    def print_first(
        self, lines: Iterable[Text], total: int, most: int, before: str = "  ", *, wrap: bool = True
    ) -> None:
        """Print the first lines of a ``total``, and how many others there are, with the same words ``before``.
        ``wrap``: see ``print``.
        """
        for line in islice(lines, most):
            self.print(line, wrap=wrap)
        if total > most:
            self.print(f"{before}and {count_words(total - most)} more (all with --json)")

    def _print(self, *objects: object, style: str | None, end: str, wrap: bool) -> None:
        if not self._is_plain or not all(isinstance(each, str | Text | Heading) for each in objects):
            if wrap and self.is_terminal:
                from migrate.cli.common.rich_terminal import wrapped  # noqa: PLC0415  20 ms

                objects = tuple(wrapped(each, self.width) for each in objects)
            self.rich.print(*objects, style=style, end=end, soft_wrap=True)
            return
        lines = " ".join(map(str, objects)).split("\n")
        try:
            self._stream.write("\n".join(plain(line.expandtabs()) for line in lines) + end)
            self._stream.flush()
        except BrokenPipeError:
            if self._stderr:
                raise
            self.rich.on_broken_pipe()

    @property
    def _stream(self) -> TextIO:
        return sys.stderr if self._stderr else sys.stdout
