"""The table at the end of a command: what became of each source, and what to do next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from exporters.api import Gap
from migrate.bundle import layout
from migrate.bundle.left_behind import LeftBehind
from migrate.cli.common.terminal import Console, ErrorWords, Text, plain
from migrate.errors import OK, DamageError, IncompleteError, MoveoutError
from migrate.number_text import count_words, list_words

_KNOWN_STEP = (
    "moveout discover {} adds to the case file what that lacks; [[left_out]] there says what stays on purpose"
)
_UNKNOWN_STEP = "once the server answers, moveout discover {} lists what is there"
_LEAST_COLUMNS = 40
"""A column that is wrapped has so many characters at least."""
_SHOWN_GAPS, _SHOWN_ITEMS = 10, 3
ALL_LOSSES = f"the bundle's {layout.LOSSES} lists all"
LEFT_OUT = "left out"
"""The word for a source that was taken out of its bundle."""


def lost_words(counts: Mapping[str, int]) -> str:
    """Return which properties a bundle cannot represent, and of how many items each."""
    words = list_words([f"{name} ({count_words(count)})" for name, count in counts.items()])
    return f"{words}; {ALL_LOSSES}"


class SummaryLine(Struct, frozen=True):
    """One source. ``word`` is what happened, for a narrow column, ``what`` the same as words, and ``error`` the reason.
    ``next_step`` is empty where there is none.
    """

    source: str
    word: str
    what: str
    next_step: str = ""
    error: MoveoutError | None = None

    @property
    def happened(self) -> str:
        """What happened, and why."""
        return ErrorWords().behind(self.what, self.error)

    def as_json(self) -> dict[str, Any]:
        """Return what was printed of it."""
        return {
            "source": self.source,
            "word": self.word,
            "happened": self.happened,
            "next_step": self.next_step,
        }


class SummaryRow(Struct, frozen=True):
    """A row of a table. ``error`` is printed behind the last cell, and ``next_step`` below it."""

    cells: Sequence[str]
    next_step: str = ""
    error: MoveoutError | None = None


def left_out_line(source: str) -> SummaryLine:
    """Return the line of a source that was taken out of its bundle."""
    return SummaryLine(source, LEFT_OUT, "left out on purpose (--drop)")


class SourceFailure(Struct, frozen=True):
    """A source, or its destination, whose work ended with an error; the others went on."""

    source: str
    url: str
    error: MoveoutError

    def as_json(self) -> dict[str, Any]:
        """Return the error's fields."""
        error = self.error
        return {
            "source": self.source,
            "url": self.url,
            "code": error.code,
            "message": str(error),
            "next": error.next_step,
        }

    def summary(self, happened: str) -> SummaryLine:
        """Return its line: what happened, the error, and what to do."""
        next_step = self.error.next_step or "run the same command again"
        return SummaryLine(self.source, "no", happened, next_step, self.error)


def failures_code(failures: Sequence[SourceFailure], *, others: bool) -> int:
    """Return the exit code of failures. ``others``: something else succeeded. Damage is always 6."""
    codes = {failure.error.exit_code for failure in failures}
    if not codes or DamageError.exit_code in codes:
        return DamageError.exit_code if codes else OK
    return IncompleteError.exit_code if others else max(codes)


def left_behind_lines(
    left_behind: LeftBehind | None,
    printed: Iterable[MoveoutError],
    words: ErrorWords,
    case_option: str,
    unlisted: Collection[str],
) -> tuple[list[str], str]:
    """Return what was seen on the servers of a case and is not in it, as sentences, and what to do about it. The
    reasons of errors that were ``printed`` are not repeated. ``case_option`` names the case file, ``unlisted`` the
    servers of it of which nothing leaves.
    """
    if left_behind is None:
        return [], ""
    step = _KNOWN_STEP if any(server.names for server in left_behind.servers) else _UNKNOWN_STEP
    reasons = {error.explanation for error in printed}
    return list(left_behind.sentences(reasons, words.explained, unlisted)), step.format(case_option)


def draw_gaps(console: Console, gaps: Sequence[Gap], total: int, indent: int, where: str = "") -> None:
    """Print the first gaps, those of one reason in one line, and how many more there are of the ``total``. ``where``:
    the file with all of them.
    """
    names: dict[tuple[str, str], list[str]] = {}
    for gap in gaps:
        names.setdefault((gap.disposition, gap.reason.removeprefix(f"{gap.item}: ")), []).append(gap.item)
    begin, left = " " * indent, total
    for (disposition, reason), items in list(names.items())[:_SHOWN_GAPS]:
        words = plain(f"{disposition}: {list_words(items, _SHOWN_ITEMS)}: {reason}")
        console.print(Text(begin + words))
        left -= len(items)
    is_cut = left > 0 or any(len(items) > _SHOWN_ITEMS for items in names.values())
    more = [f"and {count_words(left)} more"] if left > 0 else []
    more += [f"all names: {where}"] if where and is_cut else []
    if more:
        console.print(begin + "; ".join(more))


def draw_left_behind(
    console: Console,
    left_behind: LeftBehind | None,
    errors: Iterable[MoveoutError],
    case_option: str,
    unlisted: Collection[str],
) -> None:
    """Print what was seen on the servers of a case and is not in it. ``errors`` were printed before."""
    sentences, step = left_behind_lines(left_behind, errors, console.errors, case_option, unlisted)
    for sentence in sentences:
        console.print(Text(f"! {plain(sentence)}", style="yellow"))
    if sentences:
        console.print(f"  → {step}")


def draw_summary(console: Console, lines: Sequence[SummaryLine]) -> None:
    """Print a row a source, and its next step on a line of its own."""
    titles = SummaryRow(("source", "what happened"))
    rows = [SummaryRow((line.source, line.what), line.next_step, line.error) for line in lines]
    draw_rows(console, [titles, *rows])


def draw_rows(console: Console, rows: Sequence[SummaryRow]) -> None:
    """Print rows, the first of which has the titles. The last column may be of any width; on a terminal it is
    wrapped. A reason that several have is printed once.
    """
    first: dict[str, str] = {}
    columns = list(zip(*(row.cells for row in rows), strict=True))
    widths = [max(len(plain(cell)) for cell in column) for column in columns[:-1]]
    for number, row in enumerate(rows):
        padded = [plain(cell).ljust(width) for cell, width in zip(row.cells, widths, strict=False)]
        style = "dim" if number == 0 else "yellow" if row.next_step else ""
        before = "".join(f"{cell}  " for cell in padded)
        text = console.errors.behind(row.cells[-1], row.error)
        is_of_error = row.error is not None and row.next_step == row.error.next_step
        next_step = console.errors.next_step(row.error) if row.error and is_of_error else row.next_step
        if row.error and is_of_error and next_step and not row.error.causes:
            before_it = first.setdefault(row.error.explanation, row.cells[0])
            if before_it != row.cells[0]:
                text, next_step = f"{row.cells[-1]}, for the same reason as {before_it}", ""
        for line in lines_behind(console, before, plain(text), widths[0] + 2):
            console.print(Text(line, style))
        if next_step:
            console.print(Text(f"{' ' * widths[0]}  → {plain(next_step)}"))


def lines_behind(console: Console, before: str, text: str, indent: int) -> Sequence[str]:
    """Return a text behind another one as lines that fit a terminal, or below it, at the ``indent``, where there is
    little room; elsewhere as one line.
    """
    if not console.is_terminal or not text:
        return [before + text]
    if console.width - len(before) >= _LEAST_COLUMNS:
        return _broken(before + text, console.width, len(before))
    return [*_broken(before, console.width, indent), *_broken(" " * indent + text, console.width, indent)]


def _broken(line: str, width: int, indent: int) -> Sequence[str]:
    from migrate.cli.common.rich_terminal import wrapped  # noqa: PLC0415  20 ms

    return str(wrapped(line, width, indent)).split("\n")
