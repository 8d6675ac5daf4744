"""What the demo measured, and how it is said."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts import proof


@dataclass(slots=True)
class Figures:
    """What the demo measured. Durations in seconds, sizes in bytes."""

    rows: int = 0
    tables: int = 0
    objects: int = 0
    object_bytes: int = 0
    bundle_bytes: int = 0
    bundle_files: int = 0
    sent_before_kill_bytes: int = 0
    sent_after_kill_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Measure how long the step takes."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = time.monotonic() - started

    def objects_words(self) -> str:
        """Say how many objects there are."""
        return f"{self.objects:,} objects, {megabytes(self.object_bytes)}"

    def rate_words(self, step: str) -> str:
        """Say how long a step took and how fast that was."""
        seconds = self.seconds[step]
        rates = (
            f"{self.object_bytes / 1e6 / seconds:.0f} MB/s of objects and {self.rows / seconds:,.0f} rows/s"
        )
        return f"{seconds:.1f} s, {rates} at once"

    def resume_words(self) -> str:
        """Say what the second run of the transfer did not have to send, and what it sent again."""
        saved = self.bundle_bytes - self.sent_after_kill_bytes
        resent_bytes = max(0, self.sent_before_kill_bytes - saved)
        return f"saved {megabytes(saved)}; {megabytes(resent_bytes)} travelled twice (by the new host's own counter)"

    def transfer_words(self) -> str:
        """Say what the two runs of the transfer sent."""
        first, second = megabytes(self.sent_before_kill_bytes), megabytes(self.sent_after_kill_bytes)
        return f"killed after {first}; the second run sent {second} in {self.seconds['transfer']:.1f} s"

    def summary(self, proof_lines: Sequence[str], bundle: Path) -> None:
        """Print what was moved, how fast, what the resume saved, and where everything lies."""
        lines = [
            ("moved", f"{self.rows:,} rows in {self.tables} tables, {self.objects_words()}"),
            ("export", self.rate_words("export")),
            ("bundle", f"{self.bundle_files} files, {megabytes(self.bundle_bytes)}"),
            ("transfer", self.transfer_words()),
            ("resume", self.resume_words()),
            ("verify", f"every byte on the new host, {self.seconds['verify']:.1f} s"),
            ("restore", self.rate_words("restore")),
            *(("both sides", line) for line in proof_lines),
            ("lies in", f"{shown(bundle)}, and the same in s3://evacuated/plaza on the new host"),
        ]
        heading("Summary")
        for name, text in lines:
            columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else len(text) + 14
            say(
                textwrap.fill(
                    f"  {name:11} {text}", columns, subsequent_indent=" " * 14, break_long_words=False
                )
            )
        say("\n  Check it yourself, without moveout:", bold=True)
        say(f"    cd {shown(bundle)}")
        for command in proof.commands(bundle):
            say(f"    {command.shown}")


def heading(text: str) -> None:
    """Print the headline of a step, in one line of the terminal."""
    columns = min(shutil.get_terminal_size((100, 24)).columns, 100)
    say(f"\n── {text} " + "─" * max(1, columns - 4 - len(text)), bold=True)


def say(text: str, *, bold: bool = False, dim: bool = False) -> None:
    """Print at once, so that it stands before what the next process prints."""
    style = "\033[1m" if bold else "\033[2m" if dim else ""
    print(f"{style}{text}\033[0m" if style and sys.stdout.isatty() else text, flush=True)


def megabytes(size_bytes: int) -> str:
    """Say a size in MB."""
    return f"{size_bytes / 1e6:.1f} MB"


def shown(path: Path) -> str:
    """Say a path, from the current directory where it lies below that."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
