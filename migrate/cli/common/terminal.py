"""What people see on a terminal: names and values are a stranger's, and none of them is obeyed.

Styles and tables are rich's. Where nobody looks, in a pipe or from cron, lines are written as they are: to import rich
takes 20 ms of each command.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self, TextIO

from migrate.cli.common.word_wrap import breaks, indent_of, is_prose

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
    """Text, parts of which have styles of rich."""

    def __init__(self, text: str = "", style: str = "") -> None:
        self.plain = text
        self._style = style
        self._spans: list[tuple[str, int, int]] = []

    @classmethod
    def assemble(cls, *parts: str | tuple[str, str] | Text) -> Self:
        """Return texts behind one another, some of them with their styles."""
        whole = cls()
        for part in parts:
            if isinstance(part, Text):
                start = len(whole.plain)
                whole.append(part.plain, part._style)  # noqa: SLF001  it is one of us
                for style, first, end in part._spans:  # noqa: SLF001
                    whole.stylize(style, start + first, start + end)
            else:
                whole.append(*((part,) if isinstance(part, str) else part))
        return whole

    def append(self, text: str, style: str = "") -> None:
        """Add some text at the end."""
        start = len(self.plain)
        self.plain += text
        self.stylize(style, start, len(self.plain))

    def stylize(self, style: str, start: int, end: int) -> None:
        """Give a style to the characters from ``start`` up to ``end``."""
        if style and start < end:
            self._spans.append((style, start, end))

    def split_lines(self) -> Iterator[Text]:
        """Yield the lines, with their styles."""
        start = 0
        for plain_line in self.plain.split("\n"):
            end = start + len(plain_line)
            line = Text(plain_line, self._style)
            for style, first, last in self._spans:
                line.stylize(style, max(first, start) - start, min(last, end) - start)
            yield line
            start = end + 1

    def break_at(self, positions: Sequence[int], indent: int) -> None:
        """Replace these spaces by the beginning of a line, so far indented."""

        def moved(position: int) -> int:
            return position + indent * sum(1 for each in positions if each < position)

        self._spans = [(style, moved(start), moved(end)) for style, start, end in self._spans]
        for position in reversed(positions):
            self.plain = f"{self.plain[:position]}\n{' ' * indent}{self.plain[position + 1 :]}"

    def __str__(self) -> str:
        return self.plain

    def __rich__(self) -> rich.text.Text:
        from rich.text import Text as RichText  # noqa: PLC0415

        text = RichText(self.plain, self._style)
        for style, start, end in self._spans:
            text.stylize(style, start, end)
        return text


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


class Console:
    """Prints to stdout or stderr. Nothing but our own styles and lines moves the cursor. ``on``: a console of rich to
    print on, instead.
    """

    def __init__(self, on: rich.console.Console | None = None, *, stderr: bool = False) -> None:
        self._stderr = stderr
        if on is not None:
            self.rich = on
        has_variable = any(os.environ.get(name) for name in _TERMINAL_VARIABLES)
        self._is_plain = on is None and not has_variable and not self._stream.isatty()

    @functools.cached_property
    def rich(self) -> rich.console.Console:
        """The console of rich."""
        from migrate.cli.common.rich_terminal import make_console  # noqa: PLC0415  20 ms

        return make_console(stderr=self._stderr)

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

    def print(
        self, *objects: object, style: str | None = None, end: str = "\n", wrap: bool | None = None
    ) -> None:
        """Print texts, or what rich can draw. On a terminal a text is broken at spaces if it is to ``wrap``: by default
        next steps, warnings and errors. All else is left as it is, so that it can be copied.
        """
        if not self._is_plain or not all(isinstance(each, str | Text | Heading) for each in objects):
            shown = [self._wrapped(each, wrap) for each in objects] if self.is_terminal else objects
            self.rich.print(*shown, style=style, end=end, soft_wrap=True)
            return
        lines = " ".join(map(str, objects)).split("\n")
        try:
            self._stream.write("\n".join(plain(line.expandtabs()) for line in lines) + end)
            self._stream.flush()
        except BrokenPipeError:
            self.rich.on_broken_pipe()

    def _wrapped(self, shown: object, wrap: bool | None) -> object:
        from rich.cells import cell_len  # noqa: PLC0415  20 ms

        if not isinstance(shown, str | Text) or wrap is False:
            return shown
        parts: list[str | Text] = []
        for line in Text.assemble(shown).split_lines():
            if wrap or is_prose(line.plain):
                line.break_at(list(breaks(line.plain, self.width, cell_len)), indent_of(line.plain))
            parts += ("\n", line)
        return Text.assemble(*parts[1:])

    @property
    def _stream(self) -> TextIO:
        return sys.stderr if self._stderr else sys.stdout
