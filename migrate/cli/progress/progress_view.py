"""Progress for people: a calm view on a terminal, a timed line every ten seconds elsewhere. Always on stderr."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from migrate.cli.common.terminal import Console, Text
from migrate.errors import MoveoutError
from migrate.number_text import bytes_words, count_words, duration_words, things
from migrate.progress.meter import Meter
from migrate.progress.state import COUNTED, ProgressState, TaskProgress
from migrate.runtime.progress import OF_NO_SOURCE, SourceTask

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

LINE_SECONDS = 10.0
"""How often a run without a terminal says where it is."""
REFRESH_PER_SECOND = 4
LEAST_COLUMNS = 60
_MOST_TASKS = 6
_SAME_SHARE = 0.01
_BAR_COLUMNS = 30
_FEW_SOURCES = 3
_SHORT_SECONDS = 2.0
"""With more sources than these, the end of a task that took less is not worth a line."""


def task_line(task: TaskProgress, width: int | None = None) -> str:
    """Return a task as one line of text; with ``width`` one that fits, if at all possible."""
    left = task.seconds_left if task.state == "running" else None
    fraction = task.fraction if task.total_items or task.total_bytes else None
    fields = {
        "share": f"{fraction:4.0%}" if fraction is not None else "",
        "items": _of(count_words(task.items), count_words(task.total_items), task.items, task.total_items),
        "bytes": _of(
            bytes_words(task.size_bytes), bytes_words(task.total_bytes), task.size_bytes, task.total_bytes
        ),
        "bytes rate": f"{bytes_words(task.bytes_rate)}/s" if task.bytes_rate >= 1 else "",
        "items rate": f"{count_words(round(task.items_rate))}/s" if task.items_rate >= 1 else "",
        "left": f"{duration_words(left)} left" if left is not None else _time_taken(task),
    }
    for dropped in ("", *_DISPENSABLE):
        fields.pop(dropped, None)
        line = f"{task.name}  " + "  ".join(word for word in fields.values() if word)
        if width is None or len(line) <= width:
            break
    return line


_DISPENSABLE = ("items rate", "items", "bytes rate", "bytes")
"""What a narrow terminal does not show, the first of them first: any shows how long it will still take."""


def _time_taken(task: TaskProgress) -> str:
    return duration_words(task.seconds) + (" so far" if task.state == "running" else "")


def _of(done_words: str, total_words: str, done: int, total: int) -> str:
    if not done and not total:
        return ""
    return f"{done_words} of {total_words}" if total else done_words


def draw_state(state: ProgressState, width: int, *, ascii_only: bool = False) -> Iterator[Text]:
    """Yield the lines of the view: stage and share, time and deadline, the tasks under way, gaps."""
    if _is_of_more(state):
        yield _head(state, width, ascii_only=ascii_only)
    sentences = _time_sentences(state, datetime.now(UTC))
    together = "; ".join(sentences)
    for sentence in [together] if len(together) <= width else sentences:
        if sentence:
            yield Text(_cut(sentence, width), style="red" if "late" in together else "")
    running = state.running
    for task in running[:_MOST_TASKS]:
        name, gap, rest = _cut(task_line(task, width), width).partition("  ")
        yield Text.assemble((name, "bold" if gap else ""), gap + rest)
    if len(running) > _MOST_TASKS:
        yield Text(f"and {len(running) - _MOST_TASKS} more")
    counts = count_line(state)
    if counts:
        yield Text(_cut(counts, width), style="yellow" if state.gaps else "dim")


def _is_of_more(state: ProgressState) -> bool:
    """Tell whether the task that is under way is only a part of the command."""
    if len(state.stages) > 1 or len(state.sources) > 1:
        return True
    task = state.tasks[-1].fraction if state.tasks else None
    return task is not None and state.fraction is not None and abs(task - state.fraction) >= _SAME_SHARE


def _head(state: ProgressState, width: int, *, ascii_only: bool) -> Text:
    name = stage_words(state)
    share = "" if state.fraction is None else f" {state.fraction:4.0%}"
    columns = min(_BAR_COLUMNS, width - len(name) - len(share) - 2)
    text = Text(name, style="bold")
    if columns >= 5 and state.fraction is not None:
        done = int(columns * state.fraction)
        full, empty = ("#", "-") if ascii_only else ("━", "─")
        text.append("  ")
        text.append(full * done, style="green")
        text.append(empty * (columns - done), style="not bold dim")
    text.append(share)
    return text


def stage_words(state: ProgressState) -> str:
    """Return which stage of how many is under way, or the command where it has one stage only."""
    if len(state.stages) < 2:
        return state.command
    return f"stage {state.stage_number} of {len(state.stages)}: {state.stages[state.stage_number - 1].name}"


def time_words(state: ProgressState, now: datetime) -> str:
    """Return how long it will take, against the deadline; "" where nothing is known."""
    return "; ".join(_time_sentences(state, now))


def _time_sentences(state: ProgressState, now: datetime) -> list[str]:
    words = []
    if len(state.ready) == 3:
        what = {"left": "has left in", "up": "is up in"}[state.ready[0].removeprefix(COUNTED)]
        what = f"{'all that was counted' if state.ready[0].startswith(COUNTED) else 'all'} {what}"
        seconds = [(datetime.fromisoformat(moment) - now).total_seconds() for moment in state.ready[1:]]
        median, late = (duration_words(left) if left >= 1 else "a moment" for left in seconds)
        words.append(f"{what} {median} (P50), {late} (P90)")
    elif state.seconds_left is not None and (len(state.stages) > 1 or len(state.sources) > 1):
        words.append(f"about {duration_words(state.seconds_left)} left")
    if state.deadline:
        left = (datetime.fromisoformat(state.deadline) - now).total_seconds()
        if left < 0:
            words.append(f"deadline passed {duration_words(-left)} ago: late")
        else:
            words.append(f"deadline in {duration_words(left)}{_margin(state, left)}")
    return words


def _margin(state: ProgressState, left: float) -> str:
    if state.seconds_left is None or state.ready:
        return ""
    margin = left - state.seconds_left
    return f" ({duration_words(margin)} to spare)" if margin >= 0 else f" ({duration_words(-margin)} late)"


def count_line(state: ProgressState) -> str:
    """Return how many sources are done and how many gaps there are so far; "" where there is nothing to say."""
    words = []
    if len(state.sources) > 1:
        words.append(f"{state.sources_done} of {things(len(state.sources), 'source')} done")
    if state.gaps or len(state.stages) > 1:
        words.append(f"gaps so far: {count_words(state.gaps)}")
    return "; ".join(words)


def state_line(state: ProgressState) -> str:
    """Return the whole state as one line, for logs."""
    words, task = [], state.last_task
    if len(state.stages) > 1:
        share = "" if state.fraction is None else f" {state.fraction:.0%} of all"
        name = state.stages[state.stage_number - 1].name
        words.append(f"{state.stage_number}/{len(state.stages)} {name}{share}")
    elif _is_of_more(state) and state.fraction is not None:
        words.append(f"{state.fraction:.0%} of all")
    if task is not None:
        words.append(task_line(task))
    if state.gaps:
        words.append(f"gaps so far: {count_words(state.gaps)}")
    return "  ".join(words)


def ends_with_line(state: ProgressState, task: TaskProgress) -> bool:
    """Tell whether the end of a task gets a line of its own, which stays."""
    return len(state.sources) <= _FEW_SOURCES or task.seconds >= _SHORT_SECONDS


def stamped(line: str) -> str:
    """Return a line with the time before it, UTC."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}  {line}"


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(1, width - 1)] + "…"


class _ShownProgress(Meter):
    """Shows something as long as tasks are under way, sentences between, and the end of each task that is worth it."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def begin(self, what: str, *, items: int, size_bytes: int, of: SourceTask = OF_NO_SOURCE) -> None:
        """Start a task, and showing."""
        self.end()
        super().begin(what, items=items, size_bytes=size_bytes, of=of)
        self._start_showing()

    def note(self, message: str) -> None:
        """Print a sentence."""
        super().note(message)
        self._console.print(Text(message))

    def note_error(self, what: str, error: MoveoutError) -> None:
        """Print what could not be done; the reason only where it was not explained before."""
        super().note(f"{what}: {error}")
        self._console.print(Text(self._console.errors.behind(what, error)))

    def end(self, *, stopped: bool = False) -> None:
        """Leave the last state of the task as a plain line."""
        is_open = self.is_open
        super().end(stopped=stopped)
        task = self.current()
        if is_open and task is not None and ends_with_line(self.state(), task):
            self._print_end(task)

    def pause_showing(self) -> None:
        """Leave the terminal to a question and its answer: the view would overwrite both."""
        self._stop_showing()

    def close(self) -> None:
        """Stop showing."""
        self.end()
        super().close()
        self._stop_showing()

    def _start_showing(self) -> None:
        """Begin, unless it is begun."""
        raise NotImplementedError

    def _stop_showing(self) -> None:
        """End, if it is begun."""
        raise NotImplementedError

    def _print_end(self, task: TaskProgress) -> None:
        """Print the line of a task that has ended."""
        raise NotImplementedError


class LiveProgress(_ShownProgress):
    """The view at the bottom of a terminal, redrawn four times a second. What is done stands above as plain lines."""

    _live: Live | None = None

    def _start_showing(self) -> None:
        from rich.live import Live  # noqa: PLC0415  20 ms, and only a terminal shows it

        if self._live is None:
            self._live = Live(
                get_renderable=self._draw,
                console=self._console.rich,
                refresh_per_second=REFRESH_PER_SECOND,
                transient=True,
            )
            self._live.start()

    def _stop_showing(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print_end(self, task: TaskProgress) -> None:
        self._console.print(Text(_cut(task_line(task, self._console.width), self._console.width)))
        if self._live is not None:
            self._live.refresh()

    def _draw(self) -> Group:
        from rich.console import Group  # noqa: PLC0415

        ascii_only = not self._console.encoding.startswith("utf")
        return Group(*draw_state(self.state(), self._console.width, ascii_only=ascii_only))


class LineProgress(_ShownProgress):
    """A line every ten seconds, for logs."""

    _stop: threading.Event | None = None

    def _start_showing(self) -> None:
        if self._stop is None:
            self._stop = threading.Event()
            threading.Thread(target=self._tick, args=(self._stop,), daemon=True, name="progress").start()

    def _stop_showing(self) -> None:
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    def _print_end(self, task: TaskProgress) -> None:
        del task  # it is the current one
        self._print()

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(LINE_SECONDS):
            if self.is_open:
                self._print()

    def _print(self) -> None:
        self._console.print(Text(stamped(state_line(self.state()))))


class Quiet(Meter):
    """Counts and prints nothing; the command itself prints errors."""
