"""Consoles and tables of rich on which nothing but our own styles and lines moves the cursor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich import box
from rich.console import Console, ConsoleOptions, ConsoleRenderable, JustifyMethod, RenderHook
from rich.live import Live
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from migrate.cli.common import terminal
from migrate.cli.common.terminal import plain


def make_console(*, stderr: bool = False) -> Console:
    """Return a console of rich that escapes what a terminal might obey."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)
    console.push_render_hook(_Harmless())
    return console


def make_table(**columns: JustifyMethod) -> Table:
    """Return an empty table with a line below its titles and no edges. ``columns``: how the cells of each are
    justified.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title, justify in columns.items():
        table.add_column(title, justify=justify, overflow="fold")
    return table


@contextlib.contextmanager
def live_view(console: Console) -> Iterator[Callable[[Callable[[terminal.Console], None]], None]]:
    """Give what shows a view at the bottom of a terminal, again and again, until the context is left. It takes a
    function that draws the view.
    """
    with Live(console=console, transient=True, auto_refresh=False) as live:
        yield lambda draw: live.update(_View(draw), refresh=True)


class _View:
    """What a function draws, no wider than the terminal."""

    def __init__(self, draw: Callable[[terminal.Console], None]) -> None:
        self._draw = draw

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        with console.capture() as capture:
            self._draw(terminal.Console(console))
        for line in capture.get().splitlines():
            text = Text.from_ansi(line)
            text.truncate(options.max_width, overflow="ellipsis")
            yield text


class _Harmless(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(renderable) for renderable in renderables]


class _Escaped:
    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            if segment.control:
                yield segment
            else:
                yield Segment("\n".join(map(plain, segment.text.split("\n"))), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._inner)
