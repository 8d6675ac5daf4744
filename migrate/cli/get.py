"""``moveout get``: single objects and rows are read out of a bundle."""

from __future__ import annotations

import filecmp
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct, field
from msgspec.structs import replace

from exporters.objects.pax_headers import member_name
from migrate.browse import single_objects, table_rows
from migrate.browse.single_objects import ObjectQuery
from migrate.bundle.reader import BundleReader
from migrate.case.secrets import redact
from migrate.cli import app
from migrate.cli.common.opened_bundle import (
    Source,
    complete_item,
    open_bundle,
    print_missing,
    source_name,
    split_source,
)
from migrate.cli.common.options import CaseFile
from migrate.cli.common.session import Session
from migrate.cli.common.signing_keys import SigningOptions
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console, Text, data_output, plain
from migrate.cli.common.verb import verb
from migrate.custody.log.events import record_if_allowed
from migrate.errors import OK, GoneError, NotEmptyError, UsageError
from migrate.number_text import bytes_words, count_words, things
from migrate.runtime.crash_points import durable
from migrate.storage.local.errors import translate_os

_STDOUT = "-"
_SHOWN = 20
_RANGE = re.compile(r"(\d*):(\d*)")

Version = Annotated[
    str | None, typer.Option("--version-id", metavar="ID", help="This version of the object.")
]


class Got(Struct, frozen=True):
    """What was written, and what is not in the bundle. Nothing is drawn where the output itself is the answer.
    ``kept``: how many of the files were there already. ``noun``: what each of them holds.
    """

    location: str
    files: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] | None = None
    size_bytes: int = 0
    missing: Sequence[str] = ()
    kept: int = 0
    noun: str = "object"

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
        lines = (Text(plain(f"{name}  → {path}")) for name, path in self.files.items())
        console.print_first(lines, len(self.files), _SHOWN, before="", wrap=False)
        if self.files:
            checked = ", checked by SHA-256" if self.noun == "object" else ""
            there = f"; {count_words(self.kept)} there already" if self.kept else ""
            console.print(
                f"{things(len(self.files), self.noun)}, {bytes_words(self.size_bytes)}{checked}{there}"
            )


@verb(
    app,
    "get",
    bwlimit=True,
    examples=(
        "get bundle photos/cat.jpg --source media --to .",
        "get bundle 'photos/**' --source media --to photos",
        "get bundle --source media --to all-of-media",
        "get bundle --source media -- -a-key-with-a-dash.txt",
        "get bundle public.customers --source app --rows 0:10",
    ),
)
def get_command(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOCATION [SOURCE] KEY…",
            help="The bundle; its source; keys of objects, or the name of a table.",
            autocompletion=complete_item,
        ),
    ] = None,
    case: CaseFile = None,
    source: Source = None,
    *,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="DIR",
            help="Where to write objects (default: here) or tables (default: stdout); - for stdout.",
        ),
    ] = None,
    version_id: Version = None,
    rows: Annotated[
        str | None,
        typer.Option("--rows", metavar="FROM:TO", help="Only these rows of a table, counted from 0."),
    ] = None,
    signing: SigningOptions,
) -> Got:
    """Read single objects, or rows of a table, out of a bundle.

    Fetches and checks only the bytes that are needed; of some rows of a table (--rows) only their number is checked.
    Rows are printed as JSON, one a line; bytes, and text that is not UTF-8, as base64. With a key the custody log
    records how much was fetched.
    """
    reader, keys = open_bundle(session, words or [], case)
    name, keys = split_source(reader, source, keys) if keys else (source, keys)
    if not keys and to in {None, _STDOUT}:
        where = shlex.quote(redact(words[0])) if words else "LOCATION"
        raise UsageError(
            "no key or table is named",
            next_step=f"moveout get {where} KEY, or --to DIR for all; moveout ls {where} shows what is there",
        )
    signers = signing.load(load_case(case))
    name = name or source_name(reader, source)
    if single_objects.is_bucket(reader, name):
        output = _get_objects(
            session, reader, name, ObjectQuery(keys=set(keys), version_id=version_id or ""), to
        )
        details: dict[str, Any] = {"objects": len(output.files) or len(keys) - len(output.missing)}
    else:
        output = _get_rows(session, reader, keys, rows, to, source=name)
        details = {"table": ", ".join(keys), "rows": rows or ":"}
    details = {"source": name, **details}
    record_if_allowed(reader.store, signers, "fetched", details, session.progress.note)
    print_missing(session, reader, name, output.missing)
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
    to_stdout = to in {None, _STDOUT}
    if len(names) > 1 and to_stdout:
        raise UsageError(
            "one table at a time goes to stdout", next_step="name a directory for several: --to DIR"
        )
    start, end = _parse_range(rows)
    tables = {
        table.full_name: table for table in (table_rows.table_of(reader, source, name) for name in names)
    }
    if to_stdout:
        found = chain(*(table_rows.rows(reader, table, start, end) for table in tables.values()))
        if session.json:
            return Got(reader.store.location, rows=list(found), missing=missing)
        data_output().writelines(map(_row_line, found))
        return Got(reader.store.location, missing=missing)
    files, size_bytes, kept = {}, 0, 0
    times_named = Counter(table.name for table in tables.values())
    for name, table in tables.items():
        file_name = table.name if times_named[table.name] == 1 else name
        path = Path(str(to)) / member_name(f"{file_name}.jsonl")
        kept += _write_rows(path, table_rows.rows(reader, table, start, end))
        files[name] = str(path)
        size_bytes += path.stat().st_size
    return Got(
        location=reader.store.location,
        files=files,
        rows=None,
        size_bytes=size_bytes,
        missing=missing,
        kept=kept,
        noun="table",
    )


def _has_wildcard(key: str) -> bool:
    return any(character in key for character in "*?[")


def _table_names(reader: BundleReader, source: str, keys: Sequence[str]) -> list[str]:
    """Return the tables that are meant: those that are named or match; all of them where there is no key."""
    tables = reader.tables(source)
    names: list[str] = []
    for key in keys or ["*"]:
        if not _has_wildcard(key) or any(key in {row.name, row.full_name} for row in tables):
            names.append(key)
            continue
        matching = (row for row in tables if fnmatchcase(row.name, key) or fnmatchcase(row.full_name, key))
        names += [row.full_name for row in matching]
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
    kept = fetched.kept
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
        kept += matching.kept
    return Got(reader.store.location, files, None, size_bytes, missing, kept)


def _row_line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Write rows to a file, and tell whether it was there already with the same rows. Raises ``NotEmptyError`` for
    another file that is there.
    """
    half, taken = single_objects.half_written(path), str(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            half.unlink(missing_ok=True)
            with half.open("x", encoding="utf-8") as file:  # through no link that somebody else has put there
                file.writelines(map(_row_line, rows))
            if not path.exists():
                with durable("get.rows"):
                    half.rename(path)
                return False
            if filecmp.cmp(half, path, shallow=False):
                return True
        finally:
            half.unlink(missing_ok=True)
    except FileExistsError as exc:  # a file has the name of the directory
        taken = exc.filename
    except OSError as exc:
        raise translate_os(exc, path) from exc
    raise NotEmptyError(
        f"{taken} exists already, and is not what the bundle has",
        next_step="name another directory with --to",
    )


def _parse_range(text: str | None) -> tuple[int, int | None]:
    match = _RANGE.fullmatch(text or ":")
    if match is None:
        raise UsageError(f"{text!r} is not a range of rows", next_step="write --rows 100:200, :10 or 100:")
    start, end = int(match[1] or 0), int(match[2]) if match[2] else None
    if end is not None and end <= start:
        raise UsageError(f"there are no rows from {start} to {end}", next_step="the first is 0: --rows 0:10")
    return start, end
