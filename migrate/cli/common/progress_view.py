"""Progress for people: a live line on a terminal, a line every ten seconds elsewhere. Always on stderr."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.console import Console
from rich.live import Live
from rich.text import Text

from migrate.number_text import bytes_words, count_words, duration_words
from migrate.storage.inflight_limit import gone_bytes

LINE_SECONDS = 10.0
"""How often a run without a terminal says where it is."""
_RATE_WINDOW_SECONDS = 20.0
_LEAST_MOVES = 6
"""So many changes a rate is made of at least, however long they take: a part may take minutes."""


@dataclass(slots=True)
class Stage:
    """The counters of one stage. Sizes are bytes; ``skipped_*`` was done by an earlier run."""

    what: str
    started: float
    total_items: int = 0
    total_bytes: int = 0
    items: int = 0
    size_bytes: int = 0
    skipped_items: int = 0
    skipped_bytes: int = 0

    @property
    def fraction(self) -> float | None:
        """How much is done, 0 to 1, by bytes where they are known, else by items."""
        if self.total_bytes:
            return min(1.0, (self.size_bytes + self.skipped_bytes) / self.total_bytes)
        if self.total_items:
            return min(1.0, (self.items + self.skipped_items) / self.total_items)
        return None


class Meter:
    """Counts what worker threads report; says it as one line. Drawing is up to the subclasses."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, under_way: Callable[[], int] = gone_bytes
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._under_way = under_way
        self._stage: Stage | None = None
        self._moves: deque[tuple[float, int, int]] = deque()
        """When something was first seen to have moved, and how far everything was by then."""

    def begin(self, stage_name: str, *, items: int, size_bytes: int) -> None:
        """Start a stage with its totals."""
        with self._lock:
            self._stage = Stage(stage_name, self._clock(), items, size_bytes)
            self._moves.clear()
            self._moves.append((self._stage.started, 0, 0))

    def grow(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Raise the totals."""
        with self._lock:
            if self._stage:
                self._stage.total_items += items
                self._stage.total_bytes += size_bytes

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Count what was done now."""
        with self._lock:
            if self._stage:
                self._stage.items += items
                self._stage.size_bytes += size_bytes

    def skip(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Count what an earlier run had done."""
        with self._lock:
            if self._stage:
                self._stage.skipped_items += items
                self._stage.skipped_bytes += size_bytes

    def line(self, width: int | None = None) -> str:
        """Return the state of the stage as one line of text; with ``width`` one that fits, if at all possible."""
        with self._lock:
            if self._stage is None:
                return ""
            progress_seen = self._seen(self._stage)
            return _line(progress_seen, *self._rates(progress_seen), self._clock(), width)

    def _seen(self, stage: Stage) -> Stage:
        """Return the stage with what has left for the location but is not answered yet: where parts take minutes, it is
        what tells that there is any progress.
        """
        left = max(0, stage.total_bytes - stage.size_bytes - stage.skipped_bytes)
        return replace(stage, size_bytes=stage.size_bytes + min(left, self._under_way()))

    def _rates(self, stage: Stage) -> tuple[float, float]:
        now, moves = self._clock(), self._moves
        if (stage.items, stage.size_bytes) != moves[-1][1:]:
            moves.append((now, stage.items, stage.size_bytes))
        while len(moves) > _LEAST_MOVES and now - moves[1][0] > _RATE_WINDOW_SECONDS:
            moves.popleft()
        then, items, size_bytes = moves[0]
        last = moves[-1][0]
        usual = (last - then) / max(1, len(moves) - 1)
        # Until the next move is overdue, that nothing moves says nothing.
        seconds = max(last - then + max(0.0, now - last - usual), 0.001)
        return (stage.items - items) / seconds, (stage.size_bytes - size_bytes) / seconds


def _line(stage: Stage, items_rate: float, bytes_rate: float, now: float, width: int | None) -> str:
    fraction = stage.fraction
    items, size_bytes = stage.items + stage.skipped_items, stage.size_bytes + stage.skipped_bytes
    left = _left_seconds(stage, items_rate, bytes_rate)
    fields = {
        "share": f"{fraction:4.0%}" if fraction is not None else "",
        "items": _of(count_words, items, stage.total_items),
        "bytes": _of(bytes_words, size_bytes, stage.total_bytes),
        "bytes rate": f"{bytes_words(bytes_rate)}/s" if bytes_rate >= 1 else "",
        "items rate": f"{count_words(round(items_rate))}/s" if items_rate >= 1 else "",
        "left": f"{duration_words(left)} left" if left is not None else duration_words(now - stage.started),
    }
    for dropped in ("", *_DISPENSABLE):
        fields.pop(dropped, None)
        line = f"{stage.what}  " + "  ".join(word for word in fields.values() if word)
        if width is None or len(line) <= width:
            break
    return line


_DISPENSABLE = ("items rate", "items", "bytes rate", "bytes")
"""What a narrow terminal is not told, the first of them first: how long it will still take is told on any."""


def _of(say: Callable[[int], str], done_count: int, total: int) -> str:
    if not done_count and not total:
        return ""
    return say(done_count) + (f" of {say(total)}" if total else "")


def _left_seconds(stage: Stage, items_rate: float, bytes_rate: float) -> float | None:
    if stage.total_bytes and bytes_rate >= 1:
        return max(0.0, (stage.total_bytes - stage.size_bytes - stage.skipped_bytes) / bytes_rate)
    if not stage.total_bytes and stage.total_items and items_rate >= 1:
        return max(0.0, (stage.total_items - stage.items - stage.skipped_items) / items_rate)
    return None


class LiveProgress(Meter):
    """One line at the bottom of a terminal, redrawn four times a second."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._live: Live | None = None

    def begin(self, stage_name: str, *, items: int, size_bytes: int) -> None:
        """Start drawing."""
        self.end()
        super().begin(stage_name, items=items, size_bytes=size_bytes)
        self._live = Live(
            get_renderable=self._draw, console=self._console, refresh_per_second=4, transient=True
        )
        self._live.start()

    def note(self, message: str) -> None:
        """Print a sentence above the line."""
        self._console.print(Text(message))

    def end(self) -> None:
        """Leave the last state as a plain line."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._console.print(self._draw())

    def _draw(self) -> Text:
        text = Text(self.line(self._console.width), no_wrap=True, overflow="ellipsis")
        text.stylize("bold", 0, text.plain.find("  ") if "  " in text.plain else len(text.plain))
        return text


class LineProgress(Meter):
    """A line every ten seconds, for logs."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._stop: threading.Event | None = None

    def begin(self, stage_name: str, *, items: int, size_bytes: int) -> None:
        """Start the clock."""
        self.end()
        super().begin(stage_name, items=items, size_bytes=size_bytes)
        self._stop = threading.Event()
        threading.Thread(target=self._tick, args=(self._stop,), daemon=True, name="progress").start()

    def note(self, message: str) -> None:
        """Print a sentence."""
        self._console.print(Text(message))

    def end(self) -> None:
        """Print where the stage ended."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None
            self._console.print(Text(self.line()))

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(LINE_SECONDS):
            self._console.print(Text(self.line()))


class Quiet(Meter):
    """Counts and prints nothing."""

    def note(self, message: str) -> None:
        """Drop the sentence; errors are told by the command itself."""

    def end(self) -> None:
        """Nothing to draw."""
