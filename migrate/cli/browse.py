"""``moveout ls`` and ``moveout get``: what is in a bundle, and single objects and rows of it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from migrate.browse import single_objects, table_rows
from migrate.browse.single_objects import Wanted
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.cli import app
from migrate.cli.common.options import CaseFile
from migrate.cli.common.session import Session, verb
from migrate.cli.common.signing_keys import KeyFiles, Passphrase, load_keys
from migrate.cli.common.sources import load_case
from migrate.custody.log.events import record_if_allowed
from migrate.errors import OK, GoneError, NotEmptyError, UsageError
from migrate.number_text import bytes_words, count_words, things
from migrate.storage.local.errors import translate_os
from migrate.storage.registry import open_location

_LIMIT = 1000
_STDOUT = "-"
_RANGE = re.compile(r"(\d*):(\d*)")

Source = Annotated[
    str | None, typer.Option("--source", metavar="NAME", help="Which source, where the bundle has several.")
]
Version = Annotated[
    str | None, typer.Option("--version-id", metavar="ID", help="This version of the object.")
]


@dataclass(frozen=True, slots=True)
class Listed:
    """What is there: rows as JSON and as text. ``more``: there are others behind them."""

    location: str
    what: str
    rows: Sequence[Mapping[str, Any]]
    lines: Sequence[str]
    more: bool = False
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return the rows."""
        return {"location": self.location, self.what: list(self.rows), "more": self.more}

    def draw(self, console: Console) -> None:
        """Print a line each."""
        for line in self.lines:
            console.print(Text(line))
        if self.more:
            console.print("… and more: --limit N shows them", style="dim")


@dataclass(frozen=True, slots=True)
class Got:
    """What was written, and what is not in the bundle. Nothing is drawn where the output itself is the answer."""

    location: str
    files: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] | None = None
    size_bytes: int = 0
    missing: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """7 where something is not there."""
        return GoneError.exit_code if self.missing else OK

    def as_json(self) -> dict[str, Any]:
        """Return files by name, or the rows."""
        found: dict[str, Any] = {"location": self.location, "missing": list(self.missing)}
        return found | ({"files": dict(self.files)} if self.rows is None else {"rows": list(self.rows)})

    def draw(self, console: Console) -> None:
        """Say where things are."""
        for name, path in self.files.items():
            console.print(Text(f"{name}  → {path}"))
        if self.files:
            console.print(
                f"{things(len(self.files), 'object')}, {bytes_words(self.size_bytes)}, checked by SHA-256"
            )
        for key in self.missing:
            console.print(Text.assemble(("not in the bundle: ", "bold red"), key))


@verb(
    app,
    "ls",
    bwlimit=True,
    examples=(
        "ls bundle",
        'ls bundle "photos/**" --source media --versions',
    ),
)
def ls_command(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOCATION [GLOB]", help="The bundle; keys or tables that match: 'photos/**', 'sales.*'."
        ),
    ] = None,
    case: CaseFile = None,
    source: Source = None,
    *,
    versions: Annotated[
        bool, typer.Option("--versions", help="Also older versions and delete markers.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = _LIMIT,
) -> Listed:
    """List a bundle's tables and buckets, or a bucket's objects.

    Reads the catalog or the parts of the index that matter; no payload.
    """
    reader, rest = _open(session, words or [], case)
    if source is None and not rest:
        found = [
            (row.source, row.kind, table_rows.full_name(row), row.items, row.size_bytes)
            for row in reader.catalog()
        ]
        names = ("source", "kind", "name", "items", "size_bytes")
        lines = _aligned(
            [(*one[:2], count_words(one[3]), bytes_words(one[4]), one[2]) for one in found], "<<>>"
        )
        return Listed(
            reader.store.location, "entries", [dict(zip(names, one, strict=True)) for one in found], lines
        )
    if source is None:  # a pattern is for buckets, and often there is but one
        buckets = [one for one in reader.sources if single_objects.is_bucket(reader, one)]
        source = buckets[0] if len(buckets) == 1 else None
    name = _source(reader, source)
    if not single_objects.is_bucket(reader, name):
        return _list_tables(session, reader, name, rest)
    wanted = Wanted(globs=tuple(rest), versions=versions)
    rows = list(islice(single_objects.find(reader, name, wanted), limit + 1))
    if not rows:
        session.progress.note(f"{name} has no such object; * stands for what is between two /, ** for all")
    shown = rows[:limit]
    lines = [
        f"{row.size_bytes:>14}  {str(row.modified)[:19]}  {row.name if versions else row.key}"
        + ("  deleted" if row.is_delete_marker else "")
        for row in shown
    ]
    return Listed(
        reader.store.location,
        "objects",
        [single_objects.as_json(row) for row in shown],
        lines,
        len(rows) > limit,
    )


def _aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Return a line for each row, in columns; ``sides``: ``<`` or ``>`` for each but the last, which is free."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shape = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths[:-1], strict=True))
    return [f"{shape}  {{}}".format(*row) for row in rows]


def _is_wanted(row: CatalogRow, globs: Sequence[str]) -> bool:
    """Tell whether a table matches, by its name with or without the schema."""
    return any(fnmatchcase(name, one) for one in globs for name in (row.name, table_rows.full_name(row)))


def _list_tables(session: Session, reader: BundleReader, name: str, globs: Sequence[str]) -> Listed:
    found = [row for row in reader.catalog() if row.source == name and (not globs or _is_wanted(row, globs))]
    if not found:
        session.progress.note(f"{name} has no such table" if globs else f"{name} has no tables")
    shown = [{"name": table_rows.full_name(row), "items": row.items, "digest": row.digest} for row in found]
    lines = [f"{one['items']:>14}  {one['name']}" for one in shown]
    return Listed(reader.store.location, "tables", shown, lines)


@verb(
    app,
    "get",
    bwlimit=True,
    examples=(
        "get bundle photos/cat.jpg --source media --to .",
        "get bundle public.customers --source app --rows 0:10",
    ),
)
def get_command(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOCATION KEY…", help="The bundle, and keys of objects or the name of a table."
        ),
    ] = None,
    case: CaseFile = None,
    source: Source = None,
    *,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DIR", help="Where objects are written (default: here); - for stdout."),
    ] = None,
    version_id: Version = None,
    rows: Annotated[
        str | None, typer.Option("--rows", metavar="FROM:TO", help="Of a table: these rows, counted from 0.")
    ] = None,
    key: KeyFiles = None,
    passphrase: Passphrase = None,
) -> Got:
    """Read single objects, or rows of a table, out of a bundle.

    Only the bytes that are asked for are fetched, and checked. Rows are written as JSON, a line each. With a key the
    custody log says how much was fetched.
    """
    reader, keys = _open(session, words or [], case)
    if not keys:
        raise UsageError(
            "nothing is named to get",
            next_step="moveout get LOCATION KEY; moveout ls LOCATION shows what is there",
        )
    signers = load_keys(key, passphrase, load_case(case))
    name = _source(reader, source)
    if single_objects.is_bucket(reader, name):
        wanted = Wanted(keys=set(keys), version_id=version_id or "")
        got = _get_objects(session, reader, name, wanted, to)
        details: dict[str, Any] = {"objects": len(keys) - len(got.missing)}
    else:
        got = _get_rows(session, reader, keys, rows, to, source=name)
        details = {"table": keys[0], "rows": rows or ":"}
    why = record_if_allowed(reader.store, signers, "fetched", {"source": name, **details})
    if why is not None:
        session.progress.note(why)
    return got


def _get_rows(
    session: Session,
    reader: BundleReader,
    keys: Sequence[str],
    rows: str | None,
    to: str | None,
    *,
    source: str,
) -> Got:
    if len(keys) > 1:
        raise UsageError("one table at a time", next_step="moveout get LOCATION schema.table --rows 0:100")
    table = table_rows.table_of(reader, source, keys[0])
    start, end = _parse_range(rows)
    found = table_rows.rows(reader, table, start, end)
    if session.json:
        return Got(reader.store.location, rows=list(found))
    with _output(to, f"{table.name}.jsonl") as file:
        for row in found:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return Got(reader.store.location)


def _get_objects(session: Session, reader: BundleReader, name: str, wanted: Wanted, to: str | None) -> Got:
    if to != _STDOUT:
        done = single_objects.fetch(reader, name, wanted, Path(to or "."))
        return Got(reader.store.location, done.files, None, done.size_bytes, done.missing)
    if session.json or len(wanted.keys) != 1:
        raise UsageError(
            "only one object, and nothing else, can be written to stdout",
            next_step="name a directory with --to",
        )
    for row in single_objects.find(reader, name, wanted):
        if not row.is_delete_marker:
            single_objects.copy(reader.store, row, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return Got(reader.store.location)
    return Got(reader.store.location, missing=list(wanted.keys))


@contextmanager
def _output(to: str | None, name: str) -> Iterator[IO[str]]:
    """Open where rows go: stdout unless a directory is named."""
    if to in {None, _STDOUT}:
        yield sys.stdout
        return
    path = Path(str(to)) / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            yield file
    except FileExistsError as exc:
        raise NotEmptyError(
            f"{exc.filename} exists already", next_step="name another directory with --to"
        ) from None
    except OSError as exc:
        raise translate_os(exc, path) from exc


def _parse_range(text: str | None) -> tuple[int, int | None]:
    match = _RANGE.fullmatch(text or ":")
    if match is None:
        raise UsageError(f"{text!r} is no range of rows", next_step="write --rows 100:200, :10 or 100:")
    start, end = int(match[1] or 0), int(match[2]) if match[2] else None
    if end is not None and end <= start:
        raise UsageError(f"there are no rows from {start} to {end}", next_step="the first is 0: --rows 0:10")
    return start, end


def _open(session: Session, words: Sequence[str], case: Path | None) -> tuple[BundleReader, list[str]]:
    """Return the bundle and the words behind its place; with a case file the location is the case's."""
    loaded = load_case(case)
    kept = (loaded.transfer_to or loaded.bundle) if loaded else None
    rest = list(words)
    location = kept or (Endpoint(rest.pop(0)) if rest else None)
    if location is None:
        raise UsageError(
            "no location is named", next_step="give a directory or s3://bucket/prefix, or a case file with -c"
        )
    throttle = session.throttle(loaded.bwlimit if loaded else None)
    store = open_location(
        location.url, secrets=location.reveal(), bwlimit=throttle, note=session.progress.note
    )
    return BundleReader(store), rest


def _source(reader: BundleReader, name: str | None) -> str:
    known = list(reader.sources)
    if name is not None:
        return reader.info.source(name).name
    if len(known) != 1:
        raise UsageError(f"the bundle has {', '.join(known)}", next_step="say which: --source NAME")
    return known[0]
