"""What people see on a terminal: names and values are a stranger's, and none of them is obeyed."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console, ConsoleOptions, ConsoleRenderable, JustifyMethod, RenderHook
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table


def plain(text: str) -> str:
    """Return text on one line, with everything escaped that a terminal might obey."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def make_console(*, stderr: bool = False) -> Console:
    """Return a console on which nothing but our own styles and lines moves the cursor."""
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
