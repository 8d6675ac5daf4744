"""``moveout get``: single objects and rows are read out of a bundle."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from migrate.browse import single_objects, table_rows
from migrate.browse.single_objects import ObjectQuery
from migrate.bundle.reader import BundleReader
from migrate.cli import app
from migrate.cli.common.opened_bundle import Source, complete_item, open_bundle, source_name
from migrate.cli.common.options import CaseFile
from migrate.cli.common.session import Session, verb
from migrate.cli.common.signing_keys import KeyFiles, Passphrase, load_keys
from migrate.cli.common.sources import load_case
from migrate.custody.log.events import record_if_allowed
from migrate.errors import OK, GoneError, NotEmptyError, UsageError
from migrate.number_text import bytes_words, things
from migrate.storage.local.errors import translate_os

_STDOUT = "-"
_RANGE = re.compile(r"(\d*):(\d*)")

Version = Annotated[
    str | None, typer.Option("--version-id", metavar="ID", help="This version of the object.")
]


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
        result: dict[str, Any] = {"location": self.location, "missing": list(self.missing)}
        return result | ({"files": dict(self.files)} if self.rows is None else {"rows": list(self.rows)})

    def draw(self, console: Console) -> None:
        """Print where things are."""
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
    "get",
    bwlimit=True,
    examples=(
        "get bundle photos/cat.jpg --source media --to .",
        "get bundle 'photos/**' --source media --to photos",
        "get bundle --source media --to all-of-media",
        "get bundle public.customers --source app --rows 0:10",
    ),
)
def get_command(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOCATION KEY…",
            help="The bundle, and keys of objects or the name of a table.",
            autocompletion=complete_item,
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
    reader, keys = open_bundle(session, words or [], case)
    if not keys and to in {None, _STDOUT}:
        raise UsageError(
            "nothing is named to get",
            next_step="moveout get LOCATION KEY, or --to DIR for all; moveout ls LOCATION shows what is there",
        )
    signers = load_keys(key, passphrase, load_case(case))
    name = source_name(reader, source)
    if single_objects.is_bucket(reader, name):
        output = _get_objects(
            session, reader, name, ObjectQuery(keys=set(keys), version_id=version_id or ""), to
        )
        details: dict[str, Any] = {"objects": len(output.files) or len(keys) - len(output.missing)}
    else:
        output = _get_rows(session, reader, keys, rows, to, source=name)
        details = {"table": ", ".join(keys), "rows": rows or ":"}
    failure = record_if_allowed(reader.store, signers, "fetched", {"source": name, **details})
    if failure is not None:
        session.progress.note(failure)
    return output


def _get_rows(
    session: Session,
    reader: BundleReader,
    keys: Sequence[str],
    rows: str | None,
    to: str | None,
    *,
    source: str,
) -> Got:
    names = _table_names(reader, source, keys)
    missing = [key for key in keys if not _table_names(reader, source, [key])]
    if len(names) > 1 and to in {None, _STDOUT}:
        raise UsageError(
            "one table at a time goes to stdout", next_step="name a directory for several: --to DIR"
        )
    if len(names) != 1:
        for name in names:
            _get_rows(session, reader, [name], rows, to, source=source)
        return Got(reader.store.location, missing=missing)
    table = table_rows.table_of(reader, source, names[0])
    start, end = _parse_range(rows)
    matching_rows = table_rows.rows(reader, table, start, end)
    if session.json:
        return Got(reader.store.location, rows=list(matching_rows))
    with _output(to, f"{table.name}.jsonl") as file:
        for row in matching_rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return Got(reader.store.location)


def _has_wildcard(key: str) -> bool:
    return any(character in key for character in "*?[")


def _table_names(reader: BundleReader, source: str, keys: Sequence[str]) -> list[str]:
    """Return the tables that are meant: those that are named or match; all of them where there is no key."""
    tables = [row for row in reader.catalog() if row.source == source and row.has_rows]
    names: list[str] = []
    for key in keys or ["*"]:
        if not _has_wildcard(key) or any(key in {row.name, table_rows.full_name(row)} for row in tables):
            names.append(key)
            continue
        matching = (
            row for row in tables if fnmatchcase(row.name, key) or fnmatchcase(table_rows.full_name(row), key)
        )
        names += map(table_rows.full_name, matching)
    return list(dict.fromkeys(names))


def _get_objects(
    session: Session, reader: BundleReader, name: str, object_filter: ObjectQuery, to: str | None
) -> Got:
    if to != _STDOUT:
        return _fetch_objects(reader, name, object_filter, Path(to or "."))
    if session.json or len(object_filter.keys) != 1:
        raise UsageError(
            "only one object, and nothing else, can be written to stdout",
            next_step="name a directory with --to",
        )
    for row in single_objects.find(reader, name, object_filter):
        if not row.is_delete_marker:
            single_objects.copy(reader.store, row, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return Got(reader.store.location)
    return Got(reader.store.location, missing=list(object_filter.keys))


def _fetch_objects(reader: BundleReader, name: str, object_filter: ObjectQuery, to: Path) -> Got:
    """Write the objects of these keys; a key that is none, and has a wildcard, is a pattern."""
    fetched = single_objects.fetch(reader, name, object_filter, to)
    files, size_bytes, missing = dict(fetched.files), fetched.size_bytes, []
    for key in fetched.missing:
        if not _has_wildcard(key):
            missing.append(key)
            continue
        pattern = replace(object_filter, keys=(), globs=(key,))
        matching = single_objects.fetch(reader, name, pattern, to, known=files)
        if not matching.matched:
            missing.append(key)
        files |= matching.files
        size_bytes += matching.size_bytes
    return Got(reader.store.location, files, None, size_bytes, missing)


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
