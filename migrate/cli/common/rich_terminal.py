"""Consoles and tables of rich on which nothing but our own styles and lines moves the cursor."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, JustifyMethod, RenderHook, RichCast
from rich.live import Live
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_COMMANDS = (
    "moveout|aws|chmod|chown|mc|mkdir|mysql|pip|psql|ssh-add|ssh-keygen|sudo"
    "|ALTER|CALL|CREATE|DROP|GRANT|REVOKE|SELECT|SET"
)
_VERBS = (
    "adds|applies|brings|comes|compares|copies|does|ends|fills|finds|finishes|follows|goes|has|holds|keeps|lifts|lists|locks"
    "|makes|names|prints|reads|records|releases|replaces|says|shows|switches|takes|tries|writes"
)
"""With one of these the sentence goes on behind a command."""
_NUMBER = r"\d(?:[\w.,:-]*\w)? (?:(?:days|h|min) \d+ |\d\d:\d\d )?(?=[A-Za-z])"
_KEPT = re.compile(rf"`[^`]*`|\"[^\"]*\"|\b(?:{_COMMANDS}) \S.*?(?=[.,:;)]+ |$| (?:{_VERBS}) )|\b{_NUMBER}")
"""Commands, up to the end of their part of the sentence, what stands in quotes, and a number with its unit."""
_BULLETS = ("→ ", "! ", "- ")
_TEXT_COLUMNS = 100


def make_console(escaped: Callable[[str], str], **options: Any) -> Console:
    """Return a console of rich that prints every line as ``escaped`` returns it. ``options``: see rich."""
    console = Console(**options, highlight=False, soft_wrap=True, markup=False, emoji=False)
    console.push_render_hook(_Harmless(escaped))
    return console


def printed(draw: Callable[[Console], object], escaped: Callable[[str], str]) -> str:
    """Return what ``draw`` prints where nobody looks, as plain text."""
    console = make_console(
        escaped, file=io.StringIO(), width=_TEXT_COLUMNS, force_terminal=False, no_color=True
    )
    draw(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def make_table(**columns: JustifyMethod) -> Table:
    """Return an empty table with a line below its titles and no edges. ``columns``: how the cells of each are
    justified; those at the right, which are numbers, stay on one line.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title, justify in columns.items():
        table.add_column(title, justify=justify, overflow="fold", no_wrap=justify == "right")
    return table


def wrapped(shown: object, width: int, indent: int | None = None) -> object:
    """Return a text with its lines broken at spaces, the further ones at the ``indent``, or as the line itself is. All
    else is as it was.
    """
    if isinstance(shown, str):
        text = Text(shown)
    elif isinstance(shown, RichCast) and isinstance(cast := shown.__rich__(), Text):
        text = cast
    else:
        return shown
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        further = _indent_of(line.plain) if indent is None else indent
        first, *others = line.divide(_breaks(line.plain, width, further))
        lines.append(first)
        for other in others:
            lines.append(other[1:])
            lines[-1].pad_left(further)
    return Text("\n").join(lines)


def _indent_of(line: str) -> int:
    """Return how far the further lines of a line are indented."""
    text = line.lstrip(" ")
    return len(line) - len(text) + (2 if text.startswith(_BULLETS) else 0)


def _breaks(line: str, width: int, indent: int) -> Iterator[int]:
    """Yield the positions of the spaces behind the ``indent`` to break a line at, whose further lines are indented so
    far: never in a command that somebody will copy, or between a number and its unit.
    """
    kept = [match.span() for match in _KEPT.finditer(line)]
    spaces = [
        position
        for position, character in enumerate(line)
        if character == " " and position >= indent and not any(start < position < end for start, end in kept)
    ]
    begin, last, left = 0, None, width
    for position in (*spaces, len(line)):
        if last is not None and cell_len(line[begin:position]) > left:
            yield last
            begin, left = last + 1, width - indent
        last = position


@contextlib.contextmanager
def live_view(
    console: Console, escaped: Callable[[str], str]
) -> Iterator[Callable[[Callable[[Console], None]], None]]:
    """Give what shows a view at the bottom of a terminal, again and again, until the context is left. It takes a
    function that draws the view, each line as ``escaped`` returns it.
    """
    with Live(console=console, transient=True, auto_refresh=False) as live:
        yield lambda draw: live.update(_View(draw, escaped), refresh=True)


class _View:
    """What a function draws, no wider than the terminal."""

    def __init__(self, draw: Callable[[Console], None], escaped: Callable[[str], str]) -> None:
        self._draw, self._escaped = draw, escaped

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        drawn = io.StringIO()
        # Not on the console that shows the view: whatever is printed there draws the view again.
        own = make_console(
            self._escaped,
            file=drawn,
            width=options.max_width,
            force_terminal=console.is_terminal,
            color_system=console.color_system,
            no_color=console.no_color,
        )
        self._draw(own)
        for line in drawn.getvalue().splitlines():
            text = Text.from_ansi(line)
            text.truncate(options.max_width, overflow="ellipsis")
            yield text


class _Harmless(RenderHook):
    def __init__(self, escaped: Callable[[str], str]) -> None:
        self._escaped = escaped

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(renderable, self._escaped) for renderable in renderables]


class _Escaped:
    def __init__(self, inner: ConsoleRenderable, escaped: Callable[[str], str]) -> None:
        self._inner = inner
        self._escaped = escaped

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            if segment.control:
                yield segment
            else:
                yield Segment("\n".join(map(self._escaped, segment.text.split("\n"))), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._inner)
