"""SQLite's sqllogictest: half of a test runs on a database, the other half on its copy.

The format: https://www.sqlite.org/sqllogictest/doc/trunk/about.wiki
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.outsiders.program import Program
from scripts.outsiders.suite import Context, Skipped, SuiteRow

_VARIABLE = "OUTSIDERS_SQLLOGICTEST"
_BATCH = 10
"""So many files are moved at once, as a directory of databases."""
_FILES = 30
"""How many files a run without a budget takes."""


@dataclass(frozen=True, slots=True)
class LogicRecord:
    """A statement or query of a test. ``types`` is empty for a statement; a letter for each column of a query."""

    sql: str
    fails: bool = False
    types: str = ""
    sort: str = "nosort"
    threshold: int = 0
    """Results of more values are given as their hash; 0 for never."""


class Sqllogictest:
    """The first half of each test fills a database; the second half asks its copy."""

    name = "sqllogictest"
    origin = f"SQLite's sqllogictest, from the checkout that {_VARIABLE} names"

    def obtain(self) -> Path | Skipped:
        """Return the directory of the tests."""
        checkout = os.environ.get(_VARIABLE)
        if not checkout:
            return Skipped(f"set {_VARIABLE} to a checkout of sqllogictest, or of a mirror of it")
        directory = Path(checkout)
        first_test = next(directory.rglob("*.test"), None)
        return directory if first_test else Skipped(f"{_VARIABLE}={checkout}: there is no file .test in it")

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Move the databases of a choice of files."""
        files = context.choose(sorted(context.material.rglob("*.test")))
        if context.ends_at is None and context.slice_count == 1:
            files = files[:_FILES]
        program = Program.for_servers(context.servers, context.scratch / "move")
        for start in range(0, len(files), _BATCH):
            if context.out_of_time:
                yield SuiteRow("others", skipped="the time is used up")
                return
            batch = files[start : start + _BATCH]
            row = SuiteRow(f"{batch[0].relative_to(context.material)} and {len(batch) - 1} more")
            _run_batch(program, batch, context.scratch / f"{start}", row)
            yield row


def _run_batch(program: Program, files: Sequence[Path], directory: Path, row: SuiteRow) -> None:
    """Run the first half of each file, move the databases, run the second halves on both; compare the answers."""
    source, copy, bundle = directory / "source", directory / "copy", directory / "bundle"
    source.mkdir(parents=True)
    seconds: dict[str, tuple[str, Sequence[LogicRecord]]] = {}
    for number, file in enumerate(files):
        records = list(read_records(file.read_text()))
        half = len(records) // 2
        database = sqlite3.connect(source / f"{number:03}.db", isolation_level=None)
        for record in records[:half]:
            answer(database, record)
        database.close()
        seconds[f"{number:03}.db"] = file.name, records[half:]
    for arguments in (
        ("export", f"app=sqlite://{source}", "--to", str(bundle)),
        ("restore", str(bundle), f"app=sqlite://{copy}"),
        ("verify", str(bundle), "--against", f"app=sqlite://{copy}"),
    ):
        outcome = program.run(*arguments)
        if not outcome.finished:
            row.errors.append(outcome.failure)
            return
    for name, (title, second_half) in seconds.items():
        row.moved += 1
        difference = _first_difference(source / name, copy / name, second_half)
        if difference:
            row.unreported.append(f"{title}: {difference}")
        else:
            row.equal += 1
    shutil.rmtree(directory)


def _first_difference(source: Path, copy: Path, records: Sequence[LogicRecord]) -> str:
    """Run records on both databases; return where the answers differ first, or ""."""
    source_connection, destination_connection = (
        sqlite3.connect(path, isolation_level=None) for path in (source, copy)
    )
    try:
        for record in records:
            source_answer, destination_answer = (
                answer(source_connection, record),
                answer(destination_connection, record),
            )
            if source_answer != destination_answer:
                return f"{record.sql[:200]}: {source_answer[:5]} / {destination_answer[:5]}"
        source_answer, destination_answer = (
            list(database.iterdump()) for database in (source_connection, destination_connection)
        )
        return "" if source_answer == destination_answer else "the dumps differ after the last statement"
    finally:
        source_connection.close()
        destination_connection.close()


def answer(database: sqlite3.Connection, record: LogicRecord) -> list[str]:
    """Execute a record; return what it answers, written as the format says, or the error."""
    try:
        rows = database.execute(record.sql).fetchall()
    except sqlite3.Error as error:
        return [f"error: {error}"]
    written = [
        [_written(value, letter) for value, letter in zip(row, record.types, strict=False)] for row in rows
    ]
    if record.sort == "rowsort":
        written.sort()
    values = [value for row in written for value in row]
    if record.sort == "valuesort":
        values.sort()
    if record.threshold and len(values) > record.threshold:
        digest = hashlib.md5("".join(f"{value}\n" for value in values).encode()).hexdigest()
        return [f"{len(values)} values hashing to {digest}"]
    return values


def _written(value: object, letter: str) -> str:
    if value is None:
        return "NULL"
    if letter == "I" and isinstance(value, int | float):
        return str(int(value))
    if letter == "R" and isinstance(value, int | float):
        return f"{value:.3f}"
    text = value.decode("latin1") if isinstance(value, bytes) else str(value)
    return re.sub(r"[^ -~]", "@", text) or "(empty)"


def read_records(text: str) -> Iterator[LogicRecord]:
    """Yield the records of a file that are for SQLite."""
    threshold = 0
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        lines = [re.sub(r"\s*#.*$", "", line) if line.startswith("#") else line for line in block.split("\n")]
        lines = [line for line in lines if line.strip()]
        is_wanted = True
        while lines:
            head = lines.pop(0).split()
            if head[0] == "onlyif":
                is_wanted &= head[1] == "sqlite"
            elif head[0] == "skipif":
                is_wanted &= head[1] != "sqlite"
            elif head[0] == "hash-threshold":
                threshold = int(head[1])
            elif head[0] == "halt":
                if is_wanted:
                    return
            else:
                if is_wanted:
                    yield _record(head, lines, threshold)
                break


def _record(head: Sequence[str], lines: Sequence[str], threshold: int) -> LogicRecord:
    if head[0] == "statement":
        return LogicRecord("\n".join(lines), fails=head[1] == "error")
    end = lines.index("----") if "----" in lines else len(lines)
    sort = head[2] if len(head) > 2 else "nosort"
    return LogicRecord("\n".join(lines[:end]), types=head[1], sort=sort, threshold=threshold)


SUITE = Sqllogictest()
