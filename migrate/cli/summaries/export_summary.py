"""What ``moveout export`` shows of a bundle that it has sealed: on a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from exporters.errors import SourceError
from exporters.structs import as_dict
from migrate.bundle.left_behind import LeftBehind
from migrate.cli.common.signing_keys import draw_signed
from migrate.cli.common.summary_lines import (
    ALL_LOSSES,
    SourceFailure,
    SummaryLine,
    draw_gaps,
    draw_left_behind,
    draw_summary,
    left_out_line,
    lost_words,
)
from migrate.cli.common.terminal import Console, Text, plain
from migrate.export.outcome import BrokenSource, ExportOutcome, SourceResult
from migrate.number_text import bytes_words, count_words, duration_words, list_words, things

if TYPE_CHECKING:
    from migrate.custody.signing.bundle_signatures import SignatureFile

_EXPORT_AGAIN = "once the reasons above are gone, run the same export again; what is done stays done"


class Exported(Struct, frozen=True):
    """A sealed bundle, and how it came to be. ``seconds`` of this run."""

    outcome: ExportOutcome
    seconds: float
    signed: Sequence[SignatureFile] = ()
    left_behind: LeftBehind | None = None
    """What the bundle says of what stays on the servers."""
    unlisted: Sequence[str] = ()
    """Servers of the case of which nothing leaves, because they could not be listed."""
    detailed: bool = True
    """Whether it tells the counts of each source, or only what is missing."""
    followed: Sequence[str] = ()
    """The sources whose later changes are kept."""
    compared: Sequence[str] = ()
    """Sources whose log cannot be followed, so that delta passes find what they write."""
    case_option: str = ""
    """The option that names the case file, for the next commands; "" where there is none."""
    next_steps: Sequence[str] = ()
    """What to do with a complete bundle; none where a whole move does it."""

    @property
    def exit_code(self) -> int:
        """Return 3 where the bundle has gaps."""
        return self.outcome.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return the bundle, counts, sizes in bytes, seconds and gaps."""
        summary = self.outcome
        urls = {source.name: source.url for source in summary.sources}
        broken = [
            SourceFailure(source.name, urls[source.name], source.error).as_json() for source in summary.broken
        ]
        return {
            "location": summary.location,
            "bundle": summary.bundle_id,
            "complete": summary.complete,
            "already_sealed": summary.already_sealed,
            "files": summary.files,
            "size_bytes": summary.size_bytes,
            "seconds": self.seconds,
            "sources": [as_dict(source) for source in summary.sources],
            "summary": [line.as_json() for line in self.summary()],
            "broken": broken,
            "left_behind": self.left_behind.as_json() if self.left_behind else None,
            "left_out": [as_dict(source) for source in summary.left_out],
            "signatures": [signed_file.key for signed_file in self.signed],
            "followed": list(self.followed),
            "delta": list(self.compared),
        }

    def draw(self, console: Console) -> None:
        """Print what was exported and what is missing."""
        summary = self.outcome
        broken = {source.name: source for source in summary.broken}
        lines = self.summary()
        # The lines of one source say all that its line of the summary would, but for what an earlier run had not met.
        is_told = self.detailed and len(lines) == 1 and not (summary.already_sealed and summary.broken)
        has_table = not is_told and (not summary.complete or bool(summary.left_out))
        for source in summary.sources:
            broken_source = broken.get(source.name)
            if self.detailed:
                _draw_source(console, source)
                _draw_reasons(console, source, broken_source, has_table=has_table)
            elif not source.complete and (source.items or broken_source is None):
                console.print(Text(source.name, style="bold"))
                _draw_reasons(console, source, broken_source, has_table=has_table)
        if not self.detailed:
            _draw_counts(console, summary.sources)
        if summary.already_sealed:
            state, rest = "", "nothing was left to do"
            if not summary.complete:
                state, rest = ", INCOMPLETE", "nothing came to it now, so it stays as it is"
            console.print(f"The bundle at {summary.location} was sealed before{state}; {rest}")
            if summary.complete and not self.followed:
                console.print(
                    "→ what the sources have written since is not in it: export that to another location"
                )
        else:
            state = "complete" if summary.complete else "INCOMPLETE"
            console.print(
                f"Sealed, {state}: {things(summary.files, 'file')}, {bytes_words(summary.size_bytes)}"
                f" at {summary.location} in {duration_words(self.seconds)}"
            )
            draw_signed(console, self.signed)
        if has_table:
            draw_summary(console, lines)
        if not summary.complete:
            step = summary.broken[0].error.next_step if is_told and summary.broken else ""
            console.print(Text(f"→ {step or _EXPORT_AGAIN}"))
        draw_left_behind(
            console,
            self.left_behind,
            [source.error for source in summary.broken],
            self.case_option,
            self.unlisted,
        )
        self._draw_next_steps(console)

    def _draw_next_steps(self, console: Console) -> None:
        follow = f"moveout follow {self.case_option}".rstrip()
        if self.compared:
            names = ", ".join(self.compared)
            console.print(Text(f"→ {follow} finds what is written to {names} by comparing the tables again"))
        if self.followed:
            names = ", ".join(self.followed)
            console.print(
                Text(
                    f"→ {follow} takes what is written to {names} from now on; give it soon: until then only"
                    " the source's log has it"
                )
            )
        if self.outcome.complete and console.is_terminal:
            for step in self.next_steps:
                console.print(f"→ {step}")

    def summary(self) -> Sequence[SummaryLine]:
        """Return what became of each source."""
        errors = {source.name: source.error for source in self.outcome.broken}
        lines = [_summary_line(source, errors.get(source.name)) for source in self.outcome.sources]
        return [*lines, *(left_out_line(source.name) for source in self.outcome.left_out)]


def _summary_line(source: SourceResult, error: SourceError | None) -> SummaryLine:
    """Return what became of a source, and what to do about it."""
    exported = f"{things(source.items, 'item')}, {bytes_words(source.size_bytes)}"
    if source.complete:
        return SummaryLine(source.name, "yes", f"exported: {exported}")
    failed = [f"{gap.item}: {gap.reason}" for gap in source.gaps if gap.disposition == "failed"]
    more = f" (and {len(failed) - 1:,} more)" if len(failed) > 1 else ""
    reason = f"{failed[0]}{more}" if failed else source.reasons[0]
    next_step = (error.next_step if error else "") or "remove the reason, export again"
    if not source.items and error is None and not source.dispositions.get("failed"):
        return SummaryLine(source.name, "empty", reason, next_step)
    word, what = ("in part", f"incomplete, {exported}") if source.items else ("no", "not exported")
    return SummaryLine(source.name, word, what if error else f"{what}: {reason}", next_step, error)


def _draw_source(console: Console, source: SourceResult) -> None:
    counts = ", ".join(f"{count_words(count)} {word}" for word, count in source.dispositions.items() if count)
    console.print(
        Text.assemble(
            (source.name, "bold"), f"  {counts or 'nothing there'}, {bytes_words(source.size_bytes)} read"
        ),
    )
    for counted_noun in dict.fromkeys(enumeration.what for enumeration in source.enumerations):
        ways = [
            f"not counted: {enumeration.not_counted}"
            if enumeration.not_counted
            else f"{count_words(enumeration.count)} ({enumeration.how})"
            for enumeration in source.enumerations
            if enumeration.what == counted_noun
        ]
        console.print(Text(f"  {counted_noun}: {', '.join(ways)}", style="dim"))
    lost = [
        f"{name} of {plain(item)}" + (f" and {count_words(count - 1)} more" if count > 1 else "")
        for name, (count, item) in source.lost.items()
    ]
    if lost:
        console.print(Text(f"  cannot be represented: {list_words(lost)}; {ALL_LOSSES}", style="dim"))


def _draw_counts(console: Console, sources: Sequence[SourceResult]) -> None:
    """Print how many sources are exported and counted, in one line."""
    whole = [source for source in sources if source.complete]
    items = things(sum(source.items for source in sources), "item")
    size = bytes_words(sum(source.size_bytes for source in sources))
    console.print(
        f"{count_words(len(whole))} of {things(len(sources), 'source')} exported: {items}, {size} read"
    )
    lost: Counter[str] = Counter()
    for source in sources:
        lost.update({name: count for name, (count, _) in source.lost.items()})
    if lost:
        words = lost_words(dict(lost.most_common()))
        console.print(Text(f"Cannot be represented: {words}", style="dim"))


def _draw_reasons(
    console: Console, source: SourceResult, broken: BrokenSource | None, *, has_table: bool
) -> None:
    """Print what is missing, and why. What ended the export of a ``broken`` source is printed once: by the table of all
    sources where there is one.
    """
    for reason in source.reasons:
        if broken is None or not has_table or reason != broken.reason:
            console.print(Text(f"  ! {reason}", style="yellow"))
    gaps = [gap for gap in source.gaps if broken is None or gap.reason != str(broken.error)]
    total = source.gaps_total - (len(source.gaps) - len(gaps))
    draw_gaps(console, gaps, total, 2, "the bundle's data/gaps.parquet")
